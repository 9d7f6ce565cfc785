//! ICMPv6 echo (RFC 4443) in packets that nobody cuts, as routers of IPv6 never do. Pure.

use std::net::Ipv6Addr;

use super::packet::{IDENTIFIER, Kind, TTL, checksum};

const IP_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;
const ICMPV6: u8 = 58;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

/// A question of so many bytes, with its IP header.
pub(super) fn write_request(from: Ipv6Addr, to: Ipv6Addr, round: u16, size: u32) -> Vec<u8> {
    let size = usize::try_from(size).unwrap_or(usize::MAX).clamp(IP_HEADER + ICMP_HEADER, usize::from(u16::MAX));
    let payload = u16::try_from(size - IP_HEADER).unwrap_or(u16::MAX);
    let mut packet = vec![0; size];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&payload.to_be_bytes());
    packet[6] = ICMPV6;
    packet[7] = TTL;
    packet[8..24].copy_from_slice(&from.octets());
    packet[24..40].copy_from_slice(&to.octets());
    packet[40] = ECHO_REQUEST;
    packet[44..46].copy_from_slice(&IDENTIFIER.to_be_bytes());
    packet[46..48].copy_from_slice(&round.to_be_bytes());
    let sum = checksum(&summed(&packet));
    packet[42..44].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// What the checksum covers: the addresses, the length and the protocol besides the message itself.
fn summed(packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet[8..40].to_vec();
    bytes.extend([0, 0, packet[4], packet[5], 0, 0, 0, ICMPV6]);
    bytes.extend(&packet[IP_HEADER..]);
    bytes
}

/// What a raw socket hears, which is a message without its IP header: its kind and the size of the whole packet; `None`
/// where it is not one of ours.
pub(super) fn read_echo(message: &[u8]) -> Option<(Kind, u32)> {
    if message.len() < ICMP_HEADER || message[4..6] != IDENTIFIER.to_be_bytes() {
        return None;
    }
    let kind = match message[0] {
        ECHO_REPLY => Kind::Reply,
        ECHO_REQUEST => Kind::Request,
        _ => return None,
    };
    Some((kind, u32::try_from(message.len() + IP_HEADER).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(size: u32) -> Vec<u8> {
        write_request("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap(), 7, size)
    }

    #[test]
    fn what_is_written_is_read() {
        for size in [64, 1281, 1430] {
            let packet = request(size);
            assert_eq!(packet.len(), usize::try_from(size).unwrap());
            assert_eq!(read_echo(&packet[IP_HEADER..]), Some((Kind::Request, size)));
            assert_eq!(checksum(&summed(&packet)), 0, "a checksum over itself is none");
        }
        assert_eq!(request(0).len(), IP_HEADER + ICMP_HEADER);
    }

    #[test]
    fn other_messages_are_not_ours() {
        let message = request(64).split_off(IP_HEADER);
        for (index, value) in [(0, 135), (4, 1)] {
            let mut other = message.clone();
            other[index] = value;
            assert_eq!(read_echo(&other), None, "byte {index} as {value}");
        }
        assert_eq!(read_echo(&message[..7]), None);
    }
}
