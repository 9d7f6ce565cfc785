//! What is done about a pod that fits on no node: others may have to go, its claims may be given back, and it is said why.

use std::sync::Arc;

use kedge_meta::ObjectKey;
use rand::Rng;
use tokio::time::Instant;

use super::Scheduler;
use crate::cycle::Failure;
use crate::extender::{Extender, Spared};
use crate::framework::{Surroundings, Verdict};
use crate::memory::Told;
use crate::plugins::{left_behind, to_give_back};
use crate::pod_info::PodInfo;
use crate::preemption::{Candidate, cheapest, may_preempt, unhelpful_text};
use crate::profile::Profile;
use crate::queue::Taken;

const NO_CANDIDATE: &str = "preemption: no candidate node for preemption";

/// Why nobody goes for a pod, in upstream's words.
#[derive(Debug, thiserror::Error)]
enum Hopeless {
    #[error("preemption: not eligible due to preemptionPolicy=Never.")]
    Never,
    /// Others are going already.
    #[error("preemption: not eligible due to a terminating pod on the nominated node.")]
    Leaving,
    /// It would be of no use anywhere.
    #[error("{0}")]
    Nowhere(String),
}

impl Scheduler {
    pub(super) async fn give_up(
        &mut self,
        taken: Taken,
        failure: Failure,
        surroundings: &Surroundings,
        profile: &Profile,
        told: Option<&mut Told>,
    ) {
        let pod = taken.pod.clone();
        if let Some(left) = surroundings.devices.as_ref().and_then(left_behind) {
            let binder = self.claim_binder();
            tokio::spawn(async move { binder.remove(&left).await });
        }
        let useless = surroundings.devices.as_ref().and_then(|facts| to_give_back(&pod, self.cache.nodes(), facts));
        if let Some(claim) = useless.filter(|_| failure.refused_by.contains("DynamicResources")) {
            let binder = self.claim_binder();
            tokio::spawn(async move { binder.give_back(&claim).await });
        }
        let mut message = failure.message();
        let mut promised = None;
        if failure.total > 0 && profile.preemption.is_some() {
            let began = Instant::now();
            let found = self.preempt(&pod, &failure, surroundings, profile, told).await;
            self.metrics.ran("PostFilter", found.is_ok(), &profile.scheduler_name, began.elapsed());
            match found {
                Ok(found) => {
                    self.begin_preemption(&pod, &found);
                    promised = Some(found.node.clone());
                }
                Err(why) => {
                    if matches!(why, Hopeless::Leaving) {
                        self.wait_for_leaving(&pod);
                    }
                    message.push(' ');
                    message.push_str(&why.to_string());
                    if matches!(why, Hopeless::Nowhere(_)) && self.nominated.node_of(&pod.key).is_some() {
                        self.take_back_promise(&pod.key);
                        promised = Some(String::new());
                    }
                }
            }
        }
        self.metrics.queued("ScheduleAttemptFailure", 0, 0);
        self.queue.failed(taken, &failure.refused_by, Instant::now());
        if self.evictions.waits(&pod.key) {
            self.queue.hold(&pod.key);
        }
        tracing::debug!(waiting = self.queue.len(), refused_by = ?failure.refused_by, "a pod fits on no node");
        let executor = self.executor.clone();
        tokio::spawn(async move {
            executor.report_promised(&pod, "Unschedulable", &message, promised.as_deref()).await;
        });
    }

    /// Notes for whom a pod waits that others, or this scheduler in an earlier life, made leave the node that it was promised.
    fn wait_for_leaving(&mut self, pod: &PodInfo) {
        let node = self.nominated.node_of(&pod.key).and_then(|name| self.cache.node(name));
        let Some(node) = node.filter(|_| !self.evictions.knows(&pod.key)) else { return };
        let leaving: Vec<ObjectKey> =
            node.pods.iter().filter(|other| makes_room(other, pod)).map(|other| other.key.clone()).collect();
        self.evictions.begin(&pod.key, leaving.iter().cloned());
        for victim in leaving {
            self.evictions.leaving(&victim);
        }
    }

