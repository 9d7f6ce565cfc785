//! Which endpoints and ports a Service's pods give: shared by EndpointSlices and Endpoints.
//!
//! Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pods::{condition, is_ready, is_terminal, node_name};

const ZONE: &str = "topology.kubernetes.io/zone";

/// The address family of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    fn of(address: &str) -> Option<Self> {
        Some(match address.parse().ok()? {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        })
    }
}

/// The families a Service has endpoints for.
pub(crate) fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let named = spec.and_then(|spec| spec.ip_families.as_ref()).into_iter().flatten();
    let mut families: Vec<Family> = named.map(|name| if name == "IPv6" { Family::V6 } else { Family::V4 }).collect();
    if families.is_empty() {
        let address = spec.and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
        families.push(Family::of(address).unwrap_or(Family::V4));
    }
    families
}

/// Whether a Service's pods are found by a selector at all.
pub(crate) fn is_selecting(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        spec.selector.as_ref().is_some_and(|selector| !selector.is_empty())
            && spec.type_.as_deref() != Some("ExternalName")
    })
}

/// Whether a Service has no address of its own.
pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Whether a Service wants pods that are not ready among its endpoints.
pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// The pod's address of a family.
pub(crate) fn pod_address(pod: &Pod, family: Family) -> Option<&str> {
    let status = pod.status.as_ref()?;
    let many = status.pod_ips.iter().flatten().map(|address| address.ip.as_str());
    many.chain(status.pod_ip.as_deref()).find(|address| Family::of(address) == Some(family))
}

/// Whether a pod can be an endpoint: it has an address and has not ended.
pub(crate) fn is_candidate(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let has_address = status.and_then(|status| status.pod_ip.as_ref()).is_some_and(|address| !address.is_empty());
    has_address && !is_terminal(pod)
}

/// The host name under which DNS knows the pod within this Service.
pub(crate) fn endpoint_hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.as_ref().filter(|hostname| !hostname.is_empty())?;
    let is_subdomain = spec.subdomain == service.metadata.name && pod.metadata.namespace == service.metadata.namespace;
    is_subdomain.then(|| hostname.clone())
}

/// A reference to the pod behind an endpoint.
pub(crate) fn target_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The number of a Service's port on this pod; `None` where the pod names no such port.
pub(crate) fn find_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        Some(IntOrString::Int(0)) | None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
            let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
            let mut matching = ports.filter(|candidate| {
                candidate.name.as_ref() == Some(name) && candidate.protocol.as_deref().unwrap_or("TCP") == protocol
            });
            matching.next().map(|port| port.container_port)
        }
    }
}

/// The ports of a Service as this pod serves them; those that it does not name are left out.
pub(crate) fn endpoint_ports(pod: &Pod, service: &Service) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
    ports
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(find_port(pod, port)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

/// Names of nodes, and their zones where they have one.
pub(crate) type Zones = BTreeMap<String, Option<String>>;

pub(crate) fn zone_of(node: &Node) -> Option<String> {
    node.metadata.labels.as_ref()?.get(ZONE).filter(|zone| !zone.is_empty()).cloned()
}

/// The endpoint that a pod is for a Service; `None` where it has no address of the family.
pub(crate) fn endpoint(pod: &Pod, service: &Service, family: Family, zones: &Zones) -> Option<Endpoint> {
    let address = pod_address(pod, family)?.to_owned();
    let is_serving = is_ready(pod);
    let is_terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = publishes_not_ready(service) || is_serving && !is_terminating;
    let node = node_name(pod).map(str::to_owned);
    let zone = node.as_ref().and_then(|node| zones.get(node)).cloned().flatten();
    let hints = if ready { plan_hints(service, node.as_ref(), zone.as_ref()) } else { None };
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(is_serving),
            terminating: Some(is_terminating),
        }),
        hints,
        hostname: endpoint_hostname(pod, service),
        node_name: node,
        target_ref: Some(target_reference(pod)),
        zone,
        ..Endpoint::default()
    })
}

/// `trafficDistribution` as hints to the proxies: every endpoint is for its own zone, or its own node.
fn plan_hints(service: &Service, node: Option<&String>, zone: Option<&String>) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let for_zones = zone.map(|zone| vec![ForZone { name: zone.clone() }]);
    let for_nodes = node.filter(|_| distribution == "PreferSameNode").map(|node| vec![ForNode { name: node.clone() }]);
    let is_known = matches!(distribution, "PreferClose" | "PreferSameZone" | "PreferSameNode");
    (is_known && (for_zones.is_some() || for_nodes.is_some())).then_some(EndpointHints { for_nodes, for_zones })
}

/// When the newest of the facts that endpoints depend on came about.
pub(crate) fn trigger_time(service: &Service, pods: &[impl AsRef<Pod>]) -> Option<Timestamp> {
    let of_pods = pods.iter().flat_map(|pod| {
        let pod = pod.as_ref();
        let ready = condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref());
        [ready.map(|time| time.0), pod.metadata.deletion_timestamp.as_ref().map(|time| time.0)]
    });
    let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
    of_pods.chain([created]).flatten().max()
}

