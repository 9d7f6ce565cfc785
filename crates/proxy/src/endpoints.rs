//! Which endpoints a Service's traffic may go to: readiness, termination, topology and traffic policies.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointPort, EndpointSlice};
use kedge_netfilter::Protocol;

use crate::plan::NodeView;
use crate::service::ServicePort;

/// One endpoint of one Service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Takes traffic.
    pub ready: bool,
    /// Could answer, whether terminating or not.
    pub serving: bool,
    /// On its way out.
    pub terminating: bool,
    /// On this node.
    pub local: bool,
    /// Whether it has hints for zones, and one of them is ours.
    pub zone_hint: Hint,
    /// Whether it has hints for nodes, and one of them is ours.
    pub node_hint: Hint,
}

/// What an endpoint's hints say about us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// It has none.
    Absent,
    /// Meant for us.
    Ours,
    /// Meant for others.
    Others,
}

#[cfg(test)]
impl Endpoint {
    pub(crate) fn at(address: &str, port: u16) -> Self {
        Self {
            address: address.parse().unwrap(),
            port,
            ready: true,
            serving: true,
            terminating: false,
            local: false,
            zone_hint: Hint::Absent,
            node_hint: Hint::Absent,
        }
    }
}

/// The endpoints that a Service port can use from this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reachable {
    /// For traffic that may go anywhere.
    pub cluster: Vec<Endpoint>,
    /// For traffic that must stay on this node.
    pub local: Vec<Endpoint>,
    /// Both together, each once.
    pub all: Vec<Endpoint>,
    /// Whether any usable endpoint exists anywhere.
    pub any: bool,
}

/// The endpoints of a Service port, sorted by address and port. Of one that stands in several slices, the ready one
/// counts.
pub fn collect_endpoints<'a>(
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    port: &ServicePort,
    node: &NodeView,
) -> Vec<Endpoint> {
    let family = if port.cluster_ip.is_ipv6() { "IPv6" } else { "IPv4" };
    let mut endpoints: BTreeMap<(IpAddr, u16), Endpoint> = BTreeMap::new();
    for slice in slices.into_iter().filter(|slice| slice.address_type == family) {
        let numbers = slice.ports.iter().flatten().filter_map(|listed| matching_port(listed, port));
        for number in numbers {
            for listed in slice.endpoints.iter().flatten() {
                let Some(endpoint) = read_endpoint(listed, number, node) else { continue };
                let known = endpoints.entry((endpoint.address, number)).or_insert_with(|| endpoint.clone());
                if endpoint.ready && !known.ready {
                    *known = endpoint;
                }
            }
        }
    }
    endpoints.into_values().collect()
}

fn matching_port(listed: &EndpointPort, port: &ServicePort) -> Option<u16> {
    let same_name = listed.name.as_deref().unwrap_or_default() == port.port_name;
    if !same_name || Protocol::parse(listed.protocol.as_deref()) != Some(port.protocol) {
        return None;
    }
    listed.port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0)
}

fn read_endpoint(listed: &ApiEndpoint, port: u16, node: &NodeView) -> Option<Endpoint> {
    // An endpoint's further addresses are fungible with the first; everybody uses the first.
    let address = listed.addresses.first()?.parse().ok()?;
    let conditions = listed.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let hints = listed.hints.as_ref();
    let zones = hints.and_then(|hints| hints.for_zones.as_ref()).into_iter().flatten();
    let nodes = hints.and_then(|hints| hints.for_nodes.as_ref()).into_iter().flatten();
    Some(Endpoint {
        address,
        port,
        ready,
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        local: listed.node_name.as_deref() == Some(node.name.as_str()),
        zone_hint: hint(zones.map(|zone| zone.name.as_str()), node.zone.as_deref()),
        node_hint: hint(nodes.map(|node| node.name.as_str()), Some(&node.name)),
    })
}

fn hint<'a>(names: impl Iterator<Item = &'a str>, ours: Option<&str>) -> Hint {
    names.fold(
        Hint::Absent,
        |hint, name| if hint == Hint::Ours || Some(name) == ours { Hint::Ours } else { Hint::Others },
    )
}

/// Sorts out which endpoints take which traffic. Endpoints that are terminating but still serving are used only while
/// there is no ready one.
pub fn categorize(endpoints: &[Endpoint], port: &ServicePort) -> Reachable {
    let mut reachable = Reachable::default();
    if port.uses_cluster_endpoints() {
        let available = topology(endpoints);
        reachable.cluster = select(endpoints, |endpoint| endpoint.ready && available(endpoint));
        if reachable.cluster.is_empty() {
            reachable.cluster = select(endpoints, is_draining);
        }
        reachable.any = !reachable.cluster.is_empty();
    }
    if port.uses_local_endpoints() {
        reachable.any |= endpoints.iter().any(|endpoint| endpoint.ready || is_draining(endpoint));
        reachable.local = select(endpoints, |endpoint| endpoint.local && endpoint.ready);
        if reachable.local.is_empty() {
            reachable.local = select(endpoints, |endpoint| endpoint.local && is_draining(endpoint));
        }
    }
    let used = |endpoint: &Endpoint| reachable.cluster.contains(endpoint) || reachable.local.contains(endpoint);
    reachable.all = select(endpoints, used);
    reachable
}

fn is_draining(endpoint: &Endpoint) -> bool {
    endpoint.serving && endpoint.terminating
}

