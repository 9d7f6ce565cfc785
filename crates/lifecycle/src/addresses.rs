//! The node's name and address, where nobody named them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Why there is no address or name.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// No interface has a usable address.
    #[error("this machine has no {0} address but loopback's; name one with --node-ip")]
    None(&'static str),
    /// The interfaces can't be listed.
    #[error("cannot list the network interfaces")]
    List(#[source] nix::Error),
    /// The host name can't be used as a node name.
    #[error(
        "the host name {0:?} is no node name (lower-case letters, digits, `-` and `.` are allowed); set another one"
    )]
    Hostname(String),
}

/// The address, of IPv4 or IPv6, of the interface with the default route of that family; without one, the first address
/// that is not loopback's or link-local.
pub fn find_node_ip(ipv6: bool) -> Result<IpAddr, AddressError> {
    let addresses: Vec<(String, IpAddr)> = getifaddrs()
        .map_err(AddressError::List)?
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter(|interface| !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK))
        .filter_map(|interface| {
            let address = interface.address?;
            let ip = match ipv6 {
                false => address.as_sockaddr_in()?.ip().into(),
                true => address.as_sockaddr_in6().map(|address| address.ip()).filter(is_of_machine)?.into(),
            };
            Some((interface.interface_name, ip))
        })
        .collect();
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let default = match ipv6 {
        false => default_interface(&read("/proc/net/route")),
        true => default_interface_v6(&read("/proc/net/ipv6_route")),
    };
    choose(&addresses, default.as_deref()).ok_or(AddressError::None(if ipv6 { "IPv6" } else { "IPv4" }))
}

/// Other machines can't use a link-local address without knowing the link.
fn is_of_machine(address: &Ipv6Addr) -> bool {
    !address.is_unicast_link_local() && !address.is_multicast() && !address.is_loopback()
}

/// The nth address of a range, counted from its network address, which is the 0th.
pub(crate) fn nth_address(range: &IpNet, nth: u32) -> Option<IpAddr> {
    let address = match range {
        IpNet::V4(range) => IpAddr::from(Ipv4Addr::from(u32::from(range.network()).checked_add(nth)?)),
        IpNet::V6(range) => IpAddr::from(Ipv6Addr::from(u128::from(range.network()).checked_add(nth.into())?)),
    };
    range.contains(&address).then_some(address)
}

/// The host's name in the form of a node name.
pub fn hostname() -> Result<String, AddressError> {
    let name = nix::unistd::gethostname().map_err(AddressError::List)?;
    let name = name.to_string_lossy().trim().to_lowercase();
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    if name.split('.').all(label) { Ok(name) } else { Err(AddressError::Hostname(name)) }
}

/// The interface of the default route with the lowest metric in the text of `/proc/net/route`.
fn default_interface(routes: &str) -> Option<String> {
    routes
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.len() > 7 && fields[1] == "00000000" && fields[7] == "00000000")
        .min_by_key(|fields| fields[6].parse::<u32>().unwrap_or(u32::MAX))
        .map(|fields| fields[0].to_owned())
}

/// The same in the text of `/proc/net/ipv6_route`, whose numbers are hexadecimal. Routes that refuse packets are loopback's.
fn default_interface_v6(routes: &str) -> Option<String> {
    routes
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.len() > 9 && fields[0].chars().all(|digit| digit == '0') && fields[1] == "00")
        .filter(|fields| fields[9] != "lo")
        .min_by_key(|fields| u32::from_str_radix(fields[5], 16).unwrap_or(u32::MAX))
        .map(|fields| fields[9].to_owned())
}

/// Bridges and veths of containers come last: their addresses are not the machine's.
fn choose(addresses: &[(String, IpAddr)], default: Option<&str>) -> Option<IpAddr> {
    let of_default = addresses.iter().find(|(name, _)| Some(name.as_str()) == default);
    let of_machine = || {
        addresses.iter().find(|(name, _)| !["cni", "docker", "veth", "virbr"].iter().any(|kind| name.starts_with(kind)))
    };
    of_default.or_else(of_machine).map(|(_, address)| *address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_from_the_networks_own() {
        for (range, nth, expected) in [
            ("10.96.0.0/12", 1, Some("10.96.0.1")),
            ("10.96.0.0/12", 10, Some("10.96.0.10")),
            ("fd00::/112", 1, Some("fd00::1")),
            ("fd00::/112", 10, Some("fd00::a")),
            ("10.0.0.0/31", 2, None),
        ] {
            let found = nth_address(&range.parse().unwrap(), nth).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{range} {nth}");
        }
    }

    const ROUTES: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
        eth1\t00000000\t010200C0\t0003\t0\t0\t200\t00000000\t0\t0\t0\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn the_default_route_decides() {
        assert_eq!(default_interface(ROUTES).as_deref(), Some("eth0"));
        assert_eq!(default_interface("Iface\n"), None);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let found = [
            ("cni0".to_owned(), address("10.244.0.1")),
            ("eth1".to_owned(), address("192.0.2.3")),
            ("eth0".to_owned(), address("192.0.2.2")),
        ];
        assert_eq!(choose(&found, Some("eth0")), Some(address("192.0.2.2")));
        assert_eq!(choose(&found, None), Some(address("192.0.2.3")));
        assert_eq!(choose(&found[..1], None), None);
    }

    #[test]
    fn the_default_route_of_ipv6_decides() {
        let zeros = "0".repeat(32);
        let line = |destination: &str, length: &str, metric: &str, name: &str| {
            format!("{destination} {length} {zeros} 00 {zeros} {metric} 00000001 00000000 00000003 {name:>8}\n")
        };
        let segment = "fd000000000000000000000000000000";
        let routes = [
            line(&zeros, "00", "ffffffff", "lo"),
            line(&zeros, "00", "00000400", "eth1"),
            line(&zeros, "00", "00000064", "eth0"),
            line(segment, "40", "00000001", "eth2"),
        ];
        assert_eq!(default_interface_v6(&routes.concat()).as_deref(), Some("eth0"));
        assert_eq!(default_interface_v6(&routes[0]), None);
        let check = |text: &str, expected: bool| assert_eq!(is_of_machine(&text.parse().unwrap()), expected, "{text}");
        check("fd00::1", true);
        check("2001:db8::1", true);
        check("fe80::1", false);
        check("::1", false);
    }
}
