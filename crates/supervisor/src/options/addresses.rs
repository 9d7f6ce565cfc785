//! The node's addresses and the cluster's ranges, of one IP family or both, checked together. Pure but for `find`.
//!
//! Invariant: the first range of pods, the first range of Services and the node's first address are of one family, the
//! cluster's primary one; a family that pods have, the node has too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use kedge_lifecycle::AddressError;

use crate::error::Error;

const PODS: &str = "--pod-network-cidr";
const SERVICES: &str = "--service-cidr";
const NODE: &str = "--node-ip";
/// A range is cut into at most 2^16 shares.
const LARGEST_SPREAD: u8 = 16;
/// Upstream's limits: a Service range has no more than 2^20 addresses of IPv4, or 2^64 of IPv6.
const WIDEST_SERVICES: (u8, u8) = (12, 64);
const NARROWEST_SERVICES: (u8, u8) = (28, 124);

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AskedAddresses<'a> {
    pub(crate) node_ips: &'a [IpAddr],
    pub(crate) pods: &'a str,
    pub(crate) services: &'a str,
    /// The length of a node's share of the pods' ranges, of IPv4 and IPv6.
    pub(crate) masks: (u8, u8),
    pub(crate) control_plane_only: bool,
}

/// The same, checked and complete. What is primary comes first.
#[derive(Debug, Clone)]
pub(crate) struct AddressPlan {
    pub(crate) node_ips: Vec<IpAddr>,
    pub(crate) pods: Vec<IpNet>,
    pub(crate) services: Vec<IpNet>,
}

impl AddressPlan {
    /// `find` looks for the machine's address of a family, given as whether it is IPv6.
    pub(crate) fn new(
        asked: &AskedAddresses<'_>,
        find: impl Fn(bool) -> Result<IpAddr, AddressError>,
    ) -> Result<Self, Error> {
        let pods = ranges(PODS, asked.pods)?;
        let services = ranges(SERVICES, asked.services)?;
        pods.iter().try_for_each(|range| check_pods(range, asked.masks))?;
        services.iter().try_for_each(check_services)?;
        check_families(asked, &pods, &services)?;
        let node_ips = match asked.node_ips {
            [] => found_node_ips(&pods, asked.control_plane_only, find)?,
            given => given_node_ips(given, &pods, asked.control_plane_only, find)?,
        };
        Ok(Self { node_ips, pods, services })
    }
}

/// The addresses of a node whose ranges nobody names: at most one of each family, and one that is found where there is
/// none. An unspecified address asks for one of its family.
pub(crate) fn node_addresses(
    given: &[IpAddr],
    find: impl Fn(bool) -> Result<IpAddr, AddressError>,
) -> Result<Vec<IpAddr>, Error> {
    match given {
        [] => Ok(vec![find(false).or_else(|error| find(true).map_err(|_| error))?]),
        [_, _, _, ..] => Err(wrong(NODE, &show(given), "at most two addresses are possible, one of each IP family")),
        [a, b] if a.is_ipv6() == b.is_ipv6() => {
            Err(wrong(NODE, &show(given), "two addresses must be of different IP families"))
        }
        _ => given.iter().map(|ip| if ip.is_unspecified() { Ok(find(ip.is_ipv6())?) } else { Ok(*ip) }).collect(),
    }
}

/// The address with this number in a range.
pub(crate) fn nth(range: &IpNet, number: u32) -> IpAddr {
    match range.network() {
        IpAddr::V4(network) => Ipv4Addr::from_bits(network.to_bits().saturating_add(number)).into(),
        IpAddr::V6(network) => Ipv6Addr::from_bits(network.to_bits().saturating_add(number.into())).into(),
    }
}

fn wrong(flag: &'static str, value: &str, why: impl Into<String>) -> Error {
    Error::Flag { flag, value: value.to_owned(), why: why.into() }
}

fn show(list: &[impl ToString]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn name(ipv6: bool) -> &'static str {
    if ipv6 { "IPv6" } else { "IPv4" }
}

fn has(ranges: &[IpNet], ipv6: bool) -> bool {
    ranges.iter().any(|range| range.addr().is_ipv6() == ipv6)
}

