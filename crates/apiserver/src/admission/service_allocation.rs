//! ClusterIPs and node ports of Services.
//!
//! What is taken is kept in memory and made again from the store at start. Invariant: an address or port is given to one
//! Service at a time; what a failed write took is given back.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use kedge_meta::{ApiStatus, FieldError, FieldPath};
use parking_lot::Mutex;
use rand::Rng;
use serde_json::{Value, json};

use super::{Attributes, Effects, Operation, Plugin};
use crate::cidr::Cidr;
use crate::config::Config;
use crate::object;
use crate::registry::Resource;

/// How often a random place is tried before the range is gone through in order.
const RANDOM_TRIES: usize = 16;

/// Hands out addresses and ports.
#[derive(Clone)]
pub(crate) struct ServiceAllocation {
    ranges: Vec<Cidr>,
    ports: (u16, u16),
    taken: Arc<Mutex<Taken>>,
}

/// Owner (`namespace/name`) by what it owns.
#[derive(Default)]
struct Taken {
    addresses: HashMap<IpAddr, String>,
    ports: HashMap<u16, String>,
}

/// What a Service holds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Holdings {
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

impl ServiceAllocation {
    pub(crate) fn new(config: &Config) -> Self {
        let (ranges, ports) = (config.service_cluster_ip_ranges.clone(), config.service_node_port_range);
        Self { ranges, ports, taken: Arc::default() }
    }

    /// Takes in a Service that is in the store at start.
    pub(crate) fn restore(&self, service: &Value) {
        let owner = object::key(service).to_string();
        let held = holdings(service);
        let mut taken = self.taken.lock();
        taken.addresses.extend(held.addresses.into_iter().map(|address| (address, owner.clone())));
        taken.ports.extend(held.ports.into_iter().map(|port| (port, owner.clone())));
    }

    fn give_back(&self, owner: &str, held: &Holdings) {
        let mut taken = self.taken.lock();
        for address in &held.addresses {
            if taken.addresses.get(address).is_some_and(|own| own == owner) {
                taken.addresses.remove(address);
            }
        }
        for port in &held.ports {
            if taken.ports.get(port).is_some_and(|own| own == owner) {
                taken.ports.remove(port);
            }
        }
    }
}

#[async_trait]
impl Plugin for ServiceAllocation {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_main("", "services") && matches!(attributes.operation, Operation::Create | Operation::Update)
    }

    async fn reserve(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Value,
        effects: &mut Effects,
    ) -> Result<(), ApiStatus> {
        let owner = format!("{}/{}", attributes.namespace, attributes.name);
        let before = attributes.old.map(holdings).unwrap_or_default();
        let mut round = Round { allocation: self, owner: &owner, taken: Holdings::default() };
        let result = round.fill(object);
        let newly = std::mem::take(&mut round.taken);
        let (this, name) = (self.clone(), owner.clone());
        effects.on_failure(move || this.give_back(&name, &newly));
        result.map_err(|error| error.into_status(attributes.name))?;
        let after = holdings(object);
        let lost = Holdings {
            addresses: before.addresses.into_iter().filter(|address| !after.addresses.contains(address)).collect(),
            ports: before.ports.into_iter().filter(|port| !after.ports.contains(port)).collect(),
        };
        let this = self.clone();
        effects.on_commit(move || this.give_back(&owner, &lost));
        Ok(())
    }

    fn released(&self, resource: &Resource, object: &Value) {
        if resource.is("", "services") {
            self.give_back(&object::key(object).to_string(), &holdings(object));
        }
    }
}

/// Why nothing can be handed out.
enum Refusal {
    Field(FieldError),
    Full(&'static str),
}

impl Refusal {
    fn into_status(self, name: &str) -> ApiStatus {
        match self {
            Self::Field(error) => ApiStatus::invalid("", "Service", name, &[error]),
            Self::Full(what) => ApiStatus::internal(format!("failed to allocate {what}: range is full")),
        }
    }
}

fn type_of(service: &Value) -> &str {
    match object::text(service, &["spec", "type"]) {
        "" => "ClusterIP",
        other => other,
    }
}

fn holdings(service: &Value) -> Holdings {
    if type_of(service) == "ExternalName" {
        return Holdings::default();
    }
    let listed = object::list(service, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
    let addresses = listed.filter_map(|ip| ip.parse().ok()).collect();
    let ports = object::list(service, &["spec", "ports"]).iter().filter_map(|port| port["nodePort"].as_u64());
    let health = object::at(service, &["spec", "healthCheckNodePort"]).and_then(Value::as_u64);
    let mut ports: Vec<u16> =
        ports.chain(health).filter_map(|port| u16::try_from(port).ok()).filter(|p| *p > 0).collect();
    ports.dedup();
    Holdings { addresses, ports }
}

/// One Service's turn.
struct Round<'a> {
    allocation: &'a ServiceAllocation,
    owner: &'a str,
    taken: Holdings,
}

impl Round<'_> {
    fn fill(&mut self, service: &mut Value) -> Result<(), Refusal> {
        let kind = type_of(service).to_owned();
        if kind == "ExternalName" {
            return Ok(());
        }
        self.fill_addresses(service)?;
        let balanced = kind == "LoadBalancer";
        let wants_ports = kind == "NodePort"
            || (balanced && object::at(service, &["spec", "allocateLoadBalancerNodePorts"]) != Some(&json!(false)));
        self.fill_ports(service, wants_ports)?;
        if balanced && object::text(service, &["spec", "externalTrafficPolicy"]) == "Local" {
            self.fill_health_port(service)?;
        }
        Ok(())
    }

