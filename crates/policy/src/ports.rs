//! The ports of a rule, sorted into what can be said for all pods at once and what each pod calls differently. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kedge_netfilter::Protocol;

use crate::object::{Pod, Port, PortMatch};

/// The matches for ports that have numbers: one for each protocol. An empty list stands for no port at all.
pub(crate) fn numbered(ports: &[Port]) -> Vec<String> {
    let mut by_protocol: BTreeMap<Protocol, Option<Vec<(u16, u16)>>> = BTreeMap::new();
    for port in ports {
        match port.port {
            PortMatch::All => {
                by_protocol.insert(port.protocol, None);
            }
            PortMatch::Range(first, last) => {
                if let Some(ranges) = by_protocol.entry(port.protocol).or_insert_with(|| Some(Vec::new())) {
                    ranges.push((first, last));
                }
            }
            PortMatch::Named(_) => {}
        }
    }
    let shown = by_protocol.into_iter().map(|(protocol, ranges)| match ranges {
        None => format!("meta l4proto {}", protocol.as_str()),
        Some(ranges) => format!("{} dport {{ {} }}", protocol.as_str(), show(merged(ranges))),
    });
    shown.collect()
}

/// nft refuses a set with overlapping ranges.
fn merged(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if u32::from(first) <= u32::from(*end) + 1 => *end = (*end).max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn show(ranges: Vec<(u16, u16)>) -> String {
    let one = |(first, last): &(u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The addresses of pods by the protocol and number that they have for a named port of the rule.
pub(crate) fn named<'a>(ports: &[Port], pods: impl Iterator<Item = &'a Pod>) -> BTreeMap<(Protocol, u16), Vec<IpAddr>> {
    let wanted: Vec<(Protocol, &str)> = ports
        .iter()
        .filter_map(|port| match &port.port {
            PortMatch::Named(name) => Some((port.protocol, name.as_str())),
            _ => None,
        })
        .collect();
    let mut addresses: BTreeMap<(Protocol, u16), Vec<IpAddr>> = BTreeMap::new();
    if wanted.is_empty() {
        return addresses;
    }
    for pod in pods {
        for port in pod.ports.iter().filter(|port| wanted.contains(&(port.protocol, port.name.as_str()))) {
            addresses.entry((port.protocol, port.number)).or_default().extend(&pod.ips);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged_and_all_of_a_protocol_wins() {
        let check = |ports: &[(Protocol, PortMatch)], expected: &[&str]| {
            let ports: Vec<Port> =
                ports.iter().map(|(protocol, port)| Port { protocol: *protocol, port: port.clone() }).collect();
            assert_eq!(numbered(&ports), expected);
        };
        let range = PortMatch::Range;
        check(&[], &[]);
        check(&[(Protocol::Tcp, range(80, 80))], &["tcp dport { 80 }"]);
        check(&[(Protocol::Tcp, range(443, 443)), (Protocol::Tcp, range(80, 81))], &["tcp dport { 80-81, 443 }"]);
        check(&[(Protocol::Tcp, range(80, 90)), (Protocol::Tcp, range(85, 100))], &["tcp dport { 80-100 }"]);
        check(&[(Protocol::Tcp, range(80, 80)), (Protocol::Tcp, range(81, 65535))], &["tcp dport { 80-65535 }"]);
        check(&[(Protocol::Udp, PortMatch::All), (Protocol::Udp, range(53, 53))], &["meta l4proto udp"]);
        check(&[(Protocol::Udp, range(53, 53)), (Protocol::Udp, PortMatch::All)], &["meta l4proto udp"]);
        check(&[(Protocol::Tcp, PortMatch::Named("web".to_owned()))], &[]);
        check(&[(Protocol::Sctp, range(1, 1)), (Protocol::Tcp, range(2, 2))], &["tcp dport { 2 }", "sctp dport { 1 }"]);
    }
}
