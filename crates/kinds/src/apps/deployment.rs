//! Deployments.

use std::borrow::Cow;

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::path::Path;
use crate::strategy::{Column, ScalePaths, Strategy};
use crate::table::{AGE, NAME, age, column, containers, name, selector, wide};
use crate::value::{at, child, fill, fill_text, int, text};
use crate::workload::{
    SPEC, STATUS, TEMPLATE_SPEC, amount, at_most_all, default_workload, fill_spec, int_or_percent, not_negative,
    replica_counts, restarting_template_errors, selector_errors, template_warnings,
};

/// Of deployments.
pub(super) struct Deployment;

const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "string", "Pods that are ready, of those wanted"),
    column("Up-to-date", "string", "Pods of the newest template"),
    column("Available", "string", "Pods that have been ready for long enough"),
    AGE,
    wide("Containers", "string", "Names of the template's containers"),
    wide("Images", "string", "Images of the template's containers"),
    wide("Selector", "string", "Labels of its pods"),
];

impl Strategy for Deployment {
    fn has_generation(&self) -> bool {
        true
    }

    /// Annotations count too, since they are copied to ReplicaSets.
    fn is_new_generation(&self, new: &Value, old: &Value) -> bool {
        const ANNOTATIONS: &[&str] = &["metadata", "annotations"];
        at(new, &["spec"]) != at(old, &["spec"]) || at(new, ANNOTATIONS) != at(old, ANNOTATIONS)
    }

