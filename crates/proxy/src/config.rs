//! What the proxy is told and what it is given.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kedge_client::{Informer, InformerOptions, Informers, Recorder};
use kedge_meta::{Clock, ComponentStatus};

/// On which of the node's addresses node ports answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NodePortAddresses {
    /// On the node's own addresses as configured (upstream: `primary`).
    #[default]
    Primary,
    /// On every local address.
    All,
    /// On the local addresses inside these ranges.
    Ranges(Vec<IpNet>),
}

/// How the proxy works.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of this node, to tell local endpoints from others.
    pub node_name: String,
    /// The node's addresses, at most one of each family, the primary first.
    pub node_ips: Vec<IpAddr>,
    /// The ranges pods live in. Traffic to Services from elsewhere is masqueraded.
    pub cluster_cidrs: Vec<IpNet>,
    /// The ranges of ClusterIPs; packets to addresses in them that nobody has are dropped.
    pub service_cidrs: Vec<IpNet>,
    /// Where node ports answer.
    pub node_port_addresses: NodePortAddresses,
    /// Whether node ports answer on 127.0.0.1 too. Needs the kernel switch `net.ipv4.conf.all.route_localnet`; a rule
    /// then keeps packets from other machines away from loopback addresses, as the kernel does without the switch.
    pub localhost_node_ports: bool,
    /// Whether all traffic to ClusterIPs is masqueraded.
    pub masquerade_all: bool,
    /// For how long changes are collected before they are applied together.
    pub min_sync_period: Duration,
    /// How often the kernel's table is compared with what was written.
    pub sync_period: Duration,
    /// Where `/healthz` and `/livez` are served (upstream: 0.0.0.0:10256); not at all where absent.
    pub healthz_bind_address: Option<SocketAddr>,
    /// A folder in which the former values of kernel switches are remembered for [`teardown`](crate::teardown).
    pub state_dir: PathBuf,
}

impl Config {
    /// Upstream's defaults for a node.
    pub fn new(node_name: impl Into<String>, node_ips: Vec<IpAddr>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            node_name: node_name.into(),
            node_ips,
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            node_port_addresses: NodePortAddresses::Primary,
            localhost_node_ports: true,
            masquerade_all: false,
            min_sync_period: Duration::from_millis(10),
            sync_period: Duration::from_secs(10),
            healthz_bind_address: None,
            state_dir: state_dir.into(),
        }
    }
}

/// What the proxy works with.
#[derive(Clone)]
pub struct Deps {
    /// All Services.
    pub services: Informer<Service>,
    /// All EndpointSlices.
    pub endpoint_slices: Informer<EndpointSlice>,
    /// At least this node.
    pub nodes: Informer<Node>,
    /// Where events go, if anywhere.
    pub recorder: Option<Recorder>,
    /// Where the state is reported; upstream's name is `kube-proxy`.
    pub status: ComponentStatus,
    /// The time, for what `/healthz` says.
    pub clock: Arc<dyn Clock>,
}

impl Deps {
    /// Takes the informers that the proxy needs from the shared ones.
    pub fn new(informers: &Informers, node_name: &str, status: ComponentStatus, clock: Arc<dyn Clock>) -> Self {
        let this_node = InformerOptions {
            field_selector: Some(format!("metadata.name={node_name}")),
            ..InformerOptions::default()
        };
        Self {
            services: informers.all(),
            endpoint_slices: informers.all(),
            nodes: informers.select(this_node),
            recorder: None,
            status,
            clock,
        }
    }
}

/// Why the proxy can't start at all. What goes wrong later is reported as status and tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration makes no sense.
    #[error("the proxy's configuration is not usable: {0}")]
    Config(String),
    /// The address for `/healthz` is taken.
    #[error("the proxy can't serve /healthz on {address}")]
    Healthz {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The rules can't be removed.
    #[error("the proxy's rules can't be removed")]
    Netfilter(#[from] kedge_netfilter::NftError),
    /// The kernel switches can't be restored.
    #[error("the proxy's kernel switches can't be restored")]
    Sysctl(#[from] kedge_netfilter::SysctlError),
}
