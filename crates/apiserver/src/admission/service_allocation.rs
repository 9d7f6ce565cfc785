//! ClusterIPs and node ports of Services: which ones a Service gets, keeps and gives back. Who has what stands in the store
//! (`service_ledger.rs`).
//!
//! Invariant: what a Service's fields name after a commit, the ledger's records of the same commit say too.

use std::collections::BTreeSet;
use std::net::IpAddr;

use async_trait::async_trait;
use kedge_meta::{ApiStatus, FieldError, FieldPath, ObjectKey};
use kedge_store::{Condition, Write};
use serde_json::{Value, json};

use super::service_families::plan_families;
use super::service_ledger::{Ledger, LedgerError, is_usable, usable_ranges};
use super::{Attributes, Effects, Operation, Plugin};
use crate::cidr::Cidr;
use crate::core::Core;
use crate::object;
use crate::registry::Resource;

/// Hands out addresses and ports.
pub(crate) struct ServiceAllocation;

/// What a Service holds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Holdings {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

/// What is missing in the ledger for a Service that was not written through admission: by a bootstrap, or by a version that
/// kept no records.
pub(crate) async fn missing_records(core: &Core, service: &Value) -> Result<(Vec<Condition>, Vec<Write>), ApiStatus> {
    let mut ledger = Ledger::of(core, object::key(service))?;
    let held = holdings(service);
    for address in held.addresses {
        tell_contested(&object::key(service), &address.to_string(), ledger.take_address(address).await)?;
    }
    for port in held.ports {
        tell_contested(&object::key(service), &port.to_string(), ledger.take_port(port).await)?;
    }
    Ok((ledger.conditions, ledger.writes))
}

fn tell_contested(service: &ObjectKey, what: &str, taken: Result<(), LedgerError>) -> Result<(), ApiStatus> {
    match taken {
        Err(LedgerError::Status(status)) => Err(status),
        Err(LedgerError::Taken | LedgerError::Full) => {
            tracing::warn!(%service, what, "another Service has this address or port too");
            Ok(())
        }
        Ok(()) => Ok(()),
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
        let core = attributes.core;
        let before = attributes.old.map(holdings).unwrap_or_default();
        let mut round = Round {
            families: core.config.service_cluster_ip_ranges.iter().map(Cidr::is_ipv6).collect(),
            ranges: usable_ranges(core).await?,
            ports: core.config.service_node_port_range,
            before: before.clone(),
            ledger: Ledger::of(core, ObjectKey::new(attributes.namespace, attributes.name))?,
        };
        round.fill(object, attributes.old).await.map_err(|error| error.into_status(attributes.name))?;
        let after = holdings(object);
        for address in before.addresses.difference(&after.addresses) {
            round.ledger.give_back_address(*address).await?;
        }
        for port in before.ports.difference(&after.ports) {
            round.ledger.give_back_port(*port).await?;
        }
        effects.conditions.append(&mut round.ledger.conditions);
        effects.writes.append(&mut round.ledger.writes);
        Ok(())
    }

    async fn release(
        &self,
        core: &Core,
        resource: &Resource,
        object: &Value,
        effects: &mut Effects,
    ) -> Result<(), ApiStatus> {
        if !resource.is("", "services") {
            return Ok(());
        }
        let mut ledger = Ledger::of(core, object::key(object))?;
        let held = holdings(object);
        for address in held.addresses {
            ledger.give_back_address(address).await?;
        }
        for port in held.ports {
            ledger.give_back_port(port).await?;
        }
        effects.conditions.append(&mut ledger.conditions);
        effects.writes.append(&mut ledger.writes);
        Ok(())
    }
}