    fn fill_addresses(&mut self, service: &mut Value) -> Result<(), Refusal> {
        let given: Vec<String> = object::list(service, &["spec", "clusterIPs"])
            .iter()
            .filter_map(|ip| ip.as_str().map(str::to_owned))
            .collect();
        let families = self.families(service, &given)?;
        let headless = given.first().is_some_and(|first| first == "None");
        let mut addresses = Vec::new();
        if !headless {
            for (index, ipv6) in families.iter().enumerate() {
                addresses.push(match given.get(index) {
                    Some(text) => self.take_address(text, &given)?,
                    None => self.draw_address(*ipv6)?,
                });
            }
        }
        let spec = object::child_mut(service, "spec");
        let addresses = if headless { vec!["None".to_owned()] } else { addresses };
        if let Some(first) = addresses.first() {
            spec.insert("clusterIP".to_owned(), first.as_str().into());
        }
        spec.insert("clusterIPs".to_owned(), addresses.into());
        let name = |ipv6: &bool| if *ipv6 { "IPv6" } else { "IPv4" };
        spec.insert("ipFamilies".to_owned(), families.iter().map(name).collect::<Vec<_>>().into());
        let policy = if families.len() > 1 { "PreferDualStack" } else { "SingleStack" };
        let unset = spec.get("ipFamilyPolicy").and_then(Value::as_str).unwrap_or("").is_empty();
        if unset {
            spec.insert("ipFamilyPolicy".to_owned(), policy.into());
        }
        Ok(())
    }

