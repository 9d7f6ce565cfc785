//! This node's end of the tunnels: a VXLAN device that knows its peers from routes, and learns nothing from packets.
//!
//! Invariant: a device that is as it should be is taken over as it is, so that packets go on during a restart.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::config::Error;
use crate::link::{Link, Links, TunnelEnd};
use crate::mode::{VXLAN_OVERHEAD, VxlanConfig, tunnel_address};
use crate::routes::gateway;

/// The device, made or adopted; `underlay` is the MTU of the nodes' network.
pub(crate) async fn ensure_tunnel(
    links: &Links,
    config: &VxlanConfig,
    node_ip: Ipv4Addr,
    own: &[Ipv4Net],
    underlay: u32,
) -> Result<u32, Error> {
    let name = &config.device;
    let mtu = underlay.saturating_sub(VXLAN_OVERHEAD);
    let wanted = TunnelEnd {
        vni: config.vni,
        port: config.port,
        local: Some(node_ip),
        hardware_address: tunnel_address(node_ip).to_vec(),
    };
    let mut found = links.link(name).await?;
    if let Some(other) = found.as_ref().filter(|link| link.tunnel.as_ref() != Some(&wanted)) {
        remove_stale(links, name, other).await?;
        found = None;
    }
    let link = match found {
        Some(link) => link,
        None => {
            links.add_tunnel(name, &wanted, mtu).await?;
            tracing::info!(device = name, vni = config.vni, port = config.port, mtu, "added the VXLAN device");
            let vanished = || Error::BridgeTaken { name: name.clone(), problem: "vanished".to_owned() };
            links.link(name).await?.ok_or_else(vanished)?
        }
    };
    if link.mtu != mtu {
        links.set_mtu(link.index, mtu).await?;
    }
    if !link.is_up {
        links.set_up(link.index).await?;
    }
    ensure_address(links, &link, own).await?;
    Ok(link.index)
}

/// What the node itself sends to pods of others comes from its pods' gateway, so that answers take the same way back.
async fn ensure_address(links: &Links, link: &Link, own: &[Ipv4Net]) -> Result<(), Error> {
    let Some(range) = own.first() else { return Ok(()) };
    let address = IpNet::from(gateway(&IpNet::V4(*range)));
    let found = links.addresses(link.index).await?;
    for other in found.iter().filter(|other| **other != address) {
        links.remove_address(link.index, *other).await?;
    }
    if !found.contains(&address) {
        links.add_address(link.index, address).await?;
    }
    Ok(())
}

async fn remove_stale(links: &Links, name: &str, link: &Link) -> Result<(), Error> {
    if !is_ours(link) {
        let problem = "is no tunnel of ours".to_owned();
        return Err(Error::BridgeTaken { name: name.to_owned(), problem });
    }
    tracing::info!(device = name, "the VXLAN device was of another configuration and is made again");
    links.delete_link(link.index).await
}

fn is_ours(link: &Link) -> bool {
    link.tunnel.as_ref().is_some_and(|end| {
        let local = end.local.unwrap_or(Ipv4Addr::UNSPECIFIED);
        end.hardware_address == tunnel_address(local)
    })
}

/// Removes the device, if it is ours.
pub(crate) async fn remove_tunnel(links: &Links, name: &str) -> Result<(), Error> {
    match links.link(name).await? {
        Some(link) if is_ours(&link) => links.delete_link(link.index).await,
        _ => Ok(()),
    }
}

/// The MTU of the network that has the node's address; `None` where that is this machine alone.
pub(crate) async fn underlay_mtu(links: &Links, node_ip: IpAddr) -> Result<Option<u32>, Error> {
    let link = links.link_with(node_ip).await?;
    Ok(link.filter(|link| !link.is_loopback && link.mtu > 0).map(|link| link.mtu))
}
