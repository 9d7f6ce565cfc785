//! What tallies say, and what plugins make of them, against counting all nodes.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::cache::Cache;
use crate::framework::{Cycle, Surroundings, Verdict};
use crate::pod_info::PodInfo;
use crate::profile::Profile;

const NODES: usize = 5;
const PODS: usize = 12;

/// What happens to the cluster.
#[derive(Debug, Clone)]
enum Step {
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

fn steps() -> impl Strategy<Value = Vec<Step>> {
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
    json!({"metadata": {"name": name, "labels": labels}, "status": {"allocatable": {"pods": "99"}}})
}

const KINDS: usize = 7;

fn pod(name: &str, kind: usize) -> Arc<PodInfo> {
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
    spec["containers"] = json!([]);
    let value = json!({"metadata": {"name": name, "namespace": "d", "labels": {"app": app}}, "spec": spec});
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(value).unwrap())))
}

fn execute(cache: &mut Cache, step: &Step) {
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

/// What one plugin says about all nodes.
type Said = (&'static str, Vec<(Verdict, Option<i64>)>);

/// What all plugins say about all nodes for a pod.
fn said(cycle: &Cycle<'_>, profile: &Profile) -> Vec<Said> {
    let said = profile.plugins.iter().filter_map(|entry| {
        let evaluation = entry.plugin.prepare(cycle)?;
        let about = |node: &Arc<NodeInfo>| (evaluation.filter(node), evaluation.score(node));
        Some((entry.plugin.name(), cycle.nodes.iter().map(about).collect()))
    });
    said.collect()
}

fn check(cache: &mut Cache, profile: &Profile) {
    let surroundings = Surroundings { has_affine_pods: cache.has_affine_pods(), ..Surroundings::default() };
    for kind in 0..KINDS {
        let pod = pod("new", kind);
        cache.settle();
        cache.tally(profile.plugins.iter().flat_map(|entry| entry.plugin.topologies(&pod, &surroundings)));
        let nodes = cache.nodes();
        let counted = Cycle { pod: &pod, nodes, surroundings: &surroundings, cache: None };
        let tallied = Cycle { cache: Some(cache), ..counted };
        assert_eq!(said(&tallied, profile), said(&counted, profile), "a pod of kind {kind}");
        assert!(cache.tallies_are_true());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn tallies_say_what_counting_says(steps in steps()) {
        let (mut cache, profile) = (Cache::default(), Profile::default());
        for step in &steps {
            execute(&mut cache, step);
            check(&mut cache, &profile);
        }
    }
}

#[test]
fn too_many_tallies_are_not_kept() {
    let mut tallies = Tallies::default();
    for number in 0..=MOST {
        tallies.ensure(Topology::of(&number.to_string()), &[]);
    }
    assert_eq!(tallies.0.len(), 1);
    assert!(tallies.get(&MOST.to_string(), &[]).is_some());
}
