//! Which entries of connection tracking have to go when a Service's UDP ports change. A UDP client never learns that its
//! endpoint is gone: as long as it keeps sending, the kernel keeps its old translation alive.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kedge_netfilter::{StaleFlow, UdpFlow};

use crate::endpoints::Reachable;
use crate::service::ServicePort;

/// Where one UDP port of a Service can be addressed, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpPort {
    /// The port's name.
    pub port_name: String,
    /// The addresses: ClusterIP, external and load balancer addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The port at those.
    pub port: u16,
    /// The node port.
    pub node_port: Option<u16>,
    /// The endpoints in use.
    pub endpoints: BTreeSet<IpAddr>,
}

impl UdpPort {
    pub(crate) fn new(port: &ServicePort, reachable: &Reachable) -> Self {
        let addresses = port.external_ips.iter().chain(&port.load_balancer_ips).chain([&port.cluster_ip]);
        Self {
            port_name: port.port_name.clone(),
            addresses: addresses.copied().collect(),
            port: port.port,
            node_port: port.node_port,
            endpoints: reachable.all.iter().map(|endpoint| endpoint.address).collect(),
        }
    }

    fn is_ipv6(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv6)
    }
}

/// The flows that must go after a Service's ports changed from `old` to `new`. A flow whose endpoint is still in use is
/// never among them.
pub fn plan_stale_flows(old: &[UdpPort], new: &[UdpPort]) -> BTreeSet<StaleFlow> {
    let mut stale = BTreeSet::new();
    let by_address = |ports: &[UdpPort]| -> BTreeMap<(IpAddr, u16), BTreeSet<IpAddr>> {
        let each =
            ports.iter().flat_map(|port| port.addresses.iter().map(|ip| ((*ip, port.port), port.endpoints.clone())));
        each.collect()
    };
    let now = by_address(new);
    for ((address, port), before) in by_address(old) {
        match now.get(&(address, port)) {
            Some(after) if !before.is_empty() => {
                stale.extend(before.difference(after).map(|endpoint| StaleFlow::AddressToEndpoint {
                    address,
                    port,
                    endpoint: *endpoint,
                }))
            }
            // Clients that sent while there was no endpoint have a flow that leads nowhere.
            Some(after) if after.is_empty() => {}
            _ => {
                stale.insert(StaleFlow::Address { address, port });
            }
        }
    }
    stale.extend(stale_node_ports(old, new));
    stale
}

fn stale_node_ports(old: &[UdpPort], new: &[UdpPort]) -> BTreeSet<StaleFlow> {
    let mut stale = BTreeSet::new();
    for before in old {
        let Some(port) = before.node_port else { continue };
        match new.iter().find(|after| after.node_port == Some(port)) {
            Some(after) if !before.endpoints.is_empty() => {
                let gone = before.endpoints.difference(&after.endpoints);
                stale.extend(gone.map(|endpoint| StaleFlow::NodePortToEndpoint { port, endpoint: *endpoint }));
            }
            Some(after) if after.endpoints.is_empty() => {}
            _ => {
                stale.insert(StaleFlow::NodePort { port, ipv6: before.is_ipv6() });
            }
        }
    }
    stale
}

