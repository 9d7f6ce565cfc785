//! Who has which ClusterIP and node port, as records in the store: an IPAddress object for each address, as upstream keeps
//! them, and a key for each node port.
//!
//! Records are written and deleted in the commit of their Service, each under the condition that it is absent or as it was
//! read. Invariant: however many API servers share the store, an address or port has one owner, and a Service that is not
//! there has none.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use kedge_kinds::WriteContext;
use kedge_meta::{ApiStatus, ObjectKey};
use kedge_store::{Condition, Expect, Key, ListRequest, Record, Store, Template, Write};
use rand::Rng;
use serde_json::{Value, json};

use crate::cidr::Cidr;
use crate::convert;
use crate::core::{Core, new_uid};
use crate::object;
use crate::registry::Resource;
use crate::reply::store_error;

/// Where the records of node ports are, each a number after this; their values name the Services.
pub(crate) const NODE_PORTS: &str = "/registry/ranges/servicenodeports/";
const MANAGED_BY: &str = "ipallocator.k8s.io";
/// How often a random place is tried before the range is gone through in order.
const RANDOM_TRIES: usize = 16;

/// Why something can't be had.
#[derive(Debug)]
pub(crate) enum LedgerError {
    /// Another has it.
    Taken,
    /// Everything is given away.
    Full,
    /// The store did not answer.
    Status(ApiStatus),
}

impl From<ApiStatus> for LedgerError {
    fn from(status: ApiStatus) -> Self {
        Self::Status(status)
    }
}

/// What a Service takes and gives back in one commit.
pub(crate) struct Ledger {
    store: Arc<dyn Store>,
    addresses: Arc<Resource>,
    owner: ObjectKey,
    now: Timestamp,
    taken: BTreeSet<Key>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) writes: Vec<Write>,
}

impl Ledger {
    pub(crate) fn of(core: &Core, owner: ObjectKey) -> Result<Self, ApiStatus> {
        let registry = core.registry.load();
        let addresses = registry.storage("networking.k8s.io", "ipaddresses");
        let addresses = addresses.ok_or_else(|| ApiStatus::internal("IPAddresses are not served"))?;
        Ok(Self::new(core.store.clone(), addresses.clone(), owner, core.clock.now()))
    }

    pub(crate) fn new(store: Arc<dyn Store>, addresses: Arc<Resource>, owner: ObjectKey, now: Timestamp) -> Self {
        Self { store, addresses, owner, now, taken: BTreeSet::new(), conditions: Vec::new(), writes: Vec::new() }
    }

    /// Takes one address; nothing happens where the Service has it.
    pub(crate) async fn take_address(&mut self, address: IpAddr) -> Result<(), LedgerError> {
        let key = self.address_key(address);
        match self.get(&key).await? {
            _ if self.taken.contains(&key) => Ok(()),
            Some(record) if self.owns_address(&record) => Ok(()),
            Some(_) => Err(LedgerError::Taken),
            None => {
                let value = self.address_record(address);
                self.write(key, value);
                Ok(())
            }
        }
    }

    /// Whether the Service has an address.
    pub(crate) async fn has_address(&self, address: IpAddr) -> Result<bool, ApiStatus> {
        let record = self.get(&self.address_key(address)).await?;
        Ok(record.is_some_and(|record| self.owns_address(&record)))
    }

    /// Takes any address of the ranges of a family.
    pub(crate) async fn draw_address(&mut self, ranges: &[Cidr], ipv6: bool) -> Result<IpAddr, LedgerError> {
        for range in ranges.iter().filter(|range| range.is_ipv6() == ipv6) {
            if let Some(address) = self.find_address(range).await? {
                self.take_address(address).await?;
                return Ok(address);
            }
        }
        Err(LedgerError::Full)
    }

