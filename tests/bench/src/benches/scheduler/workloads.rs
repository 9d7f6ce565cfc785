//! Upstream's workloads for schedulers, by the names they have in its `scheduler_perf`: what they place, and where.

use serde_json::{Value, json};

/// For each of so many nodes upstream's numbers are meant.
const NODES: u64 = 5000;
/// Where the pods are that are there before, and where those are that are measured.
pub(super) const INIT: &str = "sched-0";
pub(super) const MEASURED: &str = "sched-1";
/// The priority class of pods that may displace others.
pub(super) const HIGH: &str = "sched-high";
/// The node to which the pods of a DaemonSet go in that workload.
pub(super) const NAMED_NODE: &str = "scheduler-perf-node";
const ZONE: &str = "topology.kubernetes.io/zone";

/// A workload.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) nodes: u64,
    pub(super) zones: u64,
    /// How many pods are there before, and how they are.
    pub(super) init: (u64, Value),
    /// How many pods are measured, and how they are.
    pub(super) measured: (u64, Value),
    /// A pod of which another one comes every 200 ms, and that fits nowhere.
    pub(super) churn: Option<Value>,
    /// Upstream's threshold.
    pub(super) compare: &'static str,
}

/// All workloads, for so many nodes instead of 5,000.
pub(super) fn all(nodes: u64) -> Vec<Workload> {
    let plain = pod(json!({}));
    let make = |name, zones, init: (u64, Value), measured: (u64, Value), compare| Workload {
        name,
        nodes,
        zones,
        init: (init.0 * nodes / NODES, init.1),
        measured: ((measured.0 * nodes / NODES).max(1), measured.1),
        churn: None,
        compare,
    };
    let (near, far, spread) = (pod(affinity()), pod(anti_affinity()), pod(spreading()));
    vec![
        make("SchedulingBasic", 3, (1000, plain.clone()), (10_000, plain.clone()), "upstream 680-810; goal 10x"),
        make("PreemptionBasic", 3, (20_000, low()), (5000, high()), "upstream 570; goal 10x"),
        make("TopologySpreading", 3, (5000, plain.clone()), (5000, spread), "upstream 460; goal 10x"),
        make("SchedulingNodeAffinity", 1, (5000, zoned()), (10_000, zoned()), "upstream 220; goal 10x"),
        make("SchedulingPodAffinity", 1, (5000, near.clone()), (5000, near), "upstream 35; goal 10x"),
        make("SchedulingPodAntiAffinity", 3, (1000, far.clone()), (2000, far), "upstream 60; goal 10x"),
        Workload {
            nodes: nodes * 3,
            ..make("SchedulingDaemonset", 3, (0, plain.clone()), (30_000, named()), "upstream 1,100; goal 10x")
        },
        Workload {
            churn: Some(unschedulable()),
            ..make("Unschedulable", 3, (100, plain.clone()), (10_000, plain), "upstream 140-170; goal 10x")
        },
    ]
}

/// A pod of 100m and 500Mi, with what a workload adds to it.
fn pod(more: Value) -> Value {
    let amounts = json!({"cpu": "100m", "memory": "500Mi"});
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "pod-"},
        "spec": {"containers": [{
            "name": "pause", "image": "registry.k8s.io/pause:3.10", "ports": [{"containerPort": 80}],
            "resources": {"requests": amounts, "limits": amounts},
        }]},
    });
    for part in ["metadata", "spec"] {
        for (key, value) in more[part].as_object().into_iter().flatten() {
            pod[part][key] = value.clone();
        }
    }
    pod
}

fn sized(cpu: &str, more: Value) -> Value {
    let mut pod = pod(more);
    let amounts = json!({"cpu": cpu, "memory": "500Mi"});
    pod["spec"]["containers"][0]["resources"] = json!({"requests": amounts, "limits": amounts});
    pod
}

fn low() -> Value {
    sized("900m", json!({"spec": {"terminationGracePeriodSeconds": 0}}))
}

fn high() -> Value {
    sized("3", json!({"spec": {"priorityClassName": HIGH}}))
}

fn unschedulable() -> Value {
    sized("9", json!({"spec": {"priorityClassName": HIGH}}))
}

fn terms(color: &str, topology: &str) -> Value {
    json!({"requiredDuringSchedulingIgnoredDuringExecution": [{
        "labelSelector": {"matchLabels": {"color": color}}, "topologyKey": topology, "namespaces": [MEASURED, INIT],
    }]})
}

fn affinity() -> Value {
    let affinity = json!({"podAffinity": terms("blue", ZONE)});
    json!({"metadata": {"labels": {"color": "blue"}}, "spec": {"affinity": affinity}})
}

fn anti_affinity() -> Value {
    let affinity = json!({"podAntiAffinity": terms("green", "kubernetes.io/hostname")});
    json!({"metadata": {"labels": {"color": "green"}}, "spec": {"affinity": affinity}})
}

fn spreading() -> Value {
    let constraint = json!({"maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"color": "blue"}}});
    json!({"metadata": {"labels": {"color": "blue"}}, "spec": {"topologySpreadConstraints": [constraint]}})
}

fn on_nodes(term: Value) -> Value {
    let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}});
    json!({"spec": {"affinity": {"nodeAffinity": required}}})
}

fn zoned() -> Value {
    let one_of = json!({"key": ZONE, "operator": "In", "values": ["zone-0", "zone-1"]});
    pod(on_nodes(json!({"matchExpressions": [one_of]})))
}

fn named() -> Value {
    let name = json!({"key": "metadata.name", "operator": "In", "values": [NAMED_NODE]});
    let mut pod = pod(on_nodes(json!({"matchFields": [name]})));
    pod["spec"]["containers"][0]["resources"] = json!({});
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_shrink_with_the_nodes() {
        let full = all(5000);
        let small = all(500);
        let numbers = |workload: &Workload| (workload.nodes, workload.init.0, workload.measured.0);
        assert_eq!(numbers(&full[1]), (5000, 20_000, 5000));
        assert_eq!(numbers(&small[1]), (500, 2000, 500));
        assert_eq!(numbers(&full[6]), (15_000, 0, 30_000));
    }

    #[test]
    fn pods_are_as_their_workload_has_them() {
        let all = all(5000);
        let measured = |name: &str| all.iter().find(|workload| workload.name == name).unwrap().measured.1.clone();
        assert_eq!(measured("PreemptionBasic")["spec"]["priorityClassName"], HIGH);
        assert_eq!(measured("PreemptionBasic")["spec"]["containers"][0]["resources"]["requests"]["cpu"], "3");
        assert_eq!(measured("TopologySpreading")["metadata"]["labels"]["color"], "blue");
        assert_eq!(measured("SchedulingPodAffinity")["metadata"]["generateName"], "pod-");
    }
}
