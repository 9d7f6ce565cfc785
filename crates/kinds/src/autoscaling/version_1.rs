//! HorizontalPodAutoscalers in `v1`, and their conversion from and to the stored `v2`.
//!
//! What `v1` has no field for is kept in annotations, so that nothing is lost either way.
//! DIVERGES: the annotations hold the fields in their `v2` form; upstream's hold the older form of `v1` metrics.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::{Value, json};

use super::horizontal_pod_autoscaler::{self as version_2, COLUMNS, replicas_and_target};
use crate::path::Path;
use crate::strategy::{Column, Strategy};
use crate::value::{at, child, fill, int, items, remove, set, text};

/// Of horizontalpodautoscalers in `v1`.
pub(super) struct HorizontalPodAutoscaler;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = child(object, "spec") {
            fill(spec, "minReplicas", 1);
        }
        if let Some(status) = child(object, "status") {
            fill(status, "currentReplicas", 0);
            fill(status, "desiredReplicas", 0);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        replicas_and_target(&object["spec"], errors);
        if let Some(percent) = int(object, &["spec", "targetCPUUtilizationPercentage"]).filter(|percent| *percent < 1) {
            let spec = Path::root("spec");
            spec.child("targetCPUUtilizationPercentage").invalid(errors, percent, "must be greater than 0");
        }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let mut stored = object.clone();
        if at(object, &["spec", "metrics"]).is_none() {
            self.convert_to_storage(&mut stored, "v1");
        }
        version_2::HorizontalPodAutoscaler.row(&stored, now)
    }

    fn convert_to_storage(&self, object: &mut Value, _version: &str) {
        let mut metrics = list(take_annotation(object, METRICS));
        let mut current = list(take_annotation(object, CURRENT_METRICS));
        let (behavior, conditions) = (take_annotation(object, BEHAVIOR), take_annotation(object, CONDITIONS));
        if let Some(spec) = child(object, "spec") {
            if let Some(percent) = remove(spec, "targetCPUUtilizationPercentage") {
                metrics.insert(0, cpu("target", json!({"type": "Utilization", "averageUtilization": percent})));
            }
            set_if(spec, "metrics", (!metrics.is_empty()).then(|| Value::from(metrics)));
            set_if(spec, "behavior", behavior);
        }
        if let Some(status) = child(object, "status") {
            let percent = remove(status, "currentCPUUtilizationPercentage");
            // The annotation may hold the whole metric already.
            let known = current.iter().any(|metric| text(metric, &["resource", "name"]) == "cpu");
            if let Some(percent) = percent.filter(|_| !known) {
                current.insert(0, cpu("current", json!({"averageUtilization": percent, "averageValue": "0"})));
            }
            set_if(status, "currentMetrics", (!current.is_empty()).then(|| Value::from(current)));
            set_if(status, "conditions", conditions);
        }
        version_2::HorizontalPodAutoscaler.default(object);
    }

    fn convert_from_storage(&self, object: &mut Value, _version: &str) {
        let (mut metrics, mut behavior, mut current, mut conditions) = (Vec::new(), None, Vec::new(), None);
        if let Some(spec) = object.get_mut("spec") {
            metrics = list(remove(spec, "metrics"));
            behavior = remove(spec, "behavior");
            let percent = take_cpu(&mut metrics, &["resource", "target", "averageUtilization"]);
            set_if(spec, "targetCPUUtilizationPercentage", percent);
        }
        if let Some(status) = object.get_mut("status") {
            current = list(remove(status, "currentMetrics"));
            conditions = remove(status, "conditions");
            let simple = |metric: &Value| text(metric, &["resource", "current", "averageValue"]) == "0";
            // An average value has no field in `v1`, so such a metric stays in the annotation as well.
            let percent = match current.first().is_some_and(simple) {
                true => take_cpu(&mut current, &["resource", "current", "averageUtilization"]),
                false => current
                    .iter()
                    .find_map(|metric| at(metric, &["resource", "current", "averageUtilization"]).cloned()),
            };
            set_if(status, "currentCPUUtilizationPercentage", percent);
        }
        for (key, value) in [
            (METRICS, (!metrics.is_empty()).then(|| Value::from(metrics))),
            (CURRENT_METRICS, (!current.is_empty()).then(|| Value::from(current))),
            (BEHAVIOR, behavior),
            (CONDITIONS, conditions),
        ] {
            if let Some(value) = value.filter(|value| !value.is_null()) {
                put_annotation(object, key, &value);
            }
        }
    }
}

fn cpu(field: &str, value: Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", field: value}})
}

/// Takes the first CPU metric that has a value at `path` out of a list; its value.
fn take_cpu(metrics: &mut Vec<Value>, path: &[&str]) -> Option<Value> {
    let is_cpu = |metric: &Value| text(metric, &["resource", "name"]) == "cpu" && at(metric, path).is_some();
    let index = metrics.iter().position(is_cpu)?;
    at(&metrics.remove(index), path).cloned()
}

fn list(value: Option<Value>) -> Vec<Value> {
    value.map(|value| items(&value, &[]).to_vec()).unwrap_or_default()
}

fn set_if(holder: &mut Value, field: &str, value: Option<Value>) {
    if let Some(value) = value {
        set(holder, field, value);
    }
}

fn put_annotation(object: &mut Value, key: &str, value: &Value) {
    if let Some(annotations) = child(object, "metadata").and_then(|metadata| child(metadata, "annotations")) {
        set(annotations, key, value.to_string());
    }
}

/// Takes an annotation out and reads it as JSON; one that can't be read is dropped, as upstream does.
fn take_annotation(object: &mut Value, key: &str) -> Option<Value> {
    let annotations = object.get_mut("metadata")?.get_mut("annotations")?;
    let value = remove(annotations, key)?;
    if annotations.as_object().is_some_and(serde_json::Map::is_empty) {
        remove(object.get_mut("metadata")?, "annotations");
    }
    serde_json::from_str(value.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;

    #[test]
    fn converting_there_and_back_loses_nothing() {
        let kind = builtin("autoscaling", "v1", "HorizontalPodAutoscaler").unwrap();
        let mut stored = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "minReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "a"},
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {
                        "type": "Utilization", "averageUtilization": 50}}},
                    {"type": "Resource", "resource": {"name": "memory", "target": {
                        "type": "AverageValue", "averageValue": "1Gi"}}}]},
            "status": {"desiredReplicas": 2, "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {
                    "averageUtilization": 20, "averageValue": "10m"}}}]}});
        let original = stored.clone();
        kind.from_storage(&mut stored);
        assert_eq!(stored["apiVersion"], "autoscaling/v1");
        assert_eq!(stored["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(stored["status"]["currentCPUUtilizationPercentage"], 20);
        assert!(stored["metadata"]["annotations"][METRICS].is_string());
        kind.to_storage(&mut stored);
        assert_eq!(stored, original);
    }

    #[test]
    fn a_plain_autoscaler_becomes_a_cpu_metric() {
        let kind = builtin("autoscaling", "v1", "HorizontalPodAutoscaler").unwrap();
        let mut object = json!({"apiVersion": "autoscaling/v1", "metadata": {"name": "a"}, "spec": {"maxReplicas": 3,
            "scaleTargetRef": {"kind": "Deployment", "name": "a"}, "targetCPUUtilizationPercentage": 60}});
        kind.to_storage(&mut object);
        assert_eq!(object["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
        assert_eq!(object["spec"].get("targetCPUUtilizationPercentage"), None);
    }
}
