//! Where things lie in a data directory.

use std::path::{Path, PathBuf};

/// The files of one cluster under its data directory.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of a data directory.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The data directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The store.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("admin.conf")
    }

    /// How the kubelet of a node that joined reaches the API, and as whom.
    pub fn kubelet_kubeconfig(&self) -> PathBuf {
        self.root.join("kubelet.conf")
    }

    /// The same for the other components of a node that joined.
    pub fn agent_kubeconfig(&self) -> PathBuf {
        self.root.join("agent.conf")
    }

    /// What the components of a node that joined report.
    pub fn components(&self) -> PathBuf {
        self.root.join("components.json")
    }

    /// The containerd that Kedge starts where the machine runs none.
    pub fn containerd(&self) -> PathBuf {
        self.root.join("containerd")
    }

    /// The kubelet's directory: pods, volumes, checkpoints.
    pub fn kubelet(&self) -> PathBuf {
        self.root.join("kubelet")
    }

    /// Static pods.
    pub fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    /// Container logs.
    pub fn pod_logs(&self) -> PathBuf {
        self.root.join("logs").join("pods")
    }

    /// Links to the container logs, named by pod, namespace and container.
    pub fn container_logs(&self) -> PathBuf {
        self.root.join("logs").join("containers")
    }

    /// The archives of the images that Kedge builds.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Volumes of the class `local-path`.
    pub fn local_path(&self) -> PathBuf {
        self.root.join("local-path")
    }

    /// CNI configuration, where Kedge runs its own containerd.
    pub fn cni_config(&self) -> PathBuf {
        self.root.join("cni").join("net.d")
    }

    /// State of the CNI plugins.
    pub fn cni_state(&self) -> PathBuf {
        self.root.join("cni").join("state")
    }

    /// What the running (or last) process says of itself.
    pub fn run_file(&self) -> PathBuf {
        self.root.join("run.json")
    }

    /// That the last process was told to end, and did.
    pub fn ended_file(&self) -> PathBuf {
        self.root.join("ended.json")
    }

    /// The lock that the running process holds.
    pub fn lock(&self) -> PathBuf {
        self.root.join("kedge.lock")
    }
}
