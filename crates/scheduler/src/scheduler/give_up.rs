//! What is done about a pod that fits on no node: others may have to go, its claims may be given back, and it is said why.

use std::sync::Arc;

use rand::Rng;
use tokio::time::Instant;

use super::Scheduler;
use crate::cycle::{Failure, prepare};
use crate::extender::Spared;
use crate::framework::{Cycle, Surroundings, Verdict};
use crate::node_info::NodeInfo;
use crate::plugins::to_give_back;
use crate::pod_info::PodInfo;
use crate::preemption::{Candidate, Effort, candidates, cheapest, may_preempt, unhelpful_text};
use crate::profile::Profile;
use crate::queue::Taken;

const NEVER: &str = "preemption: not eligible due to preemptionPolicy=Never.";
const NO_CANDIDATE: &str = "preemption: no candidate node for preemption";
const LEAVING: &str = "preemption: not eligible due to a terminating pod on the nominated node.";

impl Scheduler {
    pub(super) async fn give_up(
        &mut self,
        taken: Taken,
        failure: Failure,
        surroundings: &Surroundings,
        profile: &Profile,
    ) {
        let pod = taken.pod.clone();
        let useless = surroundings.devices.as_ref().and_then(|facts| to_give_back(&pod, self.cache.nodes(), facts));
        if let Some(claim) = useless.filter(|_| failure.refused_by.contains("DynamicResources")) {
            let binder = self.claim_binder();
            tokio::spawn(async move { binder.give_back(&claim).await });
        }
        let mut message = failure.message();
        if failure.total > 0 && profile.preemption.is_some() {
            match self.preempt(&pod, &failure, surroundings, profile).await {
                Ok(found) => {
                    self.nominated.add(pod.clone(), &found.node);
                    self.evictions.begin(&pod.key, found.victims.iter().map(|victim| victim.key.clone()));
                    let (executor, pod, spared) = (self.executor.clone(), pod.clone(), self.spared.clone());
                    tokio::spawn(async move {
                        for victim in executor.preempt(&pod, &found.node, &found.victims).await {
                            // The receiver only goes away with the scheduler itself.
                            let _ = spared.send(victim);
                        }
                    });
                }
                Err(why) => {
                    message.push(' ');
                    message.push_str(&why);
                }
            }
        }
        let executor = self.executor.clone();
        tokio::spawn(async move { executor.report_unscheduled(&pod, "Unschedulable", &message).await });
        self.metrics.queued("ScheduleAttemptFailure", 0, 0);
        self.queue.failed(taken, &failure.refused_by, Instant::now());
        tracing::debug!(waiting = self.queue.len(), refused_by = ?failure.refused_by, "a pod fits on no node");
    }

    /// The node from which others go so that the pod fits, or upstream's words about why there is none.
    async fn preempt(
        &self,
        pod: &PodInfo,
        failure: &Failure,
        surroundings: &Surroundings,
        profile: &Profile,
    ) -> Result<Candidate, String> {
        if !may_preempt(pod) {
            return Err(NEVER.to_owned());
        }
        if self.waits_for_victims(pod, failure) {
            return Err(LEAVING.to_owned());
        }
        let found = {
            let nodes = self.cache.nodes();
            let cycle = Cycle { pod, nodes, surroundings, cache: Some(&self.cache) };
            let said = profile.preemption.clone().unwrap_or_default();
            let share = nodes.len() * usize::try_from(said.min_candidate_nodes_percentage).unwrap_or_default() / 100;
            let enough = share.max(usize::try_from(said.min_candidate_nodes_absolute).unwrap_or_default());
            let effort = Effort { start: rand::rng().random_range(0..nodes.len().max(1)), enough };
            let budgets = self.caches.budgets.list();
            let seen = |node: &Arc<NodeInfo>| self.nominated.seen_by(pod, node);
            candidates(&cycle, &prepare(&cycle, profile), profile, failure, &budgets, effort, &seen)
        };
        let found = match found.is_empty() {
            true => Err(unhelpful_text(failure)),
            false => {
                let left = self.ask_extenders(pod, found).await;
                left.and_then(|left| cheapest(left).ok_or_else(|| NO_CANDIDATE.to_owned()))
            }
        };
        self.metrics.preempted(found.as_ref().map_or(0, |found| found.victims.len()));
        found
    }

    /// The candidates that all extenders leave, with the victims that they name.
    async fn ask_extenders(&self, pod: &PodInfo, mut found: Vec<Candidate>) -> Result<Vec<Candidate>, String> {
        for extender in self.extenders.iter().filter(|extender| extender.preempts() && extender.is_interested(pod)) {
            if found.is_empty() {
                break;
            }
            if !extender.knows_nodes() {
                found.iter_mut().for_each(|candidate| self.complete(candidate));
            }
            let left = extender.preempt(pod, &found).await.and_then(|left| {
                let candidate = |said: Spared| {
                    let node = self.cache.node(&said.node);
                    extender.candidate(said, node.map(|node| &**node)).transpose()
                };
                left.into_iter().filter_map(candidate).collect::<Result<Vec<_>, _>>()
            });
            match left {
                Ok(left) => found = left,
                Err(error) if extender.is_ignorable() => {
                    tracing::warn!(pod = %pod.key, error, "an extender is passed over");
                }
                Err(error) => return Err(format!("preemption: {error}")),
            }
        }
        Ok(found)
    }

    /// Makes the victims whole again: extenders may look at all of them.
    fn complete(&self, candidate: &mut Candidate) {
        for victim in &mut candidate.victims {
            let whole = self.caches.pods.get(&victim.key);
            if let Some(whole) = whole.filter(|whole| whole.metadata.uid.as_ref() == Some(&victim.uid)) {
                *victim = Arc::new(PodInfo::new(whole));
            }
        }
    }

    /// Whether pods are already leaving the node that the pod was promised; then it need only wait.
    fn waits_for_victims(&self, pod: &PodInfo, failure: &Failure) -> bool {
        let Some(node) = self.nominated.node_of(&pod.key).and_then(|name| self.cache.node(name)) else { return false };
        let nodes = self.cache.nodes();
        let hopeless = failure
            .verdicts
            .iter()
            .any(|(at, verdict)| nodes[*at].name == node.name && matches!(verdict, Verdict::Unresolvable(_)));
        !hopeless && node.pods.iter().any(|other| other.priority < pod.priority && other.is_leaving)
    }
}
