//! Updates as they go over the wire, made and read with the codec's types. Pure.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::nlri::{Ipv4Unicast, Ipv4UnicastAddress};
use netgauze_bgp_pkt::path_attribute::{
    As4PathSegment, AsPath, AsPathSegmentType, LocalPreference, NextHop, Origin, PathAttribute, PathAttributeValue,
};
use netgauze_bgp_pkt::update::BgpUpdateMessage;

/// How many prefixes one message carries; a message has at most 4096 bytes.
const PREFIXES_AT_ONCE: usize = 500;

/// Who announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announcer {
    pub(crate) asn: u32,
    pub(crate) next_hop: Ipv4Addr,
    pub(crate) is_internal: bool,
}

/// What an update says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Update {
    pub(crate) withdrawn: Vec<Ipv4Net>,
    pub(crate) announced: Vec<Ipv4Net>,
    pub(crate) next_hop: Option<Ipv4Addr>,
    /// The peer has nothing more to say for now (RFC 4724).
    pub(crate) is_end: bool,
    /// The autonomous systems that it came through.
    pub(crate) path: Vec<u32>,
}

/// The messages that announce prefixes.
pub(crate) fn announcements(announcer: Announcer, prefixes: &[Ipv4Net]) -> Vec<BgpMessage> {
    let messages = prefixes.chunks(PREFIXES_AT_ONCE);
    messages.map(|prefixes| update(&[], attributes(announcer), prefixes)).collect()
}

/// The messages that take prefixes back.
pub(crate) fn withdrawals(prefixes: &[Ipv4Net]) -> Vec<BgpMessage> {
    prefixes.chunks(PREFIXES_AT_ONCE).map(|prefixes| update(prefixes, Vec::new(), &[])).collect()
}

/// The message that says that everything was said.
pub(crate) fn end_of_routes() -> BgpMessage {
    update(&[], Vec::new(), &[])
}

fn update(withdrawn: &[Ipv4Net], attributes: Vec<PathAttribute>, announced: &[Ipv4Net]) -> BgpMessage {
    BgpMessage::Update(BgpUpdateMessage::new(addresses(withdrawn), attributes, addresses(announced)))
}

fn addresses(prefixes: &[Ipv4Net]) -> Vec<Ipv4UnicastAddress> {
    // Multicast and broadcast are no unicast prefixes; nobody has pods there.
    let unicast = prefixes.iter().filter_map(|prefix| Ipv4Unicast::from_net(*prefix).ok());
    unicast.map(Ipv4UnicastAddress::new_no_path_id).collect()
}

/// Within an autonomous system the path is empty and there is a preference; to others, it is the reverse.
fn attributes(announcer: Announcer) -> Vec<PathAttribute> {
    let segments = match announcer.is_internal {
        true => Vec::new(),
        false => vec![As4PathSegment::new(AsPathSegmentType::AsSequence, vec![announcer.asn])],
    };
    let mut values = vec![
        PathAttributeValue::Origin(Origin::IGP),
        PathAttributeValue::AsPath(AsPath::as4_path_segments(segments)),
        PathAttributeValue::NextHop(NextHop::new(announcer.next_hop)),
    ];
    if announcer.is_internal {
        values.push(PathAttributeValue::LocalPreference(LocalPreference::new(100)));
    }
    let well_known = |value| PathAttribute::from(false, true, false, false, value);
    values.into_iter().map(|value| well_known(value).expect("these are well-known attributes")).collect()
}

/// What an update of a peer says.
pub(crate) fn read(update: &BgpUpdateMessage) -> Update {
    let prefixes = |addresses: &[Ipv4UnicastAddress]| addresses.iter().map(|one| one.network().address()).collect();
    let mut read = Update {
        withdrawn: prefixes(update.withdraw_routes()),
        announced: prefixes(update.nlri()),
        is_end: update.end_of_rib().is_some(),
        ..Update::default()
    };
    for attribute in update.path_attributes() {
        match attribute.value() {
            PathAttributeValue::NextHop(next_hop) => read.next_hop = Some(next_hop.next_hop()),
            PathAttributeValue::AsPath(AsPath::As4PathSegments(segments)) => {
                read.path.extend(segments.iter().flat_map(|segment| segment.as_numbers()));
            }
            PathAttributeValue::AsPath(AsPath::As2PathSegments(segments)) => {
                read.path.extend(segments.iter().flat_map(|segment| segment.as_numbers()).map(|asn| u32::from(*asn)));
            }
            _ => {}
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let check = |is_internal: bool, path: &[u32]| {
            let next_hop = Ipv4Addr::new(192, 0, 2, 1);
            let announcer = Announcer { asn: 64512, next_hop, is_internal };
            let prefixes: Vec<Ipv4Net> = ["10.244.1.0/24", "10.244.2.0/24"].map(|net| net.parse().unwrap()).into();
            let messages = announcements(announcer, &prefixes);
            let [BgpMessage::Update(update)] = messages.as_slice() else { panic!("{messages:?}") };
            let expected =
                Update { announced: prefixes, next_hop: Some(next_hop), path: path.to_vec(), ..Update::default() };
            assert_eq!(read(update), expected);
        };
        check(true, &[]);
        check(false, &[64512]);
    }

    #[test]
    fn many_prefixes_take_several_messages() {
        let prefixes: Vec<Ipv4Net> = (0..=255)
            .flat_map(|a| (0..4).map(move |b| Ipv4Net::new(Ipv4Addr::new(10, a, b, 0), 24).unwrap()))
            .collect();
        let messages = withdrawals(&prefixes);
        let counts: Vec<usize> = messages
            .iter()
            .map(|message| match message {
                BgpMessage::Update(update) => read(update).withdrawn.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(counts, [500, 500, 24]);
    }
}
