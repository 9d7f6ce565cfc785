//! What other claims hold already.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::api::resource::v1::{AllocationResult, DeviceRequestAllocationResult};
use kedge_meta::Quantity;

/// One device of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId {
    /// Its driver.
    pub driver: String,
    /// Its pool, unique for the driver.
    pub pool: String,
    /// Its name, unique in the pool.
    pub device: String,
}

impl DeviceId {
    /// The device of a result.
    pub fn of(result: &DeviceRequestAllocationResult) -> Self {
        Self { driver: result.driver.clone(), pool: result.pool.clone(), device: result.device.clone() }
    }
}

/// Amounts of a device's capacities, by name.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

/// Devices that are given away as a whole, and parts of devices that are shared.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    devices: HashSet<DeviceId>,
    capacity: HashMap<DeviceId, Amounts>,
}

impl Taken {
    /// Counts what an allocation holds. Administrative access holds nothing.
    pub fn add(&mut self, allocation: &AllocationResult) {
        let results = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
        for result in results.filter(|result| result.admin_access != Some(true)) {
            let id = DeviceId::of(result);
            if result.share_id.is_none() {
                self.devices.insert(id);
                continue;
            }
            let amounts = self.capacity.entry(id).or_default();
            for (name, amount) in result.consumed_capacity.iter().flatten() {
                let own = amounts.entry(name.clone()).or_default();
                *own = *own + amount.0.parse().unwrap_or_default();
            }
        }
    }

    pub(crate) fn is_taken(&self, id: &DeviceId) -> bool {
        self.devices.contains(id)
    }

    /// What is taken of a shared device; `None` where nobody has any of it.
    pub(crate) fn shared(&self, id: &DeviceId) -> Option<&Amounts> {
        self.capacity.get(id)
    }

    /// Whether anybody has the device or a part of it.
    pub(crate) fn is_used(&self, id: &DeviceId) -> bool {
        self.is_taken(id) || self.capacity.contains_key(id)
    }
}
