//! DaemonSets.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::path::Path;
use crate::strategy::{Column, Strategy, WriteContext};
use crate::table::{AGE, NAME, age, column, containers, labels, name, selector, wide};
use crate::value::{at, child, fill, fill_text, int, set, text};
use crate::workload::{
    SPEC, STATUS, TEMPLATE_SPEC, amount, at_most_all, default_workload, fill_spec, int_or_percent, not_negative,
    restarting_template_errors, selector_errors, template_warnings,
};

/// Of daemonsets.
pub(super) struct DaemonSet;

const COLUMNS: &[Column] = &[
    NAME,
    column("Desired", "integer", "Nodes that should run a pod"),
    column("Current", "integer", "Nodes that run a pod and should"),
    column("Ready", "integer", "Nodes whose pod is ready"),
    column("Up-to-date", "integer", "Nodes whose pod is of the newest template"),
    column("Available", "integer", "Nodes whose pod has been ready for long enough"),
    column("Node Selector", "string", "Labels of the nodes"),
    AGE,
    wide("Containers", "string", "Names of the template's containers"),
    wide("Images", "string", "Images of the template's containers"),
    wide("Selector", "string", "Labels of its pods"),
];

/// The annotation in which `apps/v1` keeps the template's generation.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// Counts that are always written.
const ZEROS: &[&str] = &["currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"];

impl Strategy for DaemonSet {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_workload(object, ZEROS);
        fill_spec(object, "revisionHistoryLimit", 10);
        let Some(strategy) = child(object, "spec").and_then(|spec| child(spec, "updateStrategy")) else { return };
        fill_text(strategy, "type", "RollingUpdate");
        if text(strategy, &["type"]) == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            fill(rolling, "maxSurge", 0);
            fill(rolling, "maxUnavailable", 1);
        }
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext<'_>) {
        set_template_generation(object, 1);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let before = template_generation(old);
        let changed = at(new, &["spec", "template"]) != at(old, &["spec", "template"]);
        set_template_generation(new, before + i64::from(changed));
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = &object["spec"];
        selector_errors(spec, "daemonset", errors);
        restarting_template_errors(spec, "DaemonSet", errors);
        not_negative(spec, &["minReadySeconds"], &SPEC, errors);
        strategy_errors(&spec["updateStrategy"], &SPEC.child("updateStrategy"), errors);
        not_negative(spec, &["revisionHistoryLimit"], &SPEC, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        SPEC.child("selector").immutable(errors, at(new, &["spec", "selector"]), at(old, &["spec", "selector"]));
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        let status = &new["status"];
        not_negative(status, ZEROS, &STATUS, errors);
        const OTHERS: &[&str] =
            &["observedGeneration", "updatedNumberScheduled", "numberAvailable", "numberUnavailable", "collisionCount"];
        not_negative(status, OTHERS, &STATUS, errors);
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        template_warnings(new)
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = |field: &str| Value::from(int(object, &["status", field]).unwrap_or(0));
        let (names, images) = containers(at(object, TEMPLATE_SPEC));
        vec![
            name(object),
            count("desiredNumberScheduled"),
            count("currentNumberScheduled"),
            count("numberReady"),
            count("updatedNumberScheduled"),
            count("numberAvailable"),
            Value::from(labels(object, &["spec", "template", "spec", "nodeSelector"])),
            age(object, now),
            names,
            images,
            Value::from(selector(object, &["spec", "selector"])),
        ]
    }

    fn pod_spec_path(&self) -> Option<&[&str]> {
        Some(TEMPLATE_SPEC)
    }
}

fn template_generation(object: &Value) -> i64 {
    text(object, &["metadata", "annotations", TEMPLATE_GENERATION]).parse().unwrap_or(0)
}

fn set_template_generation(object: &mut Value, generation: i64) {
    if let Some(annotations) = child(object, "metadata").and_then(|metadata| child(metadata, "annotations")) {
        set(annotations, TEMPLATE_GENERATION, generation.to_string());
    }
}

fn strategy_errors(strategy: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let field = path.child("rollingUpdate");
    match (text(strategy, &["type"]), at(strategy, &["rollingUpdate"])) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => field.required(errors, ""),
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) = (at(rolling, &["maxUnavailable"]), at(rolling, &["maxSurge"]));
            let (unavailable_path, surge_path) = (field.child("maxUnavailable"), field.child("maxSurge"));
            int_or_percent(unavailable, &unavailable_path, errors);
            int_or_percent(surge, &surge_path, errors);
            at_most_all(unavailable, &unavailable_path, errors);
            at_most_all(surge, &surge_path, errors);
            match (amount(unavailable) != 0, amount(surge) != 0, surge) {
                (true, true, Some(surge)) => {
                    surge_path.invalid(errors, surge.clone(), "may not be set when maxUnavailable is non-zero");
                }
                (false, false, _) => unavailable_path.required(errors, "cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }
        _ => {
            let supported = &["RollingUpdate", "OnDelete"];
            errors.push(FieldError::not_supported_in_order(&path.build(), strategy, supported));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_and_template_generation() {
        let mut object = json!({"metadata": {"name": "a"}, "spec": {"template": {"spec": {}}}});
        DaemonSet.default(&mut object);
        let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
        assert_eq!(object["spec"]["updateStrategy"], rolling);
        assert_eq!(object["status"]["numberReady"], 0);
        DaemonSet.prepare_create(&mut object, &WriteContext { now: Timestamp::UNIX_EPOCH, uid: "u" });
        assert_eq!(object["metadata"]["annotations"][TEMPLATE_GENERATION], "1");
        let mut new = object.clone();
        new["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
        DaemonSet.prepare_update(&mut new, &object);
        assert_eq!(new["metadata"]["annotations"][TEMPLATE_GENERATION], "2");
    }

    #[test]
    fn strategies_are_checked() {
        for (strategy, expected) in [
            (json!({"type": "OnDelete"}), None),
            (
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
                Some("u.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"),
            ),
            (
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}),
                Some("u.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"),
            ),
            (
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "200%"}}),
                Some("u.rollingUpdate.maxUnavailable: Invalid value: \"200%\": must not be greater than 100%"),
            ),
        ] {
            let mut errors = Vec::new();
            strategy_errors(&strategy, &Path::root("u"), &mut errors);
            assert_eq!(errors.first().map(ToString::to_string).as_deref(), expected);
        }
    }
}
