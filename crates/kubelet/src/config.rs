//! What an operator can set about the node agent, and the file locations that follow from it.
//!
//! Not a reader of files or flags: those live in the binary. Invariant: every default is upstream's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Serialize};

use crate::eviction::{Amount, Signal, Threshold};

/// Who makes the cgroups of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// The kubelet writes the cgroup file system itself.
    Cgroupfs,
    /// systemd makes slices; pod-level limits are then left to the runtime.
    Systemd,
}

/// When unused images are removed, in percent of the image file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ImageGc {
    /// Above this use, images are removed.
    pub high_threshold_percent: u8,
    /// Down to this use.
    pub low_threshold_percent: u8,
    /// An image is left alone for so long after it was first seen.
    pub minimum_age: Duration,
    /// An image that was not used for so long goes whatever the disk's use; never where zero.
    pub maximum_age: Duration,
}

impl Default for ImageGc {
    fn default() -> Self {
        Self {
            high_threshold_percent: 85,
            low_threshold_percent: 80,
            minimum_age: Duration::from_secs(120),
            maximum_age: Duration::ZERO,
        }
    }
}

/// An amount of each resource that is kept from pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Reserved {
    /// Processors, in thousandths.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes.
    pub ephemeral_storage: u64,
    /// Process ids.
    pub pids: u64,
}

impl Reserved {
    /// Both amounts together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory: self.memory.saturating_add(other.memory),
            ephemeral_storage: self.ephemeral_storage.saturating_add(other.ephemeral_storage),
            pids: self.pids.saturating_add(other.pids),
        }
    }
}

/// When pods are evicted, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Eviction {
    /// Hard and soft thresholds.
    pub thresholds: Vec<Threshold>,
    /// The longest grace period of a pod that a soft threshold evicts, in seconds.
    pub max_pod_grace_period_seconds: u64,
    /// A pressure is reported for so long after it was last seen.
    pub pressure_transition_period: Duration,
    /// Whether pods, containers and `emptyDir` volumes that exceed their own limits of local storage are evicted.
    pub local_storage_capacity_isolation: bool,
}

impl Default for Eviction {
    fn default() -> Self {
        Self::with_room(Amount::Percent(10.0), Amount::Percent(15.0))
    }
}

impl Eviction {
    /// For a disk that pods share with everything else on a machine: what counts is whether there is room, not how much
    /// of a large disk is used.
    pub fn on_a_shared_disk() -> Self {
        Self::with_room(Amount::Bytes(1 << 30), Amount::Bytes(2 << 30))
    }

    /// Upstream's thresholds, with so much room on the node's and the images' file systems.
    fn with_room(nodefs: Amount, imagefs: Amount) -> Self {
        let hard = |signal, value| Threshold { signal, value, grace_period: Duration::ZERO, minimum_reclaim: None };
        Self {
            thresholds: vec![
                hard(Signal::MemoryAvailable, Amount::Bytes(100 << 20)),
                hard(Signal::NodefsAvailable, nodefs),
                hard(Signal::NodefsInodesFree, Amount::Percent(5.0)),
                hard(Signal::ImagefsAvailable, imagefs),
                hard(Signal::ImagefsInodesFree, Amount::Percent(5.0)),
            ],
            max_pod_grace_period_seconds: 0,
            pressure_transition_period: Duration::from_secs(300),
            local_storage_capacity_isolation: true,
        }
    }
}

