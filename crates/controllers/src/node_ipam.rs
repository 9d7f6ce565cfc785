//! The node IPAM controller: gives every node its share of the cluster's pod addresses.
//!
//! Invariant: no two nodes have the same CIDR; a node's CIDR never changes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kedge_client::{Change, Informer, Queue, object_key, object_reference};
use kedge_meta::ObjectKey;
use kedge_metrics::Text;
use kube::api::{Api, Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;

use crate::config::Config;
use crate::error::{Error, ReconcileError, unless_gone};
use crate::metrics::write_gauges;
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
    let (known, shown) = (nodes.clone(), ranges.clone());
    starter.context.metrics.show("node-ipam-controller", move |text| write_figures(text, &shown, &known.list()));
    let queue = Queue::new();
    starter.enqueue(&nodes, &queue, |change| match change {
        Change::Updated { new, .. } if !cidrs_of(new).is_empty() => Vec::new(),
        change => vec![object_key(&**change.object())],
    });
    let controller =
        Ipam { context: starter.context.clone(), nodes, ranges, given: Mutex::default(), held: Mutex::default() };
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
    /// Length of the range's prefix.
    length: u8,
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
        Ok(Self { base, is_v4: width == 32, length, mask, count: 1 << (mask - length) })
    }

    fn width(&self) -> u8 {
        if self.is_v4 { 32 } else { 128 }
    }

    fn show(&self, address: u128, length: u8) -> String {
        let address = match self.is_v4 {
            true => IpAddr::V4(Ipv4Addr::from_bits(address as u32)),
            false => IpAddr::V6(Ipv6Addr::from_bits(address)),
        };
        format!("{address}/{length}")
    }

    /// The range itself.
    fn cidr(&self) -> String {
        self.show(self.base, self.length)
    }

    fn share(&self, index: u32) -> String {
        self.show(self.base + (u128::from(index) << (self.width() - self.mask)), self.mask)
    }

    /// Whether a CIDR is one of the shares.
    fn has(&self, cidr: &str) -> bool {
        let Some((address, length)) = cidr.split_once('/') else { return false };
        let bits = match address.parse() {
            Ok(IpAddr::V4(address)) if self.is_v4 => u128::from(address.to_bits()),
            Ok(IpAddr::V6(address)) if !self.is_v4 => address.to_bits(),
            _ => return false,
        };
        let offset = bits.checked_sub(self.base).map(|offset| offset >> (self.width() - self.mask));
        length.parse::<u8>() == Ok(self.mask) && offset.is_some_and(|index| index < u128::from(self.count))
    }

    /// The first share that nobody has, and its index.
    fn free_share(&self, is_taken: impl Fn(&str) -> bool) -> Option<(u32, String)> {
        (0..self.count).map(|index| (index, self.share(index))).find(|(_, share)| !is_taken(share))
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

/// How many shares each range has, and what part of them nodes have.
fn write_figures(text: &mut Text, ranges: &[Range], nodes: &[Arc<Node>]) {
    let held: Vec<String> = nodes.iter().flat_map(|node| cidrs_of(node)).collect();
    let (mut most, mut used) = (BTreeMap::new(), BTreeMap::new());
    for range in ranges {
        let count = u32::try_from(held.iter().filter(|cidr| range.has(cidr)).count()).unwrap_or(u32::MAX);
        most.insert([range.cidr()], f64::from(range.count));
        used.insert([range.cidr()], f64::from(count) / f64::from(range.count));
    }
    // The first name is upstream's.
    for (name, help, values) in [
        ("cirdset_max_cidrs", "Maximum number of CIDRs that can be allocated.", most),
        ("cidrset_usage_cidrs", "Gauge measuring percentage of allocated CIDRs.", used),
    ] {
        write_gauges(text, &format!("node_ipam_controller_{name}"), help, ["clusterCIDR"], &values);
    }
}

struct Ipam {
    context: Context,
    nodes: Informer<Node>,
    ranges: Vec<Range>,
    /// What was given out and may not be in the cache yet.
    given: Mutex<HashMap<String, Vec<String>>>,
    /// What nodes have, as far as it was counted.
    held: Mutex<HashMap<String, Vec<String>>>,
}

impl Controller for Ipam {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(node) = self.nodes.get(key) else {
            self.given.lock().remove(&key.name);
            self.note_gone(&key.name);
            return Ok(Next::Done);
        };
        let has = cidrs_of(&node);
        if !has.is_empty() {
            self.given.lock().remove(&key.name);
            self.note(&key.name, has, &[]);
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
        let mut taken: HashSet<String> = self.nodes.list().iter().flat_map(|node| cidrs_of(node)).collect();
        taken.extend(given.values().flatten().cloned());
        let free = |range: &Range| range.free_share(|share| taken.contains(share));
        let shares: Vec<(u32, String)> = self.ranges.iter().map(free).collect::<Option<_>>()?;
        let (tries, cidrs): (Vec<u32>, Vec<String>) = shares.into_iter().unzip();
        given.insert(name.to_owned(), cidrs.clone());
        self.note(name, cidrs.clone(), &tries);
        Some(cidrs)
    }

    /// Counts the shares of a node that were not counted before; `tries` of each range, where they were given just now.
    fn note(&self, name: &str, cidrs: Vec<String>, tries: &[u32]) {
        let mut held = self.held.lock();
        if held.contains_key(name) {
            return;
        }
        for (at, range) in self.ranges.iter().enumerate() {
            cidrs.iter().filter(|cidr| range.has(cidr)).for_each(|_| {
                self.context.metrics.resources().range_given(&range.cidr(), tries.get(at).copied());
            });
        }
        held.insert(name.to_owned(), cidrs);
    }

    fn note_gone(&self, name: &str) {
        let cidrs = self.held.lock().remove(name).unwrap_or_default();
        for range in &self.ranges {
            let given = cidrs.iter().filter(|cidr| range.has(cidr));
            given.for_each(|_| self.context.metrics.resources().range_taken_back(&range.cidr()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::shown;

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
        let free = range.free_share(|share| share == "10.244.0.0/24");
        assert_eq!(free, Some((1, "10.244.1.0/24".to_owned())));
        assert_eq!(range.free_share(|_| true), None);
    }

    #[test]
    fn ranges_are_shown_with_what_nodes_have_of_them() {
        let ranges = [Range::parse("10.244.0.1/22", 24, 64).unwrap(), Range::parse("fd00::/62", 24, 64).unwrap()];
        for (cidr, expected) in [
            ("10.244.0.0/24", [true, false]),
            ("10.244.3.0/24", [true, false]),
            ("10.244.4.0/24", [false, false]),
            ("10.243.0.0/24", [false, false]),
            ("10.244.0.0/25", [false, false]),
            ("fd00:0:0:3::/64", [false, true]),
            ("nonsense", [false, false]),
        ] {
            assert_eq!([ranges[0].has(cidr), ranges[1].has(cidr)], expected, "{cidr}");
        }
        let node = |cidrs: &[&str]| Arc::new(serde_json::from_value(json!({"spec": {"podCIDRs": cidrs}})).unwrap());
        let nodes = [node(&["10.244.1.0/24", "fd00:0:0:1::/64"]), node(&[]), node(&["192.0.2.0/24"])];
        let text = shown(|text| write_figures(text, &ranges, &nodes));
        for line in [
            "node_ipam_controller_cirdset_max_cidrs{clusterCIDR=\"10.244.0.0/22\"} 4",
            "node_ipam_controller_cidrset_usage_cidrs{clusterCIDR=\"10.244.0.0/22\"} 0.25",
            "node_ipam_controller_cidrset_usage_cidrs{clusterCIDR=\"fd00::/62\"} 0.25",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
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
