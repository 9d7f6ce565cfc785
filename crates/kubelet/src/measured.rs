//! What the figures of this node are made of: its pods, their containers and volumes, in the words of the crate `stats`.
//!
//! It measures nothing itself. Invariant: a pod is measured as long as it has a sandbox and a worker.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};
use kedge_stats::{
    Collector, Config, ContainerTarget, FsStats, PodTarget, SandboxTarget, Targets, VolumeMeasure, VolumeTarget,
};
use parking_lot::RwLock;

use crate::agent::Agent;
use crate::config::CgroupDriver;
use crate::manager::PodTable;
use crate::runtime_state::PodRuntime;
use crate::spec;
use crate::volume_use;

/// Rates need two samples that are not too far apart, also where nobody asks for months.
const BACKGROUND: Duration = Duration::from_secs(60);

/// Where the volumes of pods were set up: by pod uid and volume name.
#[derive(Debug, Default)]
pub(crate) struct MountedPaths(RwLock<HashMap<String, BTreeMap<String, PathBuf>>>);

impl MountedPaths {
    /// Remembers the volumes of a pod.
    pub(crate) fn set(&self, uid: &str, paths: &BTreeMap<String, PathBuf>) {
        self.0.write().insert(uid.to_owned(), paths.clone());
    }

    fn get(&self, uid: &str) -> BTreeMap<String, PathBuf> {
        self.0.read().get(uid).cloned().unwrap_or_default()
    }

    fn forget_others(&self, keep: impl Fn(&str) -> bool) {
        self.0.write().retain(|uid, _| keep(uid));
    }
}

/// The collector of this node's figures.
pub(crate) fn collector(agent: &Arc<Agent>, pods: &PodTable) -> Arc<Collector> {
    let pods_cgroup = match agent.config.cgroup_driver {
        CgroupDriver::Cgroupfs => "/kubepods",
        CgroupDriver::Systemd => "kubepods.slice",
    };
    let config = Config {
        node_name: agent.config.node_name.clone(),
        root_dir: agent.config.root_dir.clone(),
        pods_cgroup: pods_cgroup.to_owned(),
        ..Config::default()
    };
    let targets = Arc::new(NodeTargets { agent: agent.clone(), pods: pods.clone() });
    Arc::new(Collector::new(config, targets, Some(agent.runtime.clone()), agent.clock.clone()))
}

/// Samples now and then until the agent ends.
pub(crate) async fn keep_sampling(agent: Arc<Agent>, collector: Arc<Collector>) {
    loop {
        collector.cpu_and_memory().await;
        tokio::select! {
            () = agent.shutdown.cancelled() => return,
            () = tokio::time::sleep(BACKGROUND) => {}
        }
    }
}

struct NodeTargets {
    agent: Arc<Agent>,
    pods: PodTable,
}

impl Targets for NodeTargets {
    fn pods(&self) -> Vec<PodTarget> {
        let pods: Vec<Arc<Pod>> = self.pods.read().values().cloned().collect();
        let has = |uid: &str| pods.iter().any(|pod| spec::uid(pod) == uid);
        self.agent.mounted.forget_others(has);
        self.agent.volume_use.forget_others(has);
        let mut targets: Vec<PodTarget> = pods.iter().filter_map(|pod| self.target(pod)).collect();
        targets.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        targets
    }
}

impl NodeTargets {
    fn target(&self, pod: &Pod) -> Option<PodTarget> {
        let agent = &self.agent;
        let state = agent.states.get(spec::uid(pod));
        let sandbox = state.ready_sandbox()?;
        let (name, namespace, uid) = (spec::name(pod), spec::namespace(pod), spec::uid(pod));
        let log_dir = agent.config.pod_log_dir(namespace, name, uid);
        Some(PodTarget {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            uid: uid.to_owned(),
            cgroup: agent.cgroups.parent_of(pod),
            sandbox: SandboxTarget {
                id: sandbox.id.clone(),
                created_at: time(sandbox.created_at),
                host_network: sandbox.host_network,
            },
            containers: containers(&state, &log_dir),
            volumes: volumes(pod, &agent.mounted.get(uid), |volume, path| volume_use::known(agent, uid, volume, path)),
            log_dir,
            files: vec![agent.config.pod_dir(uid).join("etc-hosts")],
        })
    }
}

/// The running containers, the newest of each name.
fn containers(state: &PodRuntime, log_dir: &std::path::Path) -> Vec<ContainerTarget> {
    let running = state.containers.iter().filter(|record| record.running());
    let mut targets: Vec<ContainerTarget> = running
        .map(|record| ContainerTarget {
            name: record.name.clone(),
            id: record.id.clone(),
            image: record.image.clone(),
            created_at: time(record.created_at),
            log_dir: log_dir.join(&record.name),
        })
        .collect();
    // They come newest first, and a stable sort keeps it so within a name.
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    targets.dedup_by(|later, first| later.name == first.name);
    targets
}

