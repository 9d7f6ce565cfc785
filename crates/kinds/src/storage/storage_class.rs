//! StorageClasses and VolumeAttributesClasses: what a class is made of never changes.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::formats;
use crate::path::Path;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{at, entries, fill, items, text, texts, truth};

/// Of storageclasses.
pub(super) struct StorageClass;

/// Of volumeattributesclasses.
pub(super) struct VolumeAttributesClass;

const COLUMNS: &[Column] = &[
    NAME,
    column("Provisioner", "string", "Who makes the volumes"),
    column("ReclaimPolicy", "string", "What happens to volumes after their claims are gone"),
    column("VolumeBindingMode", "string", "When volumes are made and bound"),
    column("AllowVolumeExpansion", "string", "Whether volumes can grow"),
    AGE,
];

const ATTRIBUTES_COLUMNS: &[Column] = &[NAME, column("DriverName", "string", "Driver of the volumes"), AGE];

const MOST_PARAMETERS: usize = 512;
const LARGEST_PARAMETERS: usize = 256 * 1024;

/// Annotations that make a class the default.
const DEFAULT: &[&str] =
    &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

impl Strategy for StorageClass {
    fn default(&self, object: &mut Value) {
        fill(object, "reclaimPolicy", "Delete");
        fill(object, "volumeBindingMode", "Immediate");
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        provisioner(object, "provisioner", errors);
        parameters(object, errors);
        topologies(object, errors);
        let policy = text(object, &["reclaimPolicy"]);
        if !policy.is_empty() {
            Path::root("reclaimPolicy").one_of(errors, policy, &["Delete", "Retain"]);
        }
        let mode = text(object, &["volumeBindingMode"]);
        Path::root("volumeBindingMode").required_one_of(errors, mode, &["Immediate", "WaitForFirstConsumer"]);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            if at(new, &[field]) != at(old, &[field]) {
                Path::root(field).forbidden(errors, &format!("updates to {field} are forbidden."));
            }
        }
        let mode = |class: &'_ Value| at(class, &["volumeBindingMode"]).cloned();
        Path::root("volumeBindingMode").immutable(errors, mode(new).as_ref(), mode(old).as_ref());
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let own = text(object, &["metadata", "name"]);
        let is_default = |key: &&str| text(object, &["metadata", "annotations", *key]) == "true";
        let shown = if DEFAULT.iter().any(is_default) { format!("{own} (default)") } else { own.to_owned() };
        let or = |field: &str, other: &'static str| match text(object, &[field]) {
            "" => Value::from(other),
            value => Value::from(value),
        };
        vec![
            Value::from(shown),
            Value::from(text(object, &["provisioner"])),
            or("reclaimPolicy", "Delete"),
            or("volumeBindingMode", "Immediate"),
            Value::from(truth(object, &["allowVolumeExpansion"])),
            age(object, now),
        ]
    }
}

/// What is wrong with the name of whoever makes or changes volumes. It is judged, and shown, in lower case.
fn provisioner(object: &Value, field: &str, errors: &mut Vec<FieldError>) {
    match text(object, &[field]).to_lowercase() {
        name if name.is_empty() => Path::root(field).required(errors, ""),
        name => Path::root(field).check(errors, &name, formats::qualified_name(&name)),
    }
}

/// What is wrong with the parameters of a class: how many and how large they are.
fn parameters(object: &Value, errors: &mut Vec<FieldError>) {
    let path = Path::root("parameters");
    let count = entries(object, &["parameters"]).count();
    if count > MOST_PARAMETERS {
        return path.too_long(errors, MOST_PARAMETERS);
    }
    let mut size = 0;
    for (key, value) in entries(object, &["parameters"]) {
        if key.is_empty() {
            path.invalid(errors, key.as_str(), "field can not be empty.");
        }
        size += key.len() + value.as_str().unwrap_or_default().len();
    }
    if size > LARGEST_PARAMETERS {
        path.too_long(errors, LARGEST_PARAMETERS);
    }
}

