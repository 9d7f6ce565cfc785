//! What the proxy reads out of a Service: one value per port and family, with everything rules depend on.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort as ApiPort, ServiceSpec};
use kedge_netfilter::Protocol;

/// Session affinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// Every connection goes anywhere.
    None,
    /// A client's connections go to the same endpoint for this long after the latest one.
    ClientIp {
        /// In seconds.
        seconds: u32,
    },
}

/// One port of a Service in one address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// The port's name; empty where a Service has only one.
    pub port_name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The ClusterIP.
    pub cluster_ip: IpAddr,
    /// The port at the ClusterIP, external and load balancer addresses.
    pub port: u16,
    /// The node port.
    pub node_port: Option<u16>,
    /// `spec.externalIPs` of the family.
    pub external_ips: Vec<IpAddr>,
    /// Ingress addresses of the load balancer (those whose mode is VIP) of the family.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges` of the family, none inside another.
    pub source_ranges: Vec<IpNet>,
    /// Session affinity.
    pub affinity: Affinity,
    /// Whether `externalTrafficPolicy` is `Local`.
    pub external_local: bool,
    /// Whether `internalTrafficPolicy` is `Local`.
    pub internal_local: bool,
    /// `spec.healthCheckNodePort`, where it applies.
    pub health_check_node_port: Option<u16>,
}

impl ServicePort {
    /// Whether anything outside of the cluster can address it.
    pub fn is_external(&self) -> bool {
        self.node_port.is_some() || !self.external_ips.is_empty() || !self.load_balancer_ips.is_empty()
    }

    /// Whether some of its traffic may go to any endpoint.
    pub fn uses_cluster_endpoints(&self) -> bool {
        // Traffic from this node to an external address goes anywhere even where the policy is Local.
        !self.internal_local || self.is_external()
    }

    /// Whether some of its traffic may only go to endpoints on this node.
    pub fn uses_local_endpoints(&self) -> bool {
        self.internal_local || (self.external_local && self.is_external())
    }

    /// `namespace/name:port`, as comments in the rules have it.
    pub fn label(&self) -> String {
        match self.port_name.as_str() {
            "" => format!("{}/{}", self.namespace, self.name),
            port => format!("{}/{}:{port}", self.namespace, self.name),
        }
    }
}

/// The ports of a Service that this proxy serves in a family: none for headless and external-name Services, and for
/// those that name another proxy.
pub fn service_ports(service: &Service, ipv6: bool) -> Vec<ServicePort> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let names_other_proxy = service
        .metadata
        .labels
        .as_ref()
        .is_some_and(|labels| labels.contains_key("service.kubernetes.io/service-proxy-name"));
    if names_other_proxy || spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let Some(cluster_ip) = cluster_ip(spec, ipv6) else { return Vec::new() };
    let ports = spec.ports.iter().flatten();
    ports.filter_map(|port| read_port(service, spec, port, cluster_ip)).collect()
}

fn cluster_ip(spec: &ServiceSpec, ipv6: bool) -> Option<IpAddr> {
    let listed = spec.cluster_ips.iter().flatten().chain(spec.cluster_ip.as_ref());
    listed.filter_map(|ip| ip.parse::<IpAddr>().ok()).find(|ip| ip.is_ipv6() == ipv6)
}

fn read_port(service: &Service, spec: &ServiceSpec, port: &ApiPort, cluster_ip: IpAddr) -> Option<ServicePort> {
    let ipv6 = cluster_ip.is_ipv6();
    let is_load_balancer = spec.type_.as_deref() == Some("LoadBalancer");
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    Some(ServicePort {
        namespace: service.metadata.namespace.clone()?,
        name: service.metadata.name.clone()?,
        port_name: port.name.clone().unwrap_or_default(),
        protocol: Protocol::parse(port.protocol.as_deref())?,
        cluster_ip,
        port: port_number(port.port)?,
        node_port: port.node_port.and_then(port_number),
        external_ips: addresses(spec.external_ips.iter().flatten(), ipv6),
        load_balancer_ips: if is_load_balancer { ingress_ips(service, ipv6) } else { Vec::new() },
        source_ranges: source_ranges(spec, ipv6),
        affinity: affinity(spec),
        external_local,
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        health_check_node_port: spec
            .health_check_node_port
            .filter(|_| is_load_balancer && external_local)
            .and_then(port_number),
    })
}

