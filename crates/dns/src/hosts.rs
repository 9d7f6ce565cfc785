//! The names of a Corefile's `hosts`. Pure.
//!
//! Invariant: bounded; a name has records of its entries only.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};

use crate::corefile::plan::name;

const ENTRIES_MAX: usize = 10_000;
/// As in CoreDNS, in seconds.
const USUAL_TTL: u32 = 3600;

/// Names with their addresses.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    addresses_by_name: BTreeMap<LowerName, Vec<IpAddr>>,
    names_by_address: BTreeMap<IpAddr, Vec<Name>>,
    pub(crate) ttl: u32,
    pub(crate) no_reverse: bool,
    /// Whether others are asked for names that are not here: for all, where no zone is named.
    pub(crate) fallthrough: Option<Vec<Name>>,
}

impl Default for Hosts {
    fn default() -> Self {
        Self {
            addresses_by_name: BTreeMap::new(),
            names_by_address: BTreeMap::new(),
            ttl: USUAL_TTL,
            no_reverse: false,
            fallthrough: None,
        }
    }
}

impl Hosts {
    /// Adds a line; `false` where it has no name, or there are too many.
    pub(crate) fn add(&mut self, address: IpAddr, names: &[String]) -> bool {
        let parsed: Vec<Name> = names.iter().filter_map(|text| name(text)).collect();
        if parsed.is_empty() || parsed.len() != names.len() || self.addresses_by_name.len() >= ENTRIES_MAX {
            return false;
        }
        for name in &parsed {
            self.addresses_by_name.entry(LowerName::from(name)).or_default().push(address);
        }
        self.names_by_address.entry(address).or_default().extend(parsed);
        true
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.addresses_by_name.len()
    }

    /// The records of a name; `None` where it is not here.
    pub(crate) fn answer(&self, name: &Name, kind: RecordType) -> Option<Vec<Record>> {
        let record = |data| Record::from_rdata(name.clone(), self.ttl, data);
        if let Some(addresses) = self.addresses_by_name.get(&LowerName::from(name)) {
            let data = addresses.iter().filter_map(|address| match (address, kind) {
                (IpAddr::V4(address), RecordType::A) => Some(RData::A(A(*address))),
                (IpAddr::V6(address), RecordType::AAAA) => Some(RData::AAAA(AAAA(*address))),
                _ => None,
            });
            return Some(data.map(record).collect());
        }
        if self.no_reverse || kind != RecordType::PTR {
            return None;
        }
        let net = name.parse_arpa_name().ok().filter(|net| net.prefix_len() == net.max_prefix_len())?;
        let names = self.names_by_address.get(&net.addr())?;
        Some(names.iter().map(|name| record(RData::PTR(PTR(name.clone())))).collect())
    }

    /// Whether others may be asked for a name that is not here.
    pub(crate) fn falls_through(&self, name: &Name) -> bool {
        match &self.fallthrough {
            Some(zones) => zones.is_empty() || zones.iter().any(|zone| zone.zone_of(name)),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_found() {
        let mut hosts = Hosts::default();
        assert!(hosts.add("10.0.0.9".parse().unwrap(), &["a.example".to_owned(), "b.example".to_owned()]));
        assert!(hosts.add("fd00::9".parse().unwrap(), &["A.example.".to_owned()]));
        assert!(!hosts.add("10.0.0.9".parse().unwrap(), &[]));
        let check = |asked: &str, kind, expected: &str| {
            let records = hosts.answer(&name(asked).unwrap(), kind);
            let shown = records.map(|all| all.iter().map(|it| it.data.to_string()).collect::<Vec<_>>().join(" "));
            assert_eq!(shown.as_deref().unwrap_or("absent"), expected, "{asked} {kind}");
        };
        check("A.EXAMPLE", RecordType::A, "10.0.0.9");
        check("a.example", RecordType::AAAA, "fd00::9");
        check("b.example", RecordType::AAAA, "");
        check("c.example", RecordType::A, "absent");
        check("9.0.0.10.in-addr.arpa", RecordType::PTR, "a.example. b.example.");
        check("8.0.0.10.in-addr.arpa", RecordType::PTR, "absent");
        hosts.no_reverse = true;
        assert!(hosts.answer(&name("9.0.0.10.in-addr.arpa").unwrap(), RecordType::PTR).is_none());
        assert_eq!(hosts.len(), 2);
    }

    #[test]
    fn others_are_asked_where_that_is_said() {
        let check = |fallthrough: Option<&[&str]>, expected: bool| {
            let zones = fallthrough.map(|zones| zones.iter().filter_map(|zone| name(zone)).collect());
            let hosts = Hosts { fallthrough: zones, ..Hosts::default() };
            assert_eq!(hosts.falls_through(&name("a.example").unwrap()), expected, "{fallthrough:?}");
        };
        check(None, false);
        check(Some(&[]), true);
        check(Some(&["example"]), true);
        check(Some(&["example.org"]), false);
    }
}
