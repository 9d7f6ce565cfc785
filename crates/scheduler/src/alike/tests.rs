//! What is remembered of nodes, against what the plugins say.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::cache::Cache;
use crate::cache::history::{KINDS, execute, pod, steps};
use crate::cycle::{Fitting, Sample, prepare, score};
use crate::framework::Surroundings;
use crate::nominated::Nominated;
use crate::profile::Profile;
use crate::search::Search;

/// The nodes that fit a pod and how they are liked, with what is remembered, or without.
fn decided(search: &Search<'_>, alike: Option<&mut Alike>) -> (Fitting, Vec<i64>) {
    let Search { pod, surroundings, cache, .. } = *search;
    let cycle = Cycle { pod, nodes: cache.nodes(), surroundings, cache: Some(cache) };
    let prepared = prepare(&cycle, search.profile);
    let mut known = alike.and_then(|alike| alike.known(&cycle, &Likeness::of(pod), &prepared));
    let found = search.find(&prepared, Sample { start: 1, enough: 3 }, None, known.as_deref_mut());
    let scores = score(&cycle, &prepared, &found.nodes, known);
    (found, scores)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_remembered_is_what_would_be_said(steps in steps(), promised in proptest::option::of(0..KINDS)) {
        let (mut cache, profile, mut alike) = (Cache::default(), Profile::default(), Alike::default());
        let mut nominated = Nominated::default();
        if let Some(kind) = promised {
            nominated.add(pod("promised", kind), "n1");
        }
        for step in &steps {
            execute(&mut cache, step);
            cache.settle();
            let surroundings = Surroundings { has_affine_pods: cache.has_affine_pods(), ..Surroundings::default() };
            for kind in 0..KINDS {
                let pod = pod("new", kind);
                cache.tally(profile.plugins.iter().flat_map(|entry| entry.plugin.topologies(&pod, &surroundings)));
                let search = Search {
                    pod: &pod,
                    profile: &profile,
                    surroundings: &surroundings,
                    cache: &cache,
                    nominated: &nominated,
                };
                let anew = decided(&search, None);
                assert_eq!(decided(&search, Some(&mut alike)), anew, "a pod of kind {kind}");
            }
        }
    }
}

fn is_known(alike: &mut Alike, spec: serde_json::Value, surroundings: &Surroundings) -> bool {
    let value = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec});
    let pod = PodInfo::new(Arc::new(serde_json::from_value(value).unwrap()));
    let profile = Profile::default();
    let cycle = Cycle { pod: &pod, nodes: &[], surroundings, cache: None };
    alike.known(&cycle, &Likeness::of(&pod), &prepare(&cycle, &profile)).is_some()
}

#[test]
fn the_second_of_a_sort_is_remembered_for_and_some_are_not() {
    let nothing = Surroundings::default();
    let by_name = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}}});
    let asks = |cpu: &str| json!([{"name": "c", "resources": {"requests": {"cpu": cpu}}}]);
    for (spec, remembered) in [
        (json!({"containers": asks("1")}), true),
        (json!({"containers": asks("2"), "tolerations": [{"operator": "Exists"}]}), true),
        (json!({"containers": [], "volumes": [{"name": "v", "emptyDir": {}}]}), true),
        (json!({"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}), false),
        (json!({"containers": [], "resourceClaims": [{"name": "r", "resourceClaimName": "c"}]}), false),
        (json!({"containers": [], "affinity": by_name}), false),
    ] {
        let mut alike = Alike::default();
        assert!(!is_known(&mut alike, spec.clone(), &nothing), "{spec}");
        assert!(!is_known(&mut alike, json!({"containers": asks("7")}), &nothing));
        assert_eq!(is_known(&mut alike, spec.clone(), &nothing), remembered, "{spec}");
        let more = Surroundings { image_spread: [("i:1".to_owned(), 2)].into(), ..Surroundings::default() };
        assert!(!is_known(&mut alike, spec.clone(), &more), "other images lie on the nodes: {spec}");
    }
}

#[test]
fn no_more_sorts_are_kept_than_it_says() {
    let (mut alike, nothing) = (Alike::default(), Surroundings::default());
    for round in 0..2 {
        for number in 0..8 {
            let spec = json!({"containers": [], "nodeSelector": {"n": number.to_string()}});
            assert_eq!(is_known(&mut alike, spec, &nothing), round == 1);
        }
    }
    assert_eq!((alike.known.len(), alike.seen.len()), (MOST, 0));
}
