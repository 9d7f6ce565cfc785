//! Shared counters: devices that are parts of one thing draw on the same amounts.

use std::collections::HashMap;

use k8s_openapi::api::resource::v1::Device;
use kedge_meta::Quantity;

use crate::capacity::amount;
use crate::pools::{Pool, devices};
use crate::taken::{DeviceId, Taken};

/// What is left of each counter, by set and name.
pub(crate) type Left<'a> = HashMap<(&'a str, &'a str), Quantity>;

fn drawn(device: &Device) -> impl Iterator<Item = ((&str, &str), Quantity)> {
    device.consumes_counters.iter().flatten().flat_map(|consumed| {
        let set = consumed.counter_set.as_str();
        consumed.counters.iter().map(move |(name, counter)| ((set, name.as_str()), amount(&counter.value)))
    })
}

/// What the devices in use have left of a pool's counters.
pub(crate) fn left<'a>(pool: &Pool<'a>, taken: &Taken) -> Left<'a> {
    let mut left = Left::new();
    for set in &pool.counter_sets {
        for (name, counter) in &set.counters {
            left.insert((&set.name, name), amount(&counter.value));
        }
    }
    for device in pool.slices.iter().chain(&pool.elsewhere).flat_map(|slice| devices(slice)) {
        let id = DeviceId { driver: pool.driver.to_owned(), pool: pool.name.to_owned(), device: device.name.clone() };
        if device.consumes_counters.is_some() && taken.is_used(&id) {
            subtract(&mut left, device);
        }
    }
    left
}

/// Whether the chosen devices of a pool can be had together.
pub(crate) fn suffice<'a>(left: &Left<'a>, chosen: impl Iterator<Item = &'a Device>) -> bool {
    let mut left = left.clone();
    for device in chosen {
        subtract(&mut left, device);
    }
    left.values().all(|amount| !amount.is_negative())
}

fn subtract<'a>(left: &mut Left<'a>, device: &'a Device) {
    for (key, amount) in drawn(device) {
        if let Some(own) = left.get_mut(&key) {
            *own = *own - amount;
        }
    }
}