    /// Whether each of the Service's families is IPv6, the primary one first.
    fn families(&self, service: &Value, given: &[String]) -> Result<Vec<bool>, Refusal> {
        let ranges = &self.allocation.ranges;
        let served = |ipv6: bool| ranges.iter().any(|range| range.is_ipv6() == ipv6);
        let named: Vec<bool> =
            object::list(service, &["spec", "ipFamilies"]).iter().map(|family| family == "IPv6").collect();
        let of_given: Vec<bool> =
            given.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()).map(|address| address.is_ipv6()).collect();
        let mut families = if named.is_empty() { of_given } else { named };
        if families.is_empty() {
            families.extend(ranges.first().map(Cidr::is_ipv6));
        }
        if let Some(index) = families.iter().position(|ipv6| !served(*ipv6)) {
            let name = if families[index] { "IPv6" } else { "IPv4" };
            let path = FieldPath::new("spec").child("ipFamilies").index(index);
            let error = FieldError::invalid(&path, &json!(name), "not configured on this cluster");
            return Err(Refusal::Field(error));
        }
        let policy = object::text(service, &["spec", "ipFamilyPolicy"]);
        let wants_both = matches!(policy, "PreferDualStack" | "RequireDualStack");
        if wants_both && families.len() == 1 && served(!families[0]) {
            families.push(!families[0]);
        }
        if policy == "RequireDualStack" && families.len() < 2 {
            let path = FieldPath::new("spec").child("ipFamilyPolicy");
            let why = "this cluster is not configured for dual-stack services";
            return Err(Refusal::Field(FieldError::invalid(&path, &json!(policy), why)));
        }
        Ok(families)
    }

    fn take_address(&mut self, text: &str, given: &[String]) -> Result<String, Refusal> {
        let path = FieldPath::new("spec").child("clusterIPs");
        let refuse = |why: &str| {
            let why = format!("failed to allocate IP {text}: {why}");
            Err(Refusal::Field(FieldError::invalid(&path, &json!(given), &why)))
        };
        let Ok(address) = text.parse::<IpAddr>() else { return refuse("it is no IP address") };
        let mut taken = self.allocation.taken.lock();
        match taken.addresses.get(&address) {
            Some(owner) if owner == self.owner => return Ok(text.to_owned()),
            Some(_) => return refuse("provided IP is already allocated"),
            None => {}
        }
        let usable = |range: &Cidr| range.index_of(address).is_some_and(|index| is_usable(range, index));
        if !self.allocation.ranges.iter().any(usable) {
            let ranges: Vec<String> = self.allocation.ranges.iter().map(ToString::to_string).collect();
            let ranges = ranges.join(",");
            let why = format!("the provided IP ({text}) is not in the valid range. The range of valid IPs is {ranges}");
            return refuse(&why);
        }
        taken.addresses.insert(address, self.owner.to_owned());
        self.taken.addresses.push(address);
        Ok(text.to_owned())
    }

    fn draw_address(&mut self, ipv6: bool) -> Result<String, Refusal> {
        let range = self.allocation.ranges.iter().find(|range| range.is_ipv6() == ipv6).expect("families are served");
        let size = range.size();
        // The lower band is left for addresses that people choose (KEP-3070), as long as there are others.
        let reserved = if size <= 16 { 0 } else { (size / 16).clamp(16, 256) };
        let mut taken = self.allocation.taken.lock();
        let mut random = rand::rng();
        let tries: Vec<u128> = (0..RANDOM_TRIES).map(|_| random.random_range(reserved..size)).collect();
        let in_order = (reserved..size).chain(0..reserved);
        let free =
            tries.into_iter().chain(in_order).filter(|index| is_usable(range, *index)).filter_map(|i| range.nth(i));
        let address = free.into_iter().find(|address| !taken.addresses.contains_key(address));
        let address = address.ok_or(Refusal::Full("a serviceIP"))?;
        taken.addresses.insert(address, self.owner.to_owned());
        self.taken.addresses.push(address);
        Ok(address.to_string())
    }

    fn fill_ports(&mut self, service: &mut Value, wanted: bool) -> Result<(), Refusal> {
        let Some(ports) = service["spec"].get_mut("ports").and_then(Value::as_array_mut) else { return Ok(()) };
        for (index, port) in ports.iter_mut().enumerate() {
            match port["nodePort"].as_u64().unwrap_or(0) {
                0 if wanted => port["nodePort"] = self.draw_port()?.into(),
                0 => drop(port.as_object_mut().and_then(|port| port.remove("nodePort"))),
                number => {
                    let path = FieldPath::new("spec").child("ports").index(index).child("nodePort");
                    self.take_port(number, &path)?;
                }
            }
        }
        Ok(())
    }

    fn fill_health_port(&mut self, service: &mut Value) -> Result<(), Refusal> {
        let given = object::at(service, &["spec", "healthCheckNodePort"]).and_then(Value::as_u64).unwrap_or(0);
        if given > 0 {
            return self.take_port(given, &FieldPath::new("spec").child("healthCheckNodePort"));
        }
        let port = self.draw_port()?;
        object::child_mut(service, "spec").insert("healthCheckNodePort".to_owned(), port.into());
        Ok(())
    }

    fn take_port(&mut self, number: u64, path: &FieldPath) -> Result<(), Refusal> {
        let (first, last) = self.allocation.ports;
        let refuse = |why: &str| Err(Refusal::Field(FieldError::invalid(path, &json!(number), why)));
        let Some(port) = u16::try_from(number).ok().filter(|port| (first..=last).contains(port)) else {
            let why = format!("provided port is not in the valid range. The range of valid ports is {first}-{last}");
            return refuse(&why);
        };
        let mut taken = self.allocation.taken.lock();
        match taken.ports.get(&port) {
            // Several protocols of one Service may share a number.
            Some(owner) if owner == self.owner => return Ok(()),
            Some(_) => return refuse("provided port is already allocated"),
            None => {}
        }
        taken.ports.insert(port, self.owner.to_owned());
        self.taken.ports.push(port);
        Ok(())
    }

    fn draw_port(&mut self) -> Result<u16, Refusal> {
        let (first, last) = self.allocation.ports;
        let mut taken = self.allocation.taken.lock();
        let mut random = rand::rng();
        let tries: Vec<u16> = (0..RANDOM_TRIES).map(|_| random.random_range(first..=last)).collect();
        let port = tries.into_iter().chain(first..=last).find(|port| !taken.ports.contains_key(port));
        let port = port.ok_or(Refusal::Full("a nodePort"))?;
        taken.ports.insert(port, self.owner.to_owned());
        self.taken.ports.push(port);
        Ok(port)
    }
}