/// The volumes that have a size of their own.
fn volumes(
    pod: &Pod,
    paths: &BTreeMap<String, PathBuf>,
    known: impl Fn(&str, &Path) -> Option<FsStats>,
) -> Vec<VolumeTarget> {
    let all = spec::pod_spec(pod).volumes.as_deref().unwrap_or_default();
    let target = |volume: &Volume| {
        let path = paths.get(&volume.name)?.clone();
        let (how, claim, ephemeral) = how(pod, volume)?;
        let measure = match how {
            How::Beside => VolumeMeasure::Known(known(&volume.name, &path)),
            How::Tree => VolumeMeasure::Tree,
        };
        Some(VolumeTarget { name: volume.name.clone(), path, measure, claim, ephemeral })
    };
    all.iter().filter_map(target).collect()
}

/// Who measures a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Its driver or its file system, which may hang.
    Beside,
    /// Its files are counted.
    Tree,
}

/// How a volume is measured, for which claim, and whether it is part of the pod's ephemeral storage. Directories of the
/// machine and images are nobody's to measure.
fn how(pod: &Pod, volume: &Volume) -> Option<(How, Option<String>, bool)> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some((How::Beside, Some(source.claim_name.clone()), false));
    }
    if volume.ephemeral.is_some() {
        return Some((How::Beside, Some(format!("{}-{}", spec::name(pod), volume.name)), false));
    }
    if volume.csi.is_some() || volume.nfs.is_some() {
        return Some((How::Beside, None, false));
    }
    if volume.host_path.is_some() || volume.image.is_some() {
        return None;
    }
    let in_memory = volume.empty_dir.as_ref().is_some_and(|source| source.medium.as_deref() == Some("Memory"));
    // Upstream's list: what lies on the node's own disk.
    let ephemeral = (volume.empty_dir.is_some() && !in_memory) || volume.config_map.is_some();
    Some((How::Tree, None, ephemeral))
}

fn time(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime_state::{ContainerPhase, fixtures};

    #[test]
    fn volumes_are_measured_by_their_kind() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [], "volumes": [
                {"name": "disk", "emptyDir": {}},
                {"name": "memory", "emptyDir": {"medium": "Memory"}},
                {"name": "settings", "configMap": {"name": "c"}},
                {"name": "secret", "secret": {"secretName": "s"}},
                {"name": "claim", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "own", "ephemeral": {}},
                {"name": "host", "hostPath": {"path": "/"}},
                {"name": "not-there", "emptyDir": {}},
            ]},
        }))
        .unwrap();
        let names = ["disk", "memory", "settings", "secret", "claim", "own", "host"];
        let paths = names.iter().map(|name| ((*name).to_owned(), PathBuf::from("/v"))).collect();
        let stats = FsStats { used_bytes: Some(7), ..FsStats::default() };
        let found: Vec<_> = volumes(&pod, &paths, |name, _| (name == "claim").then(|| stats.clone()))
            .into_iter()
            .map(|volume| (volume.name, volume.measure, volume.claim, volume.ephemeral))
            .collect();
        let expected = |name: &str, measure, claim: Option<&str>, ephemeral| {
            (name.to_owned(), measure, claim.map(str::to_owned), ephemeral)
        };
        assert_eq!(
            found,
            [
                expected("disk", VolumeMeasure::Tree, None, true),
                expected("memory", VolumeMeasure::Tree, None, false),
                expected("settings", VolumeMeasure::Tree, None, true),
                expected("secret", VolumeMeasure::Tree, None, false),
                expected("claim", VolumeMeasure::Known(Some(stats.clone())), Some("data"), false),
                expected("own", VolumeMeasure::Known(None), Some("p-own"), false),
            ]
        );
    }

    #[test]
    fn one_container_of_each_name_is_measured() {
        let mut newer = fixtures::container("a", ContainerPhase::Running, 0);
        newer.created_at += 1;
        newer.id = "newer".to_owned();
        let older = fixtures::container("a", ContainerPhase::Running, 0);
        let ended = fixtures::container("b", ContainerPhase::Exited, 0);
        let state = fixtures::runtime(vec![fixtures::sandbox(0, true)], vec![older, newer, ended]);
        let found = containers(&state, std::path::Path::new("/logs"));
        assert_eq!(found.iter().map(|target| target.id.as_str()).collect::<Vec<_>>(), ["newer"]);
        assert_eq!(found[0].log_dir, std::path::Path::new("/logs/a"));
    }
}
