//! Device plug-ins: what they have, and which container of which pod has which of it.
//!
//! Invariants: a device is given to one container, or handed on within a pod from containers that run before others;
//! only healthy devices are given; what was given is noted on disk before the container can start.

mod choose;
mod endpoint;
mod registry;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::checkpoint::Checkpoint;
use crate::claims::is_claimed;
use crate::edits::Edits;
use crate::v1::{ContainerAllocateResponse, DevicePluginOptions, PluginDevice};
use choose::{asked, choose};
use endpoint::Endpoint;
pub(crate) use registry::serve;

/// How long a plug-in that is gone keeps its place in the node's capacity.
const GRACE: Duration = Duration::from_secs(300);

/// What one container was given of one resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Given {
    ids: BTreeSet<String>,
    answer: ContainerAllocateResponse,
}

/// By container and resource.
type GivenToPod = BTreeMap<String, BTreeMap<String, Given>>;

/// What is kept on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// By pod uid.
    given: BTreeMap<String, GivenToPod>,
    resources: BTreeSet<String>,
}

/// A resource of a plug-in.
#[derive(Default)]
struct Resource {
    /// Whether each device is healthy.
    devices: BTreeMap<String, bool>,
    endpoint: Option<Endpoint>,
    /// Tells the streams of earlier registrations from the current one.
    registration: u64,
    gone_since: Option<Instant>,
}

#[derive(Default)]
struct State {
    resources: BTreeMap<String, Resource>,
    given: BTreeMap<String, GivenToPod>,
}

/// All plug-ins of the node.
pub(crate) struct DevicePlugins {
    directory: PathBuf,
    checkpoint: Checkpoint,
    state: Mutex<State>,
    /// One pod is given devices at a time.
    giving: tokio::sync::Mutex<()>,
    /// The node's amounts changed.
    changed: Arc<Notify>,
}

impl DevicePlugins {
    pub(crate) fn new(root: &Path, changed: Arc<Notify>) -> Self {
        let directory = root.join("device-plugins");
        let checkpoint = Checkpoint::new(directory.join("kubelet_internal_checkpoint"));
        let kept: Kept = checkpoint.load();
        let resources = kept.resources.into_iter().map(|name| (name, Resource::default())).collect();
        let state = Mutex::new(State { resources, given: kept.given });
        Self { directory, checkpoint, state, giving: tokio::sync::Mutex::default(), changed }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A plug-in was registered: what was known of its devices waits for its word. The number of the registration.
    fn register(&self, resource: &str, endpoint: Endpoint) -> u64 {
        let number = {
            let mut state = self.state.lock();
            let known = state.resources.entry(resource.to_owned()).or_default();
            known.registration += 1;
            known.endpoint = Some(endpoint);
            known.gone_since = None;
            known.registration
        };
        tracing::info!(resource, "a device plug-in is registered");
        number
    }

    /// A plug-in says what it has.
    fn update(&self, resource: &str, registration: u64, devices: Vec<PluginDevice>) {
        let mut state = self.state.lock();
        let Some(known) = state.resources.get_mut(resource) else { return };
        if known.registration != registration {
            return;
        }
        known.devices = devices.into_iter().map(|device| (device.id, device.health == "Healthy")).collect();
        drop(state);
        self.keep();
        self.changed.notify_one();
    }

    /// A plug-in's stream has ended: none of its devices is known to be healthy.
    fn gone(&self, resource: &str, registration: u64) {
        let mut state = self.state.lock();
        let Some(known) = state.resources.get_mut(resource) else { return };
        if known.registration != registration {
            return;
        }
        known.devices.values_mut().for_each(|healthy| *healthy = false);
        known.endpoint = None;
        known.gone_since = Some(Instant::now());
        drop(state);
        tracing::info!(resource, "a device plug-in is gone");
        self.changed.notify_one();
    }

    /// What the node has, and what of it can be used, by resource.
    pub(crate) fn amounts(&self) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
        let mut state = self.state.lock();
        for known in state.resources.values_mut() {
            if known.gone_since.is_some_and(|since| since.elapsed() > GRACE) {
                // It stays with nothing, so that the node's object shows that there is none.
                known.devices.clear();
            }
        }
        let count = |of: fn(&Resource) -> usize| {
            state.resources.iter().map(|(name, known)| (name.clone(), of(known))).collect::<BTreeMap<_, _>>()
        };
        let healthy = |known: &Resource| known.devices.values().filter(|healthy| **healthy).count();
        (count(|known| known.devices.len()), count(healthy))
    }

