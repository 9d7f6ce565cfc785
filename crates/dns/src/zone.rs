//! What names of the cluster's domain lead to. Pure.
//!
//! Invariants: a name that something exists at or below gets an answer or an empty one (NODATA), only other names get
//! NXDOMAIN; upper and lower case are the same, and answers come in the case of the question.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::catalog::{Catalog, cluster_ips, endpoint_ips, ready_endpoints};

/// For how long resolvers may keep addresses of Services, in seconds.
const SERVICE_TTL: u32 = 30;
/// The same for addresses of pods, and for the news that a name does not exist.
const ENDPOINT_TTL: u32 = 5;
/// The version of the specification.
const SCHEMA_VERSION: &str = "1.1.0";

/// The answer to one question.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Records; none of them where the name exists without records of the type.
    Records {
        /// The answers.
        answers: Vec<Record>,
        /// What the client is likely to ask next.
        additionals: Vec<Record>,
    },
    /// The name is an alias; the answer is this record and what its target leads to.
    Alias {
        /// The record.
        record: Box<Record>,
        /// Its target.
        target: Name,
    },
    /// There is no such name.
    NoSuchName,
    /// Not ours: ask others.
    Foreign,
}

impl Outcome {
    fn nothing() -> Self {
        Outcome::Records { answers: Vec::new(), additionals: Vec::new() }
    }
}

/// The cluster's domain and the reverse names of its ranges.
#[derive(Debug, Clone)]
pub struct Zone {
    domain: Name,
    labels: Vec<String>,
    reverse: Vec<IpNet>,
    dns_ips: Vec<IpAddr>,
}

impl Zone {
    /// A zone. `reverse` are the ranges of pods and ClusterIPs, `dns_ips` where the DNS server itself can be reached.
    /// `None` where `domain` is not a domain name.
    pub fn new(domain: &str, reverse: Vec<IpNet>, dns_ips: Vec<IpAddr>) -> Option<Self> {
        let domain = Name::from_ascii(format!("{}.", domain.trim_end_matches('.').to_ascii_lowercase())).ok()?;
        let labels = labels_of(&domain)?;
        (!labels.is_empty()).then_some(Self { domain, labels, reverse, dns_ips })
    }

    /// What a question leads to.
    pub fn resolve(&self, catalog: &Catalog, name: &Name, kind: RecordType) -> Outcome {
        let Some(labels) = labels_of(name) else {
            return if self.domain.zone_of(name) { Outcome::NoSuchName } else { Outcome::Foreign };
        };
        if let Some(inner) = labels.strip_suffix(self.labels.as_slice()) {
            let inner: Vec<&str> = inner.iter().map(String::as_str).collect();
            return Question { zone: self, catalog, name, kind }.resolve(&inner);
        }
        match labels.as_slice() {
            [.., zone, arpa] if arpa == "arpa" && (zone == "in-addr" || zone == "ip6") => {
                self.resolve_reverse(catalog, name, kind)
            }
            _ => Outcome::Foreign,
        }
    }

    /// The record that says for how long a name may be taken to have no answer; `None` outside of the domain.
    pub fn negative_authority(&self, name: &Name) -> Option<Record> {
        self.domain.zone_of(name).then(|| self.soa())
    }

    fn soa(&self) -> Record {
        // Nobody transfers this zone, so that its serial number means nothing; it only has to be there.
        let (primary, contact) = (self.name_in("ns.dns"), self.name_in("hostmaster"));
        let soa = SOA::new(primary, contact, 1, 7200, 1800, 86400, ENDPOINT_TTL);
        Record::from_rdata(self.domain.clone(), ENDPOINT_TTL, RData::SOA(soa))
    }

    fn name_in(&self, prefix: &str) -> Name {
        let inner = Name::from_ascii(prefix).unwrap_or_default();
        inner.append_domain(&self.domain).unwrap_or_else(|_| self.domain.clone())
    }

