//! The addresses of a cluster's segment. They exist only inside the cluster's namespaces, so that all clusters have the
//! same ones and the machine's own network knows none of them.
//!
//! Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

/// How many nodes a cluster may have.
pub(crate) const MOST_NODES: u8 = 64;
/// The length of the segment's prefix.
pub(crate) const PREFIX: u8 = 24;
/// The port of API servers.
pub(crate) const API_PORT: u16 = 6443;
/// The ranges of pods and Services: the defaults of `kedge up`.
pub(crate) const POD_NETWORK: &str = "10.244.0.0/16";
pub(crate) const SERVICE_NETWORK: &str = "10.96.0.0/12";
/// The same of the second family, where a cluster has both.
pub(crate) const POD_NETWORK_V6: &str = "fd00:10:244::/56";
pub(crate) const SERVICE_NETWORK_V6: &str = "fd00:10:96::/112";
/// The length of the segment's prefix in that family.
pub(crate) const PREFIX_V6: u8 = 64;
pub(crate) const DOMAIN: &str = "cluster.local";

/// The gateway's address: the bridge's own.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 1);
const FIRST: u8 = 10;

/// The address of a node; node 1 has `.11`.
pub(crate) fn node_address(number: u8) -> Ipv4Addr {
    let [a, b, c, _] = GATEWAY.octets();
    Ipv4Addr::new(a, b, c, FIRST + number)
}

/// Its address of the other family; node 1 has `::11`, so that both end alike.
pub(crate) fn second_node_address(number: u8) -> Ipv6Addr {
    let last = u16::from(FIRST + number);
    Ipv6Addr::new(0xfd00, 0x172, 0x20, 0, 0, 0, 0, last / 10 * 16 + last % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_end_alike() {
        assert_eq!(
            (node_address(1).to_string(), second_node_address(1).to_string()),
            ("172.20.0.11".into(), "fd00:172:20::11".into())
        );
        assert_eq!(second_node_address(64).to_string(), "fd00:172:20::74");
    }
}