    async fn find_address(&self, range: &Cidr) -> Result<Option<IpAddr>, LedgerError> {
        let size = range.size();
        // The lower band is left for addresses that people choose (KEP-3070), as long as there are others.
        let reserved = if size <= 16 { 0 } else { (size / 16).clamp(16, 256) };
        let tries: Vec<u128> = {
            let mut random = rand::rng();
            (0..RANDOM_TRIES).map(|_| random.random_range(reserved..size)).collect()
        };
        let usable = |index: u128| is_usable(range, index).then(|| range.nth(index)).flatten();
        for address in tries.into_iter().filter_map(usable) {
            let key = self.address_key(address);
            if !self.taken.contains(&key) && self.get(&key).await?.is_none() {
                return Ok(Some(address));
            }
        }
        let known = self.known(&self.addresses.kind.prefix("")).await?;
        let is_free = |address: &IpAddr| {
            let key = self.address_key(*address);
            !known.contains(&key) && !self.taken.contains(&key)
        };
        Ok((reserved..size).chain(0..reserved).filter_map(usable).find(is_free))
    }

    /// Takes one port; nothing happens where the Service has it: several protocols may share a number.
    pub(crate) async fn take_port(&mut self, port: u16) -> Result<(), LedgerError> {
        let key = port_key(port);
        match self.get(&key).await? {
            _ if self.taken.contains(&key) => Ok(()),
            Some(record) if self.owns_port(&record) => Ok(()),
            Some(_) => Err(LedgerError::Taken),
            None => {
                let value = Template { bytes: self.owner.to_string().into(), splice_at: None };
                self.write(key, value);
                Ok(())
            }
        }
    }

    /// Takes any port of a range.
    pub(crate) async fn draw_port(&mut self, (first, last): (u16, u16)) -> Result<u16, LedgerError> {
        let tries: Vec<u16> = {
            let mut random = rand::rng();
            (0..RANDOM_TRIES).map(|_| random.random_range(first..=last)).collect()
        };
        for port in tries {
            let key = port_key(port);
            if !self.taken.contains(&key) && self.get(&key).await?.is_none() {
                self.take_port(port).await?;
                return Ok(port);
            }
        }
        let known = self.known(NODE_PORTS).await?;
        let is_free = |key: &Key| !known.contains(key) && !self.taken.contains(key);
        let port = (first..=last).find(|port| is_free(&port_key(*port))).ok_or(LedgerError::Full)?;
        self.take_port(port).await?;
        Ok(port)
    }

    /// Gives an address back, if the Service has it.
    pub(crate) async fn give_back_address(&mut self, address: IpAddr) -> Result<(), ApiStatus> {
        let key = self.address_key(address);
        let record = self.get(&key).await?.filter(|record| self.owns_address(record));
        self.delete(record);
        Ok(())
    }

    /// Gives a port back, if the Service has it.
    pub(crate) async fn give_back_port(&mut self, port: u16) -> Result<(), ApiStatus> {
        let record = self.get(&port_key(port)).await?.filter(|record| self.owns_port(record));
        self.delete(record);
        Ok(())
    }

    fn write(&mut self, key: Key, value: Template) {
        self.conditions.push(Condition { key: key.clone(), expect: Expect::Absent });
        self.taken.insert(key.clone());
        self.writes.push(Write::Put { key, value, ttl: None });
    }

    fn delete(&mut self, record: Option<Record>) {
        let Some(Record { key, modified, .. }) = record else { return };
        if self.writes.iter().any(|write| matches!(write, Write::Delete { key: gone } if *gone == key)) {
            return;
        }
        self.conditions.push(Condition { key: key.clone(), expect: Expect::Modified(modified) });
        self.writes.push(Write::Delete { key });
    }