    fn resolve_reverse(&self, catalog: &Catalog, name: &Name, kind: RecordType) -> Outcome {
        let Ok(net) = name.parse_arpa_name() else { return Outcome::Foreign };
        let ours = self.reverse.iter().any(|range| range.contains(&net));
        if net.prefix_len() != net.max_prefix_len() {
            return if ours { Outcome::nothing() } else { Outcome::Foreign };
        }
        let targets = self.reverse_targets(catalog, net.addr());
        if targets.is_empty() {
            return if ours { Outcome::NoSuchName } else { Outcome::Foreign };
        }
        if kind != RecordType::PTR {
            return Outcome::nothing();
        }
        let record = |target| Record::from_rdata(name.clone(), ENDPOINT_TTL, RData::PTR(PTR(target)));
        Outcome::Records { answers: targets.into_iter().map(record).collect(), additionals: Vec::new() }
    }

    fn reverse_targets(&self, catalog: &Catalog, ip: IpAddr) -> BTreeSet<Name> {
        let services = catalog.services_at(ip).map(|key| self.name_in(&format!("{}.{}.svc", key.name, key.namespace)));
        let services: BTreeSet<Name> = services.collect();
        if !services.is_empty() {
            return services;
        }
        let mut targets = BTreeSet::new();
        for key in catalog.services_with_endpoint(ip) {
            if !catalog.service(&key.namespace, &key.name).is_some_and(is_headless) {
                continue;
            }
            for endpoint in catalog.slices(&key.namespace, &key.name).flat_map(ready_endpoints) {
                if endpoint_ips(endpoint).any(|of_endpoint| of_endpoint == ip) {
                    let name = endpoint_name(endpoint, ip);
                    targets.insert(self.name_in(&format!("{name}.{}.{}.svc", key.name, key.namespace)));
                }
            }
        }
        targets
    }
}

/// One question inside the domain.
struct Question<'a> {
    zone: &'a Zone,
    catalog: &'a Catalog,
    name: &'a Name,
    kind: RecordType,
}