fn select(endpoints: &[Endpoint], keep: impl Fn(&Endpoint) -> bool) -> Vec<Endpoint> {
    endpoints.iter().filter(|endpoint| keep(endpoint)).cloned().collect()
}

/// Hints count only if every ready endpoint has one and at least one is meant for us; the node is closer than the zone.
fn topology(endpoints: &[Endpoint]) -> fn(&Endpoint) -> bool {
    let ready = || endpoints.iter().filter(|endpoint| endpoint.ready);
    let decides = |hint: fn(&Endpoint) -> Hint| {
        ready().all(|endpoint| hint(endpoint) != Hint::Absent) && ready().any(|endpoint| hint(endpoint) == Hint::Ours)
    };
    if decides(|endpoint| endpoint.node_hint) {
        |endpoint| endpoint.node_hint == Hint::Ours
    } else if decides(|endpoint| endpoint.zone_hint) {
        |endpoint| endpoint.zone_hint == Hint::Ours
    } else {
        |_| true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tests::port;

    fn endpoint(word: &str, n: u8) -> Endpoint {
        let mut endpoint = Endpoint::at(&format!("10.0.0.{n}"), 80);
        for flag in word.split('+') {
            match flag {
                "ready" => {}
                "unready" => (endpoint.ready, endpoint.serving) = (false, false),
                "draining" => (endpoint.ready, endpoint.terminating) = (false, true),
                "local" => endpoint.local = true,
                "zone" => endpoint.zone_hint = Hint::Ours,
                "far" => endpoint.zone_hint = Hint::Others,
                "node" => endpoint.node_hint = Hint::Ours,
                "other" => endpoint.node_hint = Hint::Others,
                unknown => panic!("{unknown}"),
            }
        }
        endpoint
    }

    fn show(endpoints: &[Endpoint]) -> String {
        let last = |endpoint: &Endpoint| endpoint.address.to_string().rsplit('.').next().unwrap().to_owned();
        endpoints.iter().map(last).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn policies_readiness_and_hints_decide() {
        let check = |policy: &str, words: &[&str], expected: &str| {
            let mut service = port("a/b", "10.96.0.1", 80);
            service.internal_local = policy == "internal";
            service.external_local = policy == "external";
            service.node_port = (policy == "external").then_some(30000);
            let endpoints: Vec<Endpoint> = words.iter().zip(1..).map(|(word, n)| endpoint(word, n)).collect();
            let Reachable { cluster, local, all, any } = categorize(&endpoints, &service);
            let shown = format!("cluster {} local {} all {} any {any}", show(&cluster), show(&local), show(&all));
            assert_eq!(shown, expected, "{policy} {words:?}");
        };
        check("cluster", &[], "cluster  local  all  any false");
        check("cluster", &["ready", "unready", "draining", "ready"], "cluster 1,4 local  all 1,4 any true");
        check("cluster", &["unready", "draining"], "cluster 2 local  all 2 any true");
        check("cluster", &["unready"], "cluster  local  all  any false");
        check("cluster", &["ready+zone", "ready+far"], "cluster 1 local  all 1 any true");
        check("cluster", &["ready+zone", "ready"], "cluster 1,2 local  all 1,2 any true");
        check("cluster", &["ready+far", "ready+far"], "cluster 1,2 local  all 1,2 any true");
        check("cluster", &["ready+node+far", "ready+other+zone"], "cluster 1 local  all 1 any true");
        check("internal", &["ready", "ready+local"], "cluster  local 2 all 2 any true");
        check("internal", &["ready"], "cluster  local  all  any true");
        check("internal", &["unready+local"], "cluster  local  all  any false");
        check("external", &["ready", "ready+local"], "cluster 1,2 local 2 all 1,2 any true");
        check("external", &["ready", "draining+local"], "cluster 1 local 2 all 1,2 any true");
        check("external", &["ready", "unready+local"], "cluster 1 local  all 1 any true");
    }

    #[test]
    fn slices_are_merged_by_port_name_protocol_and_family() {
        let slice = |json: serde_json::Value| serde_json::from_value::<EndpointSlice>(json).unwrap();
        let slices = [
            slice(
                serde_json::json!({"addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "http"}],
                "endpoints": [{"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true}, "nodeName": "me"}]}),
            ),
            slice(serde_json::json!({"addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
                "endpoints": [{"addresses": ["10.0.0.2"], "nodeName": "me"}, {"addresses": ["10.0.0.1"], "nodeName": "you",
                    "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "you"}, {"name": "me"}]}}]})),
            slice(
                serde_json::json!({"addressType": "IPv4", "ports": [{"name": "http", "port": 53, "protocol": "UDP"}, {"name": "x", "port": 9}],
                "endpoints": [{"addresses": ["10.0.0.3"]}]}),
            ),
            slice(
                serde_json::json!({"addressType": "IPv6", "ports": [{"name": "http", "port": 8080}], "endpoints": [{"addresses": ["fd00::1"]}]}),
            ),
        ];
        let mut service = port("a/b", "10.96.0.1", 80);
        service.port_name = "http".to_owned();
        let node = NodeView { name: "me".to_owned(), zone: Some("b".to_owned()), ..NodeView::default() };
        let endpoints = collect_endpoints(&slices, &service, &node);
        assert_eq!(show(&endpoints), "1,2");
        assert!(endpoints[1].ready && endpoints[1].local && !endpoints[0].local);
        assert_eq!((endpoints[0].zone_hint, endpoints[0].node_hint), (Hint::Others, Hint::Ours));
        assert_eq!(endpoints[0].port, 8080);
    }
}
