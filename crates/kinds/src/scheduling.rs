//! The kinds of `scheduling.k8s.io`.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::generic::Generic;
use crate::path::Path;
use crate::strategy::{Column, Strategy, WriteContext};
use crate::table::{AGE, NAME, age, column, name, wide};
use crate::value::{at, child, fill, int, keep, set, text, truth};

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "priorityclasses" => &PriorityClass,
        _ => &Generic::COUNTED,
    }
}

/// Of priorityclasses.
struct PriorityClass;

/// The highest priority that is not the system's.
const HIGHEST: i64 = 1_000_000_000;

/// The system's own classes.
const SYSTEM: &[(&str, i64)] = &[("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

const COLUMNS: &[Column] = &[
    NAME,
    column("Value", "integer", "Priority that pods get"),
    column("Global-Default", "boolean", "Whether pods without a class get it"),
    AGE,
    wide("PreemptionPolicy", "string", "Whether its pods push others away"),
];

impl Strategy for PriorityClass {
    fn default(&self, object: &mut Value) {
        fill(object, "value", 0);
        fill(object, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext<'_>) {
        if let Some(metadata) = child(object, "metadata") {
            set(metadata, "generation", 1);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if let Some(metadata) = child(new, "metadata") {
            keep(metadata, &old["metadata"], "generation");
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let (own, value) = (text(object, &["metadata", "name"]), int(object, &["value"]).unwrap_or(0));
        if own.starts_with("system-") {
            if !SYSTEM.contains(&(own, value)) {
                let metadata = Path::root("metadata");
                let why = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {}",
                    match SYSTEM.iter().find(|(name, _)| *name == own) {
                        Some((name, value)) => format!("value of {name} PriorityClass must be {value}"),
                        None => format!("{own} is not a known system priority class"),
                    }
                );
                metadata.child("name").forbidden(errors, &why);
            }
        } else if value > HIGHEST {
            let why = format!("maximum allowed value of a user defined priority is {HIGHEST}");
            Path::root("value").forbidden(errors, &why);
        }
        let policy = text(object, &["preemptionPolicy"]);
        Path::root("preemptionPolicy").required_one_of(errors, policy, &["PreemptLowerPriority", "Never"]);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        for field in ["value", "preemptionPolicy"] {
            if at(new, &[field]) != at(old, &[field]) {
                Path::root(field).forbidden(errors, "may not be changed in an update.");
            }
        }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            name(object),
            Value::from(int(object, &["value"]).unwrap_or(0)),
            Value::from(truth(object, &["globalDefault"])),
            age(object, now),
            Value::from(text(object, &["preemptionPolicy"])),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_highest_priorities_are_the_systems() {
        for (own, value, fine) in [
            ("mine", 1_000_000_000, true),
            ("mine", 1_000_000_001, false),
            ("system-node-critical", 2_000_001_000, true),
            ("system-node-critical", 1, false),
            ("system-mine", 1, false),
        ] {
            let mut object = json!({"metadata": {"name": own}, "value": value});
            PriorityClass.default(&mut object);
            let mut errors = Vec::new();
            PriorityClass.validate_create(&object, &mut errors);
            assert_eq!(errors.is_empty(), fine, "{own} {value}: {errors:?}");
        }
    }
}