    /// Takes a port from whoever is recorded and does not have it; `false` where the Service is recorded.
    pub(crate) async fn take_over_port(&mut self, port: u16) -> Result<bool, ApiStatus> {
        let key = port_key(port);
        let found = self.get(&key).await?;
        if found.as_ref().is_some_and(|record| self.owns_port(record)) {
            return Ok(false);
        }
        let expect = found.map_or(Expect::Absent, |record| Expect::Modified(record.modified));
        self.conditions.push(Condition { key: key.clone(), expect });
        let value = Template { bytes: self.owner.to_string().into(), splice_at: None };
        self.writes.push(Write::Put { key, value, ttl: None });
        Ok(true)
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>, ApiStatus> {
        self.store.get(key).await.map_err(store_error)
    }

    async fn known(&self, prefix: &str) -> Result<BTreeSet<Key>, ApiStatus> {
        let request = ListRequest { prefix: prefix.to_owned(), ..ListRequest::default() };
        let page = self.store.list(request).await.map_err(store_error)?;
        Ok(page.records.into_iter().map(|record| record.key).collect())
    }

    fn address_key(&self, address: IpAddr) -> Key {
        self.addresses.key("", &address.to_string())
    }

    fn owns_address(&self, record: &Record) -> bool {
        let address: Value = serde_json::from_slice(&record.value).unwrap_or_default();
        let parent = |field: &str| object::text(&address, &["spec", "parentRef", field]);
        let named = (parent("resource"), parent("namespace"), parent("name"));
        named == ("services", self.owner.namespace.as_str(), self.owner.name.as_str()) && parent("group").is_empty()
    }

    fn owns_port(&self, record: &Record) -> bool {
        record.value.as_ref() == self.owner.to_string().as_bytes()
    }

    fn address_record(&self, address: IpAddr) -> Template {
        let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
        let parent = json!({"resource": "services", "namespace": self.owner.namespace.as_str(), "name": self.owner.name.as_str()});
        let mut object = json!({
            "apiVersion": self.addresses.api_version, "kind": self.addresses.kind.kind,
            "metadata": {"name": address.to_string(), "labels": {
                "ipaddress.kubernetes.io/ip-family": family, "ipaddress.kubernetes.io/managed-by": MANAGED_BY}},
            "spec": {"parentRef": parent},
        });
        self.addresses.kind.prepare_create(&mut object, &WriteContext { now: self.now, uid: &new_uid() });
        convert::own_template(&self.addresses, &object)
    }
}

fn port_key(port: u16) -> Key {
    Key::new(format!("{NODE_PORTS}{port}"))
}

/// Network and broadcast addresses are nobody's.
pub(crate) fn is_usable(range: &Cidr, index: u128) -> bool {
    index > 0 && (range.is_ipv6() || index + 1 < range.size())
}

/// The ranges that addresses are drawn from now: those of the ServiceCIDRs that are ready and stay. Before there is any
/// ServiceCIDR, those of the configuration.
pub(crate) async fn usable_ranges(core: &Core) -> Result<Vec<Cidr>, ApiStatus> {
    let objects = super::objects(core, "networking.k8s.io", "servicecidrs", "").await?;
    if objects.is_empty() {
        return Ok(core.config.service_cluster_ip_ranges.clone());
    }
    Ok(objects.iter().filter(|range| is_open(range)).flat_map(cidrs).collect())
}

/// The ranges of all ServiceCIDRs, also of those that nothing is drawn from any more.
pub(crate) async fn known_ranges(core: &Core) -> Result<Vec<Cidr>, ApiStatus> {
    let objects = super::objects(core, "networking.k8s.io", "servicecidrs", "").await?;
    Ok(objects.iter().flat_map(cidrs).collect())
}

fn is_open(range: &Value) -> bool {
    let conditions = object::list(range, &["status", "conditions"]);
    !object::is_deleting(range) && conditions.iter().any(|each| each["type"] == "Ready" && each["status"] == "True")
}

fn cidrs(range: &Value) -> Vec<Cidr> {
    let listed = object::list(range, &["spec", "cidrs"]).iter().filter_map(Value::as_str);
    listed.filter_map(|cidr| cidr.parse().ok()).collect()
}
