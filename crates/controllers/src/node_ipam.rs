//! The node IPAM controller: gives every node its share of the cluster's pod addresses.
//!
//! Invariant: no two nodes have the same CIDR; a node's CIDR never changes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kedge_client::{Change, Informer, Queue, object_key, object_reference};
use kedge_meta::ObjectKey;
use kube::api::{Api, Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;

use crate::config::Config;
use crate::error::{Error, ReconcileError, unless_gone};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};

/// At most so many nodes get a CIDR out of one range.
const LARGEST_SPREAD: u8 = 16;

/// Starts the controller, unless there is nothing to give.
pub(crate) fn start(mut starter: Starter<'_>) {
    let ranges = ranges(&starter.context.config).expect("the configuration was checked before any controller starts");
    if ranges.is_empty() {
        return;
    }
    let nodes = starter.informer::<Node>();
    let queue = Queue::new();
    starter.enqueue(&nodes, &queue, |change| match change {
        Change::Updated { new, .. } if !cidrs_of(new).is_empty() => Vec::new(),
        change => vec![object_key(&**change.object())],
    });
    let controller = Ipam { context: starter.context.clone(), nodes, ranges, given: Mutex::default() };
    // One worker: a CIDR is given out once.
    starter.work(Arc::new(controller), queue, 1);
}

/// The configured ranges, checked.
pub(crate) fn ranges(config: &Config) -> Result<Vec<Range>, Error> {
    let read = |cidr: &String| {
        Range::parse(cidr, config.node_cidr_mask_ipv4, config.node_cidr_mask_ipv6)
            .map_err(|why| Error::ClusterCidr { cidr: cidr.clone(), why })
    };
    let ranges: Vec<Range> = config.cluster_cidrs.iter().map(read).collect::<Result<_, _>>()?;
    match ranges.as_slice() {
        [a, b] if a.is_v4 == b.is_v4 => Err(Error::ClusterCidr {
            cidr: config.cluster_cidrs[1].clone(),
            why: "two ranges must be of different IP families",
        }),
        [_, _, third @ ..] if !third.is_empty() => Err(Error::ClusterCidr {
            cidr: config.cluster_cidrs[2].clone(),
            why: "at most one range for each IP family",
        }),
        _ => Ok(ranges),
    }
}

/// A range of addresses that is cut into equal shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    base: u128,
    is_v4: bool,
    /// Length of a share's prefix.
    mask: u8,
    count: u32,
}

impl Range {
    fn parse(cidr: &str, mask_v4: u8, mask_v6: u8) -> Result<Self, &'static str> {
        let (address, length) = cidr.split_once('/').ok_or("it has no prefix length")?;
        let address: IpAddr = address.parse().map_err(|_| "it has no IP address")?;
        let length: u8 = length.parse().map_err(|_| "its prefix length is no number")?;
        let (base, width, mask) = match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32, mask_v4),
            IpAddr::V6(address) => (address.to_bits(), 128, mask_v6),
        };
        if length > width || mask > width {
            return Err("its prefix length is too long");
        }
        if mask < length {
            return Err("it is smaller than a node's share");
        }
        if mask - length > LARGEST_SPREAD {
            return Err("it is more than 65,536 times a node's share");
        }
        let host_bits = u32::from(width - length);
        let base = if host_bits == 128 { 0 } else { base >> host_bits << host_bits };
        Ok(Self { base, is_v4: width == 32, mask, count: 1 << (mask - length) })
    }

    fn share(&self, index: u32) -> String {
        let width = if self.is_v4 { 32 } else { 128 };
        let address = self.base + (u128::from(index) << (width - u32::from(self.mask)));
        let address = match self.is_v4 {
            true => IpAddr::V4(Ipv4Addr::from_bits(address as u32)),
            false => IpAddr::V6(Ipv6Addr::from_bits(address)),
        };
        format!("{address}/{}", self.mask)
    }

    /// The first share that nobody has.
    fn free_share(&self, is_taken: impl Fn(&str) -> bool) -> Option<String> {
        (0..self.count).map(|index| self.share(index)).find(|share| !is_taken(share))
    }
}

