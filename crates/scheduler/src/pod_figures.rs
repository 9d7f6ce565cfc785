//! What the cluster's pods ask for and may use, pod by pod: upstream's `/metrics/resources`.
//!
//! Invariant: pods that are over count no more; amounts of nothing are not shown.

use std::fmt;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::Pod;
use kedge_client::Informer;
use kedge_metrics::Text;

use crate::resources::{Resources, pod_limits, pod_requests};

const REQUEST: &str = "kube_pod_resource_request";
const LIMIT: &str = "kube_pod_resource_limit";
const HELP: &str = "broken down by pod. This shows the resource usage the scheduler and kubelet expect per pod for resources \
                    along with the unit for the resource if any.";

/// The pods, once a scheduler works.
#[derive(Default)]
pub(crate) struct PodFigures(OnceLock<Informer<Pod>>);

impl fmt::Debug for PodFigures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PodFigures").finish_non_exhaustive()
    }
}

impl PodFigures {
    /// From now on these are the pods.
    pub(crate) fn know(&self, pods: &Informer<Pod>) {
        self.0.get_or_init(|| pods.clone());
    }

    /// Both families; none before anybody knows the pods.
    pub(crate) fn write(&self, text: &mut Text) {
        if let Some(pods) = self.0.get() {
            write(&pods.list(), text);
        }
    }
}

/// The amounts of a pod that a family shows.
type Amounts = fn(&Pod) -> Resources;

fn write(pods: &[Arc<Pod>], text: &mut Text) {
    let families: [(&str, &str, Amounts); 2] = [
        (LIMIT, "Resources limit for workloads on the cluster,", pod_limits),
        (REQUEST, "Resources requested by workloads on the cluster,", pod_requests),
    ];
    for (name, what, amounts) in families {
        text.family(name, "gauge", &format!("{what} {HELP}"));
        pods.iter().filter(|pod| !is_over(pod)).for_each(|pod| write_pod(name, pod, &amounts(pod), text));
    }
}

fn is_over(pod: &Pod) -> bool {
    let is_placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_ref().is_some_and(|name| !name.is_empty()));
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    is_placed && matches!(phase, Some("Succeeded" | "Failed"))
}

fn write_pod(family: &str, pod: &Pod, amounts: &Resources, text: &mut Text) {
    let spec = pod.spec.as_ref();
    let part = |part: Option<&String>| part.cloned().unwrap_or_default();
    let (namespace, name) = (part(pod.metadata.namespace.as_ref()), part(pod.metadata.name.as_ref()));
    let node = part(spec.and_then(|spec| spec.node_name.as_ref()));
    let scheduler = part(spec.and_then(|spec| spec.scheduler_name.as_ref()));
    let priority = spec.and_then(|spec| spec.priority).map(|priority| priority.to_string()).unwrap_or_default();
    for (resource, amount) in amounts.named().filter(|(_, amount)| *amount != 0) {
        let amount = if resource == "cpu" { amount as f64 / 1000.0 } else { amount as f64 };
        let labels = [
            ("namespace", namespace.as_str()),
            ("pod", &name),
            ("node", &node),
            ("scheduler", &scheduler),
            ("priority", &priority),
            ("resource", resource),
            ("unit", unit(resource)),
        ];
        text.sample(family, &labels, amount);
    }
}

fn unit(resource: &str) -> &'static str {
    match resource {
        "cpu" => "cores",
        "memory" | "storage" | "ephemeral-storage" => "bytes",
        other if other.starts_with("hugepages-") => "bytes",
        other if other.starts_with("attachable-volumes-") => "integer",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, phase: &str) -> Arc<Pod> {
        let amounts: Value =
            json!({"requests": {"cpu": "250m", "memory": "1Mi", "x.io/gpu": "2"}, "limits": {"cpu": "1"}});
        let spec = json!({"nodeName": "n", "schedulerName": "s", "priority": 5, "overhead": {"cpu": "50m", "memory": "1Ki"},
            "containers": [{"name": "c", "resources": amounts}]});
        let value = json!({"metadata": {"name": name, "namespace": "d"}, "spec": spec, "status": {"phase": phase}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn pods_show_what_they_ask_for_and_may_use() {
        let mut text = Text::default();
        write(&[pod("p", "Running"), pod("over", "Failed")], &mut text);
        let text = text.finish();
        let shown: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let labels = "namespace=\"d\",pod=\"p\",node=\"n\",scheduler=\"s\",priority=\"5\"";
        assert_eq!(
            shown,
            [
                format!("kube_pod_resource_limit{{{labels},resource=\"cpu\",unit=\"cores\"}} 1.05"),
                format!("kube_pod_resource_request{{{labels},resource=\"cpu\",unit=\"cores\"}} 0.3"),
                format!("kube_pod_resource_request{{{labels},resource=\"memory\",unit=\"bytes\"}} 1049600"),
                format!("kube_pod_resource_request{{{labels},resource=\"x.io/gpu\",unit=\"\"}} 2"),
            ]
        );
    }
}
