//! This node's end of the tunnels: a VXLAN device that knows its peers from routes, and learns nothing from packets.
//!
//! Invariant: a device that is as it should be is taken over as it is, so that packets go on during a restart.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::Error;
use crate::link::{Link, Links, TunnelEnd};
use crate::mode::{VxlanConfig, tunnel_address, vxlan_overhead};
use crate::routes::gateway;

/// The device, made or adopted; `underlay` is the MTU of the nodes' network.
pub(crate) async fn ensure_tunnel(
    links: &Links,
    config: &VxlanConfig,
    node_ip: IpAddr,
    own: &[IpNet],
    underlay: u32,
) -> Result<u32, Error> {
    let name = &config.device;
    let mtu = underlay.saturating_sub(vxlan_overhead(node_ip.is_ipv6()));
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
    ensure_addresses(links, &link, own).await?;
    Ok(link.index)
}

/// What the node itself sends to pods of others comes from its pods' gateway, so that answers take the same way back.
async fn ensure_addresses(links: &Links, link: &Link, own: &[IpNet]) -> Result<(), Error> {
    if own.is_empty() {
        return Ok(());
    }
    let of_family = |ipv6: bool| own.iter().find(|range| range.addr().is_ipv6() == ipv6);
    let wanted: Vec<IpNet> =
        [false, true].into_iter().filter_map(of_family).map(|range| IpNet::from(gateway(range))).collect();
    let found = links.addresses(link.index).await?;
    for other in found.iter().filter(|other| !wanted.contains(other)) {
        links.remove_address(link.index, *other).await?;
    }
    for address in wanted.into_iter().filter(|address| !found.contains(address)) {
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
    link.tunnel.as_ref().is_some_and(|end| end.local.is_some_and(|local| end.hardware_address == tunnel_address(local)))
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