impl Question<'_> {
    fn resolve(&self, labels: &[&str]) -> Outcome {
        match labels {
            [] => self.apex(),
            ["dns-version"] => self.text(SCHEMA_VERSION),
            ["dns"] if !self.zone.dns_ips.is_empty() => Outcome::nothing(),
            ["ns", "dns"] if !self.zone.dns_ips.is_empty() => {
                self.addresses(self.zone.dns_ips.iter().copied(), SERVICE_TTL)
            }
            ["svc" | "pod"] => Outcome::nothing(),
            [namespace, "svc" | "pod"] if self.catalog.has_namespace(namespace) => Outcome::nothing(),
            [address, namespace, "pod"] => self.pod(address, namespace),
            [inner @ .., service, namespace, "svc"] => self.service(inner, service, namespace),
            _ => Outcome::NoSuchName,
        }
    }

    fn apex(&self) -> Outcome {
        let answers = match self.kind {
            RecordType::SOA => vec![self.zone.soa()],
            RecordType::NS => vec![self.record(SERVICE_TTL, RData::NS(NS(self.zone.name_in("ns.dns"))))],
            _ => return Outcome::nothing(),
        };
        Outcome::Records { answers, additionals: Vec::new() }
    }

    fn text(&self, text: &str) -> Outcome {
        if self.kind != RecordType::TXT {
            return Outcome::nothing();
        }
        let answers = vec![self.record(SERVICE_TTL, RData::TXT(TXT::new(vec![text.to_owned()])))];
        Outcome::Records { answers, additionals: Vec::new() }
    }

    /// `10-244-0-5.ns.pod`: any address in any namespace that exists, as upstream's mode `pods insecure` has it.
    fn pod(&self, address: &str, namespace: &str) -> Outcome {
        if !self.catalog.has_namespace(namespace) {
            return Outcome::NoSuchName;
        }
        let v4 = address.replace('-', ".").parse::<std::net::Ipv4Addr>().map(IpAddr::V4);
        let ip = v4.or_else(|_| address.replace('-', ":").parse::<std::net::Ipv6Addr>().map(IpAddr::V6));
        match ip {
            Ok(ip) => self.addresses([ip].into_iter(), SERVICE_TTL),
            Err(_) => Outcome::NoSuchName,
        }
    }

    fn service(&self, inner: &[&str], name: &str, namespace: &str) -> Outcome {
        let Some(service) = self.catalog.service(namespace, name) else { return Outcome::NoSuchName };
        if let Some(target) = external_name(service) {
            return if inner.is_empty() { self.alias(target) } else { Outcome::NoSuchName };
        }
        match inner {
            [] if self.kind == RecordType::SRV => self.srv(service, name, namespace, None),
            [] if is_headless(service) => {
                let endpoints = self.catalog.slices(namespace, name).flat_map(ready_endpoints);
                self.addresses(endpoints.flat_map(endpoint_ips), ENDPOINT_TTL)
            }
            [] => self.addresses(cluster_ips(service), SERVICE_TTL),
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                let wanted = (&port[1..], &protocol[1..]);
                if !self.has_port(service, name, namespace, Some(wanted.0), wanted.1) {
                    return Outcome::NoSuchName;
                }
                if self.kind == RecordType::SRV {
                    self.srv(service, name, namespace, Some(wanted))
                } else {
                    Outcome::nothing()
                }
            }
            // Nothing is at `_tcp`, but names are below.
            [protocol] if protocol.starts_with('_') => {
                match self.has_port(service, name, namespace, None, &protocol[1..]) {
                    true => Outcome::nothing(),
                    false => Outcome::NoSuchName,
                }
            }
            [endpoint] => self.endpoint(endpoint, name, namespace),
            _ => Outcome::NoSuchName,
        }
    }

    fn alias(&self, target: &str) -> Outcome {
        let Ok(target) = Name::from_ascii(format!("{}.", target.trim_end_matches('.'))) else {
            return Outcome::nothing();
        };
        let record = self.record(SERVICE_TTL, RData::CNAME(CNAME(target.clone())));
        match self.kind {
            RecordType::CNAME => Outcome::Records { answers: vec![record], additionals: Vec::new() },
            _ => Outcome::Alias { record: Box::new(record), target },
        }
    }

    fn endpoint(&self, wanted: &str, name: &str, namespace: &str) -> Outcome {
        let endpoints = self.catalog.slices(namespace, name).flat_map(ready_endpoints);
        let named = endpoints.flat_map(|endpoint| endpoint_ips(endpoint).map(move |ip| (endpoint, ip)));
        let ips: Vec<IpAddr> = named
            .filter(|(endpoint, ip)| endpoint_name(endpoint, *ip).eq_ignore_ascii_case(wanted))
            .map(|(_, ip)| ip)
            .collect();
        if ips.is_empty() { Outcome::NoSuchName } else { self.addresses(ips.into_iter(), ENDPOINT_TTL) }
    }

    fn has_port(&self, service: &Service, name: &str, namespace: &str, port: Option<&str>, protocol: &str) -> bool {
        let is_it = |listed: Option<&str>, listed_protocol: Option<&str>| {
            let named = listed.filter(|listed| !listed.is_empty());
            named.is_some()
                && port.is_none_or(|port| named.is_some_and(|named| named.eq_ignore_ascii_case(port)))
                && listed_protocol.unwrap_or("TCP").eq_ignore_ascii_case(protocol)
        };
        let of_service = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        let of_slices = self.catalog.slices(namespace, name).flat_map(|slice| slice.ports.iter().flatten());
        of_service.into_iter().any(|listed| is_it(listed.name.as_deref(), listed.protocol.as_deref()))
            || (is_headless(service)
                && of_slices.into_iter().any(|listed| is_it(listed.name.as_deref(), listed.protocol.as_deref())))
    }

    fn srv(&self, service: &Service, name: &str, namespace: &str, wanted: Option<(&str, &str)>) -> Outcome {
        let matches = |port: Option<&str>, protocol: Option<&str>| {
            wanted.is_none_or(|(wanted_port, wanted_protocol)| {
                port.unwrap_or_default().eq_ignore_ascii_case(wanted_port)
                    && protocol.unwrap_or("TCP").eq_ignore_ascii_case(wanted_protocol)
            })
        };
        let mut targets: BTreeSet<(String, u16)> = BTreeSet::new();
        let mut additionals: BTreeSet<(String, IpAddr)> = BTreeSet::new();
        let headless = is_headless(service);
        if headless {
            for slice in self.catalog.slices(namespace, name) {
                let ports = slice.ports.iter().flatten();
                let ports: Vec<u16> = ports
                    .filter(|port| matches(port.name.as_deref(), port.protocol.as_deref()))
                    .filter_map(|port| port.port.and_then(|number| u16::try_from(number).ok()))
                    .collect();
                for (target, ip) in named_endpoints(slice, name, namespace).filter(|_| !ports.is_empty()) {
                    targets.extend(ports.iter().map(|port| (target.clone(), *port)));
                    additionals.insert((target, ip));
                }
            }
        } else {
            let target = format!("{name}.{namespace}.svc");
            let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
            let ports = ports.filter(|port| matches(port.name.as_deref(), port.protocol.as_deref()));
            targets.extend(ports.filter_map(|port| Some((target.clone(), u16::try_from(port.port).ok()?))));
            additionals.extend(cluster_ips(service).map(|ip| (target.clone(), ip)));
        }
        self.srv_records(targets, additionals, if headless { ENDPOINT_TTL } else { SERVICE_TTL })
    }

    /// Every target gets the same share.
    fn srv_records(
        &self,
        targets: BTreeSet<(String, u16)>,
        additionals: BTreeSet<(String, IpAddr)>,
        ttl: u32,
    ) -> Outcome {
        let weight = u16::try_from(100 / targets.len().max(1)).unwrap_or(1).max(1);
        let answer = |(target, port): (String, u16)| {
            self.record(ttl, RData::SRV(SRV::new(0, weight, port, self.zone.name_in(&target))))
        };
        Outcome::Records {
            answers: targets.into_iter().map(answer).collect(),
            additionals: additionals
                .into_iter()
                .map(|(target, ip)| address(self.zone.name_in(&target), ttl, ip))
                .collect(),
        }
    }

    /// The addresses of the family that was asked for.
    fn addresses(&self, ips: impl Iterator<Item = IpAddr>, ttl: u32) -> Outcome {
        let wanted: BTreeSet<IpAddr> = match self.kind {
            RecordType::A => ips.filter(IpAddr::is_ipv4).collect(),
            RecordType::AAAA => ips.filter(IpAddr::is_ipv6).collect(),
            _ => return Outcome::nothing(),
        };
        let answers = wanted.into_iter().map(|ip| address(self.name.clone(), ttl, ip)).collect();
        Outcome::Records { answers, additionals: Vec::new() }
    }

    fn record(&self, ttl: u32, data: RData) -> Record {
        Record::from_rdata(self.name.clone(), ttl, data)
    }
}