    /// The healthy devices of each resource.
    pub(crate) fn healthy(&self) -> impl Iterator<Item = (String, Vec<String>)> {
        let state = self.state.lock();
        let ids = |known: &Resource| {
            known.devices.iter().filter(|(_, healthy)| **healthy).map(|(id, _)| id.clone()).collect()
        };
        let all: Vec<(String, Vec<String>)> =
            state.resources.iter().map(|(name, known)| (name.clone(), ids(known))).collect();
        all.into_iter().filter(|(_, ids)| !ids.is_empty())
    }

    /// What a container was given, by resource.
    pub(crate) fn given(&self, pod: &str, container: &str) -> Vec<(String, Vec<String>)> {
        let state = self.state.lock();
        let given = state.given.get(pod).and_then(|given| given.get(container));
        let of_resource = |(name, given): (&String, &Given)| (name.clone(), given.ids.iter().cloned().collect());
        given.into_iter().flatten().map(of_resource).collect()
    }

    fn keep(&self) {
        let kept = {
            let state = self.state.lock();
            Kept { given: state.given.clone(), resources: state.resources.keys().cloned().collect() }
        };
        if let Err(error) = self.checkpoint.save(&kept) {
            tracing::error!(error, "what containers were given of devices could not be noted");
        }
    }

    /// Gives a pod's containers the devices that they ask for; all of them or none. Safe to repeat.
    pub(crate) async fn allocate(&self, pod: &Pod) -> Result<(), String> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let Some(spec) = pod.spec.as_ref() else { return Ok(()) };
        let _giving = self.giving.lock().await;
        if self.state.lock().given.contains_key(&uid) {
            return Ok(());
        }
        let mut reusable: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let inits = spec.init_containers.iter().flatten();
        let ends = |container: &Container| container.restart_policy.as_deref() != Some("Always");
        let all = inits.map(|init| (init, ends(init))).chain(spec.containers.iter().map(|one| (one, false)));
        for (container, ends_first) in all {
            let asked = asked(container).into_iter().filter(|(resource, _)| !is_claimed(pod, container, resource));
            for (resource, count) in asked {
                let of_pod = reusable.entry(resource.clone()).or_default();
                match self.give(&uid, container, &resource, count, of_pod).await {
                    Err(why) => {
                        self.state.lock().given.remove(&uid);
                        return Err(why);
                    }
                    Ok(ids) if ends_first => of_pod.extend(ids),
                    Ok(ids) => of_pod.retain(|id| !ids.contains(id)),
                }
            }
        }
        if self.state.lock().given.contains_key(&uid) {
            self.keep();
        }
        Ok(())
    }

    /// Gives one container its devices of one resource. Resources that no plug-in has are none of ours.
    async fn give(
        &self,
        uid: &str,
        container: &Container,
        resource: &str,
        count: usize,
        reusable: &BTreeSet<String>,
    ) -> Result<BTreeSet<String>, String> {
        let (choice, endpoint) = {
            let state = self.state.lock();
            let Some(known) = state.resources.get(resource) else { return Ok(BTreeSet::new()) };
            let healthy: BTreeSet<String> =
                known.devices.iter().filter(|(_, healthy)| **healthy).map(|(id, _)| id.clone()).collect();
            let all = state.given.values().flat_map(BTreeMap::values).filter_map(|given| given.get(resource));
            let in_use: BTreeSet<String> = all.flat_map(|given| given.ids.iter().cloned()).collect();
            (choose(resource, &healthy, &in_use, reusable, count)?, known.endpoint.clone())
        };
        let endpoint = endpoint.ok_or_else(|| format!("cannot allocate unregistered device {resource}"))?;
        let preferred = match choice.is_open() {
            true => endpoint.preferred(&choice, count).await?,
            false => Vec::new(),
        };
        let ids = choice.settle(&preferred);
        let answer = endpoint.allocate(&ids).await?;
        let mut state = self.state.lock();
        let of_container = state.given.entry(uid.to_owned()).or_default().entry(container.name.clone()).or_default();
        of_container.insert(resource.to_owned(), Given { ids: ids.clone(), answer });
        Ok(ids)
    }

    /// What a container's devices change about it; plug-ins that want to know of its start are told.
    pub(crate) async fn container(&self, pod: &str, container: &str) -> Result<Edits, String> {
        let given = {
            let state = self.state.lock();
            let given = state.given.get(pod).and_then(|given| given.get(container)).cloned().unwrap_or_default();
            let with_endpoint = |(resource, given): (String, Given)| {
                let endpoint = state.resources.get(&resource).and_then(|known| known.endpoint.clone());
                (resource, given, endpoint)
            };
            given.into_iter().map(with_endpoint).collect::<Vec<_>>()
        };
        let mut edits = Edits::default();
        for (resource, given, endpoint) in given {
            if let Some(endpoint) = endpoint {
                let started = endpoint.pre_start(&given.ids).await;
                started.map_err(|error| {
                    format!("device plugin PreStartContainer rpc failed with err: {error} ({resource})")
                })?;
            }
            edits.merge(Edits::of_plugin(&given.answer));
        }
        Ok(edits)
    }

    /// Takes back what a pod had.
    pub(crate) fn free(&self, pod: &str) {
        if self.state.lock().given.remove(pod).is_some() {
            self.keep();
        }
    }

    /// Takes back what pods had that no source knows any more.
    pub(crate) fn retain(&self, active: &HashSet<String>) {
        let gone: Vec<String> = {
            let state = self.state.lock();
            state.given.keys().filter(|pod| !active.contains(*pod)).cloned().collect()
        };
        gone.iter().for_each(|pod| self.free(pod));
    }
}