/// The configuration of the node agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// The name of the Node object.
    pub node_name: String,
    /// The node's address, which is also where the kubelet server listens.
    pub node_ip: IpAddr,
    /// The node's address of the other IP family, where it has one.
    pub second_node_ip: Option<IpAddr>,
    /// Pods, volumes and checkpoints.
    pub root_dir: PathBuf,
    /// Logs of containers, in one directory for each pod.
    pub pod_logs_dir: PathBuf,
    /// Symbolic links to the container logs; none are made where absent.
    pub container_logs_dir: Option<PathBuf>,
    /// The directory of static pods; none where absent.
    pub static_pod_path: Option<PathBuf>,
    /// The name servers of pods with DNS policy `ClusterFirst`.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// The port of the kubelet server.
    pub port: u16,
    /// Where `/healthz` answers whoever asks, without TLS.
    pub healthz_bind_address: IpAddr,
    /// Its port; 0 for none.
    pub healthz_port: u16,
    /// Whether requests without credentials go on as `system:anonymous`.
    pub anonymous_auth: bool,
    /// Whether the machine's log files are shown under `/logs/`.
    pub enable_system_log_handler: bool,
    /// Whether the logs of services can be asked for under `/logs/?query=`.
    pub enable_system_log_query: bool,
    /// The machine's log files.
    pub system_log_dir: PathBuf,
    /// At most so many pods.
    pub max_pods: u32,
    /// Whether to create the Node object.
    pub register_node: bool,
    /// Further labels of the Node.
    pub node_labels: BTreeMap<String, String>,
    /// Taints that the Node is registered with.
    pub taints: Vec<Taint>,
    /// Who makes the cgroups of pods.
    pub cgroup_driver: CgroupDriver,
    /// The resolver configuration for DNS policy `Default` and for what the cluster DNS does not know.
    pub resolv_conf: Option<PathBuf>,
    /// Removal of images.
    pub image_gc: ImageGc,
    /// A pod network that is not assigned through the API.
    pub pod_cidr: Option<String>,
    /// A container's log is rotated at this size.
    pub container_log_max_bytes: u64,
    /// So many log files of one container are kept.
    pub container_log_max_files: u32,
    /// How many images are pulled at a time.
    // DIVERGES: upstream pulls one after the other by default.
    pub max_parallel_image_pulls: usize,
    /// Logs are looked at in this interval.
    pub container_log_monitor_interval: Duration,
    /// What is kept for Kubernetes' own processes.
    pub kube_reserved: Reserved,
    /// What is kept for the system's processes.
    pub system_reserved: Reserved,
    /// Whether the cgroup of all pods is limited to what is not reserved.
    pub enforce_node_allocatable: bool,
    /// Eviction of pods.
    pub eviction: Eviction,
    /// At most so many processes in a pod; no limit where negative.
    pub pod_pids_limit: i64,
    /// Names and, with a `*` at the end, prefixes of sysctls that pods may set though they are not known to be safe.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// The image of the pods' sandboxes, which is in use as long as there are pods.
    pub sandbox_image: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            node_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            second_node_ip: None,
            root_dir: "/var/lib/kubelet".into(),
            pod_logs_dir: "/var/log/pods".into(),
            container_logs_dir: Some("/var/log/containers".into()),
            static_pod_path: Some("/etc/kubernetes/manifests".into()),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            port: 10250,
            healthz_bind_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            healthz_port: 10248,
            anonymous_auth: false,
            enable_system_log_handler: true,
            enable_system_log_query: false,
            system_log_dir: "/var/log".into(),
            max_pods: 110,
            register_node: true,
            node_labels: BTreeMap::new(),
            taints: Vec::new(),
            cgroup_driver: CgroupDriver::Cgroupfs,
            resolv_conf: Some("/etc/resolv.conf".into()),
            image_gc: ImageGc::default(),
            pod_cidr: None,
            container_log_max_bytes: 10 * 1024 * 1024,
            container_log_max_files: 5,
            max_parallel_image_pulls: 4,
            container_log_monitor_interval: Duration::from_secs(10),
            kube_reserved: Reserved::default(),
            system_reserved: Reserved::default(),
            enforce_node_allocatable: true,
            eviction: Eviction::default(),
            pod_pids_limit: -1,
            allowed_unsafe_sysctls: Vec::new(),
            sandbox_image: None,
        }
    }
}

impl Config {
    /// The node's addresses, the primary first.
    pub fn node_ips(&self) -> Vec<IpAddr> {
        std::iter::once(self.node_ip).chain(self.second_node_ip).collect()
    }

    /// Everything of one pod.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// Where a volume of a pod is, by the name of its plug-in, such as `kubernetes.io/configmap`.
    pub fn volume_dir(&self, uid: &str, plugin: &str, volume: &str) -> PathBuf {
        self.pod_dir(uid).join("volumes").join(plugin.replace('/', "~")).join(volume)
    }

    /// Files that belong to one container of a pod, such as its termination messages.
    pub fn container_dir(&self, uid: &str, container: &str) -> PathBuf {
        self.pod_dir(uid).join("containers").join(container)
    }

    /// Where the runtime writes the logs of a pod's containers.
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_logs_dir.join(format!("{namespace}_{name}_{uid}"))
    }

    /// What is kept from pods in all.
    pub fn reserved(&self) -> Reserved {
        self.kube_reserved.plus(self.system_reserved)
    }

    /// The last known state of the API's pods.
    pub fn checkpoint_dir(&self) -> PathBuf {
        self.root_dir.join("pod-checkpoints")
    }

    /// What is wrong with the configuration.
    pub fn validate(&self) -> Result<(), String> {
        if self.node_name.is_empty() {
            return Err("nodeName must not be empty".to_owned());
        }
        if self.second_node_ip.is_some_and(|second| second.is_ipv6() == self.node_ip.is_ipv6()) {
            return Err("nodeIP and secondNodeIP must be of different IP families".to_owned());
        }
        if !Path::new(&self.root_dir).is_absolute() || !self.pod_logs_dir.is_absolute() {
            return Err("rootDir and podLogsDir must be absolute paths".to_owned());
        }
        let gc = self.image_gc;
        if gc.high_threshold_percent > 100 || gc.low_threshold_percent > gc.high_threshold_percent {
            return Err("imageGc: lowThresholdPercent <= highThresholdPercent <= 100 must hold".to_owned());
        }
        if gc.maximum_age > Duration::ZERO && gc.maximum_age < gc.minimum_age {
            return Err("imageMaximumGCAge must be greater than imageMinimumGCAge".to_owned());
        }
        if self.container_log_monitor_interval < Duration::from_secs(1) {
            return Err("containerLogMonitorInterval must be at least 1s".to_owned());
        }
        if self.container_log_max_files < 2 {
            return Err("containerLogMaxFiles must be greater than 1".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_upstreams() {
        let config = Config::default();
        assert_eq!(
            config.volume_dir("u", "kubernetes.io/configmap", "v"),
            Path::new("/var/lib/kubelet/pods/u/volumes/kubernetes.io~configmap/v")
        );
        assert_eq!(config.pod_log_dir("ns", "p", "u"), Path::new("/var/log/pods/ns_p_u"));
    }

    #[test]
    fn bad_configurations_are_refused() {
        let good = Config { node_name: "n".to_owned(), ..Config::default() };
        assert_eq!(good.validate(), Ok(()));
        assert!(Config::default().validate().is_err());
        assert!(Config { container_log_max_files: 1, ..good.clone() }.validate().is_err());
        assert!(Config { root_dir: "here".into(), ..good }.validate().is_err());
    }
}
