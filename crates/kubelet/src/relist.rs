//! The runtime's state of every pod, kept fresh by listing, because containerd 1.6 tells nobody what changes.
//!
//! It decides nothing. Invariant: a record that is stored comes from a listing that began later than that of the record it
//! replaces.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kedge_cri::{CriError, Runtime, v1};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::labels;
use crate::runtime_state::{
    ContainerPhase, ContainerRecord, PodRuntime, SandboxRecord, container_record, sandbox_record,
};
use crate::termination_message;

struct Entry {
    began: u64,
    state: Arc<PodRuntime>,
}

/// The state of all pods.
pub(crate) struct RuntimeCache {
    runtime: Runtime,
    /// Whether the first of a pod's addresses is that of IPv6, as it is with the node's.
    ipv6_first: bool,
    listings: AtomicU64,
    entries: Mutex<HashMap<String, Entry>>,
    listed: Mutex<Option<Instant>>,
}

impl RuntimeCache {
    pub(crate) fn new(runtime: Runtime, ipv6_first: bool) -> Self {
        Self { runtime, ipv6_first, listings: AtomicU64::new(0), entries: Mutex::default(), listed: Mutex::default() }
    }

    /// The last known state of a pod.
    pub(crate) fn get(&self, uid: &str) -> Arc<PodRuntime> {
        self.entries.lock().get(uid).map(|entry| entry.state.clone()).unwrap_or_default()
    }

    /// The pods that the runtime has anything of.
    pub(crate) fn uids(&self) -> Vec<String> {
        self.entries.lock().keys().cloned().collect()
    }

    /// When a listing of everything last succeeded.
    pub(crate) fn last_listed(&self) -> Option<Instant> {
        *self.listed.lock()
    }

    /// Lists everything; the pods whose state changed.
    pub(crate) async fn relist(&self) -> Result<Vec<String>, CriError> {
        let began = self.listings.fetch_add(1, Ordering::Relaxed) + 1;
        let sandboxes = self.runtime.list_pod_sandboxes(None).await?;
        let containers = self.runtime.list_containers(None).await?;
        let mut seen: HashMap<&str, BTreeSet<(&str, i32)>> = HashMap::new();
        for sandbox in &sandboxes {
            if let Some(uid) = sandbox.labels.get(labels::POD_UID) {
                seen.entry(uid).or_default().insert((&sandbox.id, sandbox.state));
            }
        }
        for container in &containers {
            if let Some(uid) = container.labels.get(labels::POD_UID) {
                seen.entry(uid).or_default().insert((&container.id, container.state));
            }
        }
        let mut changed: Vec<String> =
            seen.iter().filter(|(uid, ids)| !same(&self.get(uid), ids)).map(|(uid, _)| (*uid).to_owned()).collect();
        let gone: Vec<String> = self.uids().into_iter().filter(|uid| !seen.contains_key(uid.as_str())).collect();
        for uid in &changed {
            let of = |labels: &HashMap<String, String>| labels.get(labels::POD_UID) == Some(uid);
            let sandboxes = sandboxes.iter().filter(|sandbox| of(&sandbox.labels)).cloned().collect();
            let containers = containers.iter().filter(|container| of(&container.labels)).cloned().collect();
            let state = self.inspect(uid, sandboxes, containers).await?;
            self.store(uid, began, state);
        }
        let mut entries = self.entries.lock();
        for uid in gone {
            if entries.get(&uid).is_some_and(|entry| entry.began < began) {
                entries.remove(&uid);
                changed.push(uid);
            }
        }
        drop(entries);
        *self.listed.lock() = Some(Instant::now());
        Ok(changed)
    }

    /// Reads one pod anew.
    pub(crate) async fn refresh(&self, uid: &str) -> Result<Arc<PodRuntime>, CriError> {
        let began = self.listings.fetch_add(1, Ordering::Relaxed) + 1;
        let selector = HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
        let sandboxes = v1::PodSandboxFilter { label_selector: selector.clone(), ..Default::default() };
        let containers = v1::ContainerFilter { label_selector: selector, ..Default::default() };
        let sandboxes = self.runtime.list_pod_sandboxes(Some(sandboxes)).await?;
        let containers = self.runtime.list_containers(Some(containers)).await?;
        let state = self.inspect(uid, sandboxes, containers).await?;
        Ok(self.store(uid, began, state))
    }