fn address(name: Name, ttl: u32, ip: IpAddr) -> Record {
    let data = match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Record::from_rdata(name, ttl, data)
}

fn named_endpoints<'a>(
    slice: &'a EndpointSlice,
    name: &'a str,
    namespace: &'a str,
) -> impl Iterator<Item = (String, IpAddr)> + 'a {
    ready_endpoints(slice).flat_map(move |endpoint| {
        endpoint_ips(endpoint).map(move |ip| (format!("{}.{name}.{namespace}.svc", endpoint_name(endpoint, ip)), ip))
    })
}

/// An endpoint's name: its hostname, or its address with dashes.
fn endpoint_name(endpoint: &Endpoint, ip: IpAddr) -> String {
    match endpoint.hostname.as_deref() {
        Some(hostname) if !hostname.is_empty() => hostname.to_owned(),
        _ => ip.to_string().replace(['.', ':'], "-"),
    }
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

fn external_name(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    (spec.type_.as_deref() == Some("ExternalName")).then_some(spec.external_name.as_deref()?)
}

/// The labels in lower case, from left to right; `None` if one is no text.
fn labels_of(name: &Name) -> Option<Vec<String>> {
    name.iter().map(|label| std::str::from_utf8(label).ok().map(str::to_ascii_lowercase)).collect()
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
