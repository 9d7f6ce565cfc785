//! HorizontalPodAutoscalers in `v2`.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::formats;
use crate::path::Path;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{at, child, fill, int, is_set, items, set, text};
use crate::workload::{SPEC, STATUS, not_negative};

/// Of horizontalpodautoscalers in `v2`.
pub(super) struct HorizontalPodAutoscaler;

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column("Reference", "string", "What is scaled"),
    column("Targets", "string", "Metrics as they are and should be"),
    column("MinPods", "string", "Fewest replicas"),
    column("MaxPods", "string", "Most replicas"),
    column("Replicas", "string", "Replicas now"),
    AGE,
];

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        fill(spec, "minReplicas", 1);
        if !is_set(spec, &["metrics"]) {
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            set(spec, "metrics", json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
        }
        if let Some(behavior) = spec.get_mut("behavior").filter(|behavior| behavior.is_object()) {
            default_behavior(behavior);
        }
        if let Some(status) = child(object, "status") {
            fill(status, "currentMetrics", Value::Null);
            fill(status, "desiredReplicas", 0);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = &object["spec"];
        replicas_and_target(spec, errors);
        for (index, metric) in items(spec, &["metrics"]).iter().enumerate() {
            let list = SPEC.child("metrics");
            metric_errors(metric, &list.index(index), errors);
        }
        for direction in ["scaleUp", "scaleDown"] {
            if let Some(rules) = at(spec, &["behavior", direction]) {
                let behavior = SPEC.child("behavior");
                scaling_rules(rules, &behavior.child(direction), errors);
            }
        }
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        not_negative(&new["status"], &["currentReplicas", "desiredReplicas"], &STATUS, errors);
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let target = &spec["scaleTargetRef"];
        let least = int(spec, &["minReplicas"]).map_or_else(|| "<unset>".to_owned(), |least| least.to_string());
        vec![
            name(object),
            Value::from(format!("{}/{}", text(target, &["kind"]), text(target, &["name"]))),
            Value::from(metrics_cell(items(spec, &["metrics"]), items(object, &["status", "currentMetrics"]))),
            Value::from(least),
            Value::from(int(spec, &["maxReplicas"]).unwrap_or(0)),
            Value::from(int(object, &["status", "currentReplicas"]).unwrap_or(0)),
            age(object, now),
        ]
    }
}

fn default_behavior(behavior: &mut Value) {
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    if let Some(up) = child(behavior, "scaleUp") {
        fill(up, "stabilizationWindowSeconds", 0);
        fill(up, "selectPolicy", "Max");
        fill(up, "policies", json!([pods, percent]));
    }
    if let Some(down) = child(behavior, "scaleDown") {
        fill(down, "selectPolicy", "Max");
        fill(down, "policies", json!([percent]));
    }
}

/// What is wrong with the target and the numbers of replicas, in both versions.
pub(super) fn replicas_and_target(spec: &Value, errors: &mut Vec<FieldError>) {
    let (least, most) = (int(spec, &["minReplicas"]), int(spec, &["maxReplicas"]).unwrap_or(0));
    if let Some(least) = least.filter(|least| *least < 1) {
        SPEC.child("minReplicas").invalid(errors, least, "must be greater than or equal to 1");
    }
    if most < 1 {
        SPEC.child("maxReplicas").invalid(errors, most, "must be greater than 0");
    }
    if least.is_some_and(|least| most < least) {
        SPEC.child("maxReplicas").invalid(errors, most, "must be greater than or equal to `minReplicas`");
    }
    let path = SPEC.child("scaleTargetRef");
    for field in ["kind", "name"] {
        match text(spec, &["scaleTargetRef", field]) {
            "" => path.child(field).required(errors, ""),
            value => path.child(field).check(errors, value, formats::path_segment(value)),
        }
    }
}

/// The field of a metric that holds the source of its type.
fn source_field(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "External" => "external",
        "ContainerResource" => "containerResource",
        _ => return None,
    })
}

fn metric_errors(metric: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    const TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
    let kind = text(metric, &["type"]);
    if kind.is_empty() {
        return path.child("type").required(errors, "must specify a metric source type");
    }
    let Some(field) = source_field(kind) else {
        return path.child("type").one_of(errors, kind, TYPES);
    };
    match at(metric, &[field]) {
        None => path.child(field).required(errors, "must populate information for the given metric source"),
        Some(source) => source_errors(kind, source, &path.child(field), errors),
    }
    for other in TYPES.iter().filter_map(|other| source_field(other)).filter(|other| *other != field) {
        if at(metric, &[other]).is_some() {
            path.child(other).forbidden(errors, "must populate the given metric source only");
        }
    }
}

fn source_errors(kind: &str, source: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let resource = matches!(kind, "Resource" | "ContainerResource");
    if resource && text(source, &["name"]).is_empty() {
        path.child("name").required(errors, "must specify a resource name");
    }
    if kind == "ContainerResource" && text(source, &["container"]).is_empty() {
        path.child("container").required(errors, "must specify a container");
    }
    if !resource && text(source, &["metric", "name"]).is_empty() {
        path.child("metric").child("name").required(errors, "must specify a metric name");
    }
    target_errors(source, &path.child("target"), errors);
    one_target(kind, source, &path.child("target"), errors);
}

fn target_errors(source: &Value, target: &Path<'_>, errors: &mut Vec<FieldError>) {
    match text(source, &["target", "type"]) {
        "" => target.child("type").required(errors, "must specify a metric target type"),
        "Utilization" | "Value" | "AverageValue" => {}
        other => {
            target.child("type").invalid(errors, other, "must be either Utilization, Value, or AverageValue");
        }
    }
    if let Some(utilization) = int(source, &["target", "averageUtilization"]).filter(|number| *number < 1) {
        target.child("averageUtilization").invalid(errors, utilization, "must be greater than 0");
    }
}

