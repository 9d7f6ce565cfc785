//! Links, addresses and routes of this network namespace, over rtnetlink. Knows nothing of pods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressScope};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVxlan, RouteMessageBuilder};
use tokio::task::AbortHandle;

use crate::config::Error;
use crate::mode::Hop;
use crate::routes::{RouteKind, RouteSpec};

/// Who made a route; both numbers are free in iproute2's table of protocols, which shows them as `proto 107`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    /// The node's own network.
    Node,
    /// What peers announced.
    Mesh,
}

impl Maker {
    fn protocol(self) -> RouteProtocol {
        RouteProtocol::Other(match self {
            Maker::Node => 107,
            Maker::Mesh => 108,
        })
    }
}

pub(crate) const ENOENT: i32 = -2;
const ENODEV: i32 = -19;
const EEXIST: i32 = -17;
const ESRCH: i32 = -3;

/// A connection to the kernel.
pub(crate) struct Links {
    pub(crate) handle: Handle,
    connection: AbortHandle,
}

/// What is known of a link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) is_bridge: bool,
    pub(crate) is_up: bool,
    pub(crate) is_loopback: bool,
    pub(crate) mtu: u32,
    /// What it is as the end of tunnels.
    pub(crate) tunnel: Option<TunnelEnd>,
}

/// A VXLAN device, as far as it can't be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TunnelEnd {
    pub(crate) vni: u32,
    pub(crate) port: u16,
    pub(crate) local: Option<IpAddr>,
    pub(crate) hardware_address: Vec<u8>,
}

