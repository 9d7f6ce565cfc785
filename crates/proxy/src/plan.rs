//! The rules of one Service in one family, as a fragment of the proxy's table. Pure.
//!
//! Invariant: a Service's fragment depends on that Service, its EndpointSlices and the node only, so that a change of
//! one Service never touches another's rules.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kedge_netfilter::{Fragment, Protocol, SetSpec};

use crate::balance::{
    CLUSTER_IP_SERVICES, EXTERNAL_SERVICES, node_port_keys, shared_endpoints, target, write_address, write_hairpins,
};
use crate::config::{Config, NodePortAddresses};
use crate::endpoints::{Endpoint, Reachable, categorize, collect_endpoints};
use crate::names::{affinity_set, cluster_chain, endpoint_chain, external_chain, firewall_chain, local_chain};
use crate::service::{Affinity, ServicePort, service_ports};
use crate::skeleton::{
    CLUSTER_IPS, FIREWALL_IPS, MARK_FOR_MASQUERADE, NO_ENDPOINT_NODEPORTS, NO_ENDPOINT_SERVICES, NODEPORT_IPS, REJECT,
    SERVICE_IPS, SERVICE_NODEPORTS,
};
use crate::stale::UdpPort;

/// What rules depend on besides Services and endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeView {
    /// The node's name.
    pub name: String,
    /// The value of the label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// The node's addresses.
    pub ips: Vec<IpAddr>,
    /// Where pods live.
    pub cluster_cidrs: Vec<IpNet>,
    /// Whether all traffic to ClusterIPs is masqueraded.
    pub masquerade_all: bool,
    /// The addresses at which node ports answer; `None` where there may be more of them than are known.
    pub node_port_ips: Option<Vec<IpAddr>>,
}

impl NodeView {
    /// The node as configured, its zone not known yet.
    pub fn new(config: &Config) -> Self {
        let localhost = config.localhost_node_ports.then(|| IpAddr::from([127, 0, 0, 1]));
        let node_port_ips = match config.node_port_addresses {
            NodePortAddresses::Primary => Some(config.node_ips.iter().copied().chain(localhost).collect()),
            NodePortAddresses::All | NodePortAddresses::Ranges(_) => None,
        };
        Self {
            name: config.node_name.clone(),
            zone: None,
            ips: config.node_ips.clone(),
            cluster_cidrs: config.cluster_cidrs.clone(),
            masquerade_all: config.masquerade_all,
            node_port_ips,
        }
    }
}

/// The health check of a load balancer for one Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// `spec.healthCheckNodePort`.
    pub node_port: u16,
    /// How many ready endpoints are on this node.
    pub local_endpoints: usize,
}

/// What one Service needs from this node in one family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServicePlan {
    /// Its part of the table.
    pub fragment: Fragment,
    /// Its UDP ports, for which connection tracking has to be cleaned when they change.
    pub udp: Vec<UdpPort>,
    /// Its health check.
    pub health_check: Option<HealthCheck>,
}

/// The fragment with the node's own addresses.
pub fn plan_node(config: &Config, ipv6: bool) -> Fragment {
    let mut fragment = Fragment::default();
    let ranges: Vec<IpNet> = match &config.node_port_addresses {
        NodePortAddresses::All => return fragment,
        NodePortAddresses::Primary => config.node_ips.iter().map(|ip| IpNet::from(*ip)).collect(),
        NodePortAddresses::Ranges(ranges) => ranges.iter().map(IpNet::trunc).collect(),
    };
    let localhost = (config.localhost_node_ports && !ipv6).then(|| IpNet::from(IpAddr::from([127, 0, 0, 1])));
    let ranges: Vec<IpNet> = ranges.into_iter().chain(localhost).collect();
    for range in IpNet::aggregate(&ranges).into_iter().filter(|range| range.addr().is_ipv6() == ipv6) {
        fragment.member(NODEPORT_IPS, show_net(&range));
    }
    fragment
}

