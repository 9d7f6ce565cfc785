//! How packets get from node to node, as the configuration says it. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// What VXLAN puts around a packet over IPv4: an Ethernet header, its own, UDP's and IP's.
pub const VXLAN_OVERHEAD: u32 = 50;
/// The same over IPv6, whose header is longer.
const VXLAN_OVERHEAD_IPV6: u32 = 70;

/// What tunnels between nodes of this primary family take of every packet.
pub(crate) fn vxlan_overhead(ipv6: bool) -> u32 {
    if ipv6 { VXLAN_OVERHEAD_IPV6 } else { VXLAN_OVERHEAD }
}

/// How packets get from node to node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkMode {
    /// As they are between nodes of one segment; through VXLAN to a node behind a router.
    #[default]
    Auto,
    /// As they are, always: routers between segments have to know the pods, for instance by BGP.
    Native,
    /// Through VXLAN between all nodes.
    Vxlan,
}

impl NetworkMode {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            NetworkMode::Auto => "auto",
            NetworkMode::Native => "native",
            NetworkMode::Vxlan => "vxlan",
        }
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for NetworkMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let modes = [NetworkMode::Auto, NetworkMode::Native, NetworkMode::Vxlan];
        let found = modes.into_iter().find(|mode| mode.as_str() == text);
        found.ok_or_else(|| format!("\"{text}\" is none of auto, native and vxlan"))
    }
}

/// The tunnel's device and how its packets look. All nodes of a cluster have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanConfig {
    /// The name of the device.
    pub device: String,
    /// The VXLAN network identifier (RFC 7348).
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
}

impl Default for VxlanConfig {
    /// The port is IANA's; Linux's own default of 8472 is older than that.
    fn default() -> Self {
        Self { device: "kedge.vxlan".to_owned(), vni: 4107, port: 4789 }
    }
}

/// How the kernel reaches an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// It is on a segment that we share.
    Segment,
    /// It is behind this router.
    Behind(IpAddr),
}

/// How packets to a node's pods leave this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// As they are, to this machine on our segment.
    Via(IpAddr),
    /// In a tunnel to this node.
    Tunnel(IpAddr),
}

/// The way to a next hop; `None` while the kernel knows none.
pub fn plan_way(mode: NetworkMode, next_hop: IpAddr, is_node: bool, hop: Option<Hop>) -> Option<Way> {
    match (mode, hop) {
        (_, None) => None,
        (NetworkMode::Vxlan, Some(_)) if is_node => Some(Way::Tunnel(next_hop)),
        (_, Some(Hop::Segment)) => Some(Way::Via(next_hop)),
        // A router that is our peer does not end tunnels.
        (NetworkMode::Auto, Some(Hop::Behind(_))) if is_node => Some(Way::Tunnel(next_hop)),
        (_, Some(Hop::Behind(router))) => Some(Way::Via(router)),
    }
}

/// The MTU of pods: what the nodes' segment carries, without what a tunnel puts around it where there is one.
///
/// `ipv6`: whether tunnels go over IPv6.
pub fn plan_mtu(mode: NetworkMode, underlay: u32, has_tunnels: bool, ipv6: bool) -> u32 {
    match mode {
        NetworkMode::Native => underlay,
        NetworkMode::Auto if !has_tunnels => underlay,
        _ => underlay.saturating_sub(vxlan_overhead(ipv6)),
    }
}

/// The hardware address of a node's end of the tunnels: every node can work out that of every other.
pub(crate) fn tunnel_address(node_ip: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match node_ip {
        IpAddr::V4(address) => address.octets(),
        // A hash (FNV-1a): of two addresses of a segment, more than the last bytes may differ.
        IpAddr::V6(address) => {
            let mix = |sum: u32, byte: &u8| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
            address.octets().iter().fold(0x811c_9dc5, mix).to_be_bytes()
        }
    };
    // Locally administered.
    [0x0a, 0x6b, a, b, c, d]
}

/// What routes of IPv6 into a tunnel lead to: the kernel takes no gateway for them that it knows on another device, which
/// the address of a node on our segment is.
pub(crate) fn tunnel_gateway(node_ip: IpAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = tunnel_address(node_ip);
    // EUI-64 (RFC 4291): the bit that says that an address is not locally administered is the other way round.
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_depends_on_mode_and_segment() {
        let (node, router): (IpAddr, IpAddr) = ("192.0.2.7".parse().unwrap(), "192.0.2.254".parse().unwrap());
        let behind = Some(Hop::Behind(router));
        let check = |mode: &str, is_node: bool, hop: Option<Hop>, expected: Option<Way>| {
            assert_eq!(plan_way(mode.parse().unwrap(), node, is_node, hop), expected, "{mode} {is_node} {hop:?}");
        };
        for is_node in [true, false] {
            check("auto", is_node, Some(Hop::Segment), Some(Way::Via(node)));
            check("native", is_node, Some(Hop::Segment), Some(Way::Via(node)));
            check("native", is_node, behind, Some(Way::Via(router)));
            check("auto", is_node, None, None);
        }
        check("auto", true, behind, Some(Way::Tunnel(node)));
        check("auto", false, behind, Some(Way::Via(router)));
        check("vxlan", true, Some(Hop::Segment), Some(Way::Tunnel(node)));
        check("vxlan", false, Some(Hop::Segment), Some(Way::Via(node)));
        assert!("ipip".parse::<NetworkMode>().unwrap_err().contains("none of auto"));
    }

    #[test]
    fn tunnels_take_their_part_of_every_packet() {
        let check = |mode, has_tunnels, expected| assert_eq!(plan_mtu(mode, 1500, has_tunnels, false), expected);
        check(NetworkMode::Auto, false, 1500);
        check(NetworkMode::Auto, true, 1450);
        check(NetworkMode::Native, true, 1500);
        check(NetworkMode::Vxlan, false, 1450);
        assert_eq!(plan_mtu(NetworkMode::Vxlan, 1500, true, true), 1430);
    }

    #[test]
    fn every_node_has_a_hardware_address() {
        let check = |address: &str, expected: [u8; 6]| assert_eq!(tunnel_address(address.parse().unwrap()), expected);
        check("192.0.2.7", [0x0a, 0x6b, 192, 0, 2, 7]);
        assert_eq!(tunnel_gateway("192.0.2.7".parse().unwrap()).to_string(), "fe80::86b:c0ff:fe00:207");
        let six = |text: &str| tunnel_address(text.parse().unwrap());
        assert_eq!(six("fd00::1")[..2], [0x0a, 0x6b]);
        assert_ne!(six("fd00::1"), six("fd00::2"));
        assert_ne!(six("fd00::1"), six("fd01::1"));
    }
}
