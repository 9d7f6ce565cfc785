//! What nobody owns any more: containers, sandboxes, directories, logs and cgroups of pods that no source knows.
//!
//! Invariant: nothing is touched before every source of pods was read.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;

use super::Manager;
use crate::agent::Agent;
use crate::image_volumes;
use crate::kill;
use crate::runtime_state::PodRuntime;

/// Orphans that are being ended, by uid.
#[derive(Clone, Default)]
pub(super) struct Orphans(Arc<Mutex<HashSet<String>>>);

impl Manager {
    /// One round; what takes time runs in tasks of its own.
    pub(super) fn housekeeping(&mut self) {
        let agent = self.agent.clone();
        let known: HashSet<String> = self.workers.keys().cloned().collect();
        let states: Vec<Arc<PodRuntime>> = agent.states.uids().iter().map(|uid| agent.states.get(uid)).collect();
        let containers: HashSet<String> =
            states.iter().flat_map(|state| state.containers.iter().map(|container| container.id.clone())).collect();
        agent.probes.retain(|id| containers.contains(id));
        agent.restarts.lock().collect(agent.now());
        self.reconcile_mirrors();
        self.reconsider_resizes();
        let pods: Vec<Arc<Pod>> = self.workers.values().map(|worker| worker.desired.borrow().pod.clone()).collect();
        agent.cgroups.share_between_classes(pods.iter().map(Arc::as_ref));
        if !(self.api_synced && self.static_scanned) {
            return;
        }
        for state in states.iter().filter(|state| !known.contains(&state.uid)) {
            if self.orphans.0.lock().insert(state.uid.clone()) {
                tokio::spawn(end_orphan(agent.clone(), state.clone(), self.orphans.clone()));
            }
        }
        let (devices, with_worker) = (agent.devices.clone(), known.clone());
        tokio::spawn(async move { devices.retain(&with_worker).await });
        let mut alive = known;
        alive.extend(states.iter().map(|state| state.uid.clone()));
        // Looked up here, as no pod can come before this function is left.
        let orphans: Vec<String> =
            agent.volumes.dirs().pod_uids().into_iter().filter(|uid| !alive.contains(uid)).collect();
        // What another life of the node agent left is looked for once.
        let looks_for_views = !std::mem::replace(&mut self.views_swept, true) || !orphans.is_empty();
        let sweeper = agent.clone();
        tokio::spawn(async move {
            sweeper.volumes.remove_orphans(orphans).await;
            if looks_for_views {
                image_volumes::sweep(&sweeper).await;
            }
        });
        tokio::task::spawn_blocking(move || sweep(&agent, &alive));
    }
}

/// Ends a pod of which only the runtime knows.
async fn end_orphan(agent: Arc<Agent>, state: Arc<PodRuntime>, orphans: Orphans) {
    tracing::info!(pod = state.name, namespace = state.namespace, uid = state.uid, "ending a pod that no source knows");
    let pod = stand_in(&state);
    let grace = state.containers.iter().filter_map(|container| container.notes.termination_grace_seconds).max();
    let grace = Duration::from_secs(grace.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(30));
    let ended = async {
        kill::kill_containers(&agent, &pod, &state, grace, false).await?;
        let state = agent.states.refresh(&state.uid).await?;
        kill::remove_all(&agent, &state).await?;
        agent.states.refresh(&state.uid).await
    };
    if let Err(error) = ended.await {
        tracing::warn!(uid = state.uid, %error, "failed to end an orphaned pod; the next round tries again");
    }
    orphans.0.lock().remove(&state.uid);
}

/// Enough of a Pod for events and grace periods.
fn stand_in(state: &PodRuntime) -> Pod {
    let containers =
        state.containers.iter().map(|record| Container { name: record.name.clone(), ..Container::default() });
    Pod {
        metadata: ObjectMeta {
            name: Some(state.name.clone()),
            namespace: Some(state.namespace.clone()),
            uid: Some(state.uid.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec { containers: containers.collect(), ..PodSpec::default() }),
        status: None,
    }
}

/// Removes logs and cgroups of pods that are not alive.
fn sweep(agent: &Agent, alive: &HashSet<String>) {
    for entry in std::fs::read_dir(&agent.config.pod_logs_dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let uid = name.rsplit('_').next().unwrap_or_default();
        // Only what looks like a pod's log directory.
        if name.split('_').count() == 3
            && !alive.contains(uid)
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(uid, %error, "failed to remove the logs of a pod that is gone");
        }
    }
    crate::log_links::remove_dangling(&agent.config);
    agent.cgroups.remove_orphans(&|uid| alive.contains(uid));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime_state::ContainerPhase;
    use crate::runtime_state::fixtures::{container, runtime};
    use crate::spec;

    #[test]
    fn an_orphan_has_a_name_for_its_events() {
        let pod = stand_in(&runtime(vec![], vec![container("a", ContainerPhase::Running, 0)]));
        assert_eq!(spec::format_pod(&pod), "pod_ns(uid)");
        assert_eq!(spec::container_reference(&pod, "a").field_path.as_deref(), Some("spec.containers{a}"));
    }
}
