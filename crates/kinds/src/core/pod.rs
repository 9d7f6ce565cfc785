//! Pods.
//!
//! Not admission (priority classes, service account, default tolerations). The invariant: `status.qosClass` is set once, at
//! create.

use jiff::Timestamp;
use kedge_meta::{FieldError, format_time};
use serde_json::{Map, Value, json};

use super::{pod_row, pod_update};
use crate::path::Path;
use crate::pod_spec::{
    Scope, default_pod, merge_label_keys, mirror_service_account, pod_warnings, qos_class, validate_pod_spec,
};
use crate::strategy::{Column, Strategy, WriteContext};
use crate::value::{at, child, fill, int, is_set, items, items_mut, keep, set, text};

/// Of pods.
pub(crate) struct Pod;

const SPEC: Path<'static> = Path::root("spec");

impl Strategy for Pod {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_pod(object);
        for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
            items_mut(object, &["status", list]).iter_mut().for_each(default_container_status);
        }
        for condition in items_mut(object, &["status", "conditions"]) {
            fill(condition, "lastProbeTime", Value::Null);
        }
    }

    fn prepare_create(&self, object: &mut Value, context: &WriteContext<'_>) {
        let mut status = json!({"phase": "Pending"});
        if let Some(spec) = object.get_mut("spec") {
            mirror_service_account(spec);
            if !is_set(spec, &["priorityClassName"]) {
                fill(spec, "priority", 0);
                fill(spec, "preemptionPolicy", "PreemptLowerPriority");
            }
            set(&mut status, "qosClass", qos_class(spec));
            if is_set(spec, &["schedulingGates"]) {
                set(&mut status, "conditions", gated_condition(context.now));
            }
        }
        set(object, "status", status);
        merge_label_keys(object);
    }

    fn prepare_update(&self, new: &mut Value, _old: &Value) {
        if let Some(spec) = new.get_mut("spec") {
            mirror_service_account(spec);
        }
    }

    /// A pod that is bound to a node is still what it was asked to be: conformance wants 1 for a new pod that runs.
    fn is_new_generation(&self, new: &Value, old: &Value) -> bool {
        let asked = |pod: &Value| -> Map<String, Value> {
            let spec = pod["spec"].as_object().cloned().unwrap_or_default();
            spec.into_iter().filter(|(field, _)| field != "nodeName").collect()
        };
        asked(new) != asked(old)
    }

    fn prepare_subresource_update(&self, subresource: &str, new: &mut Value, old: &Value) {
        match subresource {
            "status" => {
                if let Some(metadata) = child(new, "metadata") {
                    keep(metadata, &old["metadata"], "ownerReferences");
                }
                if !is_set(new, &["status", "qosClass"])
                    && let Some(status) = child(new, "status")
                {
                    keep(status, &old["status"], "qosClass");
                }
            }
            "ephemeralcontainers" => pod_update::keep_all_but_ephemeral_containers(new, old),
            "resize" => pod_update::keep_all_but_resources(new, old),
            _ => {}
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        validate_spec(object, errors);
        if is_set(object, &["spec", "ephemeralContainers"]) {
            SPEC.child("ephemeralContainers").forbidden(errors, "cannot be set on create");
        }
        if is_set(object, &["spec", "nodeName"]) && is_set(object, &["spec", "schedulingGates"]) {
            let why = "cannot be set until all schedulingGates have been cleared";
            SPEC.child("nodeName").forbidden(errors, why);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        validate_spec(new, errors);
        pod_update::validate(new, old, errors);
    }

    fn validate_subresource_update(&self, subresource: &str, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        match subresource {
            "status" => pod_update::validate_status(new, old, errors),
            "ephemeralcontainers" => {
                validate_spec(new, errors);
                pod_update::validate_ephemeral_containers(new, old, errors);
            }
            "resize" => {
                validate_spec(new, errors);
                pod_update::validate_resize(new, old, errors);
            }
            _ => {}
        }
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let name = if old.is_none() { text(new, &["metadata", "name"]) } else { "" };
        pod_warnings(&new["spec"], name, &SPEC)
    }

    fn columns(&self) -> &[Column] {
        pod_row::COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        pod_row::row(object, now)
    }

    fn row_conditions(&self, object: &Value) -> Vec<Value> {
        let message = match text(object, &["status", "phase"]) {
            "Succeeded" => "The pod has completed successfully.",
            "Failed" => "The pod failed.",
            _ => return Vec::new(),
        };
        let reason = text(object, &["status", "phase"]);
        vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
    }

    fn fields(&self) -> &[&str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]
    }

    fn field(&self, object: &Value, path: &str) -> String {
        match path {
            // Absent is false, and compares as such.
            "spec.hostNetwork" => crate::value::truth(object, &["spec", "hostNetwork"]).to_string(),
            "status.podIPs" => {
                items(object, &["status", "podIPs"]).first().map(|ip| text(ip, &["ip"]).to_owned()).unwrap_or_default()
            }
            _ => crate::value::field_text(object, path),
        }
    }

    fn grace_period(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let own = int(object, &["spec", "terminationGracePeriodSeconds"]).unwrap_or(30);
        let ended = matches!(text(object, &["status", "phase"]), "Succeeded" | "Failed");
        let seconds = requested.unwrap_or(own);
        Some(match is_set(object, &["spec", "nodeName"]) && !ended {
            false => 0,
            // A negative period means: as soon as possible, but by way of the kubelet.
            true if seconds < 0 => 1,
            true => seconds,
        })
    }

    fn pod_spec_path(&self) -> Option<&[&str]> {
        Some(&["spec"])
    }
}

