//! Consumable capacity: what a request takes of a device that several may share.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{
    CapacityRequestPolicy, CapacityRequestPolicyRange, CapacityRequirements, Device, DeviceCapacity,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use kedge_meta::Quantity;

use crate::taken::Amounts;

pub(crate) fn amount(quantity: &ApiQuantity) -> Quantity {
    // The API server has validated it; what can't be read counts as nothing.
    quantity.0.parse().unwrap_or_default()
}

fn requested(wanted: Option<&CapacityRequirements>, name: &str) -> Option<Quantity> {
    wanted?.requests.as_ref()?.get(name).map(amount)
}

/// What a request takes of each capacity of a device: rounded as the device's policy says.
pub(crate) fn consumed(wanted: Option<&CapacityRequirements>, device: &Device) -> Amounts {
    let capacities = device.capacity.iter().flatten();
    capacities.map(|(name, capacity)| (name.clone(), taken_of(requested(wanted, name), capacity))).collect()
}

fn taken_of(wanted: Option<Quantity>, capacity: &DeviceCapacity) -> Quantity {
    let policy = capacity.request_policy.as_ref();
    let Some(wanted) = wanted else {
        let default = policy.and_then(|policy| policy.default.as_ref());
        return amount(default.unwrap_or(&capacity.value));
    };
    match policy {
        Some(CapacityRequestPolicy { valid_range: Some(range), .. }) => round_up(wanted, range),
        Some(CapacityRequestPolicy { valid_values: Some(values), .. }) => {
            values.iter().map(amount).find(|value| wanted <= *value).unwrap_or(wanted)
        }
        _ => wanted,
    }
}

fn round_up(wanted: Quantity, range: &CapacityRequestPolicyRange) -> Quantity {
    let least = amount(&range.min);
    if wanted < least {
        return least;
    }
    let step = range.step.as_ref().map(|step| amount(step).units()).filter(|step| *step > 0);
    let Some(step) = step else { return wanted };
    let above = wanted.units().saturating_sub(least.units());
    let steps = above / step + i64::from(above % step != 0);
    Quantity::from_units(least.units().saturating_add(steps.saturating_mul(step)))
}

fn violates(taken: Quantity, policy: Option<&CapacityRequestPolicy>) -> bool {
    let Some(policy) = policy else { return false };
    if policy.default.as_ref().is_some_and(|default| amount(default) == taken) {
        return false;
    }
    if let Some(range) = &policy.valid_range {
        let is_too_much = range.max.as_ref().is_some_and(|most| taken > amount(most));
        let step = range.step.as_ref().map(|step| amount(step).units()).filter(|step| *step > 0);
        let is_between = step.is_some_and(|step| (taken.units() - amount(&range.min).units()) % step != 0);
        return is_too_much || is_between;
    }
    let values = policy.valid_values.as_deref().unwrap_or_default();
    !values.is_empty() && !values.iter().any(|value| amount(value) == taken)
}

/// Whether a device has what a request asks for, beside what others have of it.
pub(crate) fn has_room(wanted: Option<&CapacityRequirements>, device: &Device, used: &[&Amounts]) -> bool {
    static NONE: BTreeMap<String, DeviceCapacity> = BTreeMap::new();
    let capacities = device.capacity.as_ref().unwrap_or(&NONE);
    let asked = wanted.and_then(|wanted| wanted.requests.as_ref());
    if asked.is_some_and(|asked| asked.keys().any(|name| !capacities.contains_key(name))) {
        return false;
    }
    capacities.iter().all(|(name, capacity)| {
        let taken = taken_of(requested(wanted, name), capacity);
        let others = used.iter().filter_map(|amounts| amounts.get(name));
        let total = others.fold(taken, |sum, other| sum + *other);
        !violates(taken, capacity.request_policy.as_ref()) && total <= amount(&capacity.value)
    })
}
