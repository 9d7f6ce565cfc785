//! One attempt to place a pod: what the plugins say, then the extenders, then the best node.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use rand::Rng;
use tokio::time::Instant;

use super::Scheduler;
use super::changes::EXTENDER;
use crate::alike::Known;
use crate::cycle::{Failure, Fitting, Prepared, Sample, best, prepare, score};
use crate::extender::Extender;
use crate::framework::{Cycle, Surroundings, Verdict};
use crate::likeness::Likeness;
use crate::memory::Told;
use crate::metrics::Ended;
use crate::node_info::NodeInfo;
use crate::plugins::not_ready;
use crate::pod_info::PodInfo;
use crate::profile::Profile;
use crate::queue::{Refusers, Taken};
use crate::search::Search;

/// What became of an attempt.
pub(super) enum Outcome {
    /// The pod goes to this node.
    Node(String),
    /// No node fits.
    Unschedulable(Failure),
    /// Somebody could not be asked.
    Error(String),
}

impl Scheduler {
    pub(super) async fn attempt(&mut self, taken: Taken) {
        let start = Instant::now();
        let pod = taken.pod.clone();
        let Some(profile) = self.profile(&pod) else { return };
        let surroundings = self.surroundings(&pod);
        if let Some(why) = surroundings.devices.as_ref().and_then(|facts| not_ready(&pod, facts)) {
            tracing::debug!(pod = %pod.key, why, "a pod waits for its claims");
            return self.queue.failed(taken, &Refusers::from(["DynamicResources"]), Instant::now());
        }
        self.cache.settle();
        let topologies = profile.plugins.iter().flat_map(|entry| entry.plugin.topologies(&pod, &surroundings));
        self.cache.tally(topologies);
        // What devices there are changes without any node that does.
        let is_memorable = surroundings.devices.is_none();
        let likeness = is_memorable.then(|| Likeness::of(&pod));
        let mut told = likeness.as_ref().and_then(|likeness| self.memory.take(likeness));
        let (outcome, looked_at) = self.choose(&pod, &profile, &surroundings, likeness.as_ref(), told.as_mut()).await;
        self.next_node = (self.next_node + looked_at) % self.cache.nodes().len().max(1);
        self.metrics.decided(start.elapsed());
        match outcome {
            Outcome::Node(node) => self.bind(taken, node, &surroundings, &profile, start),
            Outcome::Unschedulable(failure) => {
                if is_memorable {
                    told.get_or_insert_default();
                }
                self.give_up(taken, failure, &surroundings, &profile, told.as_mut()).await;
                self.metrics.attempted(&profile.scheduler_name, Ended::Unschedulable, start.elapsed());
            }
            Outcome::Error(why) => {
                self.metrics.attempted(&profile.scheduler_name, Ended::Error, start.elapsed());
                self.metrics.queued("ScheduleAttemptFailure", 0, 1);
                self.queue.retry(taken, Instant::now());
                let (executor, pod) = (self.executor.clone(), pod.clone());
                tokio::spawn(async move { executor.report_unscheduled(&pod, "SchedulerError", &why).await });
            }
        }
        if let (Some(told), Some(likeness)) = (told, likeness)
            && likeness.is_shared()
        {
            self.memory.put(likeness, told);
        }
        self.status.heartbeat(Some(start.elapsed()));
    }

