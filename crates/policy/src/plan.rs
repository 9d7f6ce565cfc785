//! From policies to rules. Pure.
//!
//! A policy that isolates a pod of this node has a chain for each of its directions, whose rules allow. A pod has a chain
//! for each direction that some policy isolates it in: it asks the policies one after the other, and drops what none of
//! them allowed. Addresses stand in the rules themselves, so that a policy changes in one step.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use kedge_netfilter::Fragment;

use crate::names::{Direction, pod_chain, policy_chain};
use crate::object::{Peer, Pod, Policy, Rule};
use crate::ports::{named, numbered};
use crate::skeleton::{CHECK_INGRESS, EGRESS_PODS, INGRESS_PODS};
use crate::world::World;

/// The chains of a policy; empty where it isolates no pod of this node.
pub fn plan_policy(world: &World, policy: &Policy, ipv6: bool) -> Fragment {
    let mut fragment = Fragment::default();
    if world.subjects(policy).next().is_none() {
        return fragment;
    }
    for (direction, rules) in [(Direction::Ingress, &policy.ingress), (Direction::Egress, &policy.egress)] {
        let Some(rules) = rules else { continue };
        let planner = Planner { world, policy, direction, ipv6 };
        let lines = rules.iter().flat_map(|rule| planner.rule(rule)).collect();
        fragment.chains.insert(policy_chain(direction, &policy.namespace, &policy.name), lines);
    }
    fragment
}

/// The chains of a pod of this node; empty where no policy isolates it.
pub fn plan_pod(world: &World, pod: &Pod, ipv6: bool) -> Fragment {
    let mut fragment = Fragment::default();
    let addresses: Vec<&IpAddr> = pod.ips.iter().filter(|ip| ip.is_ipv6() == ipv6).collect();
    if !pod.is_local || addresses.is_empty() {
        return fragment;
    }
    for direction in Direction::BOTH {
        let isolates = |policy: &&Policy| match direction {
            Direction::Ingress => policy.ingress.is_some(),
            Direction::Egress => policy.egress.is_some(),
        };
        let jump = |policy: &Policy| format!("jump {}", policy_chain(direction, &policy.namespace, &policy.name));
        let mut lines: Vec<String> = world.policies_of(pod).filter(isolates).map(jump).collect();
        if lines.is_empty() {
            continue;
        }
        lines.push("counter drop comment \"no policy allows it\"".to_owned());
        let chain = pod_chain(direction, &pod.namespace, &pod.name);
        let container = match direction {
            Direction::Ingress => INGRESS_PODS,
            Direction::Egress => EGRESS_PODS,
        };
        for address in &addresses {
            fragment.map(container, address.to_string(), format!("goto {chain}"), None);
        }
        fragment.chains.insert(chain, lines);
    }
    fragment
}

struct Planner<'a> {
    world: &'a World,
    policy: &'a Policy,
    direction: Direction,
    ipv6: bool,
}

impl Planner<'_> {
    /// The lines of one rule: everyone it lets through, on every port that it names.
    fn rule(&self, rule: &Rule) -> Vec<String> {
        let mut lines = Vec::new();
        let others = self.others(rule);
        let ports = match &rule.ports {
            None => vec![String::new()],
            Some(ports) => numbered(ports),
        };
        for other in &others {
            lines.extend(ports.iter().map(|port| self.line(&[other, port])));
        }
        lines.extend(self.named_ports(rule, &others));
        lines
    }

    /// The matches for the other side; one that says nothing for everyone.
    fn others(&self, rule: &Rule) -> Vec<String> {
        let Some(peers) = &rule.peers else { return vec![String::new()] };
        let side = self.other_side();
        let mut ranges = Vec::new();
        let mut matches = Vec::new();
        for peer in peers {
            match peer {
                Peer::Pods { .. } => {
                    ranges.extend(self.addresses(self.world.pods_of(self.policy, peer)).map(IpNet::from));
                }
                Peer::Block { cidr, except } if self.is_ours(&cidr.addr()) => {
                    let except: Vec<IpNet> =
                        except.iter().filter(|range| self.is_ours(&range.addr())).copied().collect();
                    if except.is_empty() {
                        ranges.push(*cidr);
                    } else {
                        let cidr = cidr.trunc();
                        matches.push(format!("{side} {cidr} {side} != {{ {} }}", list(&except)));
                    }
                }
                Peer::Block { .. } => {}
            }
        }
        if !ranges.is_empty() {
            matches.insert(0, format!("{side} {{ {} }}", list(&ranges)));
        }
        matches
    }

    /// The lines for ports that each receiver numbers in its own way.
    fn named_ports(&self, rule: &Rule, others: &[String]) -> Vec<String> {
        let ports = rule.ports.as_deref().unwrap_or_default();
        let receivers: Box<dyn Iterator<Item = &Pod>> = match (self.direction, &rule.peers) {
            (Direction::Ingress, _) => Box::new(self.world.subjects(self.policy)),
            (Direction::Egress, None) => Box::new(self.world.pods.values().flat_map(|pods| pods.values())),
            (Direction::Egress, Some(peers)) => {
                Box::new(peers.iter().flat_map(|peer| self.world.pods_of(self.policy, peer)))
            }
        };
        // Where pods receive what this pod sends, they are the other side, and named already.
        let senders = match self.direction {
            Direction::Ingress => others.to_vec(),
            Direction::Egress => vec![String::new()],
        };
        let mut lines = Vec::new();
        for ((protocol, number), addresses) in named(ports, receivers) {
            let addresses: BTreeSet<IpAddr> = addresses.into_iter().filter(|ip| self.is_ours(ip)).collect();
            if addresses.is_empty() {
                continue;
            }
            let ranges: Vec<IpNet> = addresses.into_iter().map(IpNet::from).collect();
            let receiver = format!("{} daddr {{ {} }}", self.ip(), list(&ranges));
            let port = format!("{} dport {number}", protocol.as_str());
            lines.extend(senders.iter().map(|sender| self.line(&[sender, &receiver, &port])));
        }
        lines
    }

    fn line(&self, parts: &[&str]) -> String {
        let verdict = match self.direction {
            Direction::Ingress => "accept".to_owned(),
            Direction::Egress => format!("goto {CHECK_INGRESS}"),
        };
        let parts = parts.iter().copied().filter(|part| !part.is_empty()).chain([verdict.as_str()]);
        parts.collect::<Vec<_>>().join(" ")
    }

    fn addresses<'b>(&'b self, pods: impl Iterator<Item = &'b Pod> + 'b) -> impl Iterator<Item = IpAddr> + 'b {
        pods.flat_map(|pod| pod.ips.iter().copied()).filter(|ip| self.is_ours(ip))
    }

    fn is_ours(&self, address: &IpAddr) -> bool {
        address.is_ipv6() == self.ipv6
    }

    fn ip(&self) -> &'static str {
        if self.ipv6 { "ip6" } else { "ip" }
    }

    fn other_side(&self) -> String {
        let is_source = self.direction == Direction::Ingress;
        format!("{} {}", self.ip(), if is_source { "saddr" } else { "daddr" })
    }
}

/// nft refuses a set with a range inside another; single addresses are written as such.
fn list(ranges: &[IpNet]) -> String {
    let show = |range: &IpNet| match range.prefix_len() == range.max_prefix_len() {
        true => range.addr().to_string(),
        false => range.to_string(),
    };
    IpNet::aggregate(&ranges.to_vec()).iter().map(show).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
