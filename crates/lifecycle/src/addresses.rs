//! The node's name and address, where nobody named them.

use std::net::{IpAddr, Ipv4Addr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Why there is no address or name.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// No interface has a usable address.
    #[error("this machine has no IPv4 address but loopback's; name one with --node-ip")]
    None,
    /// The interfaces can't be listed.
    #[error("cannot list the network interfaces")]
    List(#[source] nix::Error),
    /// The host name can't be used as a node name.
    #[error(
        "the host name {0:?} is no node name (lower-case letters, digits, `-` and `.` are allowed); set another one"
    )]
    Hostname(String),
}

/// The address of the interface with the default route; without one, the first address that is not loopback's.
pub fn find_node_ip() -> Result<IpAddr, AddressError> {
    let addresses: Vec<(String, Ipv4Addr)> = getifaddrs()
        .map_err(AddressError::List)?
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter(|interface| !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK))
        .filter_map(|interface| Some((interface.interface_name, interface.address?.as_sockaddr_in()?.ip())))
        .collect();
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    choose(&addresses, default_interface(&routes).as_deref()).map(IpAddr::V4).ok_or(AddressError::None)
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

/// Bridges and veths of containers come last: their addresses are not the machine's.
fn choose(addresses: &[(String, Ipv4Addr)], default: Option<&str>) -> Option<Ipv4Addr> {
    let of_default = addresses.iter().find(|(name, _)| Some(name.as_str()) == default);
    let of_machine = || {
        addresses.iter().find(|(name, _)| !["cni", "docker", "veth", "virbr"].iter().any(|kind| name.starts_with(kind)))
    };
    of_default.or_else(of_machine).map(|(_, address)| *address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
        eth1\t00000000\t010200C0\t0003\t0\t0\t200\t00000000\t0\t0\t0\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn the_default_route_decides() {
        assert_eq!(default_interface(ROUTES).as_deref(), Some("eth0"));
        assert_eq!(default_interface("Iface\n"), None);
        let address = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        let found = [
            ("cni0".to_owned(), address("10.244.0.1")),
            ("eth1".to_owned(), address("192.0.2.3")),
            ("eth0".to_owned(), address("192.0.2.2")),
        ];
        assert_eq!(choose(&found, Some("eth0")), Some(address("192.0.2.2")));
        assert_eq!(choose(&found, None), Some(address("192.0.2.3")));
        assert_eq!(choose(&found[..1], None), None);
    }
}
