//! What the balancer is told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Where a node's balancer listens, where nobody says otherwise.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6444);

/// A name in every API server's certificate: who calls a loopback address checks this one.
pub const TLS_SERVER_NAME: &str = "kubernetes";

/// A balancer's settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// `host:port` by which the cluster was found: used while no API server is known, or none that is known answers.
    pub seeds: Vec<String>,
    /// What is known of the API servers is kept here.
    pub memory: PathBuf,
    /// The node's own addresses: an API server on this node goes before others.
    pub own: Vec<IpAddr>,
    /// Kubeconfigs with the cluster's authority; the first that there is counts.
    pub kubeconfigs: Vec<PathBuf>,
}