fn port_number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn addresses<'a>(texts: impl Iterator<Item = &'a String>, ipv6: bool) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
    addresses.retain(|address| address.is_ipv6() == ipv6);
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn ingress_ips(service: &Service, ipv6: bool) -> Vec<IpAddr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    let captured = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    addresses(captured.filter_map(|ingress| ingress.ip.as_ref()), ipv6)
}

fn source_ranges(spec: &ServiceSpec, ipv6: bool) -> Vec<IpNet> {
    let listed = spec.load_balancer_source_ranges.iter().flatten();
    let ranges: Vec<IpNet> =
        listed.filter_map(|range| range.trim().parse::<IpNet>().ok()).map(|range| range.trunc()).collect();
    let mut ranges: Vec<IpNet> = ranges.into_iter().filter(|range| range.addr().is_ipv6() == ipv6).collect();
    // nft refuses a set with a range inside another.
    ranges = IpNet::aggregate(&ranges);
    ranges.sort_unstable();
    ranges
}

fn affinity(spec: &ServiceSpec) -> Affinity {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return Affinity::None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|client_ip| client_ip.timeout_seconds).unwrap_or(10_800);
    Affinity::ClientIp { seconds: u32::try_from(seconds).unwrap_or(10_800) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn port(name: &str, cluster_ip: &str, port: u16) -> ServicePort {
        let (namespace, name) = name.split_once('/').unwrap();
        ServicePort {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            port_name: String::new(),
            protocol: Protocol::Tcp,
            cluster_ip: cluster_ip.parse().unwrap(),
            port,
            node_port: None,
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            affinity: Affinity::None,
            external_local: false,
            internal_local: false,
            health_check_node_port: None,
        }
    }

    fn read(json: serde_json::Value, ipv6: bool) -> Vec<ServicePort> {
        let mut service: Service = serde_json::from_value(json).unwrap();
        service.metadata.namespace = Some("ns".to_owned());
        service.metadata.name = Some("svc".to_owned());
        service_ports(&service, ipv6)
    }

    #[test]
    fn services_without_a_cluster_ip_have_no_ports() {
        let check = |spec: serde_json::Value| assert!(read(serde_json::json!({"spec": spec}), false).is_empty());
        check(serde_json::json!({"clusterIP": "None", "ports": [{"port": 80}]}));
        check(serde_json::json!({"clusterIP": "", "ports": [{"port": 80}]}));
        check(serde_json::json!({"type": "ExternalName", "externalName": "x.example", "clusterIP": "10.0.0.1"}));
        check(serde_json::json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"], "ports": [{"port": 80}]}));
        check(serde_json::json!({"clusterIP": "10.0.0.1", "ports": [{"port": 0}, {"port": 80, "protocol": "X"}]}));
        let labels = serde_json::json!({"service.kubernetes.io/service-proxy-name": "other"});
        let spec = serde_json::json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]});
        assert!(read(serde_json::json!({"metadata": {"labels": labels}, "spec": spec}), false).is_empty());
    }

    #[test]
    fn everything_is_read_in_its_family() {
        let json = serde_json::json!({
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"],
                "ports": [{"name": "dns", "port": 53, "nodePort": 30053, "protocol": "UDP"}],
                "externalIPs": ["9.9.9.9", "fd00::9"], "externalTrafficPolicy": "Local", "healthCheckNodePort": 30999,
                "loadBalancerSourceRanges": [" 10.1.0.0/16", "10.0.0.0/8", "fd00::/8"], "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}
            },
            "status": {"loadBalancer": {"ingress": [
                {"ip": "1.1.1.1"}, {"ip": "2.2.2.2", "ipMode": "Proxy"}, {"ip": "3.3.3.3", "ipMode": "VIP"}
            ]}}
        });
        let mut expected = port("ns/svc", "10.0.0.1", 53);
        expected.port_name = "dns".to_owned();
        expected.protocol = Protocol::Udp;
        expected.node_port = Some(30053);
        expected.external_ips = vec!["9.9.9.9".parse().unwrap()];
        expected.load_balancer_ips = vec!["1.1.1.1".parse().unwrap(), "3.3.3.3".parse().unwrap()];
        expected.source_ranges = vec!["10.0.0.0/8".parse().unwrap()];
        expected.affinity = Affinity::ClientIp { seconds: 60 };
        expected.external_local = true;
        expected.health_check_node_port = Some(30999);
        assert_eq!(read(json.clone(), false), [expected]);
        let ipv6 = read(json, true);
        assert_eq!(ipv6[0].cluster_ip.to_string(), "fd00::1");
        assert_eq!(ipv6[0].external_ips.len(), 1);
    }
}
