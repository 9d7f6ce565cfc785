//! The part of the proxy's table that does not depend on Services: hooks, dispatch, masquerading, refusals.
//!
//! Names and order are upstream's where the same thing is there, so that other software that knows kube-proxy's table finds
//! its way here too. What upstream does not have is in `balance.rs`.

use std::collections::BTreeMap;

use kedge_netfilter::{Chain, Family, Hook, SetSpec, Skeleton};

use crate::balance;
use crate::config::{Config, NodePortAddresses};
use crate::plan::{match_sources, show_net};

/// The table's name in both families.
pub(crate) const TABLE: &str = "kube-proxy";
pub(crate) const SERVICE_IPS: &str = "service-ips";
pub(crate) const SERVICE_NODEPORTS: &str = "service-nodeports";
pub(crate) const NODEPORT_IPS: &str = "nodeport-ips";
pub(crate) const CLUSTER_IPS: &str = "cluster-ips";
pub(crate) const NO_ENDPOINT_SERVICES: &str = "no-endpoint-services";
pub(crate) const NO_ENDPOINT_NODEPORTS: &str = "no-endpoint-nodeports";
pub(crate) const FIREWALL_IPS: &str = "firewall-ips";
pub(crate) const MARK_FOR_MASQUERADE: &str = "mark-for-masquerade";
pub(crate) const REJECT: &str = "reject-chain";

/// Bit 14, as everybody expects.
const MASQUERADE_MARK: &str = "0x4000";

/// The table of a family with everything but Services.
pub fn plan_skeleton(config: &Config, ipv6: bool) -> Skeleton {
    let words = Words::of(ipv6);
    let mut chains = base_chains();
    chains.extend(dispatch_chains(config, &words, ipv6));
    chains.extend(masquerade_chains(words.ip));
    let from_outside = match config.masquerade_all {
        true => Some(String::new()),
        false => match_sources(&config.cluster_cidrs, ipv6, "!= "),
    };
    chains.extend(balance::chains(words.ip, from_outside));
    let mut containers = containers(&words);
    containers.extend(balance::containers(words.address));
    if config.localhost_node_ports && !ipv6 {
        chains.insert("localnet-guard".to_owned(), localnet_guard());
    }
    Skeleton {
        family: words.family,
        name: TABLE.to_owned(),
        comment: "rules for kube-proxy".to_owned(),
        containers,
        chains,
    }
}

struct Words {
    family: Family,
    ip: &'static str,
    address: &'static str,
}

impl Words {
    fn of(ipv6: bool) -> Self {
        match ipv6 {
            false => Self { family: Family::Ip, ip: "ip", address: "ipv4_addr" },
            true => Self { family: Family::Ip6, ip: "ip6", address: "ipv6_addr" },
        }
    }
}

fn containers(words: &Words) -> BTreeMap<String, SetSpec> {
    let address = words.address;
    let by_address = format!("{address} . inet_proto . inet_service");
    let by_port = "inet_proto . inet_service";
    let set = |comment: &str, flags: Option<&str>| SetSpec {
        comment: Some(comment.to_owned()),
        flags: flags.map(str::to_owned),
        ..SetSpec::set(address)
    };
    BTreeMap::from([
        (SERVICE_IPS.into(), SetSpec::verdict_map(&by_address, "ClusterIP, ExternalIP and LoadBalancer IP traffic")),
        (SERVICE_NODEPORTS.into(), SetSpec::verdict_map(by_port, "NodePort traffic")),
        (NO_ENDPOINT_SERVICES.into(), SetSpec::verdict_map(&by_address, "services with no endpoints: drop or reject")),
        (NO_ENDPOINT_NODEPORTS.into(), SetSpec::verdict_map(by_port, "node ports with no endpoints: drop or reject")),
        (FIREWALL_IPS.into(), SetSpec::verdict_map(&by_address, "subject to LoadBalancerSourceRanges")),
        (NODEPORT_IPS.into(), set("IPs that accept NodePort traffic", Some("interval"))),
        (CLUSTER_IPS.into(), set("Active ClusterIPs", None)),
    ])
}

