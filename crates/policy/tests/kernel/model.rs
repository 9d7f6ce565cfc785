//! What NetworkPolicies mean, said as simply as can be: the upstream documentation's words as a function, without any
//! thought of rules or of what it costs. The kernel is held against it.

use std::net::IpAddr;

use ipnet::IpNet;
use kedge_netfilter::Protocol;
use kedge_policy::{Peer, Pod, Policy, Port, PortMatch, Rule, World};

/// One end of a connection.
#[derive(Clone, Copy)]
pub(crate) enum End<'a> {
    Pod(&'a Pod),
    /// The node that the pods are on.
    Node,
    Outside,
}

/// A packet that opens a connection.
#[derive(Clone, Copy)]
pub(crate) struct Opening<'a> {
    pub(crate) from: (End<'a>, IpAddr),
    pub(crate) to: (End<'a>, IpAddr),
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// Whether policies let it through.
pub(crate) fn allows(world: &World, opening: Opening<'_>) -> bool {
    let leaves = match opening.from.0 {
        End::Pod(pod) => may(world, pod, |policy| policy.egress.as_ref(), opening.to, opening),
        _ => true,
    };
    let enters = match (opening.from.0, opening.to.0) {
        // A node reaches its pods, whatever policies say.
        (End::Node, _) => true,
        (_, End::Pod(pod)) => may(world, pod, |policy| policy.ingress.as_ref(), opening.from, opening),
        _ => true,
    };
    leaves && enters
}

/// A pod that no policy isolates may everything; others what at least one rule of one policy names.
fn may<'a>(
    world: &'a World,
    pod: &Pod,
    direction: impl Fn(&'a Policy) -> Option<&'a Vec<Rule>>,
    other: (End<'_>, IpAddr),
    opening: Opening<'_>,
) -> bool {
    let isolating = world.policies.values().filter(|policy| policy.namespace == pod.namespace);
    let isolating = isolating.filter(|policy| policy.pods.matches(&pod.labels));
    let mut rules = isolating.filter_map(|policy| direction(policy).map(|rules| (policy, rules))).peekable();
    if rules.peek().is_none() {
        return true;
    }
    rules.any(|(policy, rules)| {
        rules.iter().any(|rule| {
            let peers = rule.peers.as_ref();
            let ports = rule.ports.as_ref();
            peers.is_none_or(|peers| peers.iter().any(|peer| is_peer(world, policy, peer, other)))
                && ports.is_none_or(|ports| ports.iter().any(|port| is_port(port, opening)))
        })
    })
}

fn is_peer(world: &World, policy: &Policy, peer: &Peer, (end, address): (End<'_>, IpAddr)) -> bool {
    match (peer, end) {
        (Peer::Block { cidr, except }, _) => {
            cidr.contains(&address) && !except.iter().any(|range: &IpNet| range.contains(&address))
        }
        (Peer::Pods { namespaces, pods }, End::Pod(pod)) => {
            let in_namespace = match namespaces {
                None => pod.namespace == policy.namespace,
                Some(selector) => selector.matches(&world.namespaces[&pod.namespace]),
            };
            in_namespace && pods.matches(&pod.labels)
        }
        (Peer::Pods { .. }, _) => false,
    }
}

fn is_port(port: &Port, opening: Opening<'_>) -> bool {
    let is_it = match (&port.port, opening.to.0) {
        (PortMatch::All, _) => true,
        (PortMatch::Range(first, last), _) => (*first..=*last).contains(&opening.port),
        (PortMatch::Named(name), End::Pod(receiver)) => receiver
            .ports
            .iter()
            .any(|named| named.name == *name && named.protocol == opening.protocol && named.number == opening.port),
        (PortMatch::Named(_), _) => false,
    };
    port.protocol == opening.protocol && is_it
}
