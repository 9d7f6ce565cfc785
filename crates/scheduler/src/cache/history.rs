//! Histories of a small cluster, for tests that hold what is kept up to date against what is found out anew.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Cache;
use crate::pod_info::PodInfo;

const NODES: usize = 5;
const PODS: usize = 12;

/// What happens to the cluster.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A node comes, or is labelled anew.
    Node {
        node: usize,
        labels: usize,
    },
    NodeGoes {
        node: usize,
    },
    /// A pod is placed, moved or changed.
    Pod {
        pod: usize,
        kind: usize,
        node: usize,
    },
    PodGoes {
        pod: usize,
    },
}

/// What may happen, one after the other.
pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..NODES, 0..4usize).prop_map(|(node, labels)| Step::Node { node, labels }),
        1 => (0..NODES).prop_map(|node| Step::NodeGoes { node }),
        6 => (0..PODS, 0..KINDS, 0..NODES).prop_map(|(pod, kind, node)| Step::Pod { pod, kind, node }),
        2 => (0..PODS).prop_map(|pod| Step::PodGoes { pod }),
    ];
    prop::collection::vec(step, 1..40)
}

fn node(number: usize, labels: usize) -> Value {
    let name = format!("n{number}");
    let labels = match labels {
        0 => json!({"zone": "a", "kubernetes.io/hostname": name}),
        1 => json!({"zone": "b", "kubernetes.io/hostname": name}),
        2 => json!({"kubernetes.io/hostname": name}),
        _ => json!({}),
    };
    let allocatable = json!({"pods": "99", "cpu": (number + 2).to_string(), "memory": "8Gi"});
    json!({"metadata": {"name": name, "labels": labels}, "status": {"allocatable": allocatable}})
}

/// How many kinds of pods there are.
pub(crate) const KINDS: usize = 7;

/// A pod of one of the kinds.
pub(crate) fn pod(name: &str, kind: usize) -> Arc<PodInfo> {
    let app = if kind.is_multiple_of(2) { "web" } else { "db" };
    let term = |key: &str| json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": "web"}}});
    let host = "kubernetes.io/hostname";
    let required = |key: &str| json!({"requiredDuringSchedulingIgnoredDuringExecution": [term(key)]});
    let preferred =
        json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 3, "podAffinityTerm": term("zone")}]});
    let spread = |key: &str, when: &str| {
        json!({"topologyKey": key, "maxSkew": 1, "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"app": app}}})
    };
    let mut spec = match kind {
        0 | 1 => json!({}),
        2 => json!({"affinity": {"podAntiAffinity": required(host)}}),
        3 => json!({"affinity": {"podAffinity": required("zone")}}),
        4 => json!({"affinity": {"podAffinity": preferred, "podAntiAffinity": required("zone")}}),
        5 => json!({"topologySpreadConstraints": [spread("zone", "DoNotSchedule"), spread(host, "ScheduleAnyway")]}),
        _ => json!({"topologySpreadConstraints": [spread(host, "DoNotSchedule"), spread("zone", "ScheduleAnyway")],
            "nodeSelector": {"zone": "a"}}),
    };
    let requests = json!({"cpu": if kind.is_multiple_of(3) { "400m" } else { "1" }, "memory": "1Gi"});
    spec["containers"] = json!([{"name": "c", "image": "i", "resources": {"requests": requests}}]);
    let value = json!({"metadata": {"name": name, "namespace": "d", "labels": {"app": app}}, "spec": spec});
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(value).unwrap())))
}

/// Lets the cache hear of a step.
pub(crate) fn execute(cache: &mut Cache, step: &Step) {
    match step {
        Step::Node { node: number, labels } => {
            cache.set_node(Arc::new(serde_json::from_value(node(*number, *labels)).unwrap()));
        }
        Step::NodeGoes { node } => cache.remove_node(&format!("n{node}")),
        Step::Pod { pod: number, kind, node } => {
            cache.set_pod(&format!("n{node}"), pod(&format!("p{number}"), *kind));
        }
        Step::PodGoes { pod: number } => {
            cache.remove_pod(&pod(&format!("p{number}"), 0).key);
        }
    }
}
