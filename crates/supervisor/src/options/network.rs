//! What was asked for about packets between nodes, checked once. Pure.

use std::net::{IpAddr, SocketAddr};

use kedge_network::{DEFAULT_ASN, MeshConfig, NetworkMode, PeerConfig, VxlanConfig};

use crate::error::Error;

/// The smallest MTU of IPv6, and more than what IPv4 demands.
const SMALLEST_MTU: u32 = 1280;
const LARGEST_MTU: u32 = 65535;
const LARGEST_VNI: u32 = (1 << 24) - 1;
/// The number that stands for those that do not fit (RFC 6793).
const AS_TRANS: u32 = 23456;

/// How packets get to other nodes.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// `auto`, `native` or `vxlan`.
    pub mode: String,
    /// The MTU of pods; found where absent.
    pub mtu: Option<u32>,
    /// VXLAN's UDP port.
    pub vxlan_port: u16,
    /// VXLAN's network identifier.
    pub vxlan_vni: u32,
    /// The autonomous system of all nodes.
    pub bgp_asn: u32,
    /// Peers besides the nodes, as `ADDRESS[:PORT]=ASN`.
    pub bgp_peers: Vec<String>,
    /// Whether all nodes are peers of each other.
    pub bgp_node_mesh: bool,
    /// After how many seconds of silence a session is over.
    pub bgp_hold_time: u16,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        let vxlan = VxlanConfig::default();
        Self {
            mode: NetworkMode::default().to_string(),
            mtu: None,
            vxlan_port: vxlan.port,
            vxlan_vni: vxlan.vni,
            bgp_asn: DEFAULT_ASN,
            bgp_peers: Vec::new(),
            bgp_node_mesh: true,
            bgp_hold_time: 9,
        }
    }
}

/// The same, checked.
#[derive(Debug, Clone)]
pub(crate) struct NetworkPlan {
    mode: NetworkMode,
    mtu: Option<u32>,
    vxlan: VxlanConfig,
    asn: u32,
    peers: Vec<PeerConfig>,
    full_mesh: bool,
    hold_time: u16,
}

impl NetworkPlan {
    pub(crate) fn new(options: &NetworkOptions, node_ips: &[IpAddr]) -> Result<Self, Error> {
        let mode = options.mode.parse().map_err(|why| wrong("--network-mode", &options.mode, why))?;
        check(options)?;
        let mut peers: Vec<PeerConfig> = Vec::new();
        for text in &options.bgp_peers {
            let peer = peer(text, node_ips).map_err(|why| wrong("--bgp-peer", text, why))?;
            if peers.iter().any(|known| known.address == peer.address) {
                return Err(wrong("--bgp-peer", text, format!("{} is named twice", peer.address)));
            }
            peers.push(peer);
        }
        if !options.bgp_node_mesh && peers.is_empty() {
            let why =
                "without peers nobody would tell the nodes' routes; name a route reflector with --bgp-peer".to_owned();
            return Err(wrong("--bgp-node-mesh", "false", why));
        }
        Ok(Self {
            mode,
            mtu: options.mtu,
            vxlan: VxlanConfig { vni: options.vxlan_vni, port: options.vxlan_port, ..VxlanConfig::default() },
            asn: options.bgp_asn,
            peers,
            full_mesh: options.bgp_node_mesh,
            hold_time: options.bgp_hold_time,
        })
    }

    pub(crate) fn apply_to_node(&self, config: &mut kedge_network::Config) {
        (config.mode, config.mtu) = (self.mode, self.mtu);
    }

    pub(crate) fn apply_to_mesh(&self, config: &mut MeshConfig) {
        (config.mode, config.vxlan) = (self.mode, self.vxlan.clone());
        (config.asn, config.peers) = (self.asn, self.peers.clone());
        (config.full_mesh, config.hold_time) = (self.full_mesh, self.hold_time);
    }
}

fn wrong(flag: &'static str, value: impl ToString, why: String) -> Error {
    Error::Flag { flag, value: value.to_string(), why }
}

fn check(options: &NetworkOptions) -> Result<(), Error> {
    if let Some(mtu) = options.mtu.filter(|mtu| !(SMALLEST_MTU..=LARGEST_MTU).contains(mtu)) {
        return Err(wrong("--network-mtu", mtu, format!("from {SMALLEST_MTU} to {LARGEST_MTU} is possible")));
    }
    if options.vxlan_port == 0 {
        return Err(wrong("--vxlan-port", 0, "a port has a number from 1 to 65535".to_owned()));
    }
    if !(1..=LARGEST_VNI).contains(&options.vxlan_vni) {
        return Err(wrong("--vxlan-vni", options.vxlan_vni, format!("from 1 to {LARGEST_VNI} is possible")));
    }
    check_asn(options.bgp_asn).map_err(|why| wrong("--bgp-asn", options.bgp_asn, why))?;
    if matches!(options.bgp_hold_time, 1 | 2) {
        let why = "BGP has no hold time below 3 s, but for 0, which turns it off".to_owned();
        return Err(wrong("--bgp-hold-time", options.bgp_hold_time, why));
    }
    Ok(())
}

