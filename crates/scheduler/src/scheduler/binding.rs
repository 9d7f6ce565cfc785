//! From a decision to a bound pod: claims and volumes first, then the binding itself, beside the loop.

use std::sync::Arc;

use k8s_openapi::api::resource::v1::ResourceClaim;
use tokio::time::Instant;

use super::Scheduler;
use crate::bind_claims::ClaimBinder;
use crate::bind_volumes::VolumeBinder;
use crate::framework::Surroundings;
use crate::metrics::Ended;
use crate::plugins::{ClaimPlan, PodVolumes, claim_plans, is_made_for, volumes_for};
use crate::profile::Profile;
use crate::queue::Taken;

/// How a binding ended.
pub(super) struct Binding {
    taken: Taken,
    volumes: PodVolumes,
    claims: Vec<ClaimPlan>,
    written: Vec<Arc<ResourceClaim>>,
    result: Result<(), String>,
    began: Instant,
}

impl Binding {
    /// Whether it waited for nothing but the API server.
    fn is_plain(&self) -> bool {
        self.volumes.is_empty() && self.claims.is_empty()
    }
}

impl Scheduler {
    /// Binds in the background: the pod's claims first, where they waited for its node.
    pub(super) fn bind(
        &mut self,
        taken: Taken,
        node: String,
        surroundings: &Surroundings,
        profile: &Profile,
        began: Instant,
    ) {
        let info = self.cache.node(&node);
        let volumes = info.map(|info| volumes_for(&taken.pod, info, surroundings)).unwrap_or_default();
        let devices = info.zip(surroundings.devices.as_ref());
        let claims = devices.map(|(info, facts)| claim_plans(&taken.pod, info, facts)).unwrap_or_default();
        self.take_back_promise(&taken.pod.key);
        self.evictions.forget(&taken.pod.key);
        self.reserved.add(&volumes, &node);
        self.promised.add(&claims);
        self.cache.assume(&node, taken.pod.clone());
        let (executor, finished) = (self.executor.clone(), self.finished.clone());
        let claim_binder = self.claim_binder();
        let binder = VolumeBinder {
            client: executor.client.clone(),
            pods: self.caches.pods.clone(),
            claims: self.caches.storage.claims.clone(),
            patience: profile.bind_timeout,
        };
        let extender =
            self.extenders.iter().find(|extender| extender.binds() && extender.is_interested(&taken.pod)).cloned();
        let metrics = self.metrics.clone();
        self.in_flight += usize::from(volumes.is_empty() && claims.is_empty());
        tokio::spawn(async move {
            let mut written = Vec::new();
            let work = async {
                claim_binder.bind(&taken.pod, &node, &claims, &mut written).await?;
                if !volumes.is_empty() {
                    binder.bind(&taken.pod, &node, &volumes).await?;
                }
                let asked = Instant::now();
                let bound = match extender {
                    Some(extender) => extender.bind(&taken.pod, &node).await,
                    None => executor.bind(&taken.pod, &node).await.map_err(|error| error.to_string()),
                };
                metrics.asked_to_bind(bound.is_ok(), taken.pod.scheduler_name(), asked.elapsed());
                bound?;
                executor.report_scheduled(&taken.pod, &node);
                Ok(())
            };
            let result: Result<(), String> = work.await;
            if result.is_err() {
                claim_binder.unreserve(&taken.pod, &written).await;
                // Those are gone, and so is what they were promised.
                written.retain(|claim| !is_made_for(claim, &taken.pod));
            }
            // The receiver only goes away with the scheduler itself.
            let _ = finished.send(Binding { taken, volumes, claims, written, result, began }).await;
        });
    }

    pub(super) fn claim_binder(&self) -> ClaimBinder {
        ClaimBinder {
            client: self.executor.client.clone(),
            claims: self.caches.devices.claims.clone(),
            recorder: self.executor.recorder.clone(),
            clock: self.executor.clock.clone(),
            metrics: self.metrics.clone(),
        }
    }

    pub(super) fn take_in_binding(&mut self, binding: Binding) {
        self.in_flight = self.in_flight.saturating_sub(usize::from(binding.is_plain()));
        self.reserved.remove(&binding.volumes);
        self.promised.settle(&binding.claims, &binding.written);
        let ended = if binding.result.is_ok() { Ended::Scheduled } else { Ended::Error };
        self.metrics.attempted(binding.taken.pod.scheduler_name(), ended, binding.began.elapsed());
        let Err(why) = binding.result else {
            return self.metrics.bound(binding.taken.attempts, binding.taken.first_attempt.elapsed());
        };
        let pod = binding.taken.pod.clone();
        self.forget(&pod.key);
        let now = self.caches.pods.get(&pod.key);
        if now.is_none_or(|now| now.metadata.uid != pod.pod().metadata.uid || now.metadata.deletion_timestamp.is_some())
        {
            return;
        }
        tracing::warn!(pod = %pod.key, why, "a pod could not be bound; it is tried again");
        self.metrics.queued("ScheduleAttemptFailure", 0, 1);
        self.queue.retry(binding.taken, Instant::now());
        let executor = self.executor.clone();
        tokio::spawn(async move { executor.report_unscheduled(&pod, "SchedulerError", &why).await });
    }
}