    /// Chooses a node, and says after how many nodes there were enough.
    async fn choose(
        &self,
        pod: &PodInfo,
        profile: &Profile,
        surroundings: &Surroundings,
        likeness: Option<&Likeness>,
        told: Option<&mut Told>,
    ) -> (Outcome, usize) {
        let interested: Vec<&Extender> = self.extenders.iter().filter(|extender| extender.is_interested(pod)).collect();
        let nodes = self.cache.nodes();
        let mut found = {
            let cycle = Cycle { pod, nodes, surroundings, cache: Some(&self.cache) };
            let began = Instant::now();
            let prepared = prepare(&cycle, profile);
            let (name, filtering) = (profile.scheduler_name.as_str(), Instant::now());
            self.metrics.ran("PreFilter", true, name, filtering - began);
            let filters = prepared.iter().filter(|plugin| plugin.filters).map(|plugin| plugin.name);
            self.metrics.evaluated(filters, "Filter", name);
            let enough = if profile.scores() || !self.extenders.is_empty() {
                Sample::of(nodes.len(), profile.percentage_of_nodes_to_score, self.next_node)
            } else {
                Sample { start: self.next_node % nodes.len().max(1), enough: 1 }
            };
            let mut alike = self.alike.lock();
            let mut known = likeness.and_then(|likeness| alike.known(&cycle, likeness, &prepared));
            let search = self.search(pod, profile, surroundings);
            let found = search.find(&prepared, enough, told, known.as_deref_mut());
            self.metrics.ran("Filter", true, name, filtering.elapsed());
            if interested.is_empty() || found.nodes.is_empty() {
                let looked_at = found.looked_at;
                return (self.pick(&cycle, &prepared, found, &HashMap::new(), known), looked_at);
            }
            found
        };
        let looked_at = found.looked_at;
        if let Err(why) = filter_outside(pod, &interested, nodes, &mut found).await {
            return (Outcome::Error(why), looked_at);
        }
        let mut outside = HashMap::new();
        if found.nodes.len() > 1 {
            let left: Vec<Arc<Node>> = found.nodes.iter().map(|at| nodes[*at].node.clone()).collect();
            for extender in interested.iter().filter(|extender| extender.prioritizes()) {
                match extender.prioritize(pod, &left).await {
                    Ok(scores) => {
                        scores.into_iter().for_each(|(node, score)| *outside.entry(node).or_default() += score)
                    }
                    // As upstream: nobody's liking is worth an attempt.
                    Err(error) => tracing::warn!(pod = %pod.key, error, "an extender's scores are left out"),
                }
            }
        }
        let cycle = Cycle { pod, nodes, surroundings, cache: Some(&self.cache) };
        (self.pick(&cycle, &prepare(&cycle, profile), found, &outside, None), looked_at)
    }

    pub(super) fn search<'a>(
        &'a self,
        pod: &'a PodInfo,
        profile: &'a Profile,
        surroundings: &'a Surroundings,
    ) -> Search<'a> {
        Search { pod, profile, surroundings, cache: &self.cache, nominated: &self.nominated }
    }

    fn pick(
        &self,
        cycle: &Cycle<'_>,
        prepared: &[Prepared<'_>],
        found: Fitting,
        outside: &HashMap<String, i64>,
        known: Option<&mut Known>,
    ) -> Outcome {
        match found.nodes.as_slice() {
            [] => Outcome::Unschedulable(found.failure),
            [only] => Outcome::Node(cycle.nodes[*only].name.clone()),
            nodes => {
                let began = Instant::now();
                let mut totals = score(cycle, prepared, nodes, known);
                self.metrics.ran("Score", true, cycle.pod.scheduler_name(), began.elapsed());
                for (total, at) in totals.iter_mut().zip(nodes) {
                    *total += outside.get(&cycle.nodes[*at].name).copied().unwrap_or_default();
                }
                let chosen = best(&totals, |ties| rand::rng().random_range(0..ties));
                Outcome::Node(cycle.nodes[nodes[chosen]].name.clone())
            }
        }
    }
}

/// Lets extenders filter the nodes that fit, one after the other.
async fn filter_outside(
    pod: &PodInfo,
    extenders: &[&Extender],
    nodes: &[Arc<NodeInfo>],
    found: &mut Fitting,
) -> Result<(), String> {
    for extender in extenders.iter().filter(|extender| extender.filters()) {
        if found.nodes.is_empty() {
            break;
        }
        let left: Vec<Arc<Node>> = found.nodes.iter().map(|at| nodes[*at].node.clone()).collect();
        let mut filtered = match extender.filter(pod, &left).await {
            Ok(filtered) => filtered,
            Err(error) if extender.is_ignorable() => {
                tracing::warn!(pod = %pod.key, error, "an extender is passed over");
                continue;
            }
            Err(error) => return Err(error),
        };
        let (fitting, refused): (Vec<usize>, Vec<usize>) =
            found.nodes.iter().partition(|at| filtered.fitting.contains(&nodes[**at].name));
        found.nodes = fitting;
        for at in refused {
            let (reason, is_unresolvable) = filtered.failed.remove(&nodes[at].name).unwrap_or_default();
            let verdict = if is_unresolvable { Verdict::unresolvable(reason) } else { Verdict::unschedulable(reason) };
            found.failure.verdicts.push((at, verdict));
            found.failure.refused_by.insert(EXTENDER);
        }
    }
    Ok(())
}
