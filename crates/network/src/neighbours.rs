//! Who is at the other ends of tunnels: which hardware address stands for which node, and where packets for it are sent.
//!
//! Invariant: the device has exactly the entries that its routes need; others are removed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use futures::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use crate::config::Error;
use crate::link::{ENOENT, Links, code, refused};
use crate::mode::tunnel_address;

/// The addresses that routes into the tunnel lead to, each with the address of its node that tunnels go to: the same, or
/// that of the other family.
pub(crate) type TunnelPeers = BTreeMap<IpAddr, IpAddr>;

impl Links {
    /// Adds the entries of nodes that lack them.
    pub(crate) async fn add_tunnel_peers(&self, device: u32, peers: &TunnelPeers) -> Result<(), Error> {
        let known = self.tunnel_entries(device).await?;
        let has = |kind: Kind, address: &IpAddr, node: &IpAddr| known.iter().any(|entry| entry.is(kind, address, node));
        for (gateway, node) in peers {
            let hardware = tunnel_address(*node);
            if !has(Kind::Neighbour, gateway, node) {
                let entry = self.handle.neighbours().add(device, *gateway).link_layer_address(&hardware);
                let added = entry.state(NeighbourState::Permanent).replace().execute().await;
                added.map_err(|source| refused(format!("add {gateway} to the neighbours of the tunnel"), source))?;
            }
            if !has(Kind::Destination, node, node) {
                let entry = self.handle.neighbours().add_bridge(device, &hardware).destination(*node);
                let entry = entry.flags(NeighbourFlags::Own).state(NeighbourState::Permanent);
                let added = entry.replace().execute().await;
                added.map_err(|source| refused(format!("send packets of the tunnel to {node}"), source))?;
            }
        }
        Ok(())
    }

    /// Removes the entries of all others.
    pub(crate) async fn keep_tunnel_peers(&self, device: u32, peers: &TunnelPeers) -> Result<(), Error> {
        let is_wanted = |entry: &Entry| match entry.kind {
            Kind::Neighbour => peers.contains_key(&entry.address),
            Kind::Destination => peers.values().any(|node| *node == entry.address),
        };
        for entry in self.tunnel_entries(device).await?.into_iter().filter(|entry| !is_wanted(entry)) {
            match self.handle.neighbours().del(entry.message).execute().await {
                Err(error) if code(&error) != ENOENT => return Err(refused("remove a node from the tunnel", error)),
                _ => {}
            }
        }
        Ok(())
    }

    async fn tunnel_entries(&self, device: u32) -> Result<Vec<Entry>, Error> {
        let mut known = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6, AddressFamily::Bridge] {
            let mut request = self.handle.neighbours().get().set_address_family(family);
            request.message_mut().header.ifindex = device;
            let listed: Result<Vec<_>, _> = request.execute().try_collect().await;
            let listed = listed.map_err(|source| refused("list the neighbours of the tunnel", source))?;
            let kind = if family == AddressFamily::Bridge { Kind::Destination } else { Kind::Neighbour };
            for message in listed.into_iter().filter(|message| message.header.ifindex == device) {
                // The kernel keeps those of multicast for itself.
                if let Some(address) = address_of(&message).filter(|address| !address.is_multicast()) {
                    known.push(Entry { kind, address, message });
                }
            }
        }
        Ok(known)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Which hardware address stands for an address.
    Neighbour,
    /// Where packets for a hardware address are sent.
    Destination,
}

struct Entry {
    kind: Kind,
    address: IpAddr,
    message: NeighbourMessage,
}

impl Entry {
    fn is(&self, kind: Kind, address: &IpAddr, node: &IpAddr) -> bool {
        let is_right = hardware_address_of(&self.message) == Some(&tunnel_address(*node));
        self.kind == kind && self.address == *address && is_right
    }
}

fn address_of(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        // Those of a bridge's family may be of any.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes.as_slice()).ok().map(Ipv6Addr::from).map(IpAddr::V6),
        },
        _ => None,
    })
}

fn hardware_address_of(message: &NeighbourMessage) -> Option<&[u8]> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(address) => Some(address.as_slice()),
        _ => None,
    })
}
