//! Which nodes may announce which addresses of Services, and which of them does on a shared segment. Pure.
//!
//! Invariant: only addresses that this cluster's controller gave out of its pool are announced; whoever knows the same
//! objects and hears the same nodes chooses the same announcer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// The annotation by which the controller says that an address came out of its pool.
pub const POOL_ANNOTATION: &str = "kedge.dev/load-balancer-pool";
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A node, as far as announcing goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) name: String,
    pub(super) address: Option<Ipv4Addr>,
}

/// The nodes that may announce: those that are ready and not left out by their label.
pub(super) fn plan_nodes(nodes: &[impl AsRef<Node>]) -> Vec<Candidate> {
    let eligible = nodes.iter().map(AsRef::as_ref).filter(|node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        let is_ready = conditions.filter(|condition| condition.type_ == "Ready").any(|ready| ready.status == "True");
        is_ready && !node.metadata.labels.iter().flatten().any(|(key, _)| key == EXCLUDE_LABEL)
    });
    let mut candidates: Vec<Candidate> = eligible
        .map(|node| Candidate {
            name: node.metadata.name.clone().unwrap_or_default(),
            address: crate::mesh::internal_ip(node, false).and_then(|address| match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            }),
        })
        .collect();
    candidates.sort_by(|a, b| a.name.cmp(&b.name));
    candidates
}

/// Whether a Service has addresses to announce.
pub(super) fn is_announced(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    let annotations = service.metadata.annotations.iter().flatten();
    spec.type_.as_deref() == Some("LoadBalancer")
        && spec.load_balancer_class.is_none()
        && service.metadata.deletion_timestamp.is_none()
        && annotations.map(|(key, _)| key).any(|key| key == POOL_ANNOTATION)
}

/// Who may announce each address. Where the policy keeps the client's address, these are the nodes with an endpoint;
/// else all, also without endpoints: a client that is refused knows more than one that hears nothing.
///
/// Services that share an address need a node that serves all of them.
pub(super) fn plan_announcers(
    services: &[impl AsRef<Service>],
    slices: &[impl AsRef<EndpointSlice>],
    nodes: &[Candidate],
) -> BTreeMap<Ipv4Addr, BTreeSet<String>> {
    let all: BTreeSet<String> = nodes.iter().map(|node| node.name.clone()).collect();
    let taken: BTreeSet<Ipv4Addr> = nodes.iter().filter_map(|node| node.address).collect();
    let mut announcers: BTreeMap<Ipv4Addr, BTreeSet<String>> = BTreeMap::new();
    for service in services.iter().map(AsRef::as_ref).filter(|service| is_announced(service)) {
        let policy = service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref());
        let mut able = all.clone();
        if policy == Some("Local") {
            let with_endpoints = nodes_with_endpoints(service, slices);
            able.retain(|name| with_endpoints.contains(name.as_str()));
        }
        for address in addresses(service).filter(|address| is_unicast(*address) && !taken.contains(address)) {
            let shared = announcers.entry(address).or_insert_with(|| able.clone());
            shared.retain(|name| able.contains(name));
        }
    }
    announcers
}

/// The nodes whose endpoints get packets of a Service: the ready ones, or those that still serve where none is.
fn nodes_with_endpoints<'a>(service: &Service, slices: &'a [impl AsRef<EndpointSlice>]) -> BTreeSet<&'a str> {
    let (namespace, name) = (&service.metadata.namespace, service.metadata.name.as_deref());
    let of_service = slices.iter().map(AsRef::as_ref).filter(|slice| {
        let label = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        slice.metadata.namespace == *namespace && label.map(String::as_str) == name && slice.address_type == "IPv4"
    });
    let endpoints: Vec<&Endpoint> = of_service.flat_map(|slice| slice.endpoints.iter().flatten()).collect();
    let says = |endpoint: &Endpoint, serving: bool| {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
        if serving { conditions.and_then(|conditions| conditions.serving).unwrap_or(ready) } else { ready }
    };
    let on = |serving: bool| -> BTreeSet<&'a str> {
        let usable = endpoints.iter().filter(|endpoint| says(endpoint, serving));
        usable.filter_map(|endpoint| endpoint.node_name.as_deref()).collect()
    };
    let ready = on(false);
    if ready.is_empty() { on(true) } else { ready }
}

fn addresses(service: &Service) -> impl Iterator<Item = Ipv4Addr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let listed = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    listed
        .filter(|ingress| ingress.ip_mode.as_deref().unwrap_or("VIP") == "VIP")
        .filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
}

fn is_unicast(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast())
}

/// The one of several nodes that announces an address on their segment: the same for all who ask, another for other
/// addresses, and it moves only where it is the chosen one that goes, or a better one that comes (rendezvous hashing).
pub(super) fn elect<'a>(address: Ipv4Addr, nodes: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nodes.into_iter().max_by_key(|name| (weight(address, name), *name))
}

/// FNV-1a, and then the last step of MurmurHash3, as FNV alone hardly changes its upper bits with the last letter.
fn weight(address: Ipv4Addr, name: &str) -> u64 {
    let bytes = name.bytes().chain(address.octets());
    let mut hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
