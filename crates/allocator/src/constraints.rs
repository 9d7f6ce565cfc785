//! Constraints between the devices of one claim: the same value of an attribute, or different ones.
//!
//! Constraints are monotonic: what fails for some devices fails for more of them, so that the search can stop early.

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, DeviceConstraint};

use crate::asks::Ask;

/// A constraint with the values of the devices chosen so far.
pub(crate) struct Constraint<'a> {
    requests: &'a [String],
    attribute: &'a str,
    is_distinct: bool,
    values: Vec<&'a DeviceAttribute>,
}

impl<'a> Constraint<'a> {
    /// Reads a constraint; `None` where it is of an unknown kind.
    pub(crate) fn new(constraint: &'a DeviceConstraint) -> Option<Self> {
        let (attribute, is_distinct) = match (&constraint.match_attribute, &constraint.distinct_attribute) {
            (Some(attribute), _) => (attribute, false),
            (None, Some(attribute)) => (attribute, true),
            (None, None) => return None,
        };
        let requests = constraint.requests.as_deref().unwrap_or_default();
        Some(Self { requests, attribute, is_distinct, values: Vec::new() })
    }

    /// Counts a device in, unless that would violate the constraint.
    pub(crate) fn add(&mut self, ask: &Ask<'_>, driver: &str, device: &'a Device) -> bool {
        if !ask.is_among(self.requests) {
            return true;
        }
        let Some(value) = attribute(device, driver, self.attribute) else { return false };
        let holds = match (self.is_distinct, self.values.first()) {
            (_, None) => true,
            (false, Some(first)) => is_same(first, value),
            (true, Some(_)) => is_scalar(value) && !self.values.iter().any(|other| is_same(other, value)),
        };
        if holds {
            self.values.push(value);
        }
        holds
    }

    /// Takes back the device that was added last.
    pub(crate) fn remove(&mut self, ask: &Ask<'_>) {
        if ask.is_among(self.requests) {
            self.values.pop();
        }
    }
}

/// An attribute by its full name; the driver's own attributes may lack the domain.
fn attribute<'a>(device: &'a Device, driver: &str, name: &str) -> Option<&'a DeviceAttribute> {
    let attributes = device.attributes.as_ref()?;
    attributes.get(name).or_else(|| {
        let (domain, id) = name.split_once('/')?;
        attributes.get(id).filter(|_| domain == driver)
    })
}

fn is_scalar(value: &DeviceAttribute) -> bool {
    value.string.is_some() || value.int.is_some() || value.bool.is_some() || value.version.is_some()
}

fn is_same(one: &DeviceAttribute, other: &DeviceAttribute) -> bool {
    is_scalar(one)
        && (&one.string, one.int, one.bool, &one.version) == (&other.string, other.int, other.bool, &other.version)
}