    /// Reads one container anew whose phase is the same but whose resources are not.
    pub(crate) async fn reread(&self, uid: &str, id: &str) -> Result<(), CriError> {
        let status = self.runtime.container_status(id, false).await?.status;
        let fresh = status.and_then(|status| status.resources).and_then(|resources| resources.linux);
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(uid) else { return Ok(()) };
        let state = Arc::make_mut(&mut entry.state);
        if let Some(record) = state.containers.iter_mut().find(|record| record.id == id) {
            record.resources = fresh;
        }
        Ok(())
    }

    fn store(&self, uid: &str, began: u64, state: PodRuntime) -> Arc<PodRuntime> {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get(uid).filter(|entry| entry.began > began) {
            return entry.state.clone();
        }
        let state = Arc::new(state);
        if state.sandboxes.is_empty() && state.containers.is_empty() {
            entries.remove(uid);
        } else {
            entries.insert(uid.to_owned(), Entry { began, state: state.clone() });
        }
        state
    }

    /// Asks for details only where something changed since the last time.
    async fn inspect(
        &self,
        uid: &str,
        sandboxes: Vec<v1::PodSandbox>,
        containers: Vec<v1::Container>,
    ) -> Result<PodRuntime, CriError> {
        let known = self.get(uid);
        let mut state = PodRuntime { uid: uid.to_owned(), ..PodRuntime::default() };
        let labels = sandboxes.first().map(|sandbox| &sandbox.labels).or(containers.first().map(|c| &c.labels));
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).cloned().unwrap_or_default();
        state.name = label(labels::POD_NAME);
        state.namespace = label(labels::POD_NAMESPACE);
        for sandbox in sandboxes {
            let cached = known.sandboxes.iter().find(|record| record.id == sandbox.id);
            state.sandboxes.extend(self.sandbox(&sandbox, cached).await?);
        }
        for container in containers {
            let cached = known.containers.iter().find(|record| record.id == container.id);
            state.containers.extend(self.container(&container, cached).await?);
        }
        state.sort();
        Ok(state)
    }

    async fn sandbox(
        &self,
        sandbox: &v1::PodSandbox,
        cached: Option<&SandboxRecord>,
    ) -> Result<Option<SandboxRecord>, CriError> {
        let ready = sandbox.state == v1::PodSandboxState::SandboxReady as i32;
        if let Some(cached) = cached
            && cached.ready == ready
            && (!ready || cached.host_network || !cached.ips.is_empty())
        {
            return Ok(Some(cached.clone()));
        }
        match self.runtime.pod_sandbox_status(&sandbox.id, false).await {
            Ok(response) => Ok(response.status.as_ref().map(|status| sandbox_record(status, self.ipv6_first))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn container(
        &self,
        container: &v1::Container,
        cached: Option<&ContainerRecord>,
    ) -> Result<Option<ContainerRecord>, CriError> {
        if let Some(cached) = cached.filter(|cached| cached.phase == ContainerPhase::from_cri(container.state)) {
            return Ok(Some(cached.clone()));
        }
        let status = match self.runtime.container_status(&container.id, false).await {
            Ok(response) => response.status,
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let Some(status) = status else { return Ok(None) };
        let mut record = container_record(&status, &container.pod_sandbox_id);
        if record.phase == ContainerPhase::Exited {
            let path = status.mounts.iter().find(|mount| mount.container_path == record.notes.termination_message_path);
            let file = path.map(|mount| Path::new(&mount.host_path));
            let message = termination_message::read(file, &record);
            if let Some(message) = message {
                record.message = message;
            }
        }
        Ok(Some(record))
    }
}

fn same(state: &PodRuntime, ids: &BTreeSet<(&str, i32)>) -> bool {
    let sandbox_state = |sandbox: &SandboxRecord| match sandbox.ready {
        true => v1::PodSandboxState::SandboxReady as i32,
        false => v1::PodSandboxState::SandboxNotready as i32,
    };
    let known: BTreeSet<(&str, i32)> = state
        .sandboxes
        .iter()
        .map(|sandbox| (sandbox.id.as_str(), sandbox_state(sandbox)))
        .chain(state.containers.iter().map(|container| (container.id.as_str(), cri_state(container.phase))))
        .collect();
    known == *ids
}

fn cri_state(phase: ContainerPhase) -> i32 {
    match phase {
        ContainerPhase::Created => v1::ContainerState::ContainerCreated as i32,
        ContainerPhase::Running => v1::ContainerState::ContainerRunning as i32,
        ContainerPhase::Exited => v1::ContainerState::ContainerExited as i32,
        ContainerPhase::Unknown => v1::ContainerState::ContainerUnknown as i32,
    }
}