/// Everything that one Service needs in a family.
pub fn plan_service<'a>(
    service: &Service,
    slices: impl IntoIterator<Item = &'a EndpointSlice> + Clone,
    node: &NodeView,
    ipv6: bool,
) -> ServicePlan {
    let mut plan = ServicePlan::default();
    for port in service_ports(service, ipv6) {
        let endpoints = collect_endpoints(slices.clone(), &port, node);
        let reachable = categorize(&endpoints, &port);
        PortPlan { port: &port, reachable: &reachable, node, fragment: &mut plan.fragment }.write();
        if port.protocol == Protocol::Udp {
            plan.udp.push(UdpPort::new(&port, &reachable));
        }
        if let Some(node_port) = port.health_check_node_port {
            // Every port of a Service has the same endpoints, but maybe not all of them.
            let local: BTreeSet<IpAddr> = endpoints
                .iter()
                .filter(|endpoint| endpoint.local && endpoint.ready)
                .map(|endpoint| endpoint.address)
                .collect();
            let known = plan.health_check.as_ref().map_or(0, |check| check.local_endpoints);
            plan.health_check = Some(HealthCheck { node_port, local_endpoints: local.len().max(known) });
        }
    }
    plan
}

/// One port's rules under construction.
struct PortPlan<'a> {
    port: &'a ServicePort,
    reachable: &'a Reachable,
    node: &'a NodeView,
    fragment: &'a mut Fragment,
}

