//! What cluster DNS is told and given.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kedge_client::{Client, Informer, InformerOptions, Informers};
use kedge_meta::ComponentStatus;

use crate::follow::{NAME, NAMESPACE};

/// The port on the node; 53 may be taken there. Pods reach it through the Service's port 53.
pub const DEFAULT_PORT: u16 = 10053;

/// The port for metrics and health, beside it; other servers have 9153, 8080 and 8181 in their pods.
pub const INTROSPECTION_PORT: u16 = 10054;

/// How cluster DNS works.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens, UDP and TCP: an address of the node, as the Service leads to it, and pods must reach it. Not the
    /// unspecified address: the kernel would choose another source for answers, and clients would not take them.
    pub listen: Vec<SocketAddr>,
    /// The cluster's domain, without a dot at the end.
    pub domain: String,
    /// The ranges of pods and of ClusterIPs: reverse names in them are never asked of others.
    pub cluster_cidrs: Vec<IpNet>,
    /// See `cluster_cidrs`.
    pub service_cidrs: Vec<IpNet>,
    /// Whom it answers; everybody where empty. Others get no answer, so that it can't be used to attack third parties.
    pub allowed_clients: Vec<IpNet>,
    /// Where the machine's resolvers stand.
    pub resolv_conf: PathBuf,
    /// Resolvers to ask instead of those in `resolv_conf`, if any.
    pub upstreams: Vec<SocketAddr>,
    /// Where `/metrics`, `/health` and `/ready` are served.
    pub introspection: Vec<SocketAddr>,
    /// For how long it goes on answering when it is to end, where no Corefile says so (`health { lameduck 5s }`).
    pub lameduck: Duration,
    /// The Service through which pods reach it, if this process is to keep it in the API.
    pub publish: Option<Publish>,
}

/// The Service of cluster DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The ClusterIPs, at most one of each family, the primary first; by convention the tenth address of each range.
    pub cluster_ips: Vec<IpAddr>,
    /// The node whose DNS this is.
    pub node_name: String,
    /// Where the Service leads to, for each family: addresses that are listened on. Neither loopback nor link-local.
    pub endpoints: Vec<SocketAddr>,
    /// The port of metrics at the same addresses, which the Service has as 9153.
    pub metrics_port: Option<u16>,
}

impl Config {
    /// DNS on a node's addresses with the usual port, domain and resolvers, for clients in the pods' ranges and on the
    /// node itself.
    pub fn new(
        node_name: &str,
        node_ips: &[IpAddr],
        cluster_ips: &[IpAddr],
        cluster_cidrs: Vec<IpNet>,
        service_cidrs: Vec<IpNet>,
    ) -> Self {
        let listen: Vec<SocketAddr> = node_ips.iter().map(|ip| SocketAddr::new(*ip, DEFAULT_PORT)).collect();
        let is_served = |endpoint: &&SocketAddr| cluster_ips.iter().any(|ip| ip.is_ipv6() == endpoint.is_ipv6());
        let introspection = node_ips.iter().map(|ip| SocketAddr::new(*ip, INTROSPECTION_PORT)).collect();
        let endpoints = listen.iter().filter(is_served).copied().collect();
        let mut allowed_clients = cluster_cidrs.clone();
        allowed_clients.extend(node_ips.iter().copied().map(IpNet::from));
        allowed_clients.push(IpNet::from(IpAddr::from(Ipv4Addr::LOCALHOST)));
        if node_ips.iter().any(IpAddr::is_ipv6) {
            allowed_clients.push(IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST)));
        }
        Self {
            listen,
            domain: "cluster.local".to_owned(),
            cluster_cidrs,
            service_cidrs,
            allowed_clients,
            resolv_conf: "/etc/resolv.conf".into(),
            upstreams: Vec::new(),
            introspection,
            lameduck: Duration::ZERO,
            publish: Some(Publish {
                cluster_ips: cluster_ips.to_vec(),
                node_name: node_name.to_owned(),
                endpoints,
                metrics_port: Some(INTROSPECTION_PORT),
            }),
        }
    }
}

/// What cluster DNS works with.
#[derive(Clone)]
pub struct Deps {
    /// All Services.
    pub services: Informer<Service>,
    /// All EndpointSlices.
    pub endpoint_slices: Informer<EndpointSlice>,
    /// All Namespaces.
    pub namespaces: Informer<Namespace>,
    /// At least `kube-system/coredns`, whose Corefile is followed where it is there.
    pub config_maps: Option<Informer<ConfigMap>>,
    /// To keep the Service; not needed where nothing is published.
    pub client: Option<Client>,
    /// Where the state is reported.
    pub status: ComponentStatus,
}

impl Deps {
    /// Takes what cluster DNS needs from the shared informers.
    pub fn new(informers: &Informers, status: ComponentStatus) -> Self {
        let corefile = InformerOptions {
            namespace: Some(NAMESPACE.to_owned()),
            field_selector: Some(format!("metadata.name={NAME}")),
            ..InformerOptions::default()
        };
        Self {
            config_maps: Some(informers.select(corefile)),
            services: informers.all(),
            endpoint_slices: informers.all(),
            namespaces: informers.all(),
            client: Some(informers.client().clone()),
            status,
        }
    }
}

/// Why cluster DNS can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address is taken or not ours.
    #[error("cluster DNS can't listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The configuration makes no sense.
    #[error("the configuration of cluster DNS is not usable: {0}")]
    Config(String),
    /// The Service or its EndpointSlice can't be kept.
    #[error("the Service of cluster DNS can't be kept")]
    Publish(#[from] kube::Error),
    /// A Service of that name belongs to somebody else.
    #[error("the Service kube-system/kube-dns belongs to another DNS server: {0}")]
    Foreign(String),
}