/// The devices that our routes lead to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Devices {
    pub(crate) bridge: Option<u32>,
    pub(crate) tunnel: Option<u32>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    /// Connects, in the network namespace of this thread.
    pub(crate) fn connect() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|source| Error::File {
            file: "the kernel's routing socket".into(),
            action: "opened",
            source,
        })?;
        Ok(Self { handle, connection: tokio::spawn(connection).abort_handle() })
    }

    pub(crate) async fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut found = std::pin::pin!(self.handle.link().get().match_name(name).execute());
        match found.try_next().await {
            Ok(message) => Ok(message.map(|message| read_link(&message))),
            Err(error) if code(&error) == ENODEV => Ok(None),
            Err(source) => Err(refused(format!("show the interface {name}"), source)),
        }
    }

    pub(crate) async fn add_bridge(
        &self,
        name: &str,
        hardware_address: Vec<u8>,
        mtu: Option<u32>,
    ) -> Result<(), Error> {
        let mut bridge = LinkBridge::new(name).address(hardware_address).up();
        if let Some(mtu) = mtu {
            bridge = bridge.mtu(mtu);
        }
        let added = self.handle.link().add(bridge.build()).execute().await;
        added.map_err(|source| refused(format!("add the bridge {name}"), source))
    }

    pub(crate) async fn add_tunnel(&self, name: &str, end: &TunnelEnd, mtu: u32) -> Result<(), Error> {
        let mut device = LinkVxlan::new(name, end.vni).port(end.port).learning(false);
        device = match end.local {
            Some(IpAddr::V4(local)) => device.local(local),
            Some(IpAddr::V6(local)) => device.local6(local),
            None => device,
        };
        let device = device.address(end.hardware_address.clone()).mtu(mtu).up();
        let added = self.handle.link().add(device.build()).execute().await;
        added.map_err(|source| refused(format!("add the VXLAN device {name}"), source))
    }

    pub(crate) async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), Error> {
        let change = LinkUnspec::new_with_index(index).mtu(mtu).build();
        let set = self.handle.link().set(change).execute().await;
        set.map_err(|source| refused(format!("set the MTU of the interface {index} to {mtu}"), source))
    }

    /// The link that has an address.
    pub(crate) async fn link_with(&self, address: IpAddr) -> Result<Option<Link>, Error> {
        let listed = self.handle.address().get().set_address_filter(address).execute();
        let listed: Vec<_> = listed.try_collect().await.map_err(|source| refused("list addresses", source))?;
        let Some(index) = listed.first().map(|message| message.header.index) else { return Ok(None) };
        let mut found = std::pin::pin!(self.handle.link().get().match_index(index).execute());
        match found.try_next().await {
            Ok(message) => Ok(message.map(|message| read_link(&message))),
            Err(error) if code(&error) == ENODEV => Ok(None),
            Err(source) => Err(refused(format!("show the interface {index}"), source)),
        }
    }

    /// How the kernel would reach an address; `None` where it knows no way.
    pub(crate) async fn hop_to(&self, address: IpAddr) -> Option<Hop> {
        let length = if address.is_ipv6() { 128 } else { 32 };
        let message = RouteMessageBuilder::<IpAddr>::new().destination_prefix(address, length).ok()?.build();
        let mut found = std::pin::pin!(self.handle.route().get(message).execute());
        // The kernel answers a question without a way with an error.
        let route = found.try_next().await.ok()??;
        if route.header.kind != RouteType::Unicast {
            return None;
        }
        let router = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(router)) => Some(IpAddr::V4(*router)),
            RouteAttribute::Gateway(RouteAddress::Inet6(router)) => Some(IpAddr::V6(*router)),
            _ => None,
        });
        Some(router.map_or(Hop::Segment, Hop::Behind))
    }

    pub(crate) async fn set_up(&self, index: u32) -> Result<(), Error> {
        let up = LinkUnspec::new_with_index(index).up().build();
        let set = self.handle.link().set(up).execute().await;
        set.map_err(|source| refused(format!("set up the interface {index}"), source))
    }

    pub(crate) async fn delete_link(&self, index: u32) -> Result<(), Error> {
        match self.handle.link().del(index).execute().await {
            Err(error) if code(&error) != ENODEV => Err(refused(format!("delete the interface {index}"), error)),
            _ => Ok(()),
        }
    }

    /// The addresses of a link, without link-local ones.
    pub(crate) async fn addresses(&self, index: u32) -> Result<Vec<IpNet>, Error> {
        let request = self.handle.address().get().set_link_index_filter(index);
        let messages: Vec<_> =
            request.execute().try_collect().await.map_err(|source| refused("list addresses", source))?;
        let global = messages.into_iter().filter(|message| message.header.scope != AddressScope::Link);
        let addresses = global.filter_map(|message| {
            let prefix = message.header.prefix_len;
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => IpNet::new(*address, prefix).ok(),
                _ => None,
            })
        });
        Ok(addresses.collect())
    }

    pub(crate) async fn add_address(&self, index: u32, address: IpNet) -> Result<(), Error> {
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            // The range is this node's alone, and a bridge without ports would never finish looking for another owner.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        match request.execute().await {
            Err(error) if code(&error) != EEXIST => Err(refused(format!("add the address {address}"), error)),
            _ => Ok(()),
        }
    }

    pub(crate) async fn remove_address(&self, index: u32, address: IpNet) -> Result<(), Error> {
        let request = self.handle.address().get().set_link_index_filter(index).set_address_filter(address.addr());
        let found: Vec<_> =
            request.execute().try_collect().await.map_err(|source| refused("list addresses", source))?;
        for message in found {
            let removed = self.handle.address().del(message).execute().await;
            removed.map_err(|source| refused(format!("remove the address {address}"), source))?;
        }
        Ok(())
    }

    /// Our routes, with what they were made from where that is understood.
    pub(crate) async fn our_routes(
        &self,
        maker: Maker,
        devices: Devices,
    ) -> Result<Vec<(Option<RouteSpec>, RouteMessage)>, Error> {
        let mut routes = Vec::new();
        let families = [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
        for filter in families {
            let listed = self.handle.route().get(filter).execute();
            let listed: Vec<_> = listed.try_collect().await.map_err(|source| refused("list routes", source))?;
            let ours = listed.into_iter().filter(|route| route.header.protocol == maker.protocol());
            routes.extend(ours.map(|route| (read_route(&route, devices), route)));
        }
        Ok(routes)
    }

    /// Adds a route, in the place of one of ours with the same destination and metric.
    pub(crate) async fn add_route(&self, maker: Maker, route: &RouteSpec, devices: Devices) -> Result<(), Error> {
        let action = || format!("add the route to {}", route.destination);
        let unusable = |_| Error::Config(format!("no route can lead to {}", route.destination));
        let mut message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(route.destination.addr(), route.destination.prefix_len())
            .map_err(unusable)?
            .protocol(maker.protocol())
            .priority(route.metric);
        message = match &route.kind {
            RouteKind::Unreachable => message.kind(RouteType::Unreachable),
            RouteKind::Bridge { source } => {
                let message = message.output_interface(devices.bridge.unwrap_or_default()).scope(RouteScope::Link);
                match source {
                    Some(source) => message.pref_source(*source).map_err(unusable)?,
                    None => message,
                }
            }
            RouteKind::Via { gateway } => message.gateway(*gateway).map_err(unusable)?,
            RouteKind::Tunnel { node } => {
                let device = devices.tunnel.unwrap_or_default();
                message.gateway(*node).map_err(unusable)?.output_interface(device).onlink()
            }
        };
        match self.handle.route().add(message.build()).replace().execute().await {
            Err(error) if code(&error) != EEXIST => Err(refused(action(), error)),
            _ => Ok(()),
        }
    }

    pub(crate) async fn delete_route(&self, route: RouteMessage) -> Result<(), Error> {
        match self.handle.route().del(route).execute().await {
            Err(error) if code(&error) != ESRCH => Err(refused("delete a route", error)),
            _ => Ok(()),
        }
    }
}

