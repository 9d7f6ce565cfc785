//! The part of the table that does not depend on policies: where packets come in, and how the two directions follow each
//! other.
//!
//! A packet between two pods of this node is judged twice: may the sender send it, and may the receiver have it. The
//! first verdict that allows therefore leads to the second question, and only that one accepts. What the node itself
//! sends and receives is not forwarded and never judged: a node always reaches its own pods.
//!
//! Every packet of the side that opened a connection is judged, and not the first only: where a policy comes, changes or
//! goes, connections that are open follow it at once. The answers of the other side pass with the connection.

use std::collections::BTreeMap;

use kedge_netfilter::{Chain, Family, Hook, SetSpec, Skeleton};

/// The table's name in both families.
pub(crate) const TABLE: &str = "kedge-policy";
/// Where packets go that their sender may send.
pub(crate) const CHECK_INGRESS: &str = "check-ingress";
pub(crate) const EGRESS_PODS: &str = "egress-pods";
pub(crate) const INGRESS_PODS: &str = "ingress-pods";

/// On a bridge these are forwarded too, and without them nobody finds anybody; IPv4 has ARP, which no rule sees.
const NEIGHBOURS: &str = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept";

/// The table of a family without any policy.
pub fn plan_skeleton(ipv6: bool) -> Skeleton {
    let (family, ip, address) = if ipv6 { (Family::Ip6, "ip6", "ipv6_addr") } else { (Family::Ip, "ip", "ipv4_addr") };
    let chain = |hook, rules: Vec<String>| Chain { hook, rules };
    let forward = Some(Hook { kind: "filter", hook: "forward", priority: "filter" });
    Skeleton {
        family,
        name: TABLE.to_owned(),
        comment: "rules for network policies".to_owned(),
        containers: BTreeMap::from([
            (EGRESS_PODS.to_owned(), SetSpec::verdict_map(address, "pods that may not send everything")),
            (INGRESS_PODS.to_owned(), SetSpec::verdict_map(address, "pods that may not receive everything")),
        ]),
        chains: BTreeMap::from([
            (
                "filter-forward".to_owned(),
                chain(
                    forward,
                    [
                        ipv6.then(|| NEIGHBOURS.to_owned()),
                        Some("ct direction reply accept".to_owned()),
                        // Errors about connections; those that nobody may open have none.
                        Some("ct state related accept".to_owned()),
                        Some(format!("{ip} saddr vmap @{EGRESS_PODS}")),
                        Some(format!("goto {CHECK_INGRESS}")),
                    ]
                    .into_iter()
                    .flatten()
                    .collect(),
                ),
            ),
            (
                CHECK_INGRESS.to_owned(),
                chain(None, vec![format!("{ip} daddr vmap @{INGRESS_PODS}"), "accept".to_owned()]),
            ),
        ]),
    }
}
