//! Where a pod fits among the nodes of the cache, and where it would if others went, besides what others were promised.
//!
//! Pure. Invariant: what pods of the same likeness were told is asked and noted only where all filters look at one node
//! alone, and never about the node that the pod itself was promised: that one it sees as nobody else does.

use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::alike::Known;
use crate::cache::Cache;
use crate::cycle::{Failure, Fitting, Prepared, Sample, find_fitting, find_judged, fits, is_local, prepare, refusal};
use crate::framework::{Cycle, Surroundings};
use crate::memory::Told;
use crate::node_info::NodeInfo;
use crate::nominated::Nominated;
use crate::pod_info::PodInfo;
use crate::preemption::{Candidate, Effort, Terms, candidates, victims_on};
use crate::profile::Profile;

/// For whom a place is looked for, and among what.
#[derive(Clone, Copy)]
pub(crate) struct Search<'a> {
    pub(crate) pod: &'a PodInfo,
    pub(crate) profile: &'a Profile,
    pub(crate) surroundings: &'a Surroundings,
    pub(crate) cache: &'a Cache,
    pub(crate) nominated: &'a Nominated,
}

impl<'a> Search<'a> {
    /// The nodes that fit, with those on them that were promised a place there. Where the pod was promised one that fits,
    /// there is no other.
    pub(crate) fn find(
        &self,
        prepared: &[Prepared<'_>],
        sample: Sample,
        told: Option<&mut Told>,
        known: Option<&mut Known>,
    ) -> Fitting {
        let (cycle, own) = (self.cycle(), self.own());
        if let Some(at) = own
            && fits(prepared, &self.seen(&cycle.nodes[at]))
        {
            return Fitting { nodes: vec![at], looked_at: 0, failure: Failure::default() };
        }
        if !is_local(prepared) && !self.nominated.is_empty() {
            let seen: Vec<Arc<NodeInfo>> = cycle.nodes.iter().map(|node| self.seen(node)).collect();
            let cycle = Cycle { nodes: &seen, cache: None, ..cycle };
            return find_fitting(&cycle, &prepare(&cycle, self.profile), sample, &|_| None);
        }
        let Some(told) = told.filter(|_| is_local(prepared)) else {
            return self.find_among(&cycle, prepared, sample, known);
        };
        find_judged(&cycle, prepared, sample, &mut |at, node| {
            if let Some(known) = told.refusal(at, node).filter(|_| own != Some(at)) {
                return Some(known.clone());
            }
            let refusal = refusal(prepared, self.nominated.seen_by(self.pod, node).as_ref().unwrap_or(node))?;
            if own != Some(at) {
                told.note(at, node, refusal.clone());
            }
            Some(refusal)
        })
    }

    /// The nodes that fit, asked anew but for what is known of them for pods like this one. Nothing is known of nodes that
    /// others were promised: these are not seen as they are.
    fn find_among(
        &self,
        cycle: &Cycle<'_>,
        prepared: &[Prepared<'_>],
        sample: Sample,
        known: Option<&mut Known>,
    ) -> Fitting {
        let Some(known) = known else {
            return find_fitting(cycle, prepared, sample, &|node| self.nominated.seen_by(self.pod, node));
        };
        find_judged(cycle, prepared, sample, &mut |at, node| match self.nominated.seen_by(self.pod, node) {
            Some(seen) => refusal(prepared, &seen),
            None => known.refusal(prepared, at, node),
        })
    }

    /// Nodes on which there would be room if others went, from a start on, as many as the profile says are enough.
    pub(crate) fn candidates(
        &self,
        failure: &Failure,
        budgets: &[Arc<PodDisruptionBudget>],
        start: usize,
        told: Option<&mut Told>,
    ) -> Vec<Arc<Candidate>> {
        let cycle = self.cycle();
        let prepared = prepare(&cycle, self.profile);
        let said = self.profile.preemption.clone().unwrap_or_default();
        let share = cycle.nodes.len() * usize::try_from(said.min_candidate_nodes_percentage).unwrap_or_default() / 100;
        let enough = share.max(usize::try_from(said.min_candidate_nodes_absolute).unwrap_or_default());
        let effort = Effort { start, enough };
        let seen = |node: &Arc<NodeInfo>| self.nominated.seen_by(self.pod, node);
        let terms = Terms { cycle: &cycle, prepared: &prepared, profile: self.profile, budgets, seen: &seen };
        let victims = |at: usize| victims_on(terms, at).map(Arc::new);
        let Some(told) = told.filter(|_| is_local(&prepared)) else {
            return candidates(failure, effort, &mut |at| victims(at));
        };
        told.judge_by(budgets);
        let own = self.own();
        candidates(failure, effort, &mut |at| {
            let node = &cycle.nodes[at];
            if own == Some(at) {
                return victims(at);
            }
            if let Some(known) = told.candidate(at, node) {
                return known.clone();
            }
            let candidate = victims(at);
            told.note_candidate(at, node, candidate.clone());
            candidate
        })
    }

    fn cycle(&self) -> Cycle<'a> {
        let Search { pod, surroundings, cache, .. } = *self;
        Cycle { pod, nodes: cache.nodes(), surroundings, cache: Some(cache) }
    }

    /// The place of the node that the pod was promised.
    fn own(&self) -> Option<usize> {
        self.nominated.node_of(&self.pod.key).and_then(|node| self.cache.place_of(node))
    }

    fn seen(&self, node: &Arc<NodeInfo>) -> Arc<NodeInfo> {
        self.nominated.seen_by(self.pod, node).unwrap_or_else(|| node.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::event::Event;
    use crate::framework::{Evaluation, Plugin, Verdict};
    use crate::plugins::test_world::pod;
    use crate::preemption::cheapest;
    use crate::profile::Entry;
    use serde_json::json;

    const NODES: usize = 500;

    /// Counts how often anything is said about a node.
    #[derive(Default, Clone)]
    struct Counting(Arc<AtomicUsize>);

    impl Plugin for Counting {
        fn name(&self) -> &'static str {
            "Counting"
        }

        fn prepare<'a>(&'a self, _: &Cycle<'a>) -> Option<Box<dyn Evaluation + 'a>> {
            Some(Box::new(self.clone()))
        }

        fn may_help(&self, _: &PodInfo, _: &Event<'_>) -> bool {
            false
        }
    }

    impl Evaluation for Counting {
        fn filter(&self, _: &NodeInfo) -> Verdict {
            self.0.fetch_add(1, Ordering::Relaxed);
            Verdict::Fits
        }
    }

    fn asking(name: &str, cpu: &str, priority: i32) -> Arc<PodInfo> {
        Arc::new(pod(json!({"metadata": {"name": name, "namespace": "d"}, "spec": {"priority": priority,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})))
    }

    /// Nodes of four CPUs, each with four pods of 900m.
    fn full(nodes: usize) -> Cache {
        let mut cache = Cache::default();
        for number in 0..nodes {
            let name = format!("n{number}");
            let value = json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "4", "pods": "110"}}});
            cache.set_node(Arc::new(serde_json::from_value(value).unwrap()));
            for part in 0..4 {
                cache.set_pod(&name, asking(&format!("low-{number}-{part}"), "900m", 0));
            }
        }
        cache.settle();
        cache
    }

    struct World {
        cache: Cache,
        nominated: Nominated,
        profile: Profile,
        surroundings: Surroundings,
        said: Counting,
    }

    impl World {
        fn of(nodes: usize) -> Self {
            let (said, mut profile) = (Counting::default(), Profile::default());
            profile.plugins.insert(0, Entry { plugin: Box::new(said.clone()), filters: true, weight: 0 });
            let (nominated, surroundings) = (Nominated::default(), Surroundings::default());
            Self { cache: full(nodes), nominated, profile, surroundings, said }
        }

        fn search<'a>(&'a self, pod: &'a PodInfo) -> Search<'a> {
            let World { cache, nominated, profile, surroundings, .. } = self;
            Search { pod, profile, surroundings, cache, nominated }
        }

        fn find(&self, pod: &PodInfo, told: &mut Told) -> Fitting {
            let search = self.search(pod);
            let sample = Sample::of(self.cache.nodes().len(), 0, 0);
            search.find(&prepare(&search.cycle(), &self.profile), sample, Some(told), None)
        }

        /// Lets a pod fail, and promises it a node; whom it displaces there, and how often something was said about a node.
        fn preempt(&mut self, pod: &Arc<PodInfo>, told: &mut Told) -> (Arc<Candidate>, usize) {
            let before = self.said.0.load(Ordering::Relaxed);
            let found = self.find(pod, told);
            assert!(found.nodes.is_empty(), "it fits");
            let candidates = self.search(pod).candidates(&found.failure, &[], 0, Some(told));
            let chosen = cheapest(candidates).unwrap();
            self.nominated.add(pod.clone(), &chosen.node);
            self.cache.touch(&chosen.node);
            (chosen, self.said.0.load(Ordering::Relaxed) - before)
        }
    }

    #[test]
    fn regress_what_one_preemptor_learned_the_next_one_need_not_ask() {
        let (mut world, mut told) = (World::of(NODES), Told::default());
        let mut last = Vec::new();
        for number in 0..NODES {
            let pod = asking(&format!("high-{number}"), "3", 9);
            let (chosen, said) = world.preempt(&pod, &mut told);
            assert_eq!(chosen.victims.len(), 3);
            last.push(said);
        }
        assert!(last[0] > NODES, "the first one asks about all nodes: {}", last[0]);
        let most = last[1..].iter().max().unwrap();
        // The node that was promised to the one before, and one candidate more.
        assert!(*most <= 20, "about how many nodes each other one asked: {most}");
        let late = asking("late", "3", 9);
        let found = world.find(&late, &mut told);
        assert!(world.search(&late).candidates(&found.failure, &[], 0, Some(&mut told)).is_empty(), "all is promised");
    }

    #[test]
    fn who_was_promised_a_node_looks_at_no_other_once_it_fits() {
        let (mut world, mut told) = (World::of(NODES), Told::default());
        let pod = asking("high", "3", 9);
        let (chosen, _) = world.preempt(&pod, &mut told);
        for victim in &chosen.victims {
            world.cache.remove_pod(&victim.key);
        }
        let before = world.said.0.load(Ordering::Relaxed);
        let found = world.find(&pod, &mut told);
        assert_eq!(world.cache.nodes()[found.nodes[0]].name, chosen.node);
        assert_eq!((found.nodes.len(), world.said.0.load(Ordering::Relaxed) - before), (1, 1));
        let other = world.find(&asking("other", "3", 9), &mut told);
        assert!(other.nodes.is_empty(), "to everybody else the room is promised");
    }

    #[test]
    fn what_is_remembered_is_what_would_be_said() {
        let (mut world, mut told) = (World::of(20), Told::default());
        let texts = |found: &Fitting| (found.nodes.clone(), found.failure.message());
        for number in 0..30 {
            let pod = asking(&format!("high-{number}"), "3", 9);
            let (with, without) = (world.find(&pod, &mut told), world.find(&pod, &mut Told::default()));
            assert_eq!(texts(&with), texts(&without), "{number}");
            if with.nodes.is_empty() {
                let victims = |told: &mut Told| -> Vec<(String, usize)> {
                    let found = world.search(&pod).candidates(&with.failure, &[], 0, Some(told));
                    found.iter().map(|candidate| (candidate.node.clone(), candidate.victims.len())).collect()
                };
                let known = victims(&mut told);
                assert_eq!(known, victims(&mut Told::default()), "{number}");
                let Some((node, _)) = known.first().cloned() else { continue };
                if number % 3 == 0 {
                    world.cache.remove_pod(&asking(&format!("low-{number}-0"), "0", 0).key);
                } else {
                    world.nominated.add(pod, &node);
                    world.cache.touch(&node);
                }
            }
        }
    }
}