    fn default(&self, object: &mut Value) {
        default_workload(object, &[]);
        for (field, number) in [("replicas", 1), ("revisionHistoryLimit", 10), ("progressDeadlineSeconds", 600)] {
            fill_spec(object, field, number);
        }
        let Some(strategy) = child(object, "spec").and_then(|spec| child(spec, "strategy")) else { return };
        fill_text(strategy, "type", "RollingUpdate");
        if text(strategy, &["type"]) == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            fill(rolling, "maxSurge", "25%");
            fill(rolling, "maxUnavailable", "25%");
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = &object["spec"];
        not_negative(spec, &["replicas"], &SPEC, errors);
        selector_errors(spec, "deployment", errors);
        restarting_template_errors(spec, "ReplicaSet", errors);
        strategy_errors(&spec["strategy"], &SPEC.child("strategy"), errors);
        not_negative(spec, &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"], &SPEC, errors);
        let deadline = int(spec, &["progressDeadlineSeconds"]);
        if let Some(deadline) = deadline.filter(|deadline| *deadline <= int(spec, &["minReadySeconds"]).unwrap_or(0)) {
            let why = "must be greater than minReadySeconds";
            SPEC.child("progressDeadlineSeconds").invalid(errors, deadline, why);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        SPEC.child("selector").immutable(errors, at(new, &["spec", "selector"]), at(old, &["spec", "selector"]));
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        let status = &new["status"];
        replica_counts(status, &["updatedReplicas", "readyReplicas", "availableReplicas"], errors);
        not_negative(status, &["unavailableReplicas", "terminatingReplicas"], &STATUS, errors);
        let count = |object: &Value| int(object, &["status", "collisionCount"]).unwrap_or(0);
        if count(new) < count(old) {
            STATUS.child("collisionCount").invalid(errors, count(new), "cannot be decremented");
        }
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        template_warnings(new)
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = |path: &[&str]| int(object, path).unwrap_or(0);
        let (names, images) = containers(at(object, TEMPLATE_SPEC));
        vec![
            name(object),
            Value::from(format!("{}/{}", count(&["status", "readyReplicas"]), count(&["spec", "replicas"]))),
            Value::from(count(&["status", "updatedReplicas"])),
            Value::from(count(&["status", "availableReplicas"])),
            age(object, now),
            names,
            images,
            Value::from(selector(object, &["spec", "selector"])),
        ]
    }

    fn scale(&self) -> Option<ScalePaths<'_>> {
        Some(replicas())
    }

    fn pod_spec_path(&self) -> Option<&[&str]> {
        Some(TEMPLATE_SPEC)
    }
}

/// Where replicas lie in Deployments, ReplicaSets and StatefulSets.
pub(super) fn replicas<'a>() -> ScalePaths<'a> {
    ScalePaths {
        replicas: Cow::Borrowed(&["spec", "replicas"]),
        status_replicas: Cow::Borrowed(&["status", "replicas"]),
        selector: Some(Cow::Borrowed(&["spec", "selector"])),
    }
}

fn strategy_errors(strategy: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rolling = at(strategy, &["rollingUpdate"]);
    let field = path.child("rollingUpdate");
    match (text(strategy, &["type"]), rolling) {
        ("Recreate", None) => {}
        ("Recreate", Some(_)) => field.forbidden(errors, "may not be specified when strategy `type` is 'Recreate'"),
        ("RollingUpdate", None) => field.required(errors, "this should be defaulted and never be nil"),
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) = (at(rolling, &["maxUnavailable"]), at(rolling, &["maxSurge"]));
            let path = field.child("maxUnavailable");
            int_or_percent(unavailable, &path, errors);
            int_or_percent(surge, &field.child("maxSurge"), errors);
            if amount(unavailable) == 0 && amount(surge) == 0 {
                path.invalid(errors, unavailable.cloned().unwrap_or(json!(0)), "may not be 0 when `maxSurge` is 0");
            }
            at_most_all(unavailable, &path, errors);
        }
        _ => {
            let supported = &["Recreate", "RollingUpdate"];
            errors.push(FieldError::not_supported_in_order(&path.build(), strategy, supported));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;

    fn deployment(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
        Deployment.default(&mut object);
        object
    }

    fn web() -> Value {
        json!({"selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "b:1"}]}}})
    }

    #[test]
    fn defaults_are_upstreams() {
        let object = deployment(web());
        let spec = &object["spec"];
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {
            "maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!((&spec["replicas"], &spec["revisionHistoryLimit"]), (&json!(1), &json!(10)));
        assert_eq!(spec["progressDeadlineSeconds"], 600);
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
        assert_eq!(spec["template"]["spec"].get("enableServiceLinks"), None, "only pods get it");
        assert_eq!(object["status"], json!({}));
    }

    #[test]
    fn wrong_deployments_are_refused() {
        let kind = builtin("apps", "v1", "Deployment").unwrap();
        let check = |change: &dyn Fn(&mut Value), expected: &[&str]| {
            let mut spec = web();
            change(&mut spec);
            let errors = kind.validate_create(&deployment(spec));
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check(&|_| {}, &[]);
        check(
            &|spec| spec["replicas"] = json!(-1),
            &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        );
        check(
            &|spec| spec["template"]["metadata"]["labels"] = json!({"app": "api"}),
            &["spec.template.metadata.labels: Invalid value: {\"app\":\"api\"}: `selector` does not match template \
               `labels`"],
        );
        check(
            &|spec| spec["selector"] = json!({}),
            &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        );
        check(
            &|spec| spec["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}),
            &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"],
        );
        check(
            &|spec| spec["template"]["spec"]["restartPolicy"] = json!("Never"),
            &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
        );
        check(
            &|spec| spec["template"]["spec"]["containers"] = json!([{"name": "A", "image": ""}]),
            &[
                "spec.template.spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of \
                 lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. \
                 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                "spec.template.spec.containers[0].image: Required value",
            ],
        );
    }

    #[test]
    fn updates_count_generations_and_keep_the_selector() {
        let kind = builtin("apps", "v1", "Deployment").unwrap();
        let context = crate::WriteContext { now: Timestamp::UNIX_EPOCH, uid: "u" };
        let mut old = deployment(web());
        kind.prepare_create(&mut old, &context);
        assert_eq!(old["metadata"]["generation"], 1);
        assert_eq!(old["status"], json!({}));
        let mut new = old.clone();
        new["spec"]["replicas"] = json!(3);
        new["status"] = json!({"replicas": 9});
        kind.prepare_update(&mut new, &old, "");
        assert_eq!((&new["metadata"]["generation"], &new["status"]), (&json!(2), &json!({})));
        let mut annotated = new.clone();
        annotated["metadata"]["annotations"] = json!({"a": "b"});
        kind.prepare_update(&mut annotated, &new, "");
        assert_eq!(annotated["metadata"]["generation"], 3);
        let mut status = new.clone();
        status["status"] = json!({"replicas": 3, "readyReplicas": 4});
        status["spec"]["replicas"] = json!(7);
        kind.prepare_update(&mut status, &new, "status");
        assert_eq!((&status["spec"]["replicas"], &status["metadata"]["generation"]), (&json!(3), &json!(2)));
        let texts = |errors: Vec<FieldError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            texts(kind.validate_update(&status, &new, "status")),
            ["status.readyReplicas: Invalid value: 4: cannot be greater than status.replicas"]
        );
        let mut moved = new.clone();
        moved["spec"]["selector"] = json!({"matchLabels": {"app": "web", "tier": "a"}});
        moved["spec"]["template"]["metadata"]["labels"] = json!({"app": "web", "tier": "a"});
        assert_eq!(
            texts(kind.validate_update(&moved, &new, "")),
            ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"web\",\"tier\":\"a\"}}: field is immutable"]
        );
    }

    #[test]
    fn rows_show_counts() {
        let mut object = deployment(web());
        object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        object["status"] = json!({"readyReplicas": 1, "updatedReplicas": 1, "availableReplicas": 1});
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        assert_eq!(
            Value::from(Deployment.row(&object, now)),
            json!(["web", "1/1", 1, 1, "60s", "a", "b:1", "app=web"])
        );
    }
}