/// Which of the ways to say a target a source must have, and may not have together.
fn one_target(kind: &str, source: &Value, target: &Path<'_>, errors: &mut Vec<FieldError>) {
    let has = |field: &str| at(source, &["target", field]).is_some();
    let (average, utilization, value) = (has("averageValue"), has("averageUtilization"), has("value"));
    match kind {
        "Resource" | "ContainerResource" if !average && !utilization => {
            let why = "must set either a target raw value or a target utilization";
            target.child("averageUtilization").required(errors, why);
        }
        "Resource" | "ContainerResource" if average && utilization => {
            let why = "may not set both a target raw value and a target utilization";
            target.child("averageValue").forbidden(errors, why);
        }
        "Pods" if !average => {
            target.child("averageValue").required(errors, "must specify a positive target averageValue");
        }
        "Object" if !average && !value => {
            target.child("averageValue").required(errors, "must set either a target value or averageValue");
        }
        "External" if !average && !value => {
            let why = "must set either a target value for metric or a per-pod target";
            target.child("averageValue").required(errors, why);
        }
        "External" if average && value => {
            let why = "may not set both a target value for metric and a per-pod target";
            target.child("value").forbidden(errors, why);
        }
        _ => {}
    }
}

fn scaling_rules(rules: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(window) = int(rules, &["stabilizationWindowSeconds"]) {
        let path = path.child("stabilizationWindowSeconds");
        if window < 0 {
            path.invalid(errors, window, "must be greater than or equal to zero");
        } else if window > 3600 {
            path.invalid(errors, window, "must be less than or equal to 3600");
        }
    }
    if let Some(policy) = at(rules, &["selectPolicy"]).and_then(Value::as_str) {
        path.child("selectPolicy").one_of(errors, policy, &["Disabled", "Max", "Min"]);
    }
    let policies = items(rules, &["policies"]);
    if policies.is_empty() {
        path.child("policies").required(errors, "must specify at least one Policy");
    }
    for (index, policy) in policies.iter().enumerate() {
        let list = path.child("policies");
        let path = list.index(index);
        path.child("type").one_of(errors, text(policy, &["type"]), &["Percent", "Pods"]);
        for field in ["value", "periodSeconds"] {
            path.child(field).positive(errors, int(policy, &[field]).unwrap_or(0));
        }
        if let Some(period) = int(policy, &["periodSeconds"]).filter(|period| *period > 1800) {
            path.child("periodSeconds").invalid(errors, period, "must be less than or equal to 1800");
        }
    }
}

/// How many metrics the row shows.
const SHOWN: usize = 2;

fn metrics_cell(specs: &[Value], statuses: &[Value]) -> String {
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let all: Vec<String> =
        specs.iter().enumerate().map(|(index, spec)| metric_cell(spec, statuses.get(index))).collect();
    match all.len() {
        ..=SHOWN => all.join(", "),
        count => format!("{} + {} more...", all[..SHOWN].join(", "), count - SHOWN),
    }
}

fn metric_cell(spec: &Value, status: Option<&Value>) -> String {
    let kind = text(spec, &["type"]);
    let Some(field) = source_field(kind) else {
        return "<unknown type>".to_owned();
    };
    let target = &spec[field]["target"];
    let current = |name: &str| {
        let value = status.and_then(|status| at(status, &[field, "current", name]));
        value.map_or_else(|| "<unknown>".to_owned(), plain)
    };
    let wanted = |name: &str| at(target, &[name]).map_or_else(|| "0".to_owned(), plain);
    let average = at(target, &["averageValue"]).is_some();
    let resource = || text(spec, &[field, "name"]);
    match (kind, average) {
        ("Resource" | "ContainerResource", true) => {
            format!("{}: {}/{}", resource(), current("averageValue"), wanted("averageValue"))
        }
        ("Resource" | "ContainerResource", false) => {
            let percent = |value: Option<i64>, absent: &str| {
                value.map_or_else(|| absent.to_owned(), |number| format!("{number}%"))
            };
            let used = status.and_then(|status| int(status, &[field, "current", "averageUtilization"]));
            let wanted = int(target, &["averageUtilization"]);
            format!("{}: {}/{}", resource(), percent(used, "<unknown>"), percent(wanted, "<auto>"))
        }
        ("Pods", _) => format!("{}/{}", current("averageValue"), wanted("averageValue")),
        (_, true) => format!("{}/{} (avg)", current("averageValue"), wanted("averageValue")),
        (_, false) => format!("{}/{}", current("value"), wanted("value")),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn autoscalers_are_defaulted_checked_and_shown() {
        let mut object = json!({"metadata": {"name": "web"}, "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3, "behavior": {"scaleUp": {}}}});
        HorizontalPodAutoscaler.default(&mut object);
        assert_eq!(object["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        assert_eq!(object["spec"]["behavior"]["scaleUp"]["policies"][0]["value"], 4);
        let mut errors = Vec::new();
        HorizontalPodAutoscaler.validate_create(&object, &mut errors);
        assert_eq!(errors, []);
        let row = HorizontalPodAutoscaler.row(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(Value::from(row), json!(["web", "Deployment/web", "cpu: <unknown>/80%", "1", 3, 0, "<unknown>"]));
        object["spec"]["maxReplicas"] = json!(0);
        object["spec"]["metrics"][0]["resource"]["target"] = json!({"type": "Utilization"});
        HorizontalPodAutoscaler.validate_create(&object, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "spec.maxReplicas: Invalid value: 0: must be greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value \
                 or a target utilization",
            ]
        );
    }
}
