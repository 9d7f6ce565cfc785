//! The pools of devices that one node can reach.
//!
//! A pool is what one driver published under one name: only its newest generation counts, and only when all of its slices
//! have been seen.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{CounterSet, Device, ResourceSlice};

use crate::allocate::Site;

/// Whether a pool can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Usable,
    /// It is being updated: not all slices are there.
    Incomplete,
    /// Its slices contradict each other.
    Invalid,
}

/// A pool as one node sees it.
pub(crate) struct Pool<'a> {
    pub(crate) driver: &'a str,
    pub(crate) name: &'a str,
    pub(crate) state: State,
    /// The slices with devices that the node can reach, by name.
    pub(crate) slices: Vec<&'a ResourceSlice>,
    /// The pool's other slices: their devices draw on the same counters.
    pub(crate) elsewhere: Vec<&'a ResourceSlice>,
    pub(crate) counter_sets: Vec<&'a CounterSet>,
}

pub(crate) fn devices(slice: &ResourceSlice) -> &[Device] {
    slice.spec.devices.as_deref().unwrap_or_default()
}

fn counter_sets(slice: &ResourceSlice) -> &[CounterSet] {
    slice.spec.shared_counters.as_deref().unwrap_or_default()
}

/// Whether a node is where a slice or a device says it is.
fn is_at(site: &Site<'_>, node: Option<&String>, all: Option<bool>, selector: Option<&NodeSelector>) -> bool {
    match node.filter(|name| !name.is_empty()) {
        Some(name) => name == site.name,
        None => all == Some(true) || selector.is_some_and(|selector| (site.matches)(selector)),
    }
}

/// Whether a device of a slice with `perDeviceNodeSelection` can be reached.
pub(crate) fn device_is_at(site: &Site<'_>, device: &Device) -> bool {
    is_at(site, device.node_name.as_ref(), device.all_nodes, device.node_selector.as_ref())
}

fn is_relevant(site: &Site<'_>, slice: &ResourceSlice) -> bool {
    let spec = &slice.spec;
    if !counter_sets(slice).is_empty() {
        return true;
    }
    if spec.per_device_node_selection == Some(true) {
        return devices(slice).iter().any(|device| device_is_at(site, device));
    }
    is_at(site, spec.node_name.as_ref(), spec.all_nodes, spec.node_selector.as_ref())
}

/// The pools of a node by driver and name; those whose devices must first be attached come last.
pub(crate) fn gather<'a>(slices: &'a [Arc<ResourceSlice>], site: &Site<'_>) -> Vec<Pool<'a>> {
    let mut by_pool: BTreeMap<(&str, &str), Vec<&ResourceSlice>> = BTreeMap::new();
    for slice in slices {
        by_pool.entry((&slice.spec.driver, &slice.spec.pool.name)).or_default().push(slice);
    }
    let pools = by_pool.into_iter().filter_map(|((driver, name), all)| pool(driver, name, &all, site));
    let (late, soon): (Vec<_>, Vec<_>) = pools.partition(has_binding_conditions);
    soon.into_iter().chain(late).collect()
}

fn pool<'a>(driver: &'a str, name: &'a str, all: &[&'a ResourceSlice], site: &Site<'_>) -> Option<Pool<'a>> {
    let newest = all.iter().map(|slice| slice.spec.pool.generation).max()?;
    let mut current: Vec<&ResourceSlice> =
        all.iter().copied().filter(|slice| slice.spec.pool.generation == newest).collect();
    if !all.iter().any(|slice| is_relevant(site, slice)) {
        return None;
    }
    current.sort_by_key(|slice| slice.metadata.name.as_deref());
    let (here, elsewhere): (Vec<_>, Vec<_>) = current.iter().copied().partition(|slice| is_relevant(site, slice));
    if here.is_empty() {
        // What the node could reach is out of date.
        return None;
    }
    let counter_sets: Vec<&CounterSet> = here.iter().flat_map(|slice| counter_sets(slice)).collect();
    let slices = here.iter().copied().filter(|slice| self::counter_sets(slice).is_empty()).collect();
    let mut pool = Pool { driver, name, state: State::Usable, slices, elsewhere, counter_sets };
    if i64::try_from(current.len()) != Ok(current[0].spec.pool.resource_slice_count) {
        pool.state = State::Incomplete;
    } else if !is_consistent(&pool) {
        pool.state = State::Invalid;
    }
    Some(pool)
}

/// Device and counter set names are unique, and what devices draw on exists.
fn is_consistent(pool: &Pool<'_>) -> bool {
    let mut names = HashSet::new();
    let mut sets = HashSet::new();
    let all = || pool.slices.iter().chain(&pool.elsewhere).flat_map(|slice| devices(slice));
    let is_known = |device: &Device| {
        device.consumes_counters.iter().flatten().all(|consumed| {
            let set = pool.counter_sets.iter().find(|set| set.name == consumed.counter_set);
            set.is_some_and(|set| consumed.counters.keys().all(|counter| set.counters.contains_key(counter)))
        })
    };
    pool.slices.iter().flat_map(|slice| devices(slice)).all(|device| names.insert(&device.name))
        && pool.counter_sets.iter().all(|set| sets.insert(&set.name))
        && all().all(is_known)
}

fn has_binding_conditions(pool: &Pool<'_>) -> bool {
    let mut devices = pool.slices.iter().flat_map(|slice| devices(slice));
    devices.any(|device| device.binding_conditions.as_ref().is_some_and(|conditions| !conditions.is_empty()))
}
