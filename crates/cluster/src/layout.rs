//! Where the files of a cluster lie.

use std::path::{Path, PathBuf};

use crate::name::{ClusterName, NodeName};

/// The files of one cluster.
#[derive(Debug, Clone)]
pub struct ClusterLayout {
    root: PathBuf,
}

/// The files of one node, as the machine sees them.
#[derive(Debug, Clone)]
pub struct NodeLayout {
    root: PathBuf,
}

/// What a node shares with the machine.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    root: PathBuf,
}

/// Where a node finds its data directory: the default of every command.
pub(crate) const NODE_DATA: &str = "/var/lib/kedge";
/// Where a node finds what it shares with the machine: logs, and what its first process says.
pub(crate) const NODE_SHARED: &str = "/run/kedge/node";
/// Where a node finds the program.
pub(crate) const NODE_PROGRAM: &str = "/run/kedge/kedge";

impl ClusterLayout {
    /// The files of a cluster below the directory of all clusters.
    pub fn new(clusters: &Path, name: &ClusterName) -> Self {
        Self { root: clusters.join(name.as_str()) }
    }

    /// The cluster whose directory this is.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the cluster is made of.
    pub fn record(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    /// Which process lets the machine reach the API server.
    pub(crate) fn gateway(&self) -> PathBuf {
        self.root.join("gateway.json")
    }

    /// Its log.
    pub(crate) fn gateway_log(&self) -> PathBuf {
        self.root.join("gateway.log")
    }

    /// The administrator's kubeconfig, for the machine.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Where the nodes are.
    pub(crate) fn nodes(&self) -> PathBuf {
        self.root.join("nodes")
    }

    /// The files of a node.
    pub fn node(&self, node: &NodeName) -> NodeLayout {
        NodeLayout { root: self.nodes().join(node.to_string()) }
    }
}

impl NodeLayout {
    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its first process.
    pub(crate) fn init(&self) -> PathBuf {
        self.root.join("init.json")
    }

    /// What its first process says before the log of the node is there.
    pub(crate) fn init_log(&self) -> PathBuf {
        self.root.join("init.log")
    }

    /// `/var/lib/kedge` of the node.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// What the node shares with the machine.
    pub(crate) fn shared(&self) -> Shared {
        Shared::at(self.root.join("shared"))
    }

    /// What kedge logs on the node.
    pub fn log(&self) -> PathBuf {
        self.shared().log()
    }
}

impl Shared {
    /// The directory that a node shares, as the machine or as the node sees it.
    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A file in it.
    pub(crate) fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// What kedge logs on the node.
    pub(crate) fn log(&self) -> PathBuf {
        self.file("kedge.log")
    }

    /// What kedge said once it was up.
    pub(crate) fn ready(&self) -> PathBuf {
        self.file("ready.json")
    }

    /// What the node's first process says of kedge.
    pub(crate) fn agent(&self) -> PathBuf {
        self.file("agent.json")
    }
}
