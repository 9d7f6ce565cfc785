//! The routes of the pod network. Pure.
//!
//! The route of a node's own pods comes with the bridge's address. The others keep packets for addresses that nobody has
//! on the machine: without them they would leave by the default route.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::config::Config;

/// Below every route that leads somewhere.
const GUARD_METRIC: u32 = 4096;

/// What a route does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// Packets are refused with an error to the sender.
    Unreachable,
    /// Packets go onto the bridge; what this node sends itself comes from `source`.
    Bridge {
        /// The address that local sockets take.
        source: Option<IpAddr>,
    },
    /// Packets go to another machine on a segment that we share.
    Via {
        /// Its address.
        gateway: IpAddr,
    },
    /// Packets go through a tunnel.
    Tunnel {
        /// The address of the node at its other end.
        node: IpAddr,
    },
}

/// One route in the main table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteSpec {
    /// Where to.
    pub destination: IpNet,
    /// What it does.
    pub kind: RouteKind,
    /// The lower, the sooner.
    pub metric: u32,
}

/// The first address of a pod range: the bridge's, and so the pods' gateway.
pub fn gateway(pod_cidr: &IpNet) -> IpAddr {
    match pod_cidr.network() {
        IpAddr::V4(network) => Ipv4Addr::from_bits(network.to_bits().saturating_add(1)).into(),
        IpAddr::V6(network) => Ipv6Addr::from_bits(network.to_bits().saturating_add(1)).into(),
    }
}

/// The routes of a node.
///
/// ClusterIPs lead onto the bridge instead of being unreachable: the kernel chooses a route before the proxy's rules
/// translate what the node itself sends, so that there has to be one, also on a machine without a default route. What no
/// rule translates finds nobody on the bridge.
pub fn plan_routes(config: &Config) -> Vec<RouteSpec> {
    let guards = config.cluster_cidrs.iter().map(|range| RouteSpec {
        destination: range.trunc(),
        kind: RouteKind::Unreachable,
        metric: GUARD_METRIC,
    });
    let services = config.service_cidrs.iter().map(|range| {
        let same_family = |ip: &&IpAddr| ip.is_ipv6() == range.addr().is_ipv6();
        let source = config.node_ips.iter().find(same_family).copied();
        RouteSpec { destination: range.trunc(), kind: RouteKind::Bridge { source }, metric: GUARD_METRIC }
    });
    guards.chain(services).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_guarded_in_both_families() {
        let mut config = Config::new("n", vec!["192.0.2.2".parse().unwrap()], "/x");
        config.cluster_cidrs = vec!["10.244.0.0/16".parse().unwrap(), "fd00::/48".parse().unwrap()];
        config.service_cidrs = vec!["10.96.0.0/12".parse().unwrap(), "fd01::/108".parse().unwrap()];
        let shown: Vec<String> =
            plan_routes(&config).iter().map(|route| format!("{} {:?}", route.destination, route.kind)).collect();
        assert_eq!(
            shown,
            [
                "10.244.0.0/16 Unreachable",
                "fd00::/48 Unreachable",
                "10.96.0.0/12 Bridge { source: Some(192.0.2.2) }",
                "fd01::/108 Bridge { source: None }",
            ]
        );
        assert_eq!(gateway(&"10.244.3.0/24".parse().unwrap()).to_string(), "10.244.3.1");
        assert_eq!(gateway(&"fd00:0:0:3::/64".parse().unwrap()).to_string(), "fd00:0:0:3::1");
    }
}