/// Why nothing can be handed out.
enum Refusal {
    Field(FieldError),
    Fields(Vec<FieldError>),
    Full(&'static str),
    Status(ApiStatus),
}

impl From<ApiStatus> for Refusal {
    fn from(status: ApiStatus) -> Self {
        Self::Status(status)
    }
}

impl Refusal {
    fn into_status(self, name: &str) -> ApiStatus {
        match self {
            Self::Field(error) => ApiStatus::invalid("", "Service", name, &[error]),
            Self::Fields(errors) => ApiStatus::invalid("", "Service", name, &errors),
            Self::Full(what) => ApiStatus::internal(format!("failed to allocate {what}: range is full")),
            Self::Status(status) => status,
        }
    }
}

fn type_of(service: &Value) -> &str {
    match object::text(service, &["spec", "type"]) {
        "" => "ClusterIP",
        other => other,
    }
}

/// The node ports that a Service names.
pub(crate) fn node_ports(service: &Value) -> BTreeSet<u16> {
    holdings(service).ports
}

fn holdings(service: &Value) -> Holdings {
    if type_of(service) == "ExternalName" {
        return Holdings::default();
    }
    let listed = object::list(service, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
    let addresses = listed.filter_map(|ip| ip.parse().ok()).collect();
    let ports = object::list(service, &["spec", "ports"]).iter().filter_map(|port| port["nodePort"].as_u64());
    let health = object::at(service, &["spec", "healthCheckNodePort"]).and_then(Value::as_u64);
    let ports = ports.chain(health).filter_map(|port| u16::try_from(port).ok()).filter(|p| *p > 0).collect();
    Holdings { addresses, ports }
}

/// One Service's turn.
struct Round {
    /// Whether each family that the cluster serves is IPv6, the primary one first.
    families: Vec<bool>,
    ranges: Vec<Cidr>,
    ports: (u16, u16),
    /// What the Service had: it keeps that, whoever is recorded and whatever the ranges are by now.
    before: Holdings,
    ledger: Ledger,
}

impl Round {
    async fn fill(&mut self, service: &mut Value, old: Option<&Value>) -> Result<(), Refusal> {
        let kind = type_of(service).to_owned();
        if kind == "ExternalName" {
            return Ok(());
        }
        self.fill_addresses(service, old).await?;
        let balanced = kind == "LoadBalancer";
        let wants_ports = kind == "NodePort"
            || (balanced && object::at(service, &["spec", "allocateLoadBalancerNodePorts"]) != Some(&json!(false)));
        self.fill_ports(service, wants_ports).await?;
        if balanced && object::text(service, &["spec", "externalTrafficPolicy"]) == "Local" {
            self.fill_health_port(service).await?;
        }
        Ok(())
    }

    async fn fill_addresses(&mut self, service: &mut Value, old: Option<&Value>) -> Result<(), Refusal> {
        let families = plan_families(service, old, &self.families).map_err(Refusal::Fields)?;
        let given: Vec<String> = object::list(service, &["spec", "clusterIPs"])
            .iter()
            .filter_map(|ip| ip.as_str().map(str::to_owned))
            .collect();
        let headless = given.first().is_some_and(|first| first == "None");
        let mut addresses = Vec::new();
        if !headless {
            for (index, ipv6) in families.iter().enumerate() {
                addresses.push(match given.get(index) {
                    Some(text) => self.take_address(text, &given).await?,
                    None => self.draw_address(*ipv6).await?,
                });
            }
        }
        let spec = object::child_mut(service, "spec");
        let addresses = if headless { vec!["None".to_owned()] } else { addresses };
        if let Some(first) = addresses.first() {
            spec.insert("clusterIP".to_owned(), first.as_str().into());
        }
        spec.insert("clusterIPs".to_owned(), addresses.into());
        Ok(())
    }

    async fn take_address(&mut self, text: &str, given: &[String]) -> Result<String, Refusal> {
        let path = FieldPath::new("spec").child("clusterIPs");
        let refuse = |why: &str| {
            let why = format!("failed to allocate IP {text}: {why}");
            Err(Refusal::Field(FieldError::invalid(&path, &json!(given), &why)))
        };
        let Ok(address) = text.parse::<IpAddr>() else { return refuse("it is no IP address") };
        if self.before.addresses.contains(&address) || self.ledger.has_address(address).await? {
            return Ok(text.to_owned());
        }
        let usable = |range: &Cidr| range.index_of(address).is_some_and(|index| is_usable(range, index));
        if !self.ranges.iter().any(usable) {
            let ranges: Vec<String> = self.ranges.iter().map(ToString::to_string).collect();
            let ranges = ranges.join(",");
            let why = format!("the provided IP ({text}) is not in the valid range. The range of valid IPs is {ranges}");
            return refuse(&why);
        }
        match self.ledger.take_address(address).await {
            Ok(()) => Ok(text.to_owned()),
            Err(LedgerError::Status(status)) => Err(status.into()),
            Err(LedgerError::Taken | LedgerError::Full) => refuse("provided IP is already allocated"),
        }
    }

    async fn draw_address(&mut self, ipv6: bool) -> Result<String, Refusal> {
        let drawn = self.ledger.draw_address(&self.ranges, ipv6).await;
        drawn.map(|address| address.to_string()).map_err(|error| full(error, "a serviceIP"))
    }

    async fn fill_ports(&mut self, service: &mut Value, wanted: bool) -> Result<(), Refusal> {
        let Some(ports) = service["spec"].get_mut("ports").and_then(Value::as_array_mut) else { return Ok(()) };
        for (index, port) in ports.iter_mut().enumerate() {
            match port["nodePort"].as_u64().unwrap_or(0) {
                0 if wanted => port["nodePort"] = self.draw_port().await?.into(),
                0 => drop(port.as_object_mut().and_then(|port| port.remove("nodePort"))),
                number => {
                    let path = FieldPath::new("spec").child("ports").index(index).child("nodePort");
                    self.take_port(number, &path).await?;
                }
            }
        }
        Ok(())
    }

    async fn fill_health_port(&mut self, service: &mut Value) -> Result<(), Refusal> {
        let given = object::at(service, &["spec", "healthCheckNodePort"]).and_then(Value::as_u64).unwrap_or(0);
        if given > 0 {
            return self.take_port(given, &FieldPath::new("spec").child("healthCheckNodePort")).await;
        }
        let port = self.draw_port().await?;
        object::child_mut(service, "spec").insert("healthCheckNodePort".to_owned(), port.into());
        Ok(())
    }

    async fn take_port(&mut self, number: u64, path: &FieldPath) -> Result<(), Refusal> {
        if u16::try_from(number).is_ok_and(|port| self.before.ports.contains(&port)) {
            return Ok(());
        }
        let (first, last) = self.ports;
        let refuse = |why: &str| Err(Refusal::Field(FieldError::invalid(path, &json!(number), why)));
        let Some(port) = u16::try_from(number).ok().filter(|port| (first..=last).contains(port)) else {
            let why = format!("provided port is not in the valid range. The range of valid ports is {first}-{last}");
            return refuse(&why);
        };
        match self.ledger.take_port(port).await {
            Ok(()) => Ok(()),
            Err(LedgerError::Status(status)) => Err(status.into()),
            Err(LedgerError::Taken | LedgerError::Full) => refuse("provided port is already allocated"),
        }
    }

    async fn draw_port(&mut self) -> Result<u16, Refusal> {
        self.ledger.draw_port(self.ports).await.map_err(|error| full(error, "a nodePort"))
    }
}

fn full(error: LedgerError, what: &'static str) -> Refusal {
    match error {
        LedgerError::Status(status) => Refusal::Status(status),
        LedgerError::Full | LedgerError::Taken => Refusal::Full(what),
    }
}

#[cfg(test)]
mod tests;
