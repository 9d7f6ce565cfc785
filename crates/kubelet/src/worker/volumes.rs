//! The volumes of a pod: made before its containers, refreshed from time to time, complained about when they do not come.
//!
//! Invariant: what hangs in a mount does so in a task of its own; the pod can be ended meanwhile.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kedge_client::EventType;
use kedge_volumes::{MountedVolumes, VolumeError};
use tokio::time::Instant;

use super::Worker;
use crate::field_ref::Fields;
use crate::outside::Outside;
use crate::spec;

/// How old ConfigMaps and Secrets in volumes may become.
const AGE: Duration = Duration::from_secs(45);
/// After this time without its volumes, upstream says so about the pod as a whole.
const IN_TIME: Duration = Duration::from_secs(123);
const SHARED_AGE: Duration = Duration::from_secs(5);
/// Upstream's `podAttachAndMountTimeout`.
const PATIENCE: Duration = Duration::from_secs(123);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(122);

/// Where the volumes of a pod stand.
pub(super) struct PodVolumes {
    /// Where they lie, once they are all there.
    pub(super) mounted: Option<MountedVolumes>,
    /// What they show has changed.
    pub(super) stale: bool,
    /// When they were last made or tried.
    tried: Instant,
    retry: Duration,
    work: Outside<Result<MountedVolumes, VolumeProblem>>,
    /// Since when they are waited for, or were complained about.
    wanted: Instant,
}

impl PodVolumes {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { mounted: None, stale: false, tried: now, retry: FIRST_RETRY, work: Outside::default(), wanted: now }
    }

    /// How long until they are to be refreshed, where any is.
    pub(super) fn next_refresh(&self) -> Option<Duration> {
        let live = self.mounted.as_ref().is_some_and(|volumes| volumes.live);
        live.then(|| AGE.saturating_sub(self.tried.elapsed()))
    }
}

impl Worker {
    /// Makes the volumes, or refreshes them from time to time. How long to wait where that failed.
    pub(super) async fn set_up_volumes(&mut self) -> Option<Duration> {
        let due = self.volumes.stale || self.volumes.tried.elapsed() >= AGE;
        if self.volumes.mounted.as_ref().is_some_and(|volumes| !(volumes.live && due)) {
            return None;
        }
        // Several volumes of one object need one request.
        let age = if self.volumes.mounted.is_some() { SHARED_AGE } else { Duration::ZERO };
        // What hangs may have begun before the pod changed.
        self.volumes.stale = self.volumes.work.is_pending();
        let (agent, pod, ips) = (self.agent.clone(), self.pod.clone(), self.pod_ips());
        let work = move || async move {
            let fields = Fields { pod: &pod, node: agent.node_facts(&pod, &ips) };
            agent.volumes.set_up(&pod, &fields, age).await.map_err(VolumeProblem::from)
        };
        let result = self.volumes.work.run(PATIENCE, work).await;
        match result.unwrap_or_else(|| Err(hanging_volumes(&self.pod))) {
            Ok(mut mounted) => {
                for news in mounted.news.drain(..) {
                    let event_type = if news.warning { EventType::Warning } else { EventType::Normal };
                    self.agent.events.pod(&self.pod, event_type, news.reason, news.message);
                }
                self.agent.mounted.set(self.uid(), &mounted.paths);
                self.volumes.mounted = Some(mounted);
                self.volumes.tried = Instant::now();
                self.volumes.retry = FIRST_RETRY;
                None
            }
            Err(error) => {
                self.agent.events.pod(&self.pod, EventType::Warning, error.reason, error.message);
                if self.volumes.mounted.is_none() && self.volumes.wanted.elapsed() >= IN_TIME {
                    self.agent.events.pod(&self.pod, EventType::Warning, "FailedMount", error.timed_out);
                    self.volumes.wanted = Instant::now();
                }
                self.volumes.tried = Instant::now();
                let wait = self.volumes.retry;
                self.volumes.retry = (wait * 2).min(LONGEST_RETRY);
                // Volumes that were there once are good enough to go on with.
                self.volumes.mounted.is_none().then_some(wait)
            }
        }
    }
}

/// What is said about volumes that take too long.
// DIVERGES: upstream records no event for a timeout, and the pod waits without a word.
fn hanging_volumes(pod: &Pod) -> VolumeProblem {
    let mut names: Vec<&str> =
        spec::pod_spec(pod).volumes.iter().flatten().map(|volume| volume.name.as_str()).collect();
    names.sort_unstable();
    let message = format!(
        "Unable to attach or mount volumes: unmounted volumes=[{}], unattached volumes=[], failed to process volumes=[]: \
         context deadline exceeded",
        names.join(" ")
    );
    VolumeProblem { reason: "FailedMount", timed_out: message.clone(), message }
}

/// What is said about a volume that is not there.
struct VolumeProblem {
    reason: &'static str,
    message: String,
    /// After two minutes without it.
    timed_out: String,
}

impl From<VolumeError> for VolumeProblem {
    fn from(error: VolumeError) -> Self {
        Self { reason: error.reason(), message: error.to_string(), timed_out: error.timed_out() }
    }
}
