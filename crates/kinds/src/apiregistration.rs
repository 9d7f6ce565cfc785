//! The kinds of `apiregistration.k8s.io`: APIServices.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::generic::Generic;
use crate::path::Path;
use crate::strategy::{Column, NameRule, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{at, at_mut, fill, int, items, text, truth};
use crate::workload::SPEC;

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "apiservices" => &ApiService,
        _ => &Generic::PLAIN,
    }
}

/// Of apiservices.
struct ApiService;

const COLUMNS: &[Column] = &[
    NAME,
    column("Service", "string", "Service that serves the group and version, or Local"),
    column("Available", "string", "Whether it answers"),
    AGE,
];

impl Strategy for ApiService {
    fn name_rule(&self) -> NameRule {
        NameRule::Own
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        if let Some(service) = at_mut(object, &["spec", "service"]) {
            fill(service, "port", 443);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = &object["spec"];
        let (group, version) = (text(spec, &["group"]), text(spec, &["version"]));
        let (own, required) = (text(object, &["metadata", "name"]), format!("{version}.{group}"));
        if own != required {
            let why = format!("must be `spec.version+\".\"+spec.group`: {required:?}");
            Path::root("metadata").child("name").invalid(errors, own, &why);
        }
        let least = int(spec, &["groupPriorityMinimum"]).unwrap_or(0);
        if !(1..=20_000).contains(&least) {
            let why = "must be positive and less than 20000";
            SPEC.child("groupPriorityMinimum").invalid(errors, least, why);
        }
        let priority = int(spec, &["versionPriority"]).unwrap_or(0);
        if !(1..=1000).contains(&priority) {
            SPEC.child("versionPriority").invalid(errors, priority, "must be positive and less than 1000");
        }
        let Some(service) = at(spec, &["service"]) else { return };
        for field in ["namespace", "name"].iter().filter(|field| text(service, &[field]).is_empty()) {
            SPEC.child("service").child(field).required(errors, "");
        }
        if truth(spec, &["insecureSkipTLSVerify"]) && at(spec, &["caBundle"]).is_some() {
            let why = "may not be true if caBundle is present";
            SPEC.child("insecureSkipTLSVerify").invalid(errors, true, why);
        }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let service = at(object, &["spec", "service"]).map_or_else(
            || "Local".to_owned(),
            |service| format!("{}/{}", text(service, &["namespace"]), text(service, &["name"])),
        );
        let conditions = items(object, &["status", "conditions"]);
        let available = match conditions.iter().find(|condition| text(condition, &["type"]) == "Available") {
            None => "Unknown".to_owned(),
            Some(condition) => match (text(condition, &["status"]), text(condition, &["reason"])) {
                ("True", _) => "True".to_owned(),
                (status, reason) => format!("{status} ({reason})"),
            },
        };
        vec![name(object), Value::from(service), Value::from(available), age(object, now)]
    }
}