fn check_asn(asn: u32) -> Result<(), String> {
    match asn {
        0 | AS_TRANS | 65535 | u32::MAX => Err(format!("{asn} is no number of an autonomous system")),
        _ => Ok(()),
    }
}

/// Reads `ADDRESS[:PORT]=ASN`; an address of IPv6 stands in brackets before a port.
fn peer(text: &str, node_ips: &[IpAddr]) -> Result<PeerConfig, String> {
    let expected = "ADDRESS[:PORT]=ASN is expected, like 192.0.2.1=64512 or [fd00::1]:179=64512";
    let (place, asn) = text.split_once('=').ok_or(expected)?;
    let asn: u32 = asn.parse().map_err(|_| expected)?;
    check_asn(asn)?;
    let (address, port) = match place.parse::<SocketAddr>() {
        Ok(place) => (place.ip(), Some(place.port())),
        Err(_) => (place.parse::<IpAddr>().map_err(|_| expected)?, None),
    };
    if port == Some(0) {
        return Err("a port has a number from 1 to 65535".to_owned());
    }
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_broadcast {
        return Err(format!("{address} is no address of another machine"));
    }
    if node_ips.contains(&address) {
        return Err(format!("{address} is this node's own address"));
    }
    if !node_ips.iter().any(|own| own.is_ipv6() == address.is_ipv6()) {
        return Err(format!("this node has no address of the family of {address}"));
    }
    Ok(PeerConfig { address, asn, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(change: impl FnOnce(&mut NetworkOptions)) -> Result<NetworkPlan, String> {
        let mut options = NetworkOptions::default();
        change(&mut options);
        NetworkPlan::new(&options, &["192.0.2.2".parse().unwrap()]).map_err(|error| error.to_string())
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        let check = |change: &dyn Fn(&mut NetworkOptions), expected: &str| {
            let error = plan(change).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(&|o| o.mode = "ipip".to_owned(), "--network-mode \"ipip\" cannot be used: \"ipip\" is none of auto");
        check(&|o| o.mtu = Some(576), "--network-mtu \"576\"");
        check(&|o| o.vxlan_port = 0, "--vxlan-port");
        check(&|o| o.vxlan_vni = 1 << 24, "from 1 to 16777215");
        check(&|o| o.bgp_asn = 23456, "--bgp-asn");
        check(&|o| o.bgp_hold_time = 2, "below 3 s");
        check(&|o| o.bgp_node_mesh = false, "name a route reflector with --bgp-peer");
        let peer = |text: &str, expected: &str| check(&|o| o.bgp_peers = vec![text.to_owned()], expected);
        peer("192.0.2.9", "ADDRESS[:PORT]=ASN is expected");
        peer("192.0.2.9=x", "ADDRESS[:PORT]=ASN");
        peer("fd00::1=64512", "no address of the family of fd00::1");
        peer("fd00::1:x=64512", "ADDRESS[:PORT]=ASN");
        peer("192.0.2.9=0", "0 is no number of an autonomous system");
        peer("192.0.2.9:0=64512", "a port has a number");
        peer("192.0.2.2=64512", "this node's own address");
        peer("127.0.0.1=64512", "no address of another machine");
        check(&|o| o.bgp_peers = ["192.0.2.9=1", "192.0.2.9:180=2"].map(str::to_owned).to_vec(), "named twice");
    }

    #[test]
    fn what_was_asked_for_gets_to_both_halves() {
        let plan = plan(|options| {
            (options.mode, options.mtu, options.vxlan_port) = ("vxlan".to_owned(), Some(1400), 8472);
            options.bgp_peers = ["192.0.2.9=64999", "192.0.2.8:1179=64512"].map(str::to_owned).to_vec();
            (options.bgp_node_mesh, options.bgp_asn, options.bgp_hold_time) = (false, 64513, 30);
        });
        let plan = plan.unwrap();
        let mut node = kedge_network::Config::new("n", Vec::new(), "/x");
        plan.apply_to_node(&mut node);
        assert_eq!((node.mode, node.mtu), (NetworkMode::Vxlan, Some(1400)));
        let mut mesh = MeshConfig::new("n", "192.0.2.2".parse().unwrap(), Vec::new());
        plan.apply_to_mesh(&mut mesh);
        let peers: Vec<String> =
            mesh.peers.iter().map(|peer| format!("{} {:?} {}", peer.address, peer.port, peer.asn)).collect();
        assert_eq!(peers, ["192.0.2.9 None 64999", "192.0.2.8 Some(1179) 64512"]);
        assert_eq!((mesh.full_mesh, mesh.asn, mesh.hold_time, mesh.vxlan.port), (false, 64513, 30, 8472));
    }
}
