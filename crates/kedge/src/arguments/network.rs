//! Flags about how packets get to other nodes. Their values are checked by the supervisor, with the address of the node
//! at hand.

use clap::{ArgAction, Args};
use kedge_supervisor::NetworkOptions;

#[derive(Debug, Args)]
#[command(next_help_heading = "Network between nodes")]
pub(crate) struct NetworkFlags {
    /// How packets get to other nodes: auto (as they are on one segment, through VXLAN behind a router), native, vxlan.
    #[arg(long, value_name = "MODE", default_value_t = NetworkOptions::default().mode)]
    network_mode: String,
    /// MTU of pods [default: that of the nodes' network, less 50 where VXLAN is in use].
    #[arg(long, value_name = "BYTES")]
    network_mtu: Option<u32>,
    /// UDP port of VXLAN, the same on all nodes.
    #[arg(long, value_name = "PORT", default_value_t = NetworkOptions::default().vxlan_port)]
    vxlan_port: u16,
    /// VXLAN network identifier, the same on all nodes.
    #[arg(long, value_name = "VNI", default_value_t = NetworkOptions::default().vxlan_vni)]
    vxlan_vni: u32,
    /// Number of the autonomous system of all nodes.
    #[arg(long, value_name = "ASN", default_value_t = NetworkOptions::default().bgp_asn)]
    bgp_asn: u32,
    /// A BGP peer besides the nodes: a router, or a route reflector. May be repeated.
    #[arg(long = "bgp-peer", value_name = "ADDRESS[:PORT]=ASN")]
    bgp_peers: Vec<String>,
    /// Whether all nodes are BGP peers of each other.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    bgp_node_mesh: bool,
    /// After how many seconds of silence a BGP session is over.
    #[arg(long, value_name = "SECONDS", default_value_t = NetworkOptions::default().bgp_hold_time)]
    bgp_hold_time: u16,
}

impl NetworkFlags {
    pub(crate) fn options(&self) -> NetworkOptions {
        NetworkOptions {
            mode: self.network_mode.clone(),
            mtu: self.network_mtu,
            vxlan_port: self.vxlan_port,
            vxlan_vni: self.vxlan_vni,
            bgp_asn: self.bgp_asn,
            bgp_peers: self.bgp_peers.clone(),
            bgp_node_mesh: self.bgp_node_mesh,
            bgp_hold_time: self.bgp_hold_time,
        }
    }
}
