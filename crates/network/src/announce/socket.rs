//! The segment of this node: its device there, and a raw socket that hears and sends ARP.
//!
//! Invariant: only frames of the node's own device are heard and sent.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket as StdSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use ipnet::Ipv4Net;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, MsgFlags, recvfrom, sendto};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::arp::Mac;

/// Of Ethernet, in the network's order, as the kernel wants it.
const ETH_P_ARP: i32 = 0x0806_u16.to_be() as i32;

/// The device that has the node's address.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its name.
    pub(super) device: String,
    /// Who is on it.
    pub(super) range: Ipv4Net,
    /// Its own hardware address.
    pub(super) mac: Mac,
    link: LinkAddr,
}

/// Finds the device with an address; `None` where none has it, or it is none with hardware addresses.
pub(super) fn find_segment(node_ip: Ipv4Addr) -> io::Result<Option<Segment>> {
    let all: Vec<_> = getifaddrs()?.collect();
    let with_address = all.iter().find_map(|entry| {
        let ip = entry.address.as_ref()?.as_sockaddr_in()?.ip();
        let mask = entry.netmask.as_ref()?.as_sockaddr_in()?.ip();
        let range = Ipv4Net::with_netmask(ip, mask).ok()?;
        (IpAddr::V4(ip) == IpAddr::V4(node_ip)).then(|| (entry.interface_name.clone(), range))
    });
    let Some((device, range)) = with_address else { return Ok(None) };
    let of_device = all.iter().filter(|entry| entry.interface_name == device);
    let link = of_device.filter_map(|entry| entry.address.as_ref()?.as_link_addr().copied()).next();
    Ok(link.and_then(|link| {
        let mac = link.addr().filter(|mac| *mac != [0; 6])?;
        Some(Segment { device, range: range.trunc(), mac, link })
    }))
}

/// Hears and sends ARP on one segment.
pub(super) struct ArpSocket {
    /// The type for UDP's sockets knows how to wait for any of them, and nothing here is of UDP.
    socket: UdpSocket,
    pub(super) segment: Segment,
}

impl ArpSocket {
    /// Opens one in the network namespace of this thread.
    pub(super) fn open(segment: Segment) -> io::Result<Self> {
        // With ARP as its protocol it hears nothing else from the start, on any device.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ETH_P_ARP)))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UdpSocket::from_std(StdSocket::from(OwnedFd::from(socket)))?, segment })
    }

    /// The next frame on the segment.
    pub(super) async fn next(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.socket.readable().await?;
            let heard = self.socket.try_io(Interest::READABLE, || {
                recvfrom::<LinkAddr>(self.socket.as_raw_fd(), buffer).map_err(io::Error::from)
            });
            let (length, from) = match heard {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                heard => heard?,
            };
            if from.is_some_and(|from| from.ifindex() == self.segment.link.ifindex()) {
                return Ok(length);
            }
        }
    }

    /// Sends a frame. A full queue loses it, as the wire may.
    pub(super) fn send(&self, frame: &[u8]) {
        let sent = sendto(self.socket.as_raw_fd(), frame, &self.segment.link, MsgFlags::MSG_DONTWAIT);
        if let Err(error) = sent {
            tracing::debug!(device = self.segment.device, %error, "an ARP frame was not sent");
        }
    }
}
