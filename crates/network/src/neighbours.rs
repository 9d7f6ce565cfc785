//! Who is at the other ends of tunnels: which hardware address stands for which node, and where packets for it are sent.
//!
//! Invariant: the device has exactly the entries that its routes need; others are removed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use crate::config::Error;
use crate::link::{ENOENT, Links, code, refused};
use crate::mode::tunnel_address;

impl Links {
    /// Adds the entries of nodes that lack them.
    pub(crate) async fn add_tunnel_peers(&self, device: u32, nodes: &BTreeSet<Ipv4Addr>) -> Result<(), Error> {
        let known = self.tunnel_peers(device).await?;
        for node in nodes {
            let address = tunnel_address(*node);
            let entries = known.get(node);
            if !entries.is_some_and(|entries| entries.is_neighbour) {
                let neighbours = self.handle.neighbours();
                let entry = neighbours.add(device, IpAddr::V4(*node)).link_layer_address(&address);
                let added = entry.state(NeighbourState::Permanent).replace().execute().await;
                added.map_err(|source| refused(format!("add {node} to the neighbours of the tunnel"), source))?;
            }
            if !entries.is_some_and(|entries| entries.is_destination) {
                let entry = self.handle.neighbours().add_bridge(device, &address).destination(IpAddr::V4(*node));
                let entry = entry.flags(NeighbourFlags::Own).state(NeighbourState::Permanent);
                let added = entry.replace().execute().await;
                added.map_err(|source| refused(format!("send packets of the tunnel to {node}"), source))?;
            }
        }
        Ok(())
    }

    /// Removes the entries of all others.
    pub(crate) async fn keep_tunnel_peers(&self, device: u32, nodes: &BTreeSet<Ipv4Addr>) -> Result<(), Error> {
        let known = self.tunnel_peers(device).await?;
        for (_, entries) in known.into_iter().filter(|(node, _)| !nodes.contains(node)) {
            for message in entries.messages {
                match self.handle.neighbours().del(message).execute().await {
                    Err(error) if code(&error) != ENOENT => {
                        return Err(refused("remove a node from the tunnel", error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    async fn tunnel_peers(&self, device: u32) -> Result<BTreeMap<Ipv4Addr, Entries>, Error> {
        let mut known: BTreeMap<Ipv4Addr, Entries> = BTreeMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Bridge] {
            let mut request = self.handle.neighbours().get().set_address_family(family);
            request.message_mut().header.ifindex = device;
            let listed: Result<Vec<_>, _> = request.execute().try_collect().await;
            let listed = listed.map_err(|source| refused("list the neighbours of the tunnel", source))?;
            for message in listed.into_iter().filter(|message| message.header.ifindex == device) {
                let Some(node) = node_of(&message) else { continue };
                let is_right = hardware_address_of(&message) == Some(&tunnel_address(node));
                let entries = known.entry(node).or_default();
                entries.is_neighbour |= is_right && family == AddressFamily::Inet;
                entries.is_destination |= is_right && family == AddressFamily::Bridge;
                entries.messages.push(message);
            }
        }
        Ok(known)
    }
}

#[derive(Default)]
struct Entries {
    is_neighbour: bool,
    is_destination: bool,
    messages: Vec<NeighbourMessage>,
}

fn node_of(message: &NeighbourMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
        // Those of a bridge's family may be of any.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Ipv4Addr::from)
        }
        _ => None,
    })
}

fn hardware_address_of(message: &NeighbourMessage) -> Option<&[u8]> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(address) => Some(address.as_slice()),
        _ => None,
    })
}