impl PortPlan<'_> {
    fn write(&mut self) {
        self.fragment.member(CLUSTER_IPS, self.port.cluster_ip.to_string());
        self.write_firewall();
        if self.goes_shared_way() {
            return;
        }
        self.write_cluster_ip();
        self.write_external();
        self.write_policy_chains();
        for endpoint in &self.reachable.all {
            self.write_endpoint(endpoint);
        }
    }

    /// Writes elements instead of chains where that will do; says whether it did.
    fn goes_shared_way(&mut self) -> bool {
        let Some(endpoints) = shared_endpoints(self.port, self.reachable) else { return false };
        let node_ports = match (self.port.node_port, &self.node.node_port_ips) {
            (None, _) => Vec::new(),
            (Some(_), None) => return false,
            (Some(port), Some(ips)) => {
                let ipv6 = self.port.cluster_ip.is_ipv6();
                let ips: Vec<IpAddr> = ips.iter().copied().filter(|ip| ip.is_ipv6() == ipv6).collect();
                node_port_keys(&ips, self.port.protocol.as_str(), port)
            }
        };
        write_hairpins(self.fragment, endpoints);
        write_address(self.fragment, &self.address_key(self.port.cluster_ip), CLUSTER_IP_SERVICES, endpoints);
        let addresses = self.port.external_ips.iter().chain(&self.port.load_balancer_ips);
        let external = addresses.map(|address| self.address_key(*address)).chain(node_ports);
        for key in external.collect::<Vec<_>>() {
            write_address(self.fragment, &key, EXTERNAL_SERVICES, endpoints);
        }
        true
    }

    fn has_internal_endpoints(&self) -> bool {
        self.reachable.any && (!self.port.internal_local || !self.reachable.local.is_empty())
    }

    fn has_external_endpoints(&self) -> bool {
        self.reachable.any && (!self.port.external_local || !self.reachable.local.is_empty())
    }

    fn policy_chain(&self, local: bool) -> String {
        if local { local_chain(self.port) } else { cluster_chain(self.port) }
    }

    /// No endpoint anywhere: refuse. Only none here, and the policy is Local: drop, as a load balancer knows better.
    fn verdict_without_endpoints(&self) -> String {
        if self.reachable.any { "drop".to_owned() } else { format!("goto {REJECT}") }
    }

    fn address_key(&self, address: IpAddr) -> String {
        format!("{address} . {} . {}", self.port.protocol.as_str(), self.port.port)
    }

    fn rule(&mut self, chain: &str, rule: String) {
        self.fragment.chains.entry(chain.to_owned()).or_default().push(rule);
    }

    fn write_cluster_ip(&mut self) {
        let key = self.address_key(self.port.cluster_ip);
        if !self.has_internal_endpoints() {
            let verdict = self.verdict_without_endpoints();
            self.fragment.map(NO_ENDPOINT_SERVICES, key, verdict, Some(&self.port.label()));
            return;
        }
        let chain = self.policy_chain(self.port.internal_local);
        self.fragment.map(SERVICE_IPS, key, format!("goto {chain}"), None);
        let from_outside = if self.node.masquerade_all { Some(String::new()) } else { self.match_pods("!= ") };
        if let Some(from_outside) = from_outside {
            let ServicePort { cluster_ip, port, protocol, .. } = self.port;
            let (ip, protocol) = (self.ip(), protocol.as_str());
            self.rule(
                &chain,
                format!("{ip} daddr {cluster_ip} {protocol} dport {port} {from_outside}jump {MARK_FOR_MASQUERADE}"),
            );
        }
    }

    fn write_firewall(&mut self) {
        let ServicePort { load_balancer_ips, source_ranges, .. } = self.port;
        if load_balancer_ips.is_empty() || source_ranges.is_empty() {
            return;
        }
        let mut sources = source_ranges.clone();
        // A request from this node to an address that the load balancer gave it comes from that address.
        if self.node.ips.iter().any(|ip| source_ranges.iter().any(|range| range.contains(ip))) {
            sources.extend(load_balancer_ips.iter().map(|ip| IpNet::from(*ip)));
        }
        let sources: Vec<String> = IpNet::aggregate(&sources).iter().map(show_net).collect();
        let chain = firewall_chain(self.port);
        let rule = format!("{} saddr != {{ {} }} drop", self.ip(), sources.join(", "));
        self.rule(&chain, rule);
        for address in load_balancer_ips {
            let key = self.address_key(*address);
            self.fragment.map(FIREWALL_IPS, key, format!("goto {chain}"), Some(&self.port.label()));
        }
    }

    fn write_external(&mut self) {
        if !self.port.is_external() {
            return;
        }
        let chain = external_chain(self.port);
        let addresses = self.port.external_ips.iter().chain(&self.port.load_balancer_ips);
        let keys: Vec<String> = addresses.map(|address| self.address_key(*address)).collect();
        let node_key = self.port.node_port.map(|port| format!("{} . {port}", self.port.protocol.as_str()));
        if self.reachable.any {
            for key in &keys {
                self.fragment.map(SERVICE_IPS, key.clone(), format!("goto {chain}"), None);
            }
            if let Some(key) = &node_key {
                self.fragment.map(SERVICE_NODEPORTS, key.clone(), format!("goto {chain}"), None);
            }
            self.write_external_chain(&chain);
        }
        if !self.has_external_endpoints() {
            let (verdict, label) = (self.verdict_without_endpoints(), self.port.label());
            for key in keys {
                self.fragment.map(NO_ENDPOINT_SERVICES, key, verdict.clone(), Some(&label));
            }
            if let Some(key) = node_key {
                self.fragment.map(NO_ENDPOINT_NODEPORTS, key, verdict, Some(&label));
            }
        }
    }

    fn write_external_chain(&mut self, chain: &str) {
        let cluster = cluster_chain(self.port);
        if self.port.external_local {
            // From pods and from the node itself any endpoint will do, as if the packet had gone out to a load balancer
            // and had come in again.
            if let Some(from_pods) = self.match_pods("") {
                self.rule(chain, format!("{from_pods}goto {cluster} comment \"short-circuit pod traffic\""));
            }
            let masquerade =
                format!("fib saddr type local jump {MARK_FOR_MASQUERADE} comment \"masquerade local traffic\"");
            self.rule(chain, masquerade);
            self.rule(chain, format!("fib saddr type local goto {cluster} comment \"short-circuit local traffic\""));
        } else {
            self.rule(chain, format!("jump {MARK_FOR_MASQUERADE}"));
        }
        if self.has_external_endpoints() {
            let target = self.policy_chain(self.port.external_local);
            self.rule(chain, format!("goto {target}"));
        }
    }

    fn write_policy_chains(&mut self) {
        for (endpoints, chain, used) in [
            (&self.reachable.cluster, cluster_chain(self.port), self.port.uses_cluster_endpoints()),
            (&self.reachable.local, local_chain(self.port), self.port.uses_local_endpoints()),
        ] {
            if used && !endpoints.is_empty() {
                self.write_choice(&chain, endpoints);
            }
        }
    }

    fn write_choice(&mut self, chain: &str, endpoints: &[Endpoint]) {
        if let Affinity::ClientIp { .. } = self.port.affinity {
            for endpoint in endpoints {
                let (set, target) = (affinity_set(self.port, endpoint), endpoint_chain(self.port, endpoint));
                let rule = format!("{} saddr @{set} goto {target}", self.ip());
                self.rule(chain, rule);
            }
        }
        // Each set without a name costs the kernel a walk over all others when it is made; one endpoint needs none.
        if let [endpoint] = endpoints {
            self.rule(chain, format!("goto {}", endpoint_chain(self.port, endpoint)));
            return;
        }
        let numbered = endpoints.iter().enumerate();
        let choices: Vec<String> =
            numbered.map(|(n, endpoint)| format!("{n} : goto {}", endpoint_chain(self.port, endpoint))).collect();
        self.rule(chain, format!("numgen random mod {} vmap {{ {} }}", choices.len(), choices.join(", ")));
    }

    fn write_endpoint(&mut self, endpoint: &Endpoint) {
        let chain = endpoint_chain(self.port, endpoint);
        let (ip, address, protocol) = (self.ip(), endpoint.address, self.port.protocol.as_str());
        // What comes from the endpoint itself must not see its own address as the answer's origin.
        self.rule(&chain, format!("{ip} saddr {address} jump {MARK_FOR_MASQUERADE}"));
        if let Affinity::ClientIp { seconds } = self.port.affinity {
            let set = affinity_set(self.port, endpoint);
            self.rule(&chain, format!("update @{set} {{ {ip} saddr timeout {seconds}s }}"));
            // The time stands in the rule, not here: a set can't be changed while rules name it.
            let spec = SetSpec { flags: Some("dynamic,timeout".to_owned()), ..SetSpec::set(self.address_type()) };
            self.fragment.sets.insert(set, spec);
        }
        self.rule(&chain, format!("meta l4proto {protocol} dnat to {}", target(endpoint)));
    }

    /// Matches what comes from pods, or what does not; `None` where it is not known where pods are.
    fn match_pods(&self, operator: &str) -> Option<String> {
        match_sources(&self.node.cluster_cidrs, self.port.cluster_ip.is_ipv6(), operator)
    }

    fn ip(&self) -> &'static str {
        if self.port.cluster_ip.is_ipv6() { "ip6" } else { "ip" }
    }

    fn address_type(&self) -> &'static str {
        if self.port.cluster_ip.is_ipv6() { "ipv6_addr" } else { "ipv4_addr" }
    }
}

