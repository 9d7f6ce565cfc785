//! `storagemigration.k8s.io` and `internal.apiserver.k8s.io`: served as stored, with metadata checks and tables only.

use jiff::Timestamp;
use serde_json::Value;

use crate::generic::{Generic, Printed};
use crate::strategy::{Column, NameRule, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{items, text};

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "storageversionmigrations" => {
            &Printed { generic: Generic::COUNTED, columns: MIGRATION_COLUMNS, row: migration_row }
        }
        "storageversions" => &Printed {
            generic: Generic { name_rule: NameRule::PathSegment, ..Generic::PLAIN },
            columns: VERSION_COLUMNS,
            row: version_row,
        },
        _ => &Generic::PLAIN,
    }
}

const MIGRATION_COLUMNS: &[Column] = &[NAME, column("Resource", "string", "Resource that is migrated")];

const VERSION_COLUMNS: &[Column] = &[
    NAME,
    column("CommonEncodingVersion", "string", "Version in which all API servers store"),
    column("StorageVersions", "string", "Version in which each API server stores"),
    AGE,
];

fn migration_row(object: &Value, _now: Timestamp) -> Vec<Value> {
    let part = |field: &str| text(object, &["spec", "resource", field]);
    vec![name(object), Value::from(format!("{}.{}.{}", part("resource"), part("version"), part("group")))]
}

fn version_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let all: Vec<String> = items(object, &["status", "storageVersions"])
        .iter()
        .map(|one| format!("{}={}", text(one, &["apiServerID"]), text(one, &["encodingVersion"])))
        .collect();
    let common = match text(object, &["status", "commonEncodingVersion"]) {
        "" => "<unset>",
        common => common,
    };
    vec![name(object), Value::from(common), Value::from(crate::table::first_three(&all)), age(object, now)]
}