fn read_link(message: &LinkMessage) -> Link {
    let info = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(info) => Some(info),
        _ => None,
    });
    let is_bridge = info.is_some_and(|info| info.contains(&LinkInfo::Kind(InfoKind::Bridge)));
    let mtu = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    Link {
        index: message.header.index,
        name: name.unwrap_or_default(),
        is_bridge,
        is_up: message.header.flags.contains(LinkFlags::Up),
        is_loopback: message.header.flags.contains(LinkFlags::Loopback),
        mtu: mtu.unwrap_or_default(),
        tunnel: info.and_then(|info| read_tunnel(message, info)),
    }
}

fn read_tunnel(message: &LinkMessage, info: &[LinkInfo]) -> Option<TunnelEnd> {
    let data = info.iter().find_map(|part| match part {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
        _ => None,
    })?;
    let hardware_address = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(address) => Some(address.clone()),
        _ => None,
    });
    let mut end = TunnelEnd { vni: 0, port: 0, local: None, hardware_address: hardware_address.unwrap_or_default() };
    for part in data {
        match part {
            InfoVxlan::Id(vni) => end.vni = *vni,
            InfoVxlan::Port(port) => end.port = *port,
            InfoVxlan::Local(local) => end.local = Some(IpAddr::V4(*local)),
            InfoVxlan::Local6(local) => end.local = Some(IpAddr::V6(*local)),
            _ => {}
        }
    }
    Some(end)
}

fn read_route(message: &RouteMessage, devices: Devices) -> Option<RouteSpec> {
    let address = |address: &RouteAddress| match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    };
    let (mut destination, mut source, mut metric, mut out, mut via) = (None, None, 0, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = address(to),
            RouteAttribute::PrefSource(from) => source = address(from),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(index) => out = Some(*index),
            RouteAttribute::Gateway(gateway) => via = address(gateway),
            _ => {}
        }
    }
    let kind = match message.header.kind {
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Unicast if via.is_some() && out.is_some() && out == devices.tunnel => {
            RouteKind::Tunnel { node: via? }
        }
        RouteType::Unicast if via.is_some() => RouteKind::Via { gateway: via? },
        RouteType::Unicast if out.is_some() && out == devices.bridge => RouteKind::Bridge { source },
        _ => return None,
    };
    let destination = IpNet::new(destination?, message.header.destination_prefix_length).ok()?;
    Some(RouteSpec { destination, kind, metric })
}

pub(crate) fn code(error: &rtnetlink::Error) -> i32 {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.raw_code(),
        _ => 0,
    }
}

pub(crate) fn refused(action: impl Into<String>, source: rtnetlink::Error) -> Error {
    Error::Netlink { action: action.into(), source }
}
