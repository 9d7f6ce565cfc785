//! Roles and ClusterRoles.

use kedge_meta::FieldError;
use serde_json::Value;

use crate::path::Path;
use crate::pod_spec::label_selector_errors;
use crate::strategy::{NameRule, Strategy};
use crate::value::{at, fill, is_set, items};

/// Of roles, and of clusterroles.
pub(super) struct Role {
    /// Whether it is a Role.
    pub(super) namespaced: bool,
}

impl Strategy for Role {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        // Written even where it is empty, as null.
        fill(object, "rules", Value::Null);
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let rules = Path::root("rules");
        for (index, rule) in items(object, &["rules"]).iter().enumerate() {
            rule_errors(rule, self.namespaced, &rules.index(index), errors);
        }
        if let Some(aggregation) = at(object, &["aggregationRule"]) {
            let path = Path::root("aggregationRule");
            let list = path.child("clusterRoleSelectors");
            let selectors = items(aggregation, &["clusterRoleSelectors"]);
            if selectors.is_empty() {
                let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                list.required(errors, why);
            }
            for (index, selector) in selectors.iter().enumerate() {
                label_selector_errors(selector, &list.index(index), errors);
            }
        }
    }
}

fn rule_errors(rule: &Value, namespaced: bool, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !is_set(rule, &["verbs"]) {
        path.child("verbs").required(errors, "verbs must contain at least one value");
    }
    if is_set(rule, &["nonResourceURLs"]) {
        let urls = rule["nonResourceURLs"].clone();
        let path = path.child("nonResourceURLs");
        if namespaced {
            path.invalid(errors, urls.clone(), "namespaced rules cannot apply to non-resource URLs");
        }
        if ["apiGroups", "resources", "resourceNames"].iter().any(|field| is_set(rule, &[field])) {
            path.invalid(errors, urls, "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if !is_set(rule, &["apiGroups"]) {
        path.child("apiGroups").required(errors, "resource rules must supply at least one api group");
    }
    if !is_set(rule, &["resources"]) {
        path.child("resources").required(errors, "resource rules must supply at least one resource");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_are_checked() {
        let check = |namespaced: bool, rule: Value, expected: &[&str]| {
            let mut errors = Vec::new();
            Role { namespaced }.validate_create(&json!({"rules": [rule]}), &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check(true, json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), &[]);
        check(
            true,
            json!({"resources": ["pods"]}),
            &[
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
            ],
        );
        check(false, json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]}), &[]);
        check(
            true,
            json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]}),
            &[
                "rules[0].nonResourceURLs: Invalid value: [\"/healthz\"]: namespaced rules cannot apply to non-resource \
               URLs",
            ],
        );
    }
}
