//! The packet rules of the pod network: what pods send out of the cluster goes in the node's name. Pure.

use std::collections::BTreeMap;

use ipnet::IpNet;
use kedge_netfilter::{Chain, Family, Hook, Skeleton};

use crate::config::Config;

/// The table's name in both families.
pub(crate) const TABLE: &str = "kedge-network";

/// The table of a family; `None` where no pod has an address of it.
pub fn plan_rules(config: &Config, pod_cidrs: &[IpNet], ipv6: bool) -> Option<Skeleton> {
    let of_family = |ranges: &[IpNet]| -> Vec<String> {
        let ranges: Vec<IpNet> = ranges.iter().filter(|range| range.addr().is_ipv6() == ipv6).copied().collect();
        // nft refuses a set with a range inside another.
        IpNet::aggregate(&ranges).iter().map(ToString::to_string).collect()
    };
    let pods = of_family(pod_cidrs);
    if pods.is_empty() {
        return None;
    }
    let mut inside = config.cluster_cidrs.clone();
    inside.extend(pod_cidrs);
    let mut inside = of_family(&inside);
    // Multicast is not for the world either.
    inside.push(if ipv6 { "ff00::/8" } else { "224.0.0.0/4" }.to_owned());
    let (family, ip) = if ipv6 { (Family::Ip6, "ip6") } else { (Family::Ip, "ip") };
    let rule = format!(
        "{ip} saddr {{ {} }} {ip} daddr != {{ {} }} oifname != \"{}\" masquerade fully-random",
        pods.join(", "),
        inside.join(", "),
        config.bridge
    );
    let hook = Some(Hook { kind: "nat", hook: "postrouting", priority: "srcnat" });
    Some(Skeleton {
        family,
        name: TABLE.to_owned(),
        comment: "rules for the pod network".to_owned(),
        containers: BTreeMap::new(),
        chains: BTreeMap::from([("nat-postrouting".to_owned(), Chain { hook, rules: vec![rule] })]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leaves_the_cluster_is_masqueraded() {
        let mut config = Config::new("n", Vec::new(), "/x");
        config.cluster_cidrs = vec!["10.244.0.0/16".parse().unwrap()];
        let pods = ["10.244.0.0/24".parse().unwrap()];
        let table = plan_rules(&config, &pods, false).unwrap();
        assert_eq!(
            table.chains["nat-postrouting"].rules,
            [
                "ip saddr { 10.244.0.0/24 } ip daddr != { 10.244.0.0/16, 224.0.0.0/4 } oifname != \"cni0\" masquerade fully-random"
            ]
        );
        assert_eq!(plan_rules(&config, &pods, true), None);
    }
}