fn ranges(flag: &'static str, value: &str) -> Result<Vec<IpNet>, Error> {
    let expected = "a range like 10.244.0.0/16 is expected, or two of different IP families with a comma between them";
    let read = |text: &str| text.trim().parse::<IpNet>().map(|range| range.trunc());
    let ranges: Vec<IpNet> =
        value.split(',').map(read).collect::<Result<_, _>>().map_err(|_| wrong(flag, value, expected))?;
    match ranges.as_slice() {
        [_, _, _, ..] => Err(wrong(flag, value, "at most two ranges are possible, one of each IP family")),
        [a, b] if a.addr().is_ipv6() == b.addr().is_ipv6() => {
            Err(wrong(flag, value, "two ranges must be of different IP families"))
        }
        _ => Ok(ranges),
    }
}

fn check_pods(range: &IpNet, (ipv4, ipv6): (u8, u8)) -> Result<(), Error> {
    let (flag, mask, longest) = match range {
        IpNet::V4(_) => ("--node-cidr-mask-size-ipv4", ipv4, 30),
        IpNet::V6(_) => ("--node-cidr-mask-size-ipv6", ipv6, 126),
    };
    if mask > longest {
        return Err(wrong(flag, &mask.to_string(), format!("at most {longest} is possible")));
    }
    if range.prefix_len() > mask {
        let why = format!("the range is too small: at most /{mask} is possible, as each node gets so much");
        return Err(wrong(PODS, &range.to_string(), why));
    }
    if mask - range.prefix_len() > LARGEST_SPREAD {
        let why = format!("the range is more than 65,536 times a node's /{mask}; choose a smaller one, or {flag}");
        return Err(wrong(PODS, &range.to_string(), why));
    }
    Ok(())
}

fn check_services(range: &IpNet) -> Result<(), Error> {
    let of_family = |(ipv4, ipv6): (u8, u8)| if range.addr().is_ipv6() { ipv6 } else { ipv4 };
    let (widest, narrowest) = (of_family(WIDEST_SERVICES), of_family(NARROWEST_SERVICES));
    match range.prefix_len() {
        length if length > narrowest => {
            let why = format!("the range is too small: at most /{narrowest} is possible");
            Err(wrong(SERVICES, &range.to_string(), why))
        }
        length if length < widest && range.addr().is_ipv6() => {
            let why = format!("the range is too large: at least /{widest} is possible");
            Err(wrong(SERVICES, &range.to_string(), why))
        }
        _ => Ok(()),
    }
}

fn check_families(asked: &AskedAddresses<'_>, pods: &[IpNet], services: &[IpNet]) -> Result<(), Error> {
    let family = |ranges: &[IpNet]| ranges.first().is_some_and(|range| range.addr().is_ipv6());
    if family(pods) != family(services) {
        let why = format!(
            "the first range of Services is {}, and the first of pods ({PODS} {}) is {}: the primary family must be the same",
            name(family(services)),
            asked.pods,
            name(family(pods))
        );
        return Err(wrong(SERVICES, asked.services, why));
    }
    match services.iter().find(|range| !has(pods, range.addr().is_ipv6())) {
        Some(range) => {
            let why = format!("no pod has an {} address ({PODS} {})", name(range.addr().is_ipv6()), asked.pods);
            Err(wrong(SERVICES, asked.services, why))
        }
        None => Ok(()),
    }
}

