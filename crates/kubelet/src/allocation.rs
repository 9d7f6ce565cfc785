//! What the node has granted to each pod, and what of it is in force: the memory of in-place resizes.
//!
//! It decides nothing and touches no cgroup. Invariants: a pod keeps what was granted until something else is granted,
//! also over a restart of the kubelet; what is in force is recorded only after the runtime took it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::resize::same_resources;
use crate::spec;

const FILE: &str = "allocation.json";

/// Requests and limits of a pod and of those of its containers that can be resized.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodResources {
    /// Of the pod as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<ResourceRequirements>,
    /// By container name.
    pub(crate) containers: BTreeMap<String, ResourceRequirements>,
}

impl PodResources {
    fn of(pod: &Pod) -> Self {
        let containers = resizable(pod).map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default()));
        Self { pod: spec::pod_spec(pod).resources.clone(), containers: containers.collect() }
    }

    /// The pod with these resources in the place of its own; what is not known here stays.
    pub(crate) fn overlay(&self, pod: &Pod) -> Pod {
        let mut pod = pod.clone();
        let Some(pod_spec) = pod.spec.as_mut() else { return pod };
        if self.pod.is_some() {
            pod_spec.resources.clone_from(&self.pod);
        }
        for container in pod_spec.containers.iter_mut().chain(pod_spec.init_containers.iter_mut().flatten()) {
            if let Some(known) = self.containers.get(&container.name) {
                container.resources = Some(known.clone());
            }
        }
        pod
    }
}

/// A resize that is not granted, or one that is granted and not in force everywhere: reason and message as its condition
/// has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResizeNote {
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Of the pod that asked for it.
    pub(crate) generation: Option<i64>,
}

/// Both notes of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResizeState {
    pub(crate) pending: Option<ResizeNote>,
    pub(crate) in_progress: Option<ResizeNote>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    allocated: PodResources,
    actuated: PodResources,
    #[serde(skip)]
    state: ResizeState,
}

/// The grants of all pods, each also in a file of its pod's directory.
pub(crate) struct Allocations {
    pods_dir: PathBuf,
    entries: Mutex<HashMap<String, Entry>>,
}

impl Allocations {
    pub(crate) fn new(pods_dir: PathBuf) -> Self {
        Self { pods_dir, entries: Mutex::default() }
    }

    /// Brings back what a pod was granted before the kubelet started, if anything was.
    pub(crate) fn recall(&self, uid: &str) {
        let mut entries = self.entries.lock();
        if entries.contains_key(uid) {
            return;
        }
        match read(&self.path(uid)) {
            Ok(Some(entry)) => drop(entries.insert(uid.to_owned(), entry)),
            Ok(None) => {}
            Err(error) => tracing::warn!(uid, %error, "failed to read what a pod was granted; its spec counts"),
        }
    }

    /// Grants a pod what its spec asks for; whether that is new.
    pub(crate) fn grant(&self, pod: &Pod) -> bool {
        let wanted = PodResources::of(pod);
        self.change(spec::uid(pod), |entry| {
            let news = entry.allocated != wanted;
            entry.allocated = wanted;
            news
        })
    }

    /// Whether the pod has been granted anything yet.
    pub(crate) fn knows(&self, uid: &str) -> bool {
        self.entries.lock().contains_key(uid)
    }

    /// The pod with what was granted in the place of what is asked for.
    pub(crate) fn granted(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let entries = self.entries.lock();
        match entries.get(spec::uid(pod)) {
            Some(entry) if !is_granted(pod, &entry.allocated) => Arc::new(entry.allocated.overlay(pod)),
            _ => pod.clone(),
        }
    }

    /// What is in force of a pod and its containers; a container that was not started by this node has no entry.
    pub(crate) fn actuated(&self, uid: &str) -> PodResources {
        self.entries.lock().get(uid).map(|entry| entry.actuated.clone()).unwrap_or_default()
    }

    /// A container has been made with, or changed to, these resources.
    pub(crate) fn set_actuated(&self, pod: &Pod, container: &Container) {
        if !resizable(pod).any(|known| known.name == container.name) {
            return;
        }
        let resources = container.resources.clone().unwrap_or_default();
        self.change(spec::uid(pod), |entry| {
            entry.actuated.containers.insert(container.name.clone(), resources.clone()) != Some(resources)
        });
    }

    /// The cgroup of the pod has the limits of its spec.
    pub(crate) fn set_pod_actuated(&self, pod: &Pod) {
        let own = spec::pod_spec(pod).resources.clone();
        self.change(spec::uid(pod), |entry| {
            let news = entry.actuated.pod != own;
            entry.actuated.pod = own;
            news
        });
    }

