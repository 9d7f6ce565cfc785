//! What the pod network is told and given, and what can go wrong with it.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kedge_client::{Informer, InformerOptions, Informers};
use kedge_meta::ComponentStatus;
use kedge_netfilter::{NftError, SysctlError};
use kube::Client;

use crate::agreement::Agreement;
use crate::mode::NetworkMode;

/// Where CNI plugins are installed, by convention and by distributions.
pub const PLUGIN_DIRS: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/// Where a machine's container runtime looks for its network.
pub const CNI_CONFIG_DIR: &str = "/etc/cni/net.d";

/// How the pod network works.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of this node.
    pub node_name: String,
    /// The node's addresses, at most one of each family.
    pub node_ips: Vec<IpAddr>,
    /// This node's pod ranges; where empty, `spec.podCIDRs` of the Node are waited for.
    pub pod_cidrs: Vec<IpNet>,
    /// The ranges of all nodes' pods.
    pub cluster_cidrs: Vec<IpNet>,
    /// The ranges of ClusterIPs.
    pub service_cidrs: Vec<IpNet>,
    /// The name of the bridge.
    pub bridge: String,
    /// The MTU of the bridge and of pods; where absent, it follows from that of the nodes' network.
    pub mtu: Option<u32>,
    /// How packets get to other nodes, which leaves more or less room for pods.
    pub mode: NetworkMode,
    /// Where the container runtime looks for CNI configuration.
    pub cni_config_dir: PathBuf,
    /// Where CNI plugins may be; the first folder that has all of them is taken.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// Where the plugin host-local keeps the addresses it gave out.
    pub ipam_dir: PathBuf,
    /// A folder in which is remembered what was made and what kernel switches were before.
    pub state_dir: PathBuf,
    /// How often everything is compared with what it should be.
    pub sync_period: Duration,
}

impl Config {
    /// The usual places and names.
    pub fn new(node_name: impl Into<String>, node_ips: Vec<IpAddr>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            node_name: node_name.into(),
            node_ips,
            pod_cidrs: Vec::new(),
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            bridge: "cni0".to_owned(),
            mtu: None,
            mode: NetworkMode::default(),
            cni_config_dir: CNI_CONFIG_DIR.into(),
            cni_bin_dirs: PLUGIN_DIRS.map(PathBuf::from).to_vec(),
            ipam_dir: "/var/lib/cni/networks".into(),
            state_dir: state_dir.into(),
            sync_period: Duration::from_secs(10),
        }
    }
}

/// What the pod network works with.
#[derive(Clone)]
pub struct Deps {
    /// At least this node. Not needed where the pod ranges are configured.
    pub nodes: Option<Informer<Node>>,
    /// Where the state is reported.
    pub status: ComponentStatus,
    /// What is agreed with the routes to other nodes.
    pub agreement: Agreement,
    /// With whom the Node's condition is kept; nobody where absent.
    pub client: Option<Client>,
}

impl Deps {
    /// Takes the informer that the pod network needs from the shared ones.
    pub fn new(informers: &Informers, node_name: &str, status: ComponentStatus) -> Self {
        let this_node = InformerOptions {
            field_selector: Some(format!("metadata.name={node_name}")),
            ..InformerOptions::default()
        };
        let client = Some(informers.client().clone());
        Self { nodes: Some(informers.select(this_node)), status, agreement: Agreement::default(), client }
    }
}

/// What can go wrong with the pod network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// CNI plugins are missing.
    #[error(
        "no folder has the CNI plugins {}: looked in {}; install the Debian package containernetworking-plugins",
        missing.join(", "),
        looked_in.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    PluginsMissing {
        /// The plugins that the best folder lacks.
        missing: Vec<String>,
        /// Where they were looked for.
        looked_in: Vec<PathBuf>,
    },
    /// Something else has our bridge's name, or an address we don't know.
    #[error(
        "the interface {name} exists and {problem}; remove it (ip link delete {name}) or choose another bridge name"
    )]
    BridgeTaken {
        /// The interface.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The kernel refused a change of links, addresses or routes.
    #[error("the kernel refused to {action}")]
    Netlink {
        /// What was tried.
        action: String,
        /// Why not.
        source: rtnetlink::Error,
    },
    /// A file can't be read or written.
    #[error("{} can't be {action}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Such as `written`.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A kernel switch can't be set.
    #[error("a kernel switch can't be set")]
    Sysctl(#[from] SysctlError),
    /// The rules can't be changed.
    #[error("the packet rules of the pod network can't be changed")]
    Netfilter(#[from] NftError),
    /// Nobody can be a peer.
    #[error("routes to other nodes can't be exchanged")]
    Bgp(#[source] kedge_bgp::Error),
    /// The configuration makes no sense.
    #[error("the pod network's configuration is not usable: {0}")]
    Config(String),
}

/// The text of an error with all its causes, for a status message.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
