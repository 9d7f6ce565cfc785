//! The addresses that Services of type LoadBalancer may get, and the choice among them. Pure.
//!
//! Invariant: an address is chosen only from the pool, and never one that another Service has.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use kedge_meta::ObjectKey;

/// Ranges of addresses, such as `192.0.2.32/28`, `192.0.2.40-192.0.2.49` or a single address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPool(Vec<(IpAddr, IpAddr)>);

/// A text is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a CIDR, nor a range FIRST-LAST of one family, nor an address")]
pub struct ParsePoolError(String);

impl AddressPool {
    /// Adds what one text says.
    pub fn add(&mut self, text: &str) -> Result<(), ParsePoolError> {
        self.0.push(range(text).ok_or_else(|| ParsePoolError(text.to_owned()))?);
        Ok(())
    }

    /// Whether it has no address.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let is_in = |(first, last): &(IpAddr, IpAddr)| {
            first.is_ipv4() == address.is_ipv4() && (number(*first)..=number(*last)).contains(&number(address))
        };
        self.0.iter().any(is_in)
    }

    /// The first address of a family that `is_free`.
    fn first(&self, ipv6: bool, is_free: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let ranges = self.0.iter().filter(|(first, _)| first.is_ipv6() == ipv6);
        // Each address that is not free is a Service, so that this ends soon even in an IPv6 range.
        ranges
            .flat_map(|(first, last)| (number(*first)..=number(*last)).map(move |n| address(n, ipv6)))
            .find(|it| is_free(*it))
    }
}

impl FromStr for AddressPool {
    type Err = ParsePoolError;

    /// Several texts, with commas between them.
    fn from_str(text: &str) -> Result<Self, ParsePoolError> {
        let mut pool = Self::default();
        text.split(',').map(str::trim).filter(|text| !text.is_empty()).try_for_each(|text| pool.add(text))?;
        Ok(pool)
    }
}

fn range(text: &str) -> Option<(IpAddr, IpAddr)> {
    let (first, last): (IpAddr, IpAddr) = match (text.split_once('/'), text.split_once('-')) {
        (Some((base, length)), _) => return cidr(base.parse().ok()?, length.parse().ok()?),
        (None, Some((first, last))) => (first.trim().parse().ok()?, last.trim().parse().ok()?),
        (None, None) => (text.parse().ok()?, text.parse().ok()?),
    };
    (first.is_ipv4() == last.is_ipv4() && number(first) <= number(last)).then_some((first, last))
}

/// Every address of it: a pool is no segment, so that the first and the last are addresses like others.
fn cidr(base: IpAddr, length: u32) -> Option<(IpAddr, IpAddr)> {
    let width = if base.is_ipv4() { 32 } else { 128 };
    let hosts = width - Some(length).filter(|length| *length <= width)?;
    let mask = 1_u128.checked_shl(hosts).map_or(u128::MAX, |size| size - 1);
    let first = number(base) & !mask;
    Some((address(first, base.is_ipv6()), address(first | mask, base.is_ipv6())))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(number: u128, ipv6: bool) -> IpAddr {
    match ipv6 {
        true => Ipv6Addr::from_bits(number).into(),
        // Both ends of an IPv4 range are IPv4.
        false => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
    }
}

/// With whom a Service would share an address: whoever has the same key, where packets can be told apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sharing {
    /// `kedge.dev/load-balancer-sharing-key`; without one it shares with nobody.
    pub(crate) key: Option<String>,
    /// Protocols and ports.
    pub(crate) ports: BTreeSet<(String, i32)>,
    /// The selector, where the external traffic policy is Local: the address is announced only from nodes with endpoints,
    /// which must be the same for all.
    pub(crate) local_to: Option<BTreeMap<String, String>>,
}

impl Sharing {
    fn fits(&self, other: &Self) -> bool {
        self.key.is_some()
            && self.key == other.key
            && self.ports.is_disjoint(&other.ports)
            && self.local_to == other.local_to
    }
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) service: ObjectKey,
    pub(crate) sharing: Sharing,
}

/// All addresses that are given, with their owners.
pub(crate) type Owners = HashMap<IpAddr, Vec<Owner>>;

/// What a Service asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Whether each of its families is IPv6, the primary one first.
    pub(crate) families: Vec<bool>,
    /// Whether it can't do without one of them.
    pub(crate) needs_all: bool,
    /// `kedge.dev/load-balancer-ips`, or else `spec.loadBalancerIP`.
    pub(crate) addresses: Vec<IpAddr>,
    /// With whom it would share.
    pub(crate) sharing: Sharing,
    /// What it has now.
    pub(crate) has: Vec<IpAddr>,
}