    /// The conditions of a pod's resize.
    pub(crate) fn state(&self, uid: &str) -> ResizeState {
        self.entries.lock().get(uid).map(|entry| entry.state.clone()).unwrap_or_default()
    }

    /// Changes the conditions; whether they are other ones now. A pod that was granted nothing has none.
    pub(crate) fn set_state(&self, uid: &str, change: impl FnOnce(&mut ResizeState)) -> bool {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(uid) else { return false };
        let before = entry.state.clone();
        change(&mut entry.state);
        before != entry.state
    }

    /// The pod is gone, and its directory with it.
    pub(crate) fn forget(&self, uid: &str) {
        self.entries.lock().remove(uid);
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.pods_dir.join(uid).join(FILE)
    }

    fn change(&self, uid: &str, change: impl FnOnce(&mut Entry) -> bool) -> bool {
        let mut entries = self.entries.lock();
        let entry = entries.entry(uid.to_owned()).or_default();
        let news = change(entry);
        if news && let Err(error) = write(&self.path(uid), entry) {
            tracing::warn!(uid, %error, "failed to keep what a pod was granted for a restart of the kubelet");
        }
        news
    }
}

/// App containers and sidecars.
fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    let sidecars = spec::init_containers(pod).iter().filter(|container| spec::is_restartable_init(container));
    sidecars.chain(spec::containers(pod))
}

fn is_granted(pod: &Pod, allocated: &PodResources) -> bool {
    let none = ResourceRequirements::default();
    let own = spec::pod_spec(pod).resources.as_ref().unwrap_or(&none);
    same_resources(own, allocated.pod.as_ref().unwrap_or(&none))
        && resizable(pod).all(|container| {
            let asked = container.resources.as_ref().unwrap_or(&none);
            allocated.containers.get(&container.name).is_none_or(|granted| same_resources(asked, granted))
        })
}

fn read(path: &std::path::Path) -> io::Result<Option<Entry>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(path: &std::path::Path, entry: &Entry) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
    }
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, serde_json::to_vec(entry)?)?;
    std::fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;

    fn pod(cpu: &str) -> Arc<Pod> {
        let requests = [("cpu".to_owned(), Quantity(cpu.to_owned()))].into();
        let resources = ResourceRequirements { requests: Some(requests), ..ResourceRequirements::default() };
        let container = Container { name: "c".to_owned(), resources: Some(resources), ..Container::default() };
        let mut pod =
            Pod { spec: Some(PodSpec { containers: vec![container], ..PodSpec::default() }), ..Pod::default() };
        pod.metadata.uid = Some("u".to_owned());
        Arc::new(pod)
    }

    #[test]
    fn grants_survive_a_restart_and_hide_what_is_only_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let first = Allocations::new(directory.path().to_owned());
        assert_eq!(first.granted(&pod("1")), pod("1"), "nothing was granted: the spec counts");
        assert!(first.grant(&pod("1")));
        assert!(!first.grant(&pod("1")));
        first.set_actuated(&pod("1"), &spec::containers(&pod("1"))[0]);
        let second = Allocations::new(directory.path().to_owned());
        assert!(!second.knows("u"));
        second.recall("u");
        assert_eq!(second.granted(&pod("2")), pod("1"));
        assert_eq!(second.granted(&pod("1000m")), pod("1000m"), "an equal amount is no change");
        assert_eq!(second.actuated("u").containers["c"], spec::containers(&pod("1"))[0].resources.clone().unwrap());
        second.grant(&pod("2"));
        assert_eq!(second.granted(&pod("2")), pod("2"));
        second.forget("u");
        assert_eq!(second.state("u"), ResizeState::default());
    }

    #[test]
    fn a_broken_file_costs_no_pod() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("u")).unwrap();
        std::fs::write(directory.path().join("u").join(FILE), "{").unwrap();
        let allocations = Allocations::new(directory.path().to_owned());
        allocations.recall("u");
        assert!(!allocations.knows("u"));
    }

    #[test]
    fn conditions_change_only_where_there_is_a_grant() {
        let directory = tempfile::tempdir().unwrap();
        let allocations = Allocations::new(directory.path().to_owned());
        let note = || Some(ResizeNote { reason: "Deferred".to_owned(), ..ResizeNote::default() });
        assert!(!allocations.set_state("u", |state| state.pending = note()));
        allocations.grant(&pod("1"));
        assert!(allocations.set_state("u", |state| state.pending = note()));
        assert!(!allocations.set_state("u", |state| state.pending = note()));
    }
}
