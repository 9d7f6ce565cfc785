//! When a pod has to go because of the taints of its devices.
//!
//! Pure. Source: KEP-5055.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{
    DeviceRequestAllocationResult, DeviceTaint, DeviceToleration, ResourceClaim, ResourceSlice,
};

use crate::pods::node_name;

/// When a pod has to go, by the claims that are reserved for it; `None` where it may stay.
pub(super) fn eviction_time(
    pod: &Pod,
    claims: &[Arc<ResourceClaim>],
    slices: &[Arc<ResourceSlice>],
) -> Option<Timestamp> {
    // Who is on no node yet uses nothing.
    node_name(pod)?;
    claims
        .iter()
        .filter(|claim| is_reserved_for(claim, pod))
        .flat_map(|claim| results(claim))
        .filter_map(|result| {
            let taints = taints(result, slices);
            taints.into_iter().filter_map(|taint| end(result, taint)).min()
        })
        .min()
}

fn is_reserved_for(claim: &ResourceClaim, pod: &Pod) -> bool {
    let status = claim.status.as_ref();
    let consumers = status.and_then(|status| status.reserved_for.as_deref()).unwrap_or_default();
    consumers.iter().any(|consumer| Some(&consumer.uid) == pod.metadata.uid.as_ref())
}

/// The devices that a claim was given.
pub(super) fn results(claim: &ResourceClaim) -> &[DeviceRequestAllocationResult] {
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let devices = allocation.and_then(|allocation| allocation.devices.as_ref());
    devices.and_then(|devices| devices.results.as_deref()).unwrap_or_default()
}

/// Whether a slice describes devices of the pool that a device was given from.
pub(super) fn is_of_pool(slice: &ResourceSlice, result: &DeviceRequestAllocationResult) -> bool {
    slice.spec.driver == result.driver && slice.spec.pool.name == result.pool
}

/// The taints of a device that drive pods out, as the newest generation of its pool has them.
fn taints<'a>(result: &DeviceRequestAllocationResult, slices: &'a [Arc<ResourceSlice>]) -> Vec<&'a DeviceTaint> {
    let own: Vec<&ResourceSlice> =
        slices.iter().map(|slice| &**slice).filter(|slice| is_of_pool(slice, result)).collect();
    let newest = own.iter().map(|slice| slice.spec.pool.generation).max();
    let current = own.iter().filter(|slice| Some(slice.spec.pool.generation) == newest);
    let mut devices = current.flat_map(|slice| slice.spec.devices.iter().flatten());
    let device = devices.find(|device| device.name == result.device);
    let taints = device.into_iter().flat_map(|device| device.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").collect()
}

/// When a taint drives out whoever has the device; `None` where it is tolerated for good.
fn end(result: &DeviceRequestAllocationResult, taint: &DeviceTaint) -> Option<Timestamp> {
    let added = taint.time_added.as_ref()?.0;
    let tolerations = result.tolerations.iter().flatten();
    let mut seconds: Option<i64> = None;
    for toleration in tolerations.filter(|toleration| tolerates(toleration, taint)) {
        let own = toleration.toleration_seconds?.max(0);
        seconds = Some(seconds.map_or(own, |shortest| shortest.min(own)));
    }
    // A time beyond all times is never.
    added.checked_add(SignedDuration::from_secs(seconds.unwrap_or_default())).ok()
}

/// A toleration counts only where it names the effect.
fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let key = text(&toleration.key);
    toleration.effect.as_deref() == Some("NoExecute")
        && (key.is_empty() || key == taint.key)
        && match text(&toleration.operator).as_str() {
            "" | "Equal" => text(&toleration.value) == text(&taint.value),
            "Exists" => true,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pods::fixtures::{on_node, pod};

    const ADDED: &str = "2026-01-01T00:00:00Z";

    fn slice(name: &str, generation: i64, effect: &str) -> Arc<ResourceSlice> {
        let taint = json!({"key": "broken", "value": "fan", "effect": effect, "timeAdded": ADDED});
        let spec = json!({"driver": "d.example.com", "nodeName": "node-1",
            "pool": {"name": "p", "generation": generation, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0", "taints": [taint]}, {"name": "gpu-1"}]});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap())
    }

    fn claim(device: &str, tolerations: Value, user: &str) -> Arc<ResourceClaim> {
        let result = json!({"request": "gpu", "driver": "d.example.com", "pool": "p", "device": device,
            "tolerations": tolerations});
        let status = json!({"allocation": {"devices": {"results": [result]}},
            "reservedFor": [{"resource": "pods", "name": user, "uid": user}]});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": {}, "status": status})).unwrap())
    }

    /// Seconds after the taint came.
    fn check(claim: Arc<ResourceClaim>, slices: &[Arc<ResourceSlice>], expected: Option<i64>) {
        let added: Timestamp = ADDED.parse().unwrap();
        let time = eviction_time(&pod("a"), std::slice::from_ref(&claim), slices);
        assert_eq!(time.map(|time| time.duration_since(added).as_secs()), expected, "{claim:?}");
    }

    #[test]
    fn pods_go_for_the_taints_of_their_devices() {
        let tainted = [slice("s", 1, "NoExecute")];
        check(claim("gpu-0", json!([]), "a"), &tainted, Some(0));
        check(claim("gpu-1", json!([]), "a"), &tainted, None);
        check(claim("gpu-0", json!([]), "another"), &tainted, None);
        check(claim("gpu-0", json!([]), "a"), &[slice("s", 1, "NoSchedule")], None);
        check(claim("gpu-0", json!([]), "a"), &[slice("old", 1, "NoExecute"), slice("new", 2, "None")], None);
        check(claim("gpu-0", json!([]), "a"), &[], None);
        let waiting = on_node(pod("a"), None);
        assert_eq!(eviction_time(&waiting, &[claim("gpu-0", json!([]), "a")], &tainted), None);
    }

    #[test]
    fn tolerations_give_time_or_all_of_it() {
        let with = |tolerations: Value, expected| {
            check(claim("gpu-0", tolerations, "a"), &[slice("s", 1, "NoExecute")], expected);
        };
        let exists =
            |seconds: Value| json!({"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        with(json!([exists(json!(null))]), None);
        with(json!([exists(json!(300))]), Some(300));
        with(json!([exists(json!(300)), exists(json!(60))]), Some(60));
        with(json!([exists(json!(300)), exists(json!(null))]), None);
        with(json!([exists(json!(-5))]), Some(0));
        let equal = |value: &str| json!({"key": "broken", "value": value, "effect": "NoExecute"});
        with(json!([equal("fan")]), None);
        with(json!([equal("heat")]), Some(0));
        // One for both effects does not say so here.
        with(json!([{"operator": "Exists"}]), Some(0));
    }
}