/// The addresses for a Service, one of each family; or why it gets none.
///
/// Of those that nobody asks for by number, what it has comes first, then one that it may share, then the first free one.
pub(crate) fn choose(
    pool: &AddressPool,
    wish: &Wish,
    owner: &ObjectKey,
    owners: &Owners,
) -> Result<Vec<IpAddr>, String> {
    let in_the_way = |address: &IpAddr| {
        let others = owners.get(address).into_iter().flatten();
        others.filter(|other| other.service != *owner).find(|other| !wish.sharing.fits(&other.sharing))
    };
    let is_free = |address: IpAddr| in_the_way(&address).is_none();
    let mut chosen = Vec::new();
    for ipv6 in &wish.families {
        let wanted = wish.addresses.iter().copied().find(|address| address.is_ipv6() == *ipv6);
        if let Some(address) = wanted {
            if !pool.contains(address) {
                return Err(format!("{address} is not in the address pool"));
            }
            if let Some(other) = in_the_way(&address) {
                return Err(format!("{address} is in use by {}", other.service));
            }
        }
        let is_usable = |it: &IpAddr| it.is_ipv6() == *ipv6 && pool.contains(*it) && is_free(*it);
        let kept = wish.has.iter().copied().find(is_usable);
        // Only what is shared may be free although somebody has it.
        let shared = || owners.keys().copied().filter(|it| !owners[it].is_empty() && is_usable(it)).min();
        match wanted.or(kept).or_else(shared).or_else(|| pool.first(*ipv6, is_free)) {
            Some(address) => chosen.push(address),
            None if wish.needs_all || wish.families.len() == 1 => {
                let family = if *ipv6 { "IPv6" } else { "IPv4" };
                return Err(format!("no {family} address is free in the address pool"));
            }
            None => {}
        }
    }
    if chosen.is_empty() { Err("no address is free in the address pool".to_owned()) } else { Ok(chosen) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_read() {
        let pool: AddressPool = "192.0.2.32/30, 192.0.2.40-192.0.2.41,fd00::9".parse().unwrap();
        for (address, expected) in [
            ("192.0.2.31", false),
            ("192.0.2.32", true),
            ("192.0.2.35", true),
            ("192.0.2.36", false),
            ("192.0.2.41", true),
            ("192.0.2.42", false),
            ("fd00::9", true),
            ("fd00::a", false),
        ] {
            assert_eq!(pool.contains(address.parse().unwrap()), expected, "{address}");
        }
        for wrong in ["192.0.2.0/33", "192.0.2.9-192.0.2.1", "192.0.2.1-fd00::1", "x", "10.0.0.0/x"] {
            assert!(wrong.parse::<AddressPool>().is_err(), "{wrong}");
        }
        assert!("".parse::<AddressPool>().unwrap().is_empty());
        assert!("::/0".parse::<AddressPool>().unwrap().contains("fd00::1".parse().unwrap()));
    }

    fn owner(name: &str, sharing: Sharing) -> Vec<Owner> {
        vec![Owner { service: ObjectKey::new("d", name), sharing }]
    }

    #[test]
    fn addresses_are_kept_wished_for_or_the_first_that_is_free() {
        let pool: AddressPool = "10.0.0.1-10.0.0.3,fd00::1".parse().unwrap();
        let owners = HashMap::from([
            ("10.0.0.1".parse().unwrap(), owner("other", Sharing::default())),
            ("fd00::1".parse().unwrap(), owner("six", Sharing::default())),
        ]);
        let check = |families: &[bool], needs_all, wanted: &[&str], has: &[&str], expected: &str| {
            let has = has.iter().map(|it| it.parse().unwrap()).collect();
            let addresses = wanted.iter().map(|it| it.parse().unwrap()).collect();
            let wish = Wish { families: families.to_vec(), needs_all, addresses, has, sharing: Sharing::default() };
            let chosen = choose(&pool, &wish, &ObjectKey::new("d", "me"), &owners);
            let shown = chosen.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
            assert_eq!(shown.unwrap_or_else(|why| why), expected, "{wish:?}");
        };
        check(&[false], false, &[], &[], "10.0.0.2");
        check(&[false], false, &[], &["10.0.0.3"], "10.0.0.3");
        check(&[false], false, &["10.0.0.3"], &["10.0.0.2"], "10.0.0.3");
        check(&[false], false, &["fd00::1", "10.0.0.3"], &[], "10.0.0.3");
        check(&[false], false, &[], &["9.9.9.9"], "10.0.0.2");
        check(&[false], false, &["10.0.0.1"], &[], "10.0.0.1 is in use by d/other");
        check(&[false], false, &["9.9.9.9"], &[], "9.9.9.9 is not in the address pool");
        check(&[true], false, &[], &[], "no IPv6 address is free in the address pool");
        check(&[false, true], false, &[], &[], "10.0.0.2");
        check(&[false, true], true, &[], &[], "no IPv6 address is free in the address pool");
    }

    #[test]
    fn services_with_the_same_key_share_an_address_where_ports_differ() {
        let pool: AddressPool = "10.0.0.1-10.0.0.3".parse().unwrap();
        let sharing = |key: &str, ports: &[(&str, i32)], local: Option<&str>| Sharing {
            key: Some(key.to_owned()).filter(|key| !key.is_empty()),
            ports: ports.iter().map(|(protocol, port)| ((*protocol).to_owned(), *port)).collect(),
            local_to: local.map(|app| BTreeMap::from([("app".to_owned(), app.to_owned())])),
        };
        let owners = HashMap::from([("10.0.0.2".parse().unwrap(), owner("other", sharing("k", &[("TCP", 53)], None)))]);
        let check = |mine: Sharing, wanted: &[&str], expected: &str| {
            let addresses = wanted.iter().map(|it| it.parse().unwrap()).collect();
            let wish = Wish { families: vec![false], addresses, sharing: mine, ..Wish::default() };
            let chosen = choose(&pool, &wish, &ObjectKey::new("d", "me"), &owners);
            assert_eq!(chosen.map_or_else(|why| why, |all| all[0].to_string()), expected, "{wish:?}");
        };
        check(sharing("k", &[("UDP", 53)], None), &[], "10.0.0.2");
        check(sharing("k", &[("TCP", 53)], None), &[], "10.0.0.1");
        check(sharing("other", &[("UDP", 53)], None), &[], "10.0.0.1");
        check(sharing("", &[("UDP", 53)], None), &[], "10.0.0.1");
        check(sharing("k", &[("UDP", 53)], Some("a")), &[], "10.0.0.1");
        check(sharing("k", &[("UDP", 53)], None), &["10.0.0.2"], "10.0.0.2");
        check(sharing("k", &[("TCP", 53)], None), &["10.0.0.2"], "10.0.0.2 is in use by d/other");
    }
}
