//! The end of a pod: containers, sandbox, volumes, cgroup, the API object, and in the end its files.
//!
//! Every step is safe to repeat. Invariant: the last status is written before the API object is deleted, and the object
//! goes only after nothing of the pod runs any more.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kedge_client::EventType;

use super::{Desired, Worker};
use crate::device_work;
use crate::image_volumes;
use crate::kill;
use crate::outside;
use crate::spec;

const RETRY: Duration = Duration::from_secs(1);
/// As long as upstream waits between two attempts for a volume.
const LONGEST_RETRY: Duration = Duration::from_secs(122);

impl Worker {
    /// Ends the pod, and returns when nothing is left of it and no source has it any more.
    pub(super) async fn end(mut self) {
        self.probes.stop_killing();
        self.publish(false);
        self.stop_everything().await;
        self.probes.stop();
        device_work::give_back(&self.agent, &self.pod).await;
        self.publish(true);
        self.tear_down_volumes().await;
        self.agent.cgroups.remove(&self.pod);
        loop {
            let desired = self.desired.borrow_and_update().clone();
            self.pod = self.agent.allocations.granted(&desired.pod);
            if desired.removed {
                break;
            }
            if self.pod.metadata.deletion_timestamp.is_some() && !spec::is_static(&self.pod) {
                self.agent.statuses.finish(self.pod.clone());
            }
            if self.desired.changed().await.is_err() {
                return;
            }
        }
        self.agent.statuses.forget(spec::uid(&self.pod));
        self.remove_files().await;
    }

    async fn stop_everything(&mut self) {
        let mut hooks = true;
        loop {
            if let Err(error) = self.refresh().await {
                tracing::warn!(pod = spec::format_pod(&self.pod), %error, "failed to read the state of a pod that is to end");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            self.publish(false);
            let state = self.agent.states.get(self.uid());
            if !state.any_running() {
                match kill::stop_sandboxes(&self.agent, &state).await {
                    Ok(()) => break,
                    Err(error) => self.report(&error.to_string()),
                }
                tokio::time::sleep(RETRY).await;
                continue;
            }
            let grace = self.grace_of(&self.pod);
            let pod = self.pod.clone();
            let mut watcher = self.desired.clone();
            let shortened = async {
                let shorter = |desired: &Desired| grace_of(desired, &desired.pod) < grace;
                // The manager goes only with the whole process.
                let _ = watcher.wait_for(shorter).await;
            };
            let killed = tokio::select! {
                killed = kill::kill_containers(&self.agent, &pod, &state, grace, hooks) => killed,
                () = shortened => Ok(()),
            };
            hooks = false;
            let desired = self.desired.borrow_and_update().clone();
            self.pod = self.agent.allocations.granted(&desired.pod);
            if let Err(error) = killed {
                self.report(&error.to_string());
                tokio::time::sleep(RETRY).await;
            }
        }
        if self.refresh().await.is_err() {
            tracing::debug!(pod = spec::format_pod(&self.pod), "the last state of a pod is not known");
        }
    }

    fn grace_of(&self, pod: &Pod) -> Duration {
        grace_of(&self.desired.borrow(), pod)
    }

    fn report(&self, error: &str) {
        self.agent.events.pod(&self.pod, EventType::Warning, "FailedKillPod", format!("error killing pod: {error}"));
    }

    async fn tear_down_volumes(&self) {
        let mut pause = RETRY;
        // The pod's object stays until its volumes are down, so that nobody else gets them too early.
        loop {
            let (volumes, uid) = (self.agent.volumes.clone(), self.uid().to_owned());
            let result = outside::spawn(move || async move { volumes.tear_down(&uid).await }).await;
            match result {
                Ok(Err(error)) => {
                    tracing::warn!(pod = spec::format_pod(&self.pod), %error, "failed to take down the pod's volumes");
                }
                _ if image_volumes::release(&self.agent, &self.pod).await => return,
                _ => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_RETRY);
        }
    }

    async fn remove_files(&self) {
        let state = self.agent.states.get(self.uid());
        while let Err(error) = kill::remove_all(&self.agent, &state).await {
            tracing::warn!(pod = spec::format_pod(&self.pod), %error, "failed to remove the pod's containers");
            tokio::time::sleep(RETRY).await;
        }
        if self.refresh().await.is_err() {
            tracing::debug!(pod = spec::format_pod(&self.pod), "the state of a removed pod is not known");
        }
        let config = &self.agent.config;
        let logs = config.pod_log_dir(spec::namespace(&self.pod), spec::name(&self.pod), self.uid());
        let (volumes, uid) = (self.agent.volumes.clone(), self.uid().to_owned());
        let removed = outside::spawn(move || async move {
            volumes.remove_pod(&uid).await?;
            match std::fs::remove_dir_all(logs) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok::<(), kedge_volumes::TearDownError>(()),
            }
        });
        if let Ok(Err(error)) = removed.await {
            tracing::warn!(pod = spec::format_pod(&self.pod), %error, "failed to remove the pod's files; housekeeping tries again");
        }
        self.agent.pull_history.lock().forget(self.uid());
        self.agent.allocations.forget(self.uid());
    }
}

/// A pod that vanished from its source without a deletion gets its own grace period; the node may allow less.
fn grace_of(desired: &Desired, pod: &Pod) -> Duration {
    let forced = desired.removed && pod.metadata.deletion_grace_period_seconds == Some(0);
    let own = if forced { 0 } else { u64::try_from(spec::termination_grace_seconds(pod)).unwrap_or(0) };
    let own = Duration::from_secs(own);
    desired.termination.as_ref().map_or(own, |termination| own.min(termination.grace))
}
