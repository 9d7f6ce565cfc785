//! The kinds of `storage.k8s.io`.

mod csi;
mod storage_class;
mod volume_attachment;

use jiff::Timestamp;
use serde_json::Value;

use crate::generic::{Generic, Printed};
use crate::strategy::{Column, Strategy};
use crate::table::{NAME, column, name};
use crate::value::text;

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "csidrivers" => &csi::CsiDriver,
        "csinodes" => &csi::CsiNode,
        "csistoragecapacities" => &Printed {
            generic: Generic { unconditional_update: false, ..Generic::PLAIN },
            columns: CAPACITY_COLUMNS,
            row: capacity_row,
        },
        "storageclasses" => &storage_class::StorageClass,
        "volumeattachments" => &volume_attachment::VolumeAttachment,
        "volumeattributesclasses" => &storage_class::VolumeAttributesClass,
        _ => &Generic::PLAIN,
    }
}

const CAPACITY_COLUMNS: &[Column] = &[
    NAME,
    column("StorageClassName", "string", "Class that the capacity is of"),
    column("Capacity", "string", "Bytes that are left"),
];

fn capacity_row(object: &Value, _now: Timestamp) -> Vec<Value> {
    let capacity = match text(object, &["capacity"]) {
        "" => "<unset>",
        capacity => capacity,
    };
    vec![name(object), Value::from(text(object, &["storageClassName"])), Value::from(capacity)]
}
