//! What is to be measured: the pods that run here, as their owner knows them.
//!
//! Not a list of what the runtime has: that is the node agent's business. Invariant: paths are those of this machine.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::summary::FsStats;

/// Who knows the pods.
pub trait Targets: Send + Sync + 'static {
    /// The pods that have a sandbox, as of now. Must not block.
    fn pods(&self) -> Vec<PodTarget>;
}

/// A pod to be measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodTarget {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Uid.
    pub uid: String,
    /// Its control group: a path, or the name of a slice.
    pub cgroup: String,
    /// Its sandbox.
    pub sandbox: SandboxTarget,
    /// Its containers that run.
    pub containers: Vec<ContainerTarget>,
    /// Its volumes that can be measured.
    pub volumes: Vec<VolumeTarget>,
    /// Where the logs of its containers are.
    pub log_dir: PathBuf,
    /// Files of the pod that belong to no volume, such as its hosts file.
    pub files: Vec<PathBuf>,
}

/// A pod's sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxTarget {
    /// The runtime's id.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its interfaces are the machine's.
    pub host_network: bool,
}

/// A container to be measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerTarget {
    /// Its name in the pod.
    pub name: String,
    /// The runtime's id.
    pub id: String,
    /// Its image.
    pub image: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The directory of its logs.
    pub log_dir: PathBuf,
}

/// How a volume is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeMeasure {
    /// Its owner measures it, as looking at it may hang; nothing where it has not yet.
    Known(Option<FsStats>),
    /// It is a directory of this machine whose files are counted.
    Tree,
}

/// A volume to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeTarget {
    /// Its name in the pod.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// How it is measured.
    pub measure: VolumeMeasure,
    /// The claim that it was made for, in the pod's namespace.
    pub claim: Option<String>,
    /// Counts as ephemeral storage of the pod.
    pub ephemeral: bool,
}
