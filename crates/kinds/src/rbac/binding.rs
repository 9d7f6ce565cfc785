//! RoleBindings and ClusterRoleBindings. The role that one refers to never changes.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use super::GROUP;
use crate::formats;
use crate::path::Path;
use crate::strategy::{Column, NameRule, Strategy};
use crate::table::{AGE, NAME, age, column, name, wide};
use crate::value::{at, at_mut, fill_text, items, items_mut, text};

/// Of rolebindings, and of clusterrolebindings.
pub(super) struct Binding {
    /// Whether it is a RoleBinding.
    pub(super) namespaced: bool,
}

const COLUMNS: &[Column] = &[
    NAME,
    column("Role", "string", "Role that is given"),
    AGE,
    wide("Users", "string", "Users that it is given to"),
    wide("Groups", "string", "Groups that it is given to"),
    wide("ServiceAccounts", "string", "Service accounts that it is given to"),
];

impl Strategy for Binding {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(role) = at_mut(object, &["roleRef"]) {
            fill_text(role, "apiGroup", GROUP);
        }
        for subject in items_mut(object, &["subjects"]) {
            if matches!(text(subject, &["kind"]), "User" | "Group") {
                fill_text(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let role = Path::root("roleRef");
        role.child("apiGroup").one_of(errors, text(object, &["roleRef", "apiGroup"]), &[GROUP]);
        let kinds: &[&str] = if self.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        role.child("kind").one_of(errors, text(object, &["roleRef", "kind"]), kinds);
        match text(object, &["roleRef", "name"]) {
            "" => role.child("name").required(errors, ""),
            name => role.child("name").check(errors, name, formats::path_segment(name)),
        }
        for (index, subject) in items(object, &["subjects"]).iter().enumerate() {
            subject_errors(subject, self.namespaced, &Path::root("subjects").index(index), errors);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        if at(new, &["roleRef"]) != at(old, &["roleRef"]) {
            Path::root("roleRef").invalid(errors, new["roleRef"].clone(), "cannot change roleRef");
        }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let role = format!("{}/{}", text(object, &["roleRef", "kind"]), text(object, &["roleRef", "name"]));
        let of_kind = |kind: &str| {
            let subjects = items(object, &["subjects"]).iter().filter(|subject| text(subject, &["kind"]) == kind);
            let names: Vec<String> = subjects
                .map(|subject| match (text(subject, &["namespace"]), text(subject, &["name"])) {
                    ("", name) => name.to_owned(),
                    (namespace, name) => format!("{namespace}/{name}"),
                })
                .collect();
            Value::from(names.join(", "))
        };
        let (users, groups) = (of_kind("User"), of_kind("Group"));
        vec![name(object), Value::from(role), age(object, now), users, groups, of_kind("ServiceAccount")]
    }
}

fn subject_errors(subject: &Value, namespaced: bool, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (kind, name, group) = (text(subject, &["kind"]), text(subject, &["name"]), text(subject, &["apiGroup"]));
    if name.is_empty() {
        path.child("name").required(errors, "");
    }
    match kind {
        "ServiceAccount" => {
            if !name.is_empty() {
                path.child("name").check(errors, name, formats::subdomain(name));
            }
            path.child("apiGroup").one_of(errors, group, &[""]);
            if !namespaced && text(subject, &["namespace"]).is_empty() {
                path.child("namespace").required(errors, "");
            }
        }
        "User" | "Group" => path.child("apiGroup").one_of(errors, group, &[GROUP]),
        _ => path.child("kind").one_of(errors, kind, &["ServiceAccount", "User", "Group"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bindings_are_defaulted_checked_and_shown() {
        let binding = Binding { namespaced: false };
        let mut object = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [
            {"kind": "User", "name": "ann"}, {"kind": "ServiceAccount", "name": "robot", "namespace": "ci"}]});
        binding.default(&mut object);
        let mut errors = Vec::new();
        binding.validate_create(&object, &mut errors);
        assert_eq!(errors, []);
        let row = binding.row(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(Value::from(row), json!(["b", "ClusterRole/view", "<unknown>", "ann", "", "ci/robot"]));
        let mut changed = object.clone();
        changed["roleRef"]["name"] = json!("edit");
        changed["subjects"][1]["namespace"] = json!("");
        binding.validate_update(&changed, &object, &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert_eq!(texts[0], "subjects[1].namespace: Required value");
        assert!(texts[1].ends_with("cannot change roleRef"), "{texts:?}");
    }
}