/// Fields that upstream always writes.
fn default_container_status(status: &mut Value) {
    fill(status, "state", json!({}));
    fill(status, "lastState", json!({}));
    fill(status, "ready", false);
    fill(status, "restartCount", 0);
    fill(status, "image", "");
    fill(status, "imageID", "");
}

fn gated_condition(now: Timestamp) -> Value {
    json!([{
        "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
        "message": "Scheduling is blocked due to non-empty scheduling gates",
        "lastProbeTime": null, "lastTransitionTime": format_time(now),
    }])
}

fn validate_spec(pod: &Value, errors: &mut Vec<FieldError>) {
    validate_pod_spec(&pod["spec"], Scope::Pod, &SPEC, errors);
    if !is_set(pod, &["spec", "serviceAccountName"]) {
        projected_tokens(pod, errors);
    }
    if let Some(cost) = at(pod, &["metadata", "annotations", "controller.kubernetes.io/pod-deletion-cost"])
        && cost.as_str().is_none_or(|cost| cost.parse::<i32>().is_err())
    {
        let annotations = Path::root("metadata").child("annotations").build();
        let path = annotations.key("controller.kubernetes.io/pod-deletion-cost");
        errors.push(FieldError::invalid(&path, cost, "must be a 32bit integer"));
    }
}

fn projected_tokens(pod: &Value, errors: &mut Vec<FieldError>) {
    for (index, volume) in items(pod, &["spec", "volumes"]).iter().enumerate() {
        for (source_index, source) in items(volume, &["projected", "sources"]).iter().enumerate() {
            if at(source, &["serviceAccountToken"]).is_some() {
                let volumes = SPEC.child("volumes");
                let volume = volumes.index(index);
                let projected = volume.child("projected");
                let why = "must not be specified when serviceAccountName is not set";
                projected.child("sources").index(source_index).child("serviceAccountToken").forbidden(errors, why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;

    #[test]
    fn a_new_pod_is_pending() {
        let kind = builtin("", "v1", "Pod").unwrap();
        let mut pod = json!({"metadata": {"name": "web", "namespace": "default"}, "status": {"phase": "Running"},
            "spec": {"schedulingGates": [{"name": "a.io/b"}], "containers": [{"name": "a", "image": "b:1"}]}});
        kind.default(&mut pod);
        kind.prepare_create(&mut pod, &WriteContext { now: Timestamp::UNIX_EPOCH, uid: "u" });
        assert_eq!((&pod["status"]["phase"], &pod["status"]["qosClass"]), (&json!("Pending"), &json!("BestEffort")));
        assert_eq!(pod["status"]["conditions"][0]["reason"], "SchedulingGated");
        assert_eq!((&pod["spec"]["priority"], &pod["metadata"]["generation"]), (&json!(0), &json!(1)));
        assert_eq!(kind.validate_create(&pod), []);
        assert_eq!(kind.row(&pod, Timestamp::UNIX_EPOCH)[2], "SchedulingGated");
    }

    #[test]
    fn statuses_get_what_is_always_written() {
        let mut pod = json!({"spec": {}, "status": {"conditions": [{"type": "Ready"}], "containerStatuses": [
            {"name": "a", "state": {"running": {}}, "restartCount": 2}]}});
        Pod.default(&mut pod);
        assert_eq!(pod["status"]["conditions"], json!([{"type": "Ready", "lastProbeTime": null}]));
        assert_eq!(
            pod["status"]["containerStatuses"],
            json!([{"name": "a", "state": {"running": {}}, "lastState": {}, "ready": false, "restartCount": 2,
                "image": "", "imageID": ""}])
        );
    }

    #[test]
    fn fields_select() {
        let pod = json!({"spec": {"nodeName": "n1"}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}});
        for (path, expected) in [
            ("spec.nodeName", "n1"),
            ("spec.hostNetwork", "false"),
            ("status.podIPs", "10.0.0.1"),
            ("status.phase", ""),
        ] {
            assert_eq!(Pod.field(&pod, path), expected, "{path}");
        }
    }
}
