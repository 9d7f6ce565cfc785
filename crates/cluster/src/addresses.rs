//! The addresses of a cluster's segment. They exist only inside the cluster's namespaces, so that all clusters have the
//! same ones and the machine's own network knows none of them.
//!
//! Pure.

use std::net::Ipv4Addr;

/// How many nodes a cluster may have.
pub(crate) const MOST_NODES: u8 = 64;
/// The length of the segment's prefix.
pub(crate) const PREFIX: u8 = 24;
/// The port of API servers.
pub(crate) const API_PORT: u16 = 6443;
/// The ranges of pods and Services: the defaults of `kedge up`.
pub(crate) const POD_NETWORK: &str = "10.244.0.0/16";
pub(crate) const SERVICE_NETWORK: &str = "10.96.0.0/12";
pub(crate) const DOMAIN: &str = "cluster.local";

/// The gateway's address: the bridge's own.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 1);
const FIRST: u8 = 10;

/// The address of a node; node 1 has `.11`.
pub(crate) fn node_address(number: u8) -> Ipv4Addr {
    let [a, b, c, _] = GATEWAY.octets();
    Ipv4Addr::new(a, b, c, FIRST + number)
}
