//! The variable `device`: `driver`, `allowMultipleAllocations`, and the attributes and capacities by domain and name.

use std::collections::{BTreeMap, HashMap};

use cel::ExecutionError;
use cel::common::traits::{Container, Indexer, Iterable, Iterator, Sizer, Zeroer};
use cel::common::types::{self, CelBool, CelInt, CelMap, CelMapKey, CelString, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use k8s_openapi::api::resource::v1::{Device, DeviceAttribute};
use kedge_expressions::{QuantityVal, VersionVal};

use crate::capacity::amount;

type Entries = HashMap<CelMapKey<'static>, Box<dyn Val>>;

/// A map of maps in which a domain that is not there is an empty one, so that expressions may ask for any.
#[derive(Debug, Clone)]
struct Domains {
    known: CelMap<'static>,
    empty: CelMap<'static>,
}

impl Val for Domains {
    fn get_type(&self) -> &Type {
        &types::MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &types::MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(&self.known)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(&self.known)
    }

    fn as_zeroer(&self) -> Option<&dyn Zeroer> {
        Some(&self.known)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        self.known.equals(other)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

impl StaticVal for Domains {}

impl Indexer for Domains {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        match self.known.get(key) {
            Err(ExecutionError::NoSuchKey(_)) => Ok(CowVal::Borrowed(&self.empty)),
            other => other,
        }
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

impl Iterable for Domains {
    fn iter<'b, 'v>(&'b self) -> Box<dyn Iterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        self.known.iter()
    }
}

fn text(value: &str) -> CelString<'static> {
    CelString::from(value.to_owned())
}

fn key(name: &str) -> CelMapKey<'static> {
    CelMapKey::String(text(name))
}

/// Values by their domain, which is the driver's name where a name has none.
fn by_domain<'a>(driver: &str, values: impl std::iter::Iterator<Item = (&'a str, Box<dyn Val>)>) -> Domains {
    let mut domains: BTreeMap<String, Entries> = BTreeMap::new();
    for (name, value) in values {
        let (domain, id) = name.split_once('/').unwrap_or((driver, name));
        domains.entry(domain.to_owned()).or_default().insert(key(id), value);
    }
    let known = domains.into_iter().map(|(domain, entries)| {
        let entries: Box<dyn Val> = Box::new(CelMap::from(entries));
        (key(&domain), entries)
    });
    Domains { known: CelMap::from(known.collect::<Entries>()), empty: CelMap::from(Entries::new()) }
}

fn attribute(attribute: &DeviceAttribute) -> Result<Box<dyn Val>, String> {
    if let Some(number) = attribute.int {
        return Ok(Box::new(CelInt::from(number)));
    }
    if let Some(yes) = attribute.bool {
        return Ok(Box::new(CelBool::from(yes)));
    }
    if let Some(value) = &attribute.string {
        return Ok(Box::new(text(value)));
    }
    if let Some(version) = &attribute.version {
        let parsed = semver::Version::parse(version);
        let parsed = parsed.map_err(|error| format!("parse semantic version: {error}"))?;
        return Ok(Box::new(VersionVal(parsed)));
    }
    // Lists of values are an alpha feature upstream.
    Err("unsupported attribute value".to_owned())
}

/// A device of a driver as a value.
pub(super) fn device(driver: &str, device: &Device) -> Result<CelMap<'static>, String> {
    let mut attributes = Vec::new();
    for (name, value) in device.attributes.iter().flatten() {
        attributes.push((name.as_str(), attribute(value).map_err(|why| format!("attribute {name}: {why}"))?));
    }
    let capacities = device.capacity.iter().flatten().map(|(name, capacity)| {
        let value: Box<dyn Val> = Box::new(QuantityVal(amount(&capacity.value)));
        (name.as_str(), value)
    });
    let may_share = device.allow_multiple_allocations == Some(true);
    let mut fields = Entries::new();
    fields.insert(key("driver"), Box::new(text(driver)));
    fields.insert(key("allowMultipleAllocations"), Box::new(CelBool::from(may_share)));
    fields.insert(key("attributes"), Box::new(by_domain(driver, attributes.into_iter())));
    fields.insert(key("capacity"), Box::new(by_domain(driver, capacities)));
    Ok(CelMap::from(fields))
}
