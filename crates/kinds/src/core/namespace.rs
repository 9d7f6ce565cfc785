//! Namespaces: deletion waits for `spec.finalizers`, which the namespace controller empties through `finalize`.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::formats;
use crate::path::Path;
use crate::strategy::{Column, NameRule, Strategy, WriteContext};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{child, fill, is_set, items, keep, set, text};

/// Of namespaces.
pub(crate) struct Namespace;

const COLUMNS: &[Column] = &[NAME, column("Status", "string", "Phase of the namespace"), AGE];

impl Strategy for Namespace {
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn has_spec_finalizers(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let own = text(object, &["metadata", "name"]).to_owned();
        if let (false, Some(labels)) =
            (own.is_empty(), child(object, "metadata").and_then(|metadata| child(metadata, "labels")))
        {
            set(labels, "kubernetes.io/metadata.name", own);
        }
        fill(object, "spec", json!({}));
        if let Some(status) = child(object, "status") {
            fill(status, "phase", "Active");
        }
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext<'_>) {
        set(object, "status", json!({"phase": "Active"}));
        if let Some(spec) = child(object, "spec") {
            let mut finalizers = items(spec, &["finalizers"]).to_vec();
            if !finalizers.iter().any(|finalizer| finalizer == "kubernetes") {
                finalizers.push(Value::from("kubernetes"));
            }
            set(spec, "finalizers", finalizers);
        }
        // The name may have been generated after the defaults were filled in.
        self.default(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if let Some(spec) = child(new, "spec") {
            keep(spec, &old["spec"], "finalizers");
        }
    }

    fn prepare_subresource_update(&self, subresource: &str, new: &mut Value, old: &Value) {
        if subresource == "finalize" {
            keep(new, old, "status");
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        for finalizer in items(object, &["spec", "finalizers"]) {
            finalizer_errors(finalizer, &Path::root("spec").child("finalizers"), errors);
        }
    }

    fn validate_update(&self, _new: &Value, _old: &Value, _errors: &mut Vec<FieldError>) {}

    fn validate_subresource_update(&self, subresource: &str, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        match subresource {
            "finalize" => {
                for (index, finalizer) in items(new, &["spec", "finalizers"]).iter().enumerate() {
                    finalizer_errors(finalizer, &Path::root("spec").child("finalizers").index(index), errors);
                }
            }
            "status" => {
                let phase = text(new, &["status", "phase"]);
                let (right, why) = match is_set(new, &["metadata", "deletionTimestamp"]) {
                    false => ("Active", "may only be 'Active' if `deletionTimestamp` is empty"),
                    true => ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty"),
                };
                if phase != right {
                    Path::root("status").child("Phase").invalid(errors, phase, why);
                }
            }
            _ => {}
        }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), Value::from(text(object, &["status", "phase"])), age(object, now)]
    }

    fn fields(&self) -> &[&str] {
        &["status.phase"]
    }
}

fn finalizer_errors(finalizer: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let text = finalizer.as_str().unwrap_or_default();
    path.check(errors, text, formats::qualified_name(text));
    if !text.contains('/') && !matches!(text, "kubernetes" | "orphan" | "foregroundDeletion") {
        let why = "name is neither a standard finalizer name nor is it fully qualified";
        path.invalid(errors, text, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;

    fn namespace() -> Value {
        let mut object = json!({"metadata": {"name": "web"}});
        let kind = builtin("", "v1", "Namespace").unwrap();
        kind.default(&mut object);
        kind.prepare_create(&mut object, &WriteContext { now: Timestamp::UNIX_EPOCH, uid: "u" });
        object
    }

    #[test]
    fn new_namespaces_are_active_and_labelled() {
        let object = namespace();
        assert_eq!(object["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "web"}));
        assert_eq!(object["spec"], json!({"finalizers": ["kubernetes"]}));
        assert_eq!(object["status"], json!({"phase": "Active"}));
    }

    #[test]
    fn finalizers_change_by_finalize_only() {
        let kind = builtin("", "v1", "Namespace").unwrap();
        let old = namespace();
        for (subresource, kept) in [("", true), ("status", true), ("finalize", false)] {
            let mut new = old.clone();
            new["spec"] = json!({});
            kind.prepare_update(&mut new, &old, subresource);
            assert_eq!(new["spec"] == old["spec"], kept, "{subresource:?}");
        }
    }

    #[test]
    fn phases_follow_deletion() {
        let kind = builtin("", "v1", "Namespace").unwrap();
        let old = namespace();
        let mut new = old.clone();
        new["status"]["phase"] = json!("Terminating");
        let errors = kind.validate_update(&new, &old, "status");
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"]
        );
    }
}
