//! Policies and pods as far as packets are concerned.
//!
//! Invariant: what is not understood allows nothing (the API server refuses it, so it hardly comes here).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kedge_client::label_selector;
use kedge_meta::LabelSelector;
use kedge_netfilter::Protocol;

/// A port that a container gave a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

/// A pod that has addresses of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its ports that have names.
    pub ports: Vec<NamedPort>,
    /// Whether it is on this node.
    pub is_local: bool,
}

impl Pod {
    /// A pod as packets know it; `None` while it has no address, when it has ended, and on the node's own network.
    ///
    /// `given` are the addresses that it has before its status shows any.
    pub fn of(pod: &core::Pod, node_name: &str, given: &[IpAddr]) -> Option<Self> {
        let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref());
        let has_ended = matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
        if spec.host_network == Some(true) || has_ended {
            return None;
        }
        let listed = status.into_iter().flat_map(|status| {
            status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref())
        });
        let mut ips: Vec<IpAddr> = listed.filter_map(|ip| ip.parse().ok()).collect();
        if ips.is_empty() {
            ips = given.to_vec();
        }
        ips.sort_unstable();
        ips.dedup();
        if ips.is_empty() {
            return None;
        }
        let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
        Some(Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            ips,
            ports: ports.filter_map(named_port).collect(),
            is_local: spec.node_name.as_deref() == Some(node_name),
        })
    }
}

fn named_port(port: &core::ContainerPort) -> Option<NamedPort> {
    Some(NamedPort {
        name: port.name.clone()?,
        protocol: Protocol::parse(port.protocol.as_deref())?,
        number: u16::try_from(port.container_port).ok()?,
    })
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The pods of its namespace that it isolates.
    pub pods: LabelSelector,
    /// Who may reach them; `None` where it does not isolate them in this direction.
    pub ingress: Option<Vec<Rule>>,
    /// Whom they may reach; `None` where it does not isolate them in this direction.
    pub egress: Option<Vec<Rule>>,
}

/// What a policy allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The other side; `None` for everyone.
    pub peers: Option<Vec<Peer>>,
    /// The ports; `None` for all of them.
    pub ports: Option<Vec<Port>>,
}

/// The other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Pods.
    Pods {
        /// Of these namespaces; of the policy's own where absent.
        namespaces: Option<LabelSelector>,
        /// With these labels.
        pods: LabelSelector,
    },
    /// Addresses.
    Block {
        /// From this range,
        cidr: IpNet,
        /// but not from these.
        except: Vec<IpNet>,
    },
}

/// Ports of one protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The protocol.
    pub protocol: Protocol,
    /// Which of its ports.
    pub port: PortMatch,
}

/// Which ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortMatch {
    /// All.
    All,
    /// From the first to the second.
    Range(u16, u16),
    /// The one that each pod calls so.
    Named(String),
}

impl Policy {
    /// A policy of the API.
    pub fn of(policy: &NetworkPolicy) -> Self {
        let spec = policy.spec.clone().unwrap_or_default();
        let types = spec.policy_types.clone().unwrap_or_default();
        // As the API server would have filled in.
        let has_ingress = types.is_empty() || types.iter().any(|kind| kind == "Ingress");
        let has_egress = types.iter().any(|kind| kind == "Egress") || (types.is_empty() && spec.egress.is_some());
        Self {
            namespace: policy.metadata.namespace.clone().unwrap_or_default(),
            name: policy.metadata.name.clone().unwrap_or_default(),
            pods: spec.pod_selector.as_ref().map_or_else(LabelSelector::everything, selector_or_nothing),
            ingress: has_ingress.then(|| spec.ingress.iter().flatten().map(ingress_rule).collect()),
            egress: has_egress.then(|| spec.egress.iter().flatten().map(egress_rule).collect()),
        }
    }

    /// Whether it isolates a pod.
    pub fn selects(&self, pod: &Pod) -> bool {
        self.namespace == pod.namespace && self.pods.matches(&pod.labels)
    }

    /// All its rules.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.ingress.iter().chain(&self.egress).flatten()
    }
}

fn ingress_rule(rule: &NetworkPolicyIngressRule) -> Rule {
    self::rule(rule.from.as_deref(), rule.ports.as_deref())
}

fn egress_rule(rule: &NetworkPolicyEgressRule) -> Rule {
    self::rule(rule.to.as_deref(), rule.ports.as_deref())
}

/// An empty list says as little as an absent one.
fn rule(peers: Option<&[NetworkPolicyPeer]>, ports: Option<&[NetworkPolicyPort]>) -> Rule {
    Rule {
        peers: peers.filter(|peers| !peers.is_empty()).map(|peers| peers.iter().filter_map(peer).collect()),
        ports: ports.filter(|ports| !ports.is_empty()).map(|ports| ports.iter().filter_map(port).collect()),
    }
}

fn peer(peer: &NetworkPolicyPeer) -> Option<Peer> {
    if let Some(block) = &peer.ip_block {
        let except = block.except.iter().flatten().map(|range| range.parse()).collect::<Result<_, _>>().ok()?;
        return Some(Peer::Block { cidr: block.cidr.parse().ok()?, except });
    }
    if peer.namespace_selector.is_none() && peer.pod_selector.is_none() {
        return None;
    }
    Some(Peer::Pods {
        namespaces: peer.namespace_selector.as_ref().map(selector_or_nothing),
        pods: peer.pod_selector.as_ref().map_or_else(LabelSelector::everything, selector_or_nothing),
    })
}

fn port(port: &NetworkPolicyPort) -> Option<Port> {
    let number = |number: i32| u16::try_from(number).ok();
    let matched = match (&port.port, port.end_port) {
        (None, _) => PortMatch::All,
        (Some(IntOrString::String(name)), _) => PortMatch::Named(name.clone()),
        (Some(IntOrString::Int(first)), None) => PortMatch::Range(number(*first)?, number(*first)?),
        (Some(IntOrString::Int(first)), Some(last)) => {
            PortMatch::Range(number(*first)?, number(last).filter(|last| i32::from(*last) >= *first)?)
        }
    };
    Some(Port { protocol: Protocol::parse(port.protocol.as_deref())?, port: matched })
}

/// A selector that says something impossible selects nothing.
fn selector_or_nothing(selector: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector) -> LabelSelector {
    label_selector(Some(selector)).unwrap_or_else(|| {
        let nowhere = |operator| kedge_meta::Requirement { key: "nothing".to_owned(), operator, values: Vec::new() };
        LabelSelector::new(vec![nowhere(kedge_meta::Operator::Exists), nowhere(kedge_meta::Operator::DoesNotExist)])
    })
}