/// Whether a change of a pod can change an endpoint.
pub(crate) fn is_endpoint_change(old: &Pod, new: &Pod) -> bool {
    fn facts(pod: &Pod) -> impl PartialEq + '_ {
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        (
            (&pod.metadata.labels, pod.metadata.deletion_timestamp.is_some(), &pod.metadata.uid),
            (is_ready(pod), is_terminal(pod), node_name(pod)),
            (spec.and_then(|spec| spec.hostname.as_ref()), spec.and_then(|spec| spec.subdomain.as_ref())),
            (status.and_then(|status| status.pod_ip.as_ref()), status.and_then(|status| status.pod_ips.as_ref())),
        )
    }
    facts(old) != facts(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::{pod, ready, terminating};
    use k8s_openapi::api::core::v1::{ContainerPort, ServiceSpec};

    fn with_address(mut pod: Pod, address: &str) -> Pod {
        pod.status.get_or_insert_default().pod_ip = Some(address.to_owned());
        pod
    }

    fn service(spec: ServiceSpec) -> Service {
        let mut service = Service { spec: Some(spec), ..Service::default() };
        service.metadata.name = Some("web".to_owned());
        service.metadata.namespace = Some("default".to_owned());
        service
    }

    #[test]
    fn named_ports_are_looked_up_with_their_protocol() {
        let port = |name: &str, number, protocol: &str| ContainerPort {
            name: Some(name.to_owned()),
            container_port: number,
            protocol: Some(protocol.to_owned()),
            ..ContainerPort::default()
        };
        let mut target = pod("a");
        target.spec.get_or_insert_default().containers = vec![Container {
            ports: Some(vec![port("dns", 5353, "UDP"), port("dns", 53, "TCP")]),
            ..Container::default()
        }];
        let check = |target_port: Option<IntOrString>, expected: Option<i32>| {
            let port = ServicePort { port: 80, target_port, ..ServicePort::default() };
            assert_eq!(find_port(&target, &port), expected);
        };
        check(None, Some(80));
        check(Some(IntOrString::Int(8080)), Some(8080));
        check(Some(IntOrString::String("dns".to_owned())), Some(53));
        check(Some(IntOrString::String("web".to_owned())), None);
    }

    #[test]
    fn conditions_tell_ready_serving_and_terminating_apart() {
        let check = |pod: Pod, publish: bool, expected: (bool, bool, bool)| {
            let service = service(ServiceSpec { publish_not_ready_addresses: Some(publish), ..ServiceSpec::default() });
            let endpoint = endpoint(&with_address(pod, "10.0.0.1"), &service, Family::V4, &Zones::new()).unwrap();
            let conditions = endpoint.conditions.unwrap();
            let actual = (conditions.ready, conditions.serving, conditions.terminating);
            assert_eq!(actual, (Some(expected.0), Some(expected.1), Some(expected.2)));
        };
        check(ready(pod("a"), 0), false, (true, true, false));
        check(pod("a"), false, (false, false, false));
        check(pod("a"), true, (true, false, false));
        check(terminating(ready(pod("a"), 0)), false, (false, true, true));
        check(terminating(pod("a")), true, (true, false, true));
    }

    #[test]
    fn hints_follow_the_traffic_distribution() {
        let zones = Zones::from([("node-1".to_owned(), Some("east".to_owned()))]);
        let check = |distribution: Option<&str>, zone: bool, node: bool| {
            let spec = ServiceSpec { traffic_distribution: distribution.map(str::to_owned), ..ServiceSpec::default() };
            let target = with_address(ready(pod("a"), 0), "10.0.0.1");
            let hints = endpoint(&target, &service(spec), Family::V4, &zones).unwrap().hints;
            let has = |test: fn(&EndpointHints) -> bool| hints.as_ref().is_some_and(test);
            assert_eq!((has(|hints| hints.for_zones.is_some()), has(|hints| hints.for_nodes.is_some())), (zone, node));
        };
        check(None, false, false);
        check(Some("PreferClose"), true, false);
        check(Some("PreferSameNode"), true, true);
        check(Some("Else"), false, false);
    }

    #[test]
    fn families_come_from_the_spec_or_the_address() {
        let check = |families_of: &[&str], address: &str, expected: &[Family]| {
            let named = families_of.iter().map(|&family| family.to_owned()).collect();
            let spec = ServiceSpec {
                ip_families: Some(named),
                cluster_ip: Some(address.to_owned()),
                ..ServiceSpec::default()
            };
            assert_eq!(families(&service(spec)), expected);
        };
        check(&["IPv6", "IPv4"], "fd00::1", &[Family::V6, Family::V4]);
        check(&[], "fd00::1", &[Family::V6]);
        check(&[], "None", &[Family::V4]);
    }
}
