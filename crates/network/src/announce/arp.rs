//! ARP for IPv4 over Ethernet (RFC 826), with the announcements and probes of RFC 5227. Pure.

use std::net::Ipv4Addr;

const ETHERNET_HEADER: usize = 14;
const FRAME: usize = ETHERNET_HEADER + 28;
const ETHERTYPE: [u8; 2] = [0x08, 0x06];
/// Ethernet, IPv4, and the lengths of their addresses.
const FIXED: [u8; 6] = [0, 1, 8, 0, 6, 4];
const BROADCAST: Mac = [0xff; 6];

/// A hardware address.
pub(super) type Mac = [u8; 6];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Request,
    Reply,
}

/// What a frame of ARP says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arp {
    pub(super) operation: Operation,
    pub(super) sender: Mac,
    pub(super) sender_ip: Ipv4Addr,
    pub(super) target_ip: Ipv4Addr,
}

/// Reads a frame with its Ethernet header; `None` where it is no such ARP.
pub(super) fn read(frame: &[u8]) -> Option<Arp> {
    let frame = frame.get(..FRAME)?;
    let (ethernet, arp) = frame.split_at(ETHERNET_HEADER);
    if ethernet[12..] != ETHERTYPE || arp[..6] != FIXED {
        return None;
    }
    let operation = match arp[6..8] {
        [0, 1] => Operation::Request,
        [0, 2] => Operation::Reply,
        _ => return None,
    };
    let ip = |at: usize| Ipv4Addr::new(arp[at], arp[at + 1], arp[at + 2], arp[at + 3]);
    let sender = arp[8..14].try_into().ok()?;
    Some(Arp { operation, sender, sender_ip: ip(14), target_ip: ip(24) })
}

/// Answers a question: `address` is at `own`.
pub(super) fn reply(own: Mac, address: Ipv4Addr, asked: &Arp) -> [u8; FRAME] {
    frame(Operation::Reply, (own, address), (asked.sender, asked.sender_ip), asked.sender)
}

/// Tells everybody that `address` is at `own`, in both forms: some take only the one, some only the other.
pub(super) fn announcements(own: Mac, address: Ipv4Addr) -> [[u8; FRAME]; 2] {
    [
        frame(Operation::Request, (own, address), ([0; 6], address), BROADCAST),
        frame(Operation::Reply, (own, address), (BROADCAST, address), BROADCAST),
    ]
}

/// Asks whether somebody else has `address`, without saying that we have it.
pub(super) fn probe(own: Mac, address: Ipv4Addr) -> [u8; FRAME] {
    frame(Operation::Request, (own, Ipv4Addr::UNSPECIFIED), ([0; 6], address), BROADCAST)
}

fn frame(operation: Operation, from: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr), to: Mac) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from.0);
    frame[12..14].copy_from_slice(&ETHERTYPE);
    frame[14..20].copy_from_slice(&FIXED);
    frame[21] = if operation == Operation::Request { 1 } else { 2 };
    frame[22..28].copy_from_slice(&from.0);
    frame[28..32].copy_from_slice(&from.1.octets());
    frame[32..38].copy_from_slice(&target.0);
    frame[38..42].copy_from_slice(&target.1.octets());
    frame
}

/// As people write it.
pub(super) fn show(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 1];
    const OTHER: Mac = [2, 0, 0, 0, 0, 2];

    #[test]
    fn what_is_written_is_read() {
        let (address, client) = (Ipv4Addr::new(192, 0, 2, 40), Ipv4Addr::new(192, 0, 2, 9));
        let asked = Arp { operation: Operation::Request, sender: OTHER, sender_ip: client, target_ip: address };
        let answer = reply(OWN, address, &asked);
        let read_back = read(&answer).unwrap();
        assert_eq!((read_back.operation, read_back.sender), (Operation::Reply, OWN));
        assert_eq!((read_back.sender_ip, read_back.target_ip), (address, client));
        assert_eq!((&answer[..6], &answer[32..38]), (&OTHER[..], &OTHER[..]), "only to who asked");
        for announced in announcements(OWN, address) {
            let said = read(&announced).unwrap();
            assert_eq!((said.sender, said.sender_ip, said.target_ip), (OWN, address, address));
            assert_eq!(announced[..6], BROADCAST);
        }
        assert_eq!(read(&probe(OWN, address)).unwrap().sender_ip, Ipv4Addr::UNSPECIFIED);
        assert_eq!(show(OWN), "02:00:00:00:00:01");
    }

    #[test]
    fn other_frames_are_not_read() {
        let good = probe(OWN, Ipv4Addr::LOCALHOST);
        for (index, value) in [(12, 0x86), (15, 6), (16, 0x86), (18, 8), (21, 3)] {
            let mut other = good;
            other[index] = value;
            assert_eq!(read(&other), None, "byte {index} as {value}");
        }
        assert_eq!(read(&good[..41]), None);
        let mut padded = good.to_vec();
        padded.resize(60, 0);
        assert!(read(&padded).is_some(), "short frames are filled up on the wire");
    }
}
