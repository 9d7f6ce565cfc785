//! What claims of storage and of devices use.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::resource::v1::ResourceClaimSpec;
use kedge_meta::Quantity;

use crate::amounts::{Amounts, add, add_all, one_of, raise, read};

const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
/// How a claim named its class before there was a field for it; it still counts first.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";

/// So many devices count where a claim asks for all: what an allocation can hold at most.
const ALL_DEVICES: i64 = 32;

/// What a claim uses, of its storage class as well: what it asks for, or what it has where that is more.
pub fn of_claim(claim: &PersistentVolumeClaim) -> Amounts {
    let mut used = one_of(["persistentvolumeclaims", "count/persistentvolumeclaims"]);
    let spec = claim.spec.as_ref();
    let old_class = claim.metadata.annotations.as_ref().and_then(|annotations| annotations.get(OLD_CLASS));
    let class = old_class.or(spec.and_then(|spec| spec.storage_class_name.as_ref())).filter(|class| !class.is_empty());
    let of_class = |what: &str| class.map(|class| format!("{class}{STORAGE_CLASS}{what}"));
    if let Some(name) = of_class("persistentvolumeclaims") {
        add(&mut used, &name, Quantity::from_units(1));
    }
    let asked = read(spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref()));
    let Some(asked) = asked.get("storage") else { return used };
    let has = read(claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref()));
    let storage = whole(has.get("storage").map_or(*asked, |has| (*has).max(*asked)));
    add(&mut used, "requests.storage", storage);
    if let Some(name) = of_class("requests.storage") {
        add(&mut used, &name, storage);
    }
    used
}

/// The next whole number of bytes.
fn whole(amount: Quantity) -> Quantity {
    let units = amount.units();
    let floor = Quantity::from_units(units);
    if floor < amount { Quantity::from_units(units.saturating_add(1)) } else { floor }
}

/// The devices that a claim with this `spec` may get, by class; of alternatives, the most of each class.
pub fn of_resource_claim(spec: &ResourceClaimSpec) -> Amounts {
    let count = |mode: Option<&str>, count: Option<i64>| match mode {
        Some("All") => ALL_DEVICES,
        _ => count.unwrap_or(1),
    };
    let mut used = one_of(["count/resourceclaims.resource.k8s.io"]);
    for request in spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten()) {
        let exactly = request.exactly.iter();
        let exactly =
            exactly.map(|asked| (&asked.device_class_name, count(asked.allocation_mode.as_deref(), asked.count)));
        let alternatives = request.first_available.iter().flatten();
        let alternatives =
            alternatives.map(|asked| (&asked.device_class_name, count(asked.allocation_mode.as_deref(), asked.count)));
        let mut most = Amounts::new();
        for (class, devices) in exactly.chain(alternatives) {
            let name = format!("{class}{DEVICE_CLASS}");
            raise(&mut most, Amounts::from([(name, Quantity::from_units(devices))]));
        }
        add_all(&mut used, &most);
    }
    used
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::amounts::shown;

    #[test]
    fn claims_use_storage_of_their_class() {
        let check = |annotations: Value, class: Value, status: Value, expected: &str| {
            let claim = json!({"metadata": {"annotations": annotations}, "status": status,
                "spec": {"storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}}});
            let used = shown(&of_claim(&serde_json::from_value(claim).unwrap()));
            assert_eq!(used, format!("count/persistentvolumeclaims=1 {expected}"));
        };
        let fast = "fast.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
                    fast.storageclass.storage.k8s.io/requests.storage=1Gi persistentvolumeclaims=1 requests.storage=1Gi";
        check(json!({}), json!("fast"), json!({}), fast);
        check(json!({OLD_CLASS: "fast"}), json!("slow"), json!({}), fast);
        let more = json!({"allocatedResources": {"storage": "2147483647500m"}});
        check(json!({}), json!(""), more, "persistentvolumeclaims=1 requests.storage=2Gi");
        let less = json!({"allocatedResources": {"storage": "1Mi"}});
        check(json!({}), Value::Null, less, "persistentvolumeclaims=1 requests.storage=1Gi");
    }

    #[test]
    fn claims_use_devices_of_classes() {
        let asks = |class: &str, count: i64| json!({"name": "s", "deviceClassName": class, "count": count});
        let all = json!({"deviceClassName": "nic", "allocationMode": "All"});
        let spec = json!({"devices": {"requests": [
            {"name": "a", "exactly": asks("gpu", 2)},
            {"name": "b", "firstAvailable": [asks("gpu", 3), asks("gpu", 1), asks("tpu", 4)]},
            {"name": "c", "exactly": all}]}});
        let expected = "count/resourceclaims.resource.k8s.io=1 gpu.deviceclass.resource.k8s.io/devices=5 \
                        nic.deviceclass.resource.k8s.io/devices=32 tpu.deviceclass.resource.k8s.io/devices=4";
        assert_eq!(shown(&of_resource_claim(&serde_json::from_value(spec).unwrap())), expected);
    }
}