/// What is wrong with the places in which a class makes volumes.
fn topologies(object: &Value, errors: &mut Vec<FieldError>) {
    let list = Path::root("allowedTopologies");
    let terms = items(object, &["allowedTopologies"]);
    for (index, term) in terms.iter().enumerate() {
        let term_path = list.index(index);
        let path = term_path.child("matchLabelExpressions");
        let expressions = items(term, &["matchLabelExpressions"]);
        for (number, expression) in expressions.iter().enumerate() {
            let path = path.index(number);
            let values_path = path.child("values");
            let values: Vec<&str> = texts(expression, &["values"]).collect();
            if values.is_empty() {
                values_path.required(errors, "");
            }
            for (position, value) in values.iter().enumerate().filter(|(at, value)| values[..*at].contains(value)) {
                values_path.index(position).duplicate(errors, *value);
            }
            let key = text(expression, &["key"]);
            path.child("key").check(errors, key, formats::qualified_name(key));
            if expressions[..number].iter().any(|earlier| text(earlier, &["key"]) == key) {
                path.child("key").duplicate(errors, key);
            }
        }
        if terms[..index].contains(term) {
            path.duplicate(errors, "");
        }
    }
}

impl Strategy for VolumeAttributesClass {
    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        provisioner(object, "driverName", errors);
        parameters(object, errors);
        if !crate::value::is_set(object, &["parameters"]) {
            Path::root("parameters").required(errors, "must contain at least one key/value pair");
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        for field in ["driverName", "parameters"] {
            if at(new, &[field]) != at(old, &[field]) {
                Path::root(field).forbidden(errors, &format!("updates to {field} are forbidden."));
            }
        }
        self.validate_create(new, errors);
    }

    fn columns(&self) -> &[Column] {
        ATTRIBUTES_COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), Value::from(text(object, &["driverName"])), age(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes_are_defaulted_shown_and_fixed() {
        let mut class =
            json!({"metadata": {"name": "fast", "annotations": {DEFAULT[0]: "true"}}, "provisioner": "a.io/b"});
        StorageClass.default(&mut class);
        let row = StorageClass.row(&class, Timestamp::UNIX_EPOCH);
        assert_eq!(Value::from(row), json!(["fast (default)", "a.io/b", "Delete", "Immediate", false, "<unknown>"]));
        let mut changed = class.clone();
        changed["provisioner"] = json!("a.io/c");
        changed["volumeBindingMode"] = json!("Odd");
        let mut errors = Vec::new();
        StorageClass.validate_update(&changed, &class, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "volumeBindingMode: Unsupported value: \"Odd\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
                "provisioner: Forbidden: updates to provisioner are forbidden.",
                "volumeBindingMode: Invalid value: \"Odd\": field is immutable",
            ]
        );
    }

    #[test]
    fn topologies_and_parameters_are_checked() {
        let check = |extra: Value, expected: &[&str]| {
            let mut class = json!({"metadata": {"name": "fast"}, "provisioner": "a.io/b"});
            StorageClass.default(&mut class);
            class.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let mut errors = Vec::new();
            StorageClass.validate_create(&class, &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        let term = |key: &str, values: Value| json!({"matchLabelExpressions": [{"key": key, "values": values}]});
        check(json!({"allowedTopologies": [term("zone", json!(["a"])), term("zone", json!(["b"]))]}), &[]);
        check(
            json!({"allowedTopologies": [term("zone", json!([])), term("zone", json!(["a", "a"]))]}),
            &[
                "allowedTopologies[0].matchLabelExpressions[0].values: Required value",
                "allowedTopologies[1].matchLabelExpressions[0].values[1]: Duplicate value: \"a\"",
            ],
        );
        let twice = json!({"allowedTopologies": [term("zone", json!(["a"])), term("zone", json!(["a"]))]});
        check(twice, &["allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\""]);
        let large = json!({"parameters": {"k": "v".repeat(LARGEST_PARAMETERS)}});
        check(large, &["parameters: Too long: may not be more than 262144 bytes"]);
        check(json!({"parameters": {"": "v"}}), &["parameters: Invalid value: \"\": field can not be empty."]);
    }
}