fn base_chains() -> BTreeMap<String, Chain> {
    let base = |name: &str, kind, hook, priority, rules: &[&str]| {
        let rules = rules.iter().map(|rule| (*rule).to_owned()).collect();
        (name.to_owned(), Chain { hook: Some(Hook { kind, hook, priority }), rules })
    };
    // In numbers, as nft knows the word dstnat (-100) only in prerouting.
    // Filters see the addresses that clients used, so they come before the translation of destinations, except for
    // the last: what is still addressed to a ClusterIP then, nobody serves.
    BTreeMap::from([
        base("filter-prerouting", "filter", "prerouting", "-110", &["ct state new jump firewall-check"]),
        base(
            "filter-input",
            "filter",
            "input",
            "-110",
            &["ct state new jump nodeport-endpoints-check", "ct state new jump service-endpoints-check"],
        ),
        base(
            "filter-forward",
            "filter",
            "forward",
            "-110",
            &["ct state new jump service-endpoints-check", "ct state new jump cluster-ips-check"],
        ),
        base(
            "filter-output",
            "filter",
            "output",
            "-110",
            &["ct state new jump service-endpoints-check", "ct state new jump firewall-check"],
        ),
        base("filter-output-post-dnat", "filter", "output", "-90", &["ct state new jump cluster-ips-check"]),
        base("nat-prerouting", "nat", "prerouting", "dstnat", &["jump services"]),
        base("nat-output", "nat", "output", "-100", &["jump services"]),
        base("nat-postrouting", "nat", "postrouting", "srcnat", &["jump masquerading"]),
    ])
}

fn dispatch_chains(config: &Config, words: &Words, ipv6: bool) -> BTreeMap<String, Chain> {
    let ip = words.ip;
    let by_address = format!("{ip} daddr . meta l4proto . th dport vmap");
    let to_node = match &config.node_port_addresses {
        NodePortAddresses::Primary => format!("{ip} daddr @{NODEPORT_IPS}"),
        NodePortAddresses::Ranges(_) => format!("fib daddr type local {ip} daddr @{NODEPORT_IPS}"),
        NodePortAddresses::All if ipv6 => "fib daddr type local ip6 daddr != ::1".to_owned(),
        NodePortAddresses::All if config.localhost_node_ports => "fib daddr type local".to_owned(),
        NodePortAddresses::All => "fib daddr type local ip daddr != 127.0.0.0/8".to_owned(),
    };
    let to_node = format!("{to_node} meta l4proto . th dport vmap");
    let service_cidrs = config.service_cidrs.iter().filter(|range| range.addr().is_ipv6() == ipv6);
    let service_cidrs: Vec<String> = service_cidrs.map(show_net).collect();
    let mut cluster_ips = vec![format!(
        "{ip} daddr @{CLUSTER_IPS} goto {REJECT} comment \"Reject traffic to invalid ports of ClusterIPs\""
    )];
    if !service_cidrs.is_empty() {
        let ranges = service_cidrs.join(", ");
        cluster_ips.push(format!("{ip} daddr {{ {ranges} }} drop comment \"Drop traffic to unallocated ClusterIPs\""));
    }
    let mut services = balance::dispatch(ip);
    services.extend([format!("{by_address} @{SERVICE_IPS}"), format!("{to_node} @{SERVICE_NODEPORTS}")]);
    BTreeMap::from([
        chain("services", services),
        chain("service-endpoints-check", vec![format!("{by_address} @{NO_ENDPOINT_SERVICES}")]),
        chain("nodeport-endpoints-check", vec![format!("{to_node} @{NO_ENDPOINT_NODEPORTS}")]),
        chain("firewall-check", vec![format!("{by_address} @{FIREWALL_IPS}")]),
        chain("cluster-ips-check", cluster_ips),
        // A TCP client learns at once that nobody listens.
        chain(REJECT, vec!["meta l4proto tcp reject with tcp reset".to_owned(), "reject".to_owned()]),
    ])
}

fn masquerade_chains(ip: &str) -> BTreeMap<String, Chain> {
    BTreeMap::from([
        chain(MARK_FOR_MASQUERADE, vec![format!("meta mark set meta mark or {MASQUERADE_MARK}")]),
        chain(
            "masquerading",
            vec![
                balance::hairpin_rule(ip),
                format!("meta mark and {MASQUERADE_MARK} == 0 return"),
                format!("meta mark set meta mark xor {MASQUERADE_MARK}"),
                "masquerade fully-random".to_owned(),
            ],
        ),
    ])
}

/// With `route_localnet` the kernel no longer drops packets from the wire that claim to be from or for a loopback
/// address; without this rule the machine's neighbours would reach what listens on 127.0.0.1 only.
fn localnet_guard() -> Chain {
    Chain {
        hook: Some(Hook { kind: "filter", hook: "prerouting", priority: "raw" }),
        rules: vec![
            "iifname != \"lo\" ip daddr 127.0.0.0/8 drop".to_owned(),
            "iifname != \"lo\" ip saddr 127.0.0.0/8 drop".to_owned(),
        ],
    }
}

fn chain(name: &str, rules: Vec<String>) -> (String, Chain) {
    (name.to_owned(), Chain { hook: None, rules })
}
