//! The command line of `kedge cluster`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use kedge_cluster::{ClusterName, NodeName};

use crate::arguments::Output;

#[derive(Debug, Args)]
pub(crate) struct ClusterFlags {
    #[command(subcommand)]
    pub(crate) command: ClusterCommand,
}

#[derive(Debug, Args)]
pub(crate) struct ClustersDir {
    /// Directory of all clusters.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kedge/clusters", env = "KEDGE_CLUSTERS_DIR")]
    pub(crate) clusters_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Create a cluster; node 2 of the cluster `demo` is called demo-2.
    Create(CreateFlags),
    /// Show the clusters and their nodes.
    List {
        #[command(flatten)]
        clusters: ClustersDir,
        /// How to report.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Remove a cluster with everything in it.
    Delete {
        #[command(flatten)]
        clusters: ClustersDir,
        /// The cluster.
        name: ClusterName,
    },
    /// Stop and start nodes, pull their cables and plug them in.
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Run a command on a node.
    Exec {
        #[command(flatten)]
        clusters: ClustersDir,
        /// The node.
        node: NodeName,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Load image archives (`docker save`, OCI layout) on every node.
    Load {
        #[command(flatten)]
        clusters: ClustersDir,
        /// The cluster.
        name: ClusterName,
        /// The archives.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Make the namespaces of a node.
    #[command(hide = true)]
    Boot {
        #[arg(long)]
        cluster_dir: PathBuf,
        node: NodeName,
    },
    /// Be the first process of a node.
    #[command(hide = true)]
    Init {
        #[arg(long)]
        cluster_dir: PathBuf,
        node: NodeName,
    },
    /// Let the machine reach the API servers.
    #[command(hide = true)]
    Gateway {
        #[arg(long)]
        cluster_dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateFlags {
    #[command(flatten)]
    pub(crate) clusters: ClustersDir,
    /// The cluster.
    pub(crate) name: ClusterName,
    /// How many nodes, control planes among them.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) nodes: u8,
    /// How many of the nodes have a control plane.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) control_planes: u8,
    /// IP families of nodes, pods and Services.
    #[arg(long, value_enum, default_value_t = IpFamily::Ipv4)]
    pub(crate) ip_family: IpFamily,
    /// Kubeconfig file into which the context `kedge-<name>` is merged [default: $KUBECONFIG, or ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Image archive to load on every node; may be given several times.
    #[arg(long = "image", value_name = "ARCHIVE")]
    pub(crate) images: Vec<PathBuf>,
    /// Configuration of the kubelet on every node, a KubeletConfiguration of kubelet.config.k8s.io/v1beta1.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubelet_config: Option<PathBuf>,
    /// Further flag of `kedge up` on control planes (--control-plane-flag=--demo); may be given several times.
    #[arg(long = "control-plane-flag", value_name = "FLAG", allow_hyphen_values = true)]
    pub(crate) control_plane_flags: Vec<String>,
    /// Further flag of `kedge up` and `kedge node` on every node; may be given several times.
    #[arg(long = "node-flag", value_name = "FLAG", allow_hyphen_values = true)]
    pub(crate) node_flags: Vec<String>,
    /// Leave everything as it is where the creation fails.
    #[arg(long)]
    pub(crate) retain: bool,
    /// How to report.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Stop kedge on a node; its containers run on.
    Stop {
        #[command(flatten)]
        clusters: ClustersDir,
        /// The node.
        node: NodeName,
        /// Switch the whole node off, in order.
        #[arg(long, conflicts_with = "power")]
        shutdown: bool,
        /// Switch the whole node off at once, as when the power fails.
        #[arg(long)]
        power: bool,
    },
    /// Start a node.
    Start {
        #[command(flatten)]
        clusters: ClustersDir,
        /// The node.
        node: NodeName,
    },
    /// Pull a node's cable.
    Cut {
        #[command(flatten)]
        clusters: ClustersDir,
        /// The node.
        node: NodeName,
    },
    /// Plug a node's cable in again.
    Heal {
        #[command(flatten)]
        clusters: ClustersDir,
        /// The node.
        node: NodeName,
    },
}

/// Which IP families a cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IpFamily {
    /// IPv4 alone.
    Ipv4,
    /// IPv4 first, and IPv6.
    Dual,
}
