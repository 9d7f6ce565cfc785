//! Updates as they go over the wire, made and read with the codec's types. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::nlri::{Ipv4Unicast, Ipv4UnicastAddress, Ipv6Unicast, Ipv6UnicastAddress};
use netgauze_bgp_pkt::path_attribute::{
    As4PathSegment, AsPath, AsPathSegmentType, LocalPreference, MpReach, MpUnreach, NextHop, Origin, PathAttribute,
    PathAttributeValue,
};
use netgauze_bgp_pkt::update::BgpUpdateMessage;
use netgauze_iana::address_family::AddressType;

/// How many prefixes one message carries; a message has at most 4096 bytes.
const PREFIXES_AT_ONCE: usize = 500;
/// The same for IPv6, whose prefixes take up to 17 bytes.
const IPV6_PREFIXES_AT_ONCE: usize = 200;

/// Where announced prefixes are reached; a family without a next hop is not announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct NextHops {
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
}

impl NextHops {
    pub(crate) fn of_family(self, ipv6: bool) -> Option<IpAddr> {
        match ipv6 {
            false => self.ipv4.map(IpAddr::V4),
            true => self.ipv6.map(IpAddr::V6),
        }
    }
}

/// Who announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announcer {
    pub(crate) asn: u32,
    pub(crate) next_hops: NextHops,
    pub(crate) is_internal: bool,
}

/// What an update says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Update {
    pub(crate) withdrawn: Vec<IpNet>,
    pub(crate) announced: Vec<IpNet>,
    pub(crate) next_hops: NextHops,
    /// The peer has nothing more to say for now of this family, given as whether it is IPv6 (RFC 4724).
    pub(crate) end_of: Option<bool>,
    /// The autonomous systems that it came through.
    pub(crate) path: Vec<u32>,
}

/// The messages that announce prefixes.
pub(crate) fn announcements(announcer: Announcer, prefixes: &[IpNet]) -> Vec<BgpMessage> {
    let (four, six) = split(prefixes);
    let mut messages = Vec::new();
    if let Some(next_hop) = announcer.next_hops.ipv4 {
        let attributes = || attributes(announcer, PathAttributeValue::NextHop(NextHop::new(next_hop)));
        messages.extend(four.chunks(PREFIXES_AT_ONCE).map(|prefixes| update(&[], attributes(), prefixes)));
    }
    if let Some(next_hop_global) = announcer.next_hops.ipv6 {
        let reach =
            |prefixes| MpReach::Ipv6Unicast { next_hop_global, next_hop_local: None, nlri: addresses_v6(prefixes) };
        let attributes = |prefixes| attributes(announcer, PathAttributeValue::MpReach(reach(prefixes)));
        messages.extend(six.chunks(IPV6_PREFIXES_AT_ONCE).map(|prefixes| update(&[], attributes(prefixes), &[])));
    }
    messages
}

/// The messages that take prefixes back.
pub(crate) fn withdrawals(prefixes: &[IpNet]) -> Vec<BgpMessage> {
    let (four, six) = split(prefixes);
    let mut messages: Vec<BgpMessage> =
        four.chunks(PREFIXES_AT_ONCE).map(|prefixes| update(prefixes, Vec::new(), &[])).collect();
    messages.extend(six.chunks(IPV6_PREFIXES_AT_ONCE).map(|prefixes| update(&[], vec![unreach(prefixes)], &[])));
    messages
}

/// The message that says that everything of a family was said.
pub(crate) fn end_of_routes(ipv6: bool) -> BgpMessage {
    update(&[], if ipv6 { vec![unreach(&[])] } else { Vec::new() }, &[])
}

fn split(prefixes: &[IpNet]) -> (Vec<Ipv4Net>, Vec<Ipv6Net>) {
    let (mut four, mut six) = (Vec::new(), Vec::new());
    for prefix in prefixes {
        match prefix {
            IpNet::V4(prefix) => four.push(*prefix),
            IpNet::V6(prefix) => six.push(*prefix),
        }
    }
    (four, six)
}

fn update(withdrawn: &[Ipv4Net], attributes: Vec<PathAttribute>, announced: &[Ipv4Net]) -> BgpMessage {
    BgpMessage::Update(BgpUpdateMessage::new(addresses(withdrawn), attributes, addresses(announced)))
}

fn addresses(prefixes: &[Ipv4Net]) -> Vec<Ipv4UnicastAddress> {
    // Multicast and broadcast are no unicast prefixes; nobody has pods there.
    let unicast = prefixes.iter().filter_map(|prefix| Ipv4Unicast::from_net(*prefix).ok());
    unicast.map(Ipv4UnicastAddress::new_no_path_id).collect()
}

fn addresses_v6(prefixes: &[Ipv6Net]) -> Box<[Ipv6UnicastAddress]> {
    let unicast = prefixes.iter().filter_map(|prefix| Ipv6Unicast::from_net(*prefix).ok());
    unicast.map(|prefix| Ipv6UnicastAddress::new(None, prefix)).collect()
}

/// Prefixes of IPv6 come and go as attributes (RFC 4760).
fn unreach(prefixes: &[Ipv6Net]) -> PathAttribute {
    optional(PathAttributeValue::MpUnreach(MpUnreach::Ipv6Unicast { nlri: addresses_v6(prefixes) }))
}

fn optional(value: PathAttributeValue) -> PathAttribute {
    PathAttribute::from(true, false, false, true, value).expect("this is an optional attribute")
}