fn found_node_ips(
    pods: &[IpNet],
    control_plane_only: bool,
    find: impl Fn(bool) -> Result<IpAddr, AddressError>,
) -> Result<Vec<IpAddr>, Error> {
    let mut found = Vec::new();
    for (index, range) in pods.iter().enumerate() {
        let ipv6 = range.addr().is_ipv6();
        match find(ipv6) {
            Ok(address) => found.push(address),
            Err(_) if control_plane_only && index > 0 => {}
            Err(_) if control_plane_only && ipv6 => found.push(Ipv6Addr::LOCALHOST.into()),
            Err(_) if control_plane_only => found.push(Ipv4Addr::LOCALHOST.into()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

fn given_node_ips(
    given: &[IpAddr],
    pods: &[IpNet],
    control_plane_only: bool,
    find: impl Fn(bool) -> Result<IpAddr, AddressError>,
) -> Result<Vec<IpAddr>, Error> {
    let node_ips = node_addresses(given, find)?;
    let primary = pods.first().is_some_and(|range| range.addr().is_ipv6());
    if node_ips.first().is_some_and(|ip| ip.is_ipv6() != primary) {
        let why = format!("the first address must be {}, as the first range of pods ({PODS}) is", name(primary));
        return Err(wrong(NODE, &show(given), why));
    }
    let lacks = |range: &&IpNet| !node_ips.iter().any(|ip| ip.is_ipv6() == range.addr().is_ipv6());
    match pods.iter().find(lacks) {
        Some(range) if !control_plane_only => {
            let ipv6 = range.addr().is_ipv6();
            let why =
                format!("there is no {} address, which {PODS} {range} needs; name one of each family", name(ipv6));
            Err(wrong(NODE, &show(given), why))
        }
        _ => Ok(node_ips),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

    fn find(ipv6: bool) -> Result<IpAddr, AddressError> {
        Ok(if ipv6 { "2001:db8::2" } else { "192.0.2.2" }.parse().unwrap())
    }

    fn plan(node_ips: &str, pods: &str, services: &str) -> Result<AddressPlan, String> {
        let node_ips: Vec<IpAddr> = node_ips.split(',').filter_map(|ip| ip.parse().ok()).collect();
        let asked = AskedAddresses { node_ips: &node_ips, pods, services, masks: (24, 64), control_plane_only: false };
        AddressPlan::new(&asked, find).map_err(|error| error.to_string())
    }

    #[test]
    fn one_family_or_both_in_any_order() {
        let check = |node_ips: &str, pods: &str, services: &str, expected: &str| {
            let plan = plan(node_ips, pods, services).unwrap();
            assert_eq!(show(&plan.node_ips), expected);
            assert_eq!((show(&plan.pods), show(&plan.services)), (pods.to_owned(), services.to_owned()));
        };
        let (four, six) = ("10.244.0.0/16", "fd00:10:244::/56");
        let (services_four, services_six) = ("10.96.0.0/12", "fd00:10:96::/112");
        check("", four, services_four, "192.0.2.2");
        check("", six, services_six, "2001:db8::2");
        check("::", six, services_six, "2001:db8::2");
        let both = (&*format!("{four},{six}"), &*format!("{services_four},{services_six}"));
        check("", both.0, both.1, "192.0.2.2,2001:db8::2");
        check("192.0.2.7,fd00::7", both.0, both.1, "192.0.2.7,fd00::7");
        check("192.0.2.7,fd00::7", four, services_four, "192.0.2.7,fd00::7");
        check("", both.0, services_four, "192.0.2.2,2001:db8::2");
        check("", &format!("{six},{four}"), &format!("{services_six},{services_four}"), "2001:db8::2,192.0.2.2");
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        let check = |node_ips: &str, pods: &str, services: &str, expected: &str| {
            let error = plan(node_ips, pods, services).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        let (four, six) = ("10.244.0.0/16", "fd00:10:244::/56");
        let (services_four, services_six) = ("10.96.0.0/12", "fd00:10:96::/112");
        check("", "10.244.0.0/16,10.245.0.0/16", services_four, "--pod-network-cidr");
        check("", "10.244.0.0/16,10.245.0.0/16", services_four, "two ranges must be of different IP families");
        check("", four, "10.96.0.0/12,fd00::/112,fd01::/112", "at most two ranges are possible");
        check("", four, services_six, "the primary family must be the same");
        check("", four, "10.96.0.0/12,fd00::/112", "no pod has an IPv6 address");
        check("", "10.244.0.0/25", services_four, "too small: at most /24");
        check("", "fd00::/72", services_six, "too small: at most /64");
        check("", "fd00::/40", services_six, "more than 65,536 times a node's /64");
        check("", six, "fd00::/48", "too large: at least /64");
        check("", six, "fd00::/126", "too small: at most /124");
        check("192.0.2.7", &format!("{four},{six}"), services_four, "there is no IPv6 address");
        check("192.0.2.7", six, services_six, "the first address must be IPv6");
        check("192.0.2.7,192.0.2.8", four, services_four, "two addresses must be of different IP families");
        check("192.0.2.7,fd00::1,fd00::2", four, services_four, "at most two addresses");
        check("", "10.244.0.0/16,", services_four, "with a comma between them");
    }

    #[test]
    fn addresses_of_a_node_alone() {
        let shown = |given: &[IpAddr]| node_addresses(given, find).map(|ips| show(&ips)).map_err(|e| e.to_string());
        assert_eq!(shown(&[]).unwrap(), "192.0.2.2");
        assert_eq!(shown(&[ANY.into()]).unwrap(), "2001:db8::2");
        assert_eq!(shown(&["fd00::1".parse().unwrap(), Ipv4Addr::LOCALHOST.into()]).unwrap(), "fd00::1,127.0.0.1");
        assert_eq!(nth(&"fd00::/112".parse().unwrap(), 10).to_string(), "fd00::a");
        assert_eq!(nth(&"10.96.0.0/12".parse().unwrap(), 1).to_string(), "10.96.0.1");
    }
}
