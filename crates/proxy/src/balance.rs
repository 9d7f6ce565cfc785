//! The shared way through the table: how a packet to any ordinary Service finds its endpoint without a rule, a chain or a
//! set of that Service's own.
//!
//! A Service with three endpoints is an element of `with-3-endpoints`, and each endpoint is an element of one of the maps
//! `endpoint-0`, `endpoint-1` and `endpoint-2`. So a change of endpoints changes elements of hash tables and nothing else:
//! the kernel need not walk the table to validate it, and nft need not list much.
//!
//! Invariant: the number of chains and containers is fixed; none belongs to a Service.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use kedge_netfilter::{Chain, Fragment, SetSpec};

use crate::endpoints::{Endpoint, Reachable};
use crate::service::{Affinity, ServicePort};
use crate::skeleton::MARK_FOR_MASQUERADE;

/// The most endpoints of a Service that goes the shared way; one with more has chains of its own.
pub(crate) const ENDPOINTS_MAX: usize = 64;
/// ClusterIPs that go the shared way.
pub(crate) const CLUSTER_IP_SERVICES: &str = "balanced-cluster-ips";
/// External and load balancer addresses, and the node's addresses with node ports, that go the shared way.
pub(crate) const EXTERNAL_SERVICES: &str = "balanced-external-ips";
/// Pairs of an endpoint's address with itself.
pub(crate) const HAIRPINS: &str = "hairpin-endpoints";

const CLUSTER_IP_CHAIN: &str = "balance-cluster-ip";
const EXTERNAL_CHAIN: &str = "balance-external";
const BALANCE_CHAIN: &str = "balance";

static WITH_ENDPOINTS: LazyLock<Vec<String>> =
    LazyLock::new(|| (1..=ENDPOINTS_MAX).map(|count| format!("with-{count}-endpoints")).collect());
static ENDPOINT: LazyLock<Vec<String>> =
    LazyLock::new(|| (0..ENDPOINTS_MAX).map(|place| format!("endpoint-{place}")).collect());

/// The endpoints that all of a port's traffic is spread over, if it can go the shared way: every address leads to the same
/// endpoints, and no client is remembered.
pub(crate) fn shared_endpoints<'a>(port: &ServicePort, reachable: &'a Reachable) -> Option<&'a [Endpoint]> {
    let endpoints = match (port.internal_local, port.is_external(), port.external_local) {
        (false, false, _) | (false, true, false) => &reachable.cluster,
        (true, false, _) => &reachable.local,
        _ => return None,
    };
    let fits = (1..=ENDPOINTS_MAX).contains(&endpoints.len());
    (fits && port.affinity == Affinity::None).then_some(endpoints)
}

/// Makes one address of a Service lead to its endpoints.
pub(crate) fn write_address(fragment: &mut Fragment, address_key: &str, kind: &'static str, endpoints: &[Endpoint]) {
    fragment.member(kind, address_key.to_owned());
    fragment.member(WITH_ENDPOINTS[endpoints.len() - 1].as_str(), address_key.to_owned());
    for (place, endpoint) in endpoints.iter().enumerate() {
        let target = format!("{} . {}", endpoint.address, endpoint.port);
        fragment.map(ENDPOINT[place].as_str(), address_key.to_owned(), target, None);
    }
}

/// Makes what an endpoint sends to itself through a Service come back from somewhere else.
pub(crate) fn write_hairpins(fragment: &mut Fragment, endpoints: &[Endpoint]) {
    for endpoint in endpoints {
        fragment.member(HAIRPINS, format!("{0} . {0}", endpoint.address));
    }
}

/// The sets and maps of the shared way.
pub(crate) fn containers(address: &str) -> BTreeMap<String, SetSpec> {
    let by_address = format!("{address} . inet_proto . inet_service");
    let set = |comment: &str| SetSpec { comment: Some(comment.to_owned()), ..SetSpec::set(&by_address) };
    let endpoint = SetSpec { value: Some(format!("{address} . inet_service")), ..SetSpec::set(&by_address) };
    let mut containers = BTreeMap::from([
        (CLUSTER_IP_SERVICES.to_owned(), set("ClusterIPs of Services without chains of their own")),
        (EXTERNAL_SERVICES.to_owned(), set("other addresses of Services without chains of their own")),
        (HAIRPINS.to_owned(), SetSpec::set(&format!("{address} . {address}"))),
    ]);
    containers.extend(WITH_ENDPOINTS.iter().map(|name| (name.clone(), SetSpec::set(&by_address))));
    containers.extend(ENDPOINT.iter().map(|name| (name.clone(), endpoint.clone())));
    containers
}

/// The rules that send packets the shared way, for the chain that dispatches.
pub(crate) fn dispatch(ip: &str) -> Vec<String> {
    let key = address_key(ip);
    vec![
        format!("{key} @{CLUSTER_IP_SERVICES} goto {CLUSTER_IP_CHAIN}"),
        format!("{key} @{EXTERNAL_SERVICES} goto {EXTERNAL_CHAIN}"),
    ]
}

/// The chains of the shared way. `from_outside` matches what must be masqueraded on its way to a ClusterIP, if anything.
pub(crate) fn chains(ip: &str, from_outside: Option<String>) -> BTreeMap<String, Chain> {
    let plain = |rules| Chain { hook: None, rules };
    let balance = || format!("goto {BALANCE_CHAIN}");
    let mut to_cluster_ip: Vec<String> =
        from_outside.map(|matches| format!("{matches}jump {MARK_FOR_MASQUERADE}")).into_iter().collect();
    to_cluster_ip.push(balance());
    let key = address_key(ip);
    let choices = WITH_ENDPOINTS.iter().zip(1..);
    let choices = choices.map(|(set, count)| format!("{key} @{set} goto {}", choice_chain(count))).collect();
    let mut chains = BTreeMap::from([
        (CLUSTER_IP_CHAIN.to_owned(), plain(to_cluster_ip)),
        (EXTERNAL_CHAIN.to_owned(), plain(vec![format!("jump {MARK_FOR_MASQUERADE}"), balance()])),
        (BALANCE_CHAIN.to_owned(), plain(choices)),
    ]);
    chains.extend(ENDPOINT.iter().map(|name| (name.clone(), plain(vec![format!("dnat {ip} to {key} map @{name}")]))));
    chains.extend((2..=ENDPOINTS_MAX).map(|count| {
        let places: Vec<String> = (0..count).map(|place| format!("{place} : goto {}", ENDPOINT[place])).collect();
        (choice_chain(count), plain(vec![format!("numgen random mod {count} vmap {{ {} }}", places.join(", "))]))
    }));
    chains
}

/// The rule that masquerades hairpins, for the chain that masquerades.
pub(crate) fn hairpin_rule(ip: &str) -> String {
    format!("ct status dnat {ip} saddr . {ip} daddr @{HAIRPINS} masquerade fully-random")
}

/// An endpoint's address and port as text for rules.
pub(crate) fn target(endpoint: &Endpoint) -> SocketAddr {
    SocketAddr::new(endpoint.address, endpoint.port)
}

/// The keys of a node port: each of the node's addresses that take node ports.
pub(crate) fn node_port_keys(addresses: &[IpAddr], protocol: &str, port: u16) -> Vec<String> {
    addresses.iter().map(|address| format!("{address} . {protocol} . {port}")).collect()
}

fn choice_chain(count: usize) -> String {
    if count == 1 { ENDPOINT[0].clone() } else { format!("one-of-{count}") }
}

fn address_key(ip: &str) -> String {
    format!("{ip} daddr . meta l4proto . th dport")
}