/// Within an autonomous system the path is empty and there is a preference; to others, it is the reverse.
fn attributes(announcer: Announcer, where_to: PathAttributeValue) -> Vec<PathAttribute> {
    let segments = match announcer.is_internal {
        true => Vec::new(),
        false => vec![As4PathSegment::new(AsPathSegmentType::AsSequence, vec![announcer.asn])],
    };
    let mut values = vec![
        PathAttributeValue::Origin(Origin::IGP),
        PathAttributeValue::AsPath(AsPath::as4_path_segments(segments)),
        where_to,
    ];
    if announcer.is_internal {
        values.push(PathAttributeValue::LocalPreference(LocalPreference::new(100)));
    }
    let well_known = |value| PathAttribute::from(false, true, false, false, value).expect("this is well-known");
    let attribute = |value| match value {
        PathAttributeValue::MpReach(_) => optional(value),
        _ => well_known(value),
    };
    values.into_iter().map(attribute).collect()
}

/// What an update of a peer says.
pub(crate) fn read(update: &BgpUpdateMessage) -> Update {
    let prefixes = |addresses: &[Ipv4UnicastAddress]| -> Vec<IpNet> {
        addresses.iter().map(|one| one.network().address().into()).collect()
    };
    let prefixes_v6 = |addresses: &[Ipv6UnicastAddress]| -> Vec<IpNet> {
        addresses.iter().map(|one| one.network().address().into()).collect()
    };
    let mut read = Update {
        withdrawn: prefixes(update.withdraw_routes()),
        announced: prefixes(update.nlri()),
        end_of: match update.end_of_rib() {
            Some(AddressType::Ipv4Unicast) => Some(false),
            Some(AddressType::Ipv6Unicast) => Some(true),
            _ => None,
        },
        ..Update::default()
    };
    for attribute in update.path_attributes() {
        match attribute.value() {
            PathAttributeValue::NextHop(next_hop) => read.next_hops.ipv4 = Some(next_hop.next_hop()),
            PathAttributeValue::MpReach(MpReach::Ipv6Unicast { next_hop_global, nlri, .. }) => {
                read.next_hops.ipv6 = Some(*next_hop_global);
                read.announced.extend(prefixes_v6(nlri));
            }
            PathAttributeValue::MpReach(MpReach::Ipv4Unicast { next_hop: IpAddr::V4(next_hop), nlri, .. }) => {
                read.next_hops.ipv4 = Some(*next_hop);
                read.announced.extend(prefixes(nlri));
            }
            PathAttributeValue::MpUnreach(MpUnreach::Ipv6Unicast { nlri }) => read.withdrawn.extend(prefixes_v6(nlri)),
            PathAttributeValue::MpUnreach(MpUnreach::Ipv4Unicast { nlri }) => read.withdrawn.extend(prefixes(nlri)),
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

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn updates(messages: &[BgpMessage]) -> Vec<Update> {
        let read = |message: &BgpMessage| match message {
            BgpMessage::Update(update) => read(update),
            other => panic!("{other:?}"),
        };
        messages.iter().map(read).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let check = |is_internal: bool, path: &[u32]| {
            let next_hop = Ipv4Addr::new(192, 0, 2, 1);
            let next_hops = NextHops { ipv4: Some(next_hop), ipv6: None };
            let announcer = Announcer { asn: 64512, next_hops, is_internal };
            let prefixes = nets(&["10.244.1.0/24", "10.244.2.0/24"]);
            let expected = Update { announced: prefixes.clone(), next_hops, path: path.to_vec(), ..Update::default() };
            assert_eq!(updates(&announcements(announcer, &prefixes)), [expected]);
        };
        check(true, &[]);
        check(false, &[64512]);
    }

    #[test]
    fn each_family_has_messages_of_its_own() {
        let (four, six) = (Ipv4Addr::new(192, 0, 2, 1), "fd00::1".parse().unwrap());
        let next_hops = NextHops { ipv4: Some(four), ipv6: Some(six) };
        let announcer = Announcer { asn: 64512, next_hops, is_internal: true };
        let prefixes = nets(&["fd00:10:244:1::/64", "10.244.1.0/24"]);
        let announced = updates(&announcements(announcer, &prefixes));
        let shown: Vec<(Vec<IpNet>, NextHops)> =
            announced.into_iter().map(|update| (update.announced, update.next_hops)).collect();
        let alone = |ipv6: bool| match ipv6 {
            true => NextHops { ipv6: Some(six), ipv4: None },
            false => NextHops { ipv4: Some(four), ipv6: None },
        };
        assert_eq!(shown, [(nets(&["10.244.1.0/24"]), alone(false)), (nets(&["fd00:10:244:1::/64"]), alone(true))]);
        let only_four = Announcer { next_hops: alone(false), ..announcer };
        assert_eq!(announcements(only_four, &prefixes).len(), 1, "without a next hop nothing is said");
        let withdrawn: Vec<IpNet> =
            updates(&withdrawals(&prefixes)).into_iter().flat_map(|one| one.withdrawn).collect();
        assert_eq!(withdrawn, nets(&["10.244.1.0/24", "fd00:10:244:1::/64"]));
        for ipv6 in [false, true] {
            assert_eq!(updates(&[end_of_routes(ipv6)])[0].end_of, Some(ipv6));
        }
    }

    #[test]
    fn many_prefixes_take_several_messages() {
        let prefixes: Vec<IpNet> = (0..=255)
            .flat_map(|a| (0..4).map(move |b| Ipv4Net::new(Ipv4Addr::new(10, a, b, 0), 24).unwrap().into()))
            .collect();
        let counts: Vec<usize> = updates(&withdrawals(&prefixes)).iter().map(|update| update.withdrawn.len()).collect();
        assert_eq!(counts, [500, 500, 24]);
    }
}