/// Matches packets from ranges of a family, or with the operator `!= ` from elsewhere; `None` where there are no ranges.
pub(crate) fn match_sources(ranges: &[IpNet], ipv6: bool, operator: &str) -> Option<String> {
    let ranges: Vec<String> = ranges.iter().filter(|range| range.addr().is_ipv6() == ipv6).map(show_net).collect();
    let ranges = match ranges.as_slice() {
        [] => return None,
        [one] => one.clone(),
        many => format!("{{ {} }}", many.join(", ")),
    };
    Some(format!("{} saddr {operator}{ranges} ", if ipv6 { "ip6" } else { "ip" }))
}

/// A range as nft lists it: a single address has no prefix length.
pub(crate) fn show_net(range: &IpNet) -> String {
    if range.prefix_len() == range.max_prefix_len() { range.addr().to_string() } else { range.to_string() }
}

/// A fragment in short, for tests.
#[cfg(test)]
pub(crate) fn show(fragment: &Fragment) -> String {
    let mut text = String::new();
    for (key, element) in &fragment.elements {
        let value = element.value.as_deref().map(|value| format!(" : {value}")).unwrap_or_default();
        text += &format!("{} {{ {}{value} }}\n", key.container, key.key);
    }
    for (name, rules) in &fragment.chains {
        text += &format!("{name}\n");
        rules.iter().for_each(|rule| text += &format!("  {rule}\n"));
    }
    fragment.sets.keys().for_each(|name| text += &format!("set {name}\n"));
    text
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
