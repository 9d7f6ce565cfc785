//! Admission policies written in CEL, and their bindings.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{at, at_mut, child, fill, is_set, items, items_mut, text, texts};
use crate::workload::SPEC;

/// Of validatingadmissionpolicies, and of mutatingadmissionpolicies.
pub(super) struct Policy {
    /// The field with its rules: `validations` or `mutations`.
    pub(super) rules: &'static str,
}

/// Of the bindings of both.
pub(super) struct PolicyBinding;

const VALIDATING_COLUMNS: &[Column] = &[
    NAME,
    column("Validations", "integer", "How many validations it has"),
    column("ParamKind", "string", "Kind of its parameters"),
    AGE,
];

const MUTATING_COLUMNS: &[Column] = &[
    NAME,
    column("Mutations", "integer", "How many mutations it has"),
    column("ParamKind", "string", "Kind of its parameters"),
    AGE,
];

const BINDING_COLUMNS: &[Column] = &[
    NAME,
    column("PolicyName", "string", "Policy that it binds"),
    column("ParamRef", "string", "Its parameters"),
    AGE,
];

fn default_match(resources: &mut Value) {
    fill(resources, "matchPolicy", "Equivalent");
    fill(resources, "namespaceSelector", json!({}));
    fill(resources, "objectSelector", json!({}));
    for list in ["resourceRules", "excludeResourceRules"] {
        items_mut(resources, &[list]).iter_mut().for_each(|rule| fill(rule, "scope", "*"));
    }
}

impl Strategy for Policy {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        fill(spec, "failurePolicy", "Fail");
        if let Some(constraints) = at_mut(spec, &["matchConstraints"]) {
            default_match(constraints);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = &object["spec"];
        if at(spec, &["matchConstraints"]).is_none() {
            SPEC.child("matchConstraints").required(errors, "");
        } else if !is_set(spec, &["matchConstraints", "resourceRules"]) {
            let constraints = SPEC.child("matchConstraints");
            constraints.child("resourceRules").required(errors, "");
        }
        let policy = text(spec, &["failurePolicy"]);
        SPEC.child("failurePolicy").required_one_of(errors, policy, &["Fail", "Ignore"]);
        let rules = items(spec, &[self.rules]);
        if rules.is_empty() && (self.rules == "mutations" || !is_set(spec, &["auditAnnotations"])) {
            let why = match self.rules {
                "mutations" => "mutations must contain at least one item",
                _ => "validations or auditAnnotations must contain at least one item",
            };
            SPEC.child(self.rules).required(errors, why);
        }
        for (index, rule) in rules.iter().enumerate() {
            let list = SPEC.child(self.rules);
            if self.rules == "validations" && text(rule, &["expression"]).trim().is_empty() {
                list.index(index).child("expression").required(errors, "expression is not specified");
            }
        }
    }

    fn columns(&self) -> &[Column] {
        if self.rules == "mutations" { MUTATING_COLUMNS } else { VALIDATING_COLUMNS }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let kind = at(object, &["spec", "paramKind"]).map_or_else(
            || "<unset>".to_owned(),
            |kind| format!("{}/{}", text(kind, &["apiVersion"]), text(kind, &["kind"])),
        );
        let rules = items(object, &["spec", self.rules]).len();
        vec![name(object), Value::from(rules), Value::from(kind), age(object, now)]
    }
}

impl Strategy for PolicyBinding {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(resources) = at_mut(object, &["spec", "matchResources"]) {
            default_match(resources);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        if text(object, &["spec", "policyName"]).is_empty() {
            SPEC.child("policyName").required(errors, "");
        }
        for (index, action) in texts(object, &["spec", "validationActions"]).enumerate() {
            let list = SPEC.child("validationActions");
            list.index(index).one_of(errors, action, &["Audit", "Deny", "Warn"]);
        }
        if text(object, &["kind"]) == "ValidatingAdmissionPolicyBinding"
            && !is_set(object, &["spec", "validationActions"])
        {
            SPEC.child("validationActions").required(errors, "at least one validation action is required");
        }
    }

    fn columns(&self) -> &[Column] {
        BINDING_COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let reference = at(object, &["spec", "paramRef"]);
        let part = |field: &str| reference.map(|reference| text(reference, &[field])).unwrap_or_default();
        let shown = match (part("name"), part("namespace")) {
            ("", _) => "<unset>".to_owned(),
            (name, "") => format!("*/{name}"),
            (name, namespace) => format!("{namespace}/{name}"),
        };
        let policy = text(object, &["spec", "policyName"]);
        vec![name(object), Value::from(policy), Value::from(shown), age(object, now)]
    }
}
