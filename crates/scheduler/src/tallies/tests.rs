//! What tallies say, and what plugins make of them, against counting all nodes.

use proptest::prelude::*;

use super::*;
use crate::cache::Cache;
use crate::cache::history::{KINDS, execute, pod, steps};
use crate::framework::{Cycle, Surroundings, Verdict};
use crate::profile::Profile;

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