    /// Promises a node to a pod, and lets those go who have to; who matters less and was promised the node looks for another.
    fn begin_preemption(&mut self, pod: &Arc<PodInfo>, found: &Candidate) {
        for other in self.nominated.less_important(&found.node, pod.priority) {
            self.take_back_promise(&other.key);
            self.evictions.forget(&other.key);
            self.queue.wake_one(&other.key, Instant::now());
            let executor = self.executor.clone();
            tokio::spawn(async move { executor.take_back_promise(&other).await });
        }
        self.promise(pod.clone(), &found.node);
        self.evictions.begin(&pod.key, found.victims.iter().map(|victim| victim.key.clone()));
        let (leaving, staying): (Vec<_>, Vec<_>) =
            found.victims.iter().cloned().partition(|victim| victim.shape.is_terminating);
        for victim in leaving {
            self.evictions.leaving(&victim.key);
        }
        let (executor, pod, spared) = (self.executor.clone(), pod.clone(), self.spared.clone());
        let node = found.node.clone();
        tokio::spawn(async move {
            for victim in executor.preempt(&pod, &node, &staying).await {
                // The receiver only goes away with the scheduler itself.
                let _ = spared.send(victim);
            }
        });
    }

    /// The node from which others go so that the pod fits, or upstream's words about why there is none.
    async fn preempt(
        &self,
        pod: &PodInfo,
        failure: &Failure,
        surroundings: &Surroundings,
        profile: &Profile,
        told: Option<&mut Told>,
    ) -> Result<Arc<Candidate>, Hopeless> {
        if !may_preempt(pod) {
            return Err(Hopeless::Never);
        }
        if self.waits_for_victims(pod, failure) {
            return Err(Hopeless::Leaving);
        }
        let start = rand::rng().random_range(0..self.cache.nodes().len().max(1));
        let budgets = self.caches.budgets.list();
        let found = self.search(pod, profile, surroundings).candidates(failure, &budgets, start, told);
        let found = match found.is_empty() {
            true => Err(unhelpful_text(failure)),
            false => {
                let left = self.ask_extenders(pod, found).await;
                left.and_then(|left| cheapest(left).ok_or_else(|| NO_CANDIDATE.to_owned()))
            }
        };
        self.metrics.preempted(found.as_ref().map_or(0, |found| found.victims.len()));
        found.map_err(Hopeless::Nowhere)
    }

    /// The candidates that all extenders leave, with the victims that they name.
    async fn ask_extenders(&self, pod: &PodInfo, found: Vec<Arc<Candidate>>) -> Result<Vec<Arc<Candidate>>, String> {
        let asked = self.extenders.iter().filter(|extender| extender.preempts() && extender.is_interested(pod));
        let asked: Vec<&Extender> = asked.collect();
        if asked.is_empty() {
            return Ok(found);
        }
        let mut found: Vec<Candidate> = found.into_iter().map(Arc::unwrap_or_clone).collect();
        for extender in asked {
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
        Ok(found.into_iter().map(Arc::new).collect())
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

    /// Whether pods are already leaving the node that the pod was promised, or are about to; then it need only wait.
    fn waits_for_victims(&self, pod: &PodInfo, failure: &Failure) -> bool {
        let Some(at) = self.nominated.node_of(&pod.key).and_then(|node| self.cache.place_of(node)) else {
            return false;
        };
        let hopeless =
            failure.verdicts.iter().any(|(other, verdict)| *other == at && matches!(verdict, Verdict::Unresolvable(_)));
        let makes_room = |other: &Arc<PodInfo>| makes_room(other, pod);
        !hopeless && (self.evictions.waits(&pod.key) || self.cache.nodes()[at].pods.iter().any(makes_room))
    }
}

/// Whether a pod is on its way out because a scheduler wanted its place for one that matters more.
fn makes_room(pod: &PodInfo, important: &PodInfo) -> bool {
    pod.priority < important.priority && pod.is_leaving
}
