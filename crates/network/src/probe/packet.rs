//! ICMP echo (RFC 792) in packets that may not be cut. Pure.

use std::net::Ipv4Addr;

const IP_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;
const DONT_FRAGMENT: u8 = 0x40;
const ICMP: u8 = 1;
pub(super) const TTL: u8 = 64;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
/// Tells our questions from those of ping.
pub(super) const IDENTIFIER: u16 = 0x6b67;

/// The smallest question.
pub(super) const SMALLEST: u32 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Reply,
}

/// A question or an answer of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Echo {
    pub(super) from: Ipv4Addr,
    pub(super) kind: Kind,
    pub(super) round: u16,
    /// Of the whole packet, in bytes.
    pub(super) size: u32,
}

/// A question of so many bytes, with its IP header. The kernel fills in that header's checksum.
pub(super) fn write_request(from: Ipv4Addr, to: Ipv4Addr, round: u16, size: u32) -> Vec<u8> {
    let size = u16::try_from(size).unwrap_or(u16::MAX);
    let mut packet = vec![0; usize::from(size).max(IP_HEADER + ICMP_HEADER)];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&size.to_be_bytes());
    packet[6] = DONT_FRAGMENT;
    packet[8] = TTL;
    packet[9] = ICMP;
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet[20] = ECHO_REQUEST;
    packet[24..26].copy_from_slice(&IDENTIFIER.to_be_bytes());
    packet[26..28].copy_from_slice(&round.to_be_bytes());
    let sum = checksum(&packet[IP_HEADER..]);
    packet[22..24].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Reads what a raw socket hears; `None` where it is not one of ours.
pub(super) fn read_echo(packet: &[u8]) -> Option<Echo> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let (ip, icmp) = (packet.get(..header)?, packet.get(header..)?);
    if header < IP_HEADER || icmp.len() < ICMP_HEADER || ip[9] != ICMP {
        return None;
    }
    let kind = match icmp[0] {
        ECHO_REPLY => Kind::Reply,
        ECHO_REQUEST => Kind::Request,
        _ => return None,
    };
    if u16::from_be_bytes([icmp[4], icmp[5]]) != IDENTIFIER {
        return None;
    }
    Some(Echo {
        from: Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]),
        kind,
        round: u16::from_be_bytes([icmp[6], icmp[7]]),
        size: u32::try_from(packet.len()).ok()?,
    })
}

/// The Internet checksum (RFC 1071).
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (from, to) = (Ipv4Addr::new(10, 244, 1, 1), Ipv4Addr::new(10, 244, 2, 1));
        for size in [64, 65, 1450] {
            let packet = write_request(from, to, 7, size);
            assert_eq!(read_echo(&packet), Some(Echo { from, kind: Kind::Request, round: 7, size }));
            assert_eq!(checksum(&packet[IP_HEADER..]), 0, "a checksum over itself is none");
        }
    }

    #[test]
    fn other_packets_are_not_ours() {
        let packet = write_request(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, 1, SMALLEST);
        for (index, value) in [(20, 3), (24, 1), (9, 6), (0, 0x4f), (0, 0x41)] {
            let mut other = packet.clone();
            other[index] = value;
            let is_ours = read_echo(&other).is_some();
            assert!(!is_ours, "byte {index} as {value}");
        }
        assert_eq!(read_echo(&packet[..24]), None);
        assert_eq!(read_echo(&[]), None);
    }
}