fn cidrs_of(node: &Node) -> Vec<String> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let mut cidrs = spec.pod_cidrs.clone().unwrap_or_default();
    if cidrs.is_empty() {
        cidrs.extend(spec.pod_cidr.clone().filter(|cidr| !cidr.is_empty()));
    }
    cidrs
}

struct Ipam {
    context: Context,
    nodes: Informer<Node>,
    ranges: Vec<Range>,
    /// What was given out and may not be in the cache yet.
    given: Mutex<HashMap<String, Vec<String>>>,
}

impl Controller for Ipam {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(node) = self.nodes.get(key) else {
            self.given.lock().remove(&key.name);
            return Ok(Next::Done);
        };
        if !cidrs_of(&node).is_empty() {
            self.given.lock().remove(&key.name);
            return Ok(Next::Done);
        }
        let Some(cidrs) = self.choose(&key.name) else {
            let about = ObjectReference { namespace: None, ..object_reference(&*node) };
            let text = format!("Node {} status is now: CIDRNotAvailable", key.name);
            self.context.normal(&about, "CIDRNotAvailable", text);
            return Err(ReconcileError::Object("no CIDR is left for the node".to_owned()));
        };
        let nodes = Api::<Node>::all(self.context.client.clone());
        let patch = json!({
            "metadata": { "uid": node.metadata.uid },
            "spec": { "podCIDR": cidrs[0], "podCIDRs": cidrs },
        });
        unless_gone(nodes.patch(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        Ok(Next::Done)
    }
}

impl Ipam {
    /// The shares for a node, the same ones if it is asked again.
    fn choose(&self, name: &str) -> Option<Vec<String>> {
        let mut given = self.given.lock();
        if let Some(cidrs) = given.get(name) {
            return Some(cidrs.clone());
        }
        let mut taken: Vec<String> = self.nodes.list().iter().flat_map(|node| cidrs_of(node)).collect();
        taken.extend(given.values().flatten().cloned());
        let free = |range: &Range| range.free_share(|share| taken.iter().any(|taken| taken == share));
        let cidrs: Vec<String> = self.ranges.iter().map(free).collect::<Option<_>>()?;
        given.insert(name.to_owned(), cidrs.clone());
        Some(cidrs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_into_shares() {
        let check = |cidr: &str, index: u32, expected: &str| {
            assert_eq!(Range::parse(cidr, 24, 64).unwrap().share(index), expected);
        };
        check("10.244.0.0/16", 0, "10.244.0.0/24");
        check("10.244.0.0/16", 255, "10.244.255.0/24");
        check("10.244.7.9/16", 1, "10.244.1.0/24");
        check("fd00:10:244::/56", 3, "fd00:10:244:3::/64");
        let range = Range::parse("10.244.0.0/23", 24, 64).unwrap();
        assert_eq!(range.free_share(|share| share == "10.244.0.0/24").as_deref(), Some("10.244.1.0/24"));
        assert_eq!(range.free_share(|_| true), None);
    }

    #[test]
    fn impossible_ranges_are_refused() {
        let check = |cidrs: &[&str], expected: &str| {
            let config =
                Config { cluster_cidrs: cidrs.iter().map(|&cidr| cidr.to_owned()).collect(), ..Config::default() };
            assert_eq!(ranges(&config).unwrap_err().to_string(), expected);
        };
        check(&["10.244.0.0"], "cannot hand out node CIDRs from \"10.244.0.0\": it has no prefix length");
        check(
            &["10.244.0.0/28"],
            "cannot hand out node CIDRs from \"10.244.0.0/28\": it is smaller than a node's share",
        );
        check(
            &["10.244.0.0/16", "10.245.0.0/16"],
            "cannot hand out node CIDRs from \"10.245.0.0/16\": two ranges must be of different IP families",
        );
        check(
            &["fd00::/8"],
            "cannot hand out node CIDRs from \"fd00::/8\": it is more than 65,536 times a node's share",
        );
    }
}