/// Takes a plug-in in and follows it until it is gone.
pub(crate) async fn attend(
    plugins: Arc<DevicePlugins>,
    resource: String,
    socket: PathBuf,
    options: DevicePluginOptions,
) {
    let endpoint = Endpoint::new(&socket, options);
    let registration = plugins.register(&resource, endpoint.clone());
    let mut stream = match endpoint.watch().await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::error!(resource, %error, "listAndWatch ended unexpectedly for device plugin");
            return plugins.gone(&resource, registration);
        }
    };
    loop {
        match stream.message().await {
            Ok(Some(list)) => plugins.update(&resource, registration, list.devices),
            Ok(None) => break,
            Err(error) => {
                tracing::info!(resource, %error, "a device plug-in's stream has ended");
                break;
            }
        }
    }
    plugins.gone(&resource, registration);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(list: &[(&str, &str)]) -> Vec<PluginDevice> {
        let one = |(id, health): &(&str, &str)| PluginDevice {
            id: (*id).to_owned(),
            health: (*health).to_owned(),
            topology: None,
        };
        list.iter().map(one).collect()
    }

    fn shown(plugins: &DevicePlugins) -> (usize, usize) {
        let (capacity, allocatable) = plugins.amounts();
        (capacity["example.com/x"], allocatable["example.com/x"])
    }

    #[tokio::test]
    async fn plug_ins_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let plugins = DevicePlugins::new(directory.path(), Arc::default());
        let endpoint = || Endpoint::new(Path::new("/nowhere"), DevicePluginOptions::default());
        let first = plugins.register("example.com/x", endpoint());
        plugins.update("example.com/x", first, devices(&[("a", "Healthy"), ("b", "Unhealthy"), ("c", "Healthy")]));
        assert_eq!(shown(&plugins), (3, 2));
        let second = plugins.register("example.com/x", endpoint());
        plugins.gone("example.com/x", first);
        assert_eq!(shown(&plugins), (3, 2), "the end of an earlier registration is no news");
        plugins.update("example.com/x", second, devices(&[("a", "Healthy")]));
        plugins.gone("example.com/x", second);
        assert_eq!(shown(&plugins), (1, 0));
        let again = DevicePlugins::new(directory.path(), Arc::default());
        assert_eq!(shown(&again), (0, 0), "after a restart, there is nothing until the plug-in registers again");
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {"uid": "1"}, "spec": {"containers": [
            {"name": "c", "resources": {"limits": {"example.com/x": "1"}}}]}}))
        .unwrap();
        let text = "no healthy devices present; cannot allocate unhealthy devices example.com/x";
        assert_eq!(again.allocate(&pod).await, Err(text.to_owned()));
    }
}