/// The flows that must go when a new process takes over: those to Services that lead to no endpoint in use now. While no
/// process was there, nobody removed them.
pub fn plan_left_over_flows(ports: &[UdpPort], node_ips: &[IpAddr], flows: &BTreeSet<UdpFlow>) -> BTreeSet<StaleFlow> {
    let mut stale = BTreeSet::new();
    for UdpFlow { address, port, answered_by } in flows.iter().copied() {
        let is_at = |known: &&UdpPort| known.port == port && known.addresses.contains(&address);
        let is_node_port =
            |known: &&UdpPort| known.node_port == Some(port) && (node_ips.contains(&address) || address.is_loopback());
        let Some(known) = ports.iter().find(is_at).or_else(|| ports.iter().find(is_node_port)) else { continue };
        if known.endpoints.is_empty() || known.endpoints.contains(&answered_by) {
            continue;
        }
        stale.insert(match (known.addresses.contains(&address), answered_by == address) {
            (true, true) => StaleFlow::Address { address, port },
            (true, false) => StaleFlow::AddressToEndpoint { address, port, endpoint: answered_by },
            (false, true) => StaleFlow::NodePort { port, ipv6: address.is_ipv6() },
            (false, false) => StaleFlow::NodePortToEndpoint { port, endpoint: answered_by },
        });
    }
    stale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(address: &str, node_port: Option<u16>, endpoints: &[&str]) -> Vec<UdpPort> {
        vec![UdpPort {
            port_name: "dns".to_owned(),
            addresses: BTreeSet::from([address.parse().unwrap()]),
            port: 53,
            node_port,
            endpoints: endpoints.iter().map(|ip| ip.parse().unwrap()).collect(),
        }]
    }

    #[test]
    fn only_flows_to_what_is_gone_are_stale() {
        let check = |old: &[UdpPort], new: &[UdpPort], expected: &[&str]| {
            let shown: Vec<String> = plan_stale_flows(old, new).iter().map(|flow| format!("{flow:?}")).collect();
            assert_eq!(shown, expected);
        };
        let two = udp("10.96.0.10", None, &["10.0.0.1", "10.0.0.2"]);
        let one = udp("10.96.0.10", None, &["10.0.0.1"]);
        let none = udp("10.96.0.10", None, &[]);
        check(&[], &two, &[]);
        check(&one, &two, &[]);
        check(&two, &one, &["AddressToEndpoint { address: 10.96.0.10, port: 53, endpoint: 10.0.0.2 }"]);
        check(&none, &one, &["Address { address: 10.96.0.10, port: 53 }"]);
        check(&none, &none, &[]);
        check(&one, &[], &["Address { address: 10.96.0.10, port: 53 }"]);
        let node = udp("10.96.0.10", Some(30053), &["10.0.0.1"]);
        check(&node, &one, &["NodePort { port: 30053, ipv6: false }"]);
        check(
            &node,
            &udp("10.96.0.10", Some(30053), &["10.0.0.2"]),
            &[
                "AddressToEndpoint { address: 10.96.0.10, port: 53, endpoint: 10.0.0.1 }",
                "NodePortToEndpoint { port: 30053, endpoint: 10.0.0.1 }",
            ],
        );
    }

    #[test]
    fn a_new_process_removes_what_leads_nowhere() {
        let check = |address: &str, port: u16, answered_by: &str, expected: &[&str]| {
            let ports = udp("10.96.0.10", Some(30053), &["10.0.0.1"]);
            let node_ips = ["192.0.2.2".parse().unwrap()];
            let flow = UdpFlow { address: address.parse().unwrap(), port, answered_by: answered_by.parse().unwrap() };
            let stale = plan_left_over_flows(&ports, &node_ips, &BTreeSet::from([flow]));
            let shown: Vec<String> = stale.iter().map(|flow| format!("{flow:?}")).collect();
            assert_eq!(shown, expected, "{address}:{port} {answered_by}");
        };
        check("10.96.0.10", 53, "10.0.0.1", &[]);
        check("10.96.0.10", 54, "10.0.0.2", &[]);
        check("8.8.8.8", 53, "8.8.8.8", &[]);
        check("8.8.8.8", 30053, "8.8.8.8", &[]);
        check(
            "10.96.0.10",
            53,
            "10.0.0.2",
            &["AddressToEndpoint { address: 10.96.0.10, port: 53, endpoint: 10.0.0.2 }"],
        );
        check("10.96.0.10", 53, "10.96.0.10", &["Address { address: 10.96.0.10, port: 53 }"]);
        check("192.0.2.2", 30053, "10.0.0.1", &[]);
        check("192.0.2.2", 30053, "10.0.0.2", &["NodePortToEndpoint { port: 30053, endpoint: 10.0.0.2 }"]);
        check("127.0.0.1", 30053, "127.0.0.1", &["NodePort { port: 30053, ipv6: false }"]);
    }
}