/// Network and broadcast addresses are nobody's.
fn is_usable(range: &Cidr, index: u128) -> bool {
    index > 0 && (range.is_ipv6() || index + 1 < range.size())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocation(range: &str, ports: (u16, u16)) -> ServiceAllocation {
        let ranges = vec![range.parse().unwrap()];
        ServiceAllocation { ranges, ports, taken: Arc::default() }
    }

    fn fill(allocation: &ServiceAllocation, name: &str, spec: Value) -> Result<Value, String> {
        let mut service = json!({"metadata": {"name": name, "namespace": "d"}, "spec": spec});
        let owner = format!("d/{name}");
        let mut round = Round { allocation, owner: &owner, taken: Holdings::default() };
        match round.fill(&mut service) {
            Ok(()) => Ok(service["spec"].take()),
            Err(refusal) => Err(refusal.into_status(name).message),
        }
    }

    #[test]
    fn addresses_are_given_once() {
        let allocation = allocation("10.0.0.0/30", (30000, 30001));
        let first = fill(&allocation, "a", json!({"clusterIPs": ["10.0.0.1"]})).unwrap();
        assert_eq!(
            first,
            json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"})
        );
        assert_eq!(fill(&allocation, "b", json!({})).unwrap()["clusterIP"], "10.0.0.2");
        assert_eq!(
            fill(&allocation, "c", json!({})).unwrap_err(),
            "Internal error occurred: failed to allocate a serviceIP: range is full"
        );
        let taken = fill(&allocation, "c", json!({"clusterIPs": ["10.0.0.1"]})).unwrap_err();
        assert_eq!(
            taken,
            "Service \"c\" is invalid: spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: failed to allocate IP 10.0.0.1: provided IP is already allocated"
        );
        let outside = fill(&allocation, "c", json!({"clusterIPs": ["10.0.1.1"]})).unwrap_err();
        assert!(outside.ends_with("is not in the valid range. The range of valid IPs is 10.0.0.0/30"), "{outside}");
        let headless = fill(&allocation, "c", json!({"clusterIPs": ["None"]})).unwrap();
        assert_eq!((&headless["clusterIP"], &headless["clusterIPs"]), (&json!("None"), &json!(["None"])));
        allocation.give_back("d/b", &Holdings { addresses: vec!["10.0.0.2".parse().unwrap()], ports: vec![] });
        fill(&allocation, "c", json!({})).unwrap();
    }

    #[test]
    fn ports_are_given_once() {
        let allocation = allocation("10.0.0.0/24", (30000, 30001));
        let ports = |ports: Value| json!({"type": "NodePort", "ports": ports});
        fill(
            &allocation,
            "a",
            ports(json!([{"nodePort": 30000, "protocol": "TCP"}, {"nodePort": 30000, "protocol": "UDP"}])),
        )
        .unwrap();
        let taken = fill(&allocation, "b", ports(json!([{"nodePort": 30000}]))).unwrap_err();
        assert_eq!(
            taken,
            "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 30000: provided port is already allocated"
        );
        let outside = fill(&allocation, "b", ports(json!([{"nodePort": 80}]))).unwrap_err();
        assert!(outside.ends_with("provided port is not in the valid range. The range of valid ports is 30000-30001"));
        assert_eq!(fill(&allocation, "b", ports(json!([{"port": 80}]))).unwrap()["ports"][0]["nodePort"], 30001);
        let full = fill(&allocation, "c", ports(json!([{"port": 80}]))).unwrap_err();
        assert_eq!(full, "Internal error occurred: failed to allocate a nodePort: range is full");
    }

    #[test]
    fn both_families_need_both_ranges() {
        let mut allocation = allocation("10.0.0.0/24", (30000, 30001));
        let refused = fill(&allocation, "a", json!({"ipFamilyPolicy": "RequireDualStack"})).unwrap_err();
        assert!(refused.contains("this cluster is not configured for dual-stack services"), "{refused}");
        assert_eq!(
            fill(&allocation, "a", json!({"ipFamilyPolicy": "PreferDualStack"})).unwrap()["ipFamilies"],
            json!(["IPv4"])
        );
        allocation.ranges.push("fd00::/112".parse().unwrap());
        let spec = fill(&allocation, "b", json!({"ipFamilyPolicy": "PreferDualStack"})).unwrap();
        assert_eq!((spec["clusterIPs"].as_array().unwrap().len(), &spec["ipFamilies"]), (2, &json!(["IPv4", "IPv6"])));
    }
}
