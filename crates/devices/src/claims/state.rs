//! What is known of one claim, and how pods name theirs.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod, PodExtendedResourceClaimStatus, PodResourceClaim};
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde::{Deserialize, Serialize};

use crate::v1::{CdiDevice, Claim, ClaimResource, DynamicResource, PreparedDevice};

/// A claim that pods of this node use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClaimState {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// The uids of its pods.
    pub(crate) pods: BTreeSet<String>,
    /// What each driver prepared.
    pub(crate) drivers: BTreeMap<String, Vec<Device>>,
    /// Not kept: after a restart, drivers are asked again.
    #[serde(skip)]
    pub(crate) is_prepared: bool,
}

/// A device that was prepared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Device {
    pub(crate) pool: String,
    pub(crate) device: String,
    pub(crate) share_id: Option<String>,
    pub(crate) requests: Vec<String>,
    pub(crate) cdi_ids: Vec<String>,
}

impl From<PreparedDevice> for Device {
    fn from(device: PreparedDevice) -> Self {
        Self {
            pool: device.pool_name,
            device: device.device_name,
            share_id: device.share_id,
            requests: device.request_names,
            cdi_ids: device.cdi_device_ids,
        }
    }
}

impl ClaimState {
    /// Of a claim that is allocated.
    pub(crate) fn of(claim: &ResourceClaim) -> Result<Self, String> {
        let name = claim.metadata.name.clone().unwrap_or_default();
        let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
        let allocation = allocation.ok_or_else(|| format!("ResourceClaim {name}: not allocated"))?;
        let results = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
        Ok(Self {
            uid: claim.metadata.uid.clone().unwrap_or_default(),
            namespace: claim.metadata.namespace.clone().unwrap_or_default(),
            pods: BTreeSet::new(),
            drivers: results.map(|result| (result.driver.clone(), Vec::new())).collect(),
            is_prepared: false,
            name,
        })
    }

    /// As the pod resources API shows it, for one request or all.
    pub(crate) fn resource(&self, wanted: Option<&str>) -> DynamicResource {
        let mut claim_resources = Vec::new();
        for (driver, devices) in &self.drivers {
            claim_resources.extend(devices.iter().filter(|device| is_same_request(device, wanted)).map(|device| {
                ClaimResource {
                    cdi_devices: device.cdi_ids.iter().map(|name| CdiDevice { name: name.clone() }).collect(),
                    driver_name: driver.clone(),
                    pool_name: device.pool.clone(),
                    device_name: device.device.clone(),
                    share_id: device.share_id.clone(),
                }
            }));
        }
        DynamicResource { claim_name: self.name.clone(), claim_namespace: self.namespace.clone(), claim_resources }
    }

    /// As drivers are told of it.
    pub(crate) fn claim(&self) -> Claim {
        Claim { namespace: self.namespace.clone(), uid: self.uid.clone(), name: self.name.clone() }
    }
}

/// The claim that the scheduler made for a pod's extended resources.
pub(crate) fn extended(pod: &Pod) -> Option<&PodExtendedResourceClaimStatus> {
    pod.status.as_ref()?.extended_resource_claim_status.as_ref()
}

/// What of that claim is a container's: the claim's name, with each request.
pub(crate) fn mapped<'a>(pod: &'a Pod, container: &'a Container) -> impl Iterator<Item = (&'a str, &'a str)> {
    let own = |claim: &'a PodExtendedResourceClaimStatus| {
        let mappings = claim.request_mappings.iter().filter(|mapping| mapping.container_name == container.name);
        mappings.map(|mapping| (claim.resource_claim_name.as_str(), mapping.request_name.as_str()))
    };
    extended(pod).into_iter().flat_map(own)
}

/// Whether a container has devices of that claim for a resource: then no plug-in gives it any.
pub(crate) fn is_claimed(pod: &Pod, container: &Container, resource: &str) -> bool {
    let mut mappings = extended(pod).into_iter().flat_map(|claim| &claim.request_mappings);
    mappings.any(|mapping| mapping.container_name == container.name && mapping.resource_name == resource)
}

/// The name of the claim of a pod's entry, and whether it was made for the pod; `None` where none is needed.
pub(crate) fn claim_name(pod: &Pod, entry: &PodResourceClaim) -> Result<Option<(String, bool)>, String> {
    if let Some(name) = entry.resource_claim_name.as_ref().filter(|name| !name.is_empty()) {
        return Ok(Some((name.clone(), false)));
    }
    let mut statuses = pod.status.iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
    match statuses.find(|status| status.name == entry.name) {
        Some(status) => Ok(status.resource_claim_name.clone().map(|name| (name, true))),
        None => {
            let of = |field: &Option<String>| field.clone().unwrap_or_default();
            let (namespace, name) = (of(&pod.metadata.namespace), of(&pod.metadata.name));
            Err(format!("pod \"{namespace}/{name}\": ResourceClaim not created yet"))
        }
    }
}

pub(crate) fn is_reserved_for(claim: &ResourceClaim, pod: &str) -> bool {
    let mut consumers = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
    consumers.any(|consumer| consumer.uid == pod)
}

/// Whether a device serves a request of a container; no request means all of the claim's.
pub(crate) fn is_same_request(device: &Device, wanted: Option<&str>) -> bool {
    let Some(wanted) = wanted else { return true };
    // Devices of an alternative serve the request that has it.
    let base = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    device.requests.is_empty() || device.requests.iter().any(|name| name == wanted || base(name) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_name_their_claims() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "d"},
            "spec": {"containers": []}, "status": {"resourceClaimStatuses": [
                {"name": "made", "resourceClaimName": "made-x"}, {"name": "none"}]}}))
        .unwrap();
        let check = |entry: serde_json::Value, expected: Result<Option<(&str, bool)>, &str>| {
            let entry: PodResourceClaim = serde_json::from_value(entry).unwrap();
            let expected = expected.map(|name| name.map(|(name, made)| (name.to_owned(), made)));
            assert_eq!(claim_name(&pod, &entry), expected.map_err(str::to_owned));
        };
        check(json!({"name": "own", "resourceClaimName": "c"}), Ok(Some(("c", false))));
        check(json!({"name": "made", "resourceClaimTemplateName": "t"}), Ok(Some(("made-x", true))));
        check(json!({"name": "none", "resourceClaimTemplateName": "t"}), Ok(None));
        let text = "pod \"d/p\": ResourceClaim not created yet";
        check(json!({"name": "late", "resourceClaimTemplateName": "t"}), Err(text));
    }

    #[test]
    fn extended_resources_are_mapped_to_containers() {
        let mapping = |container: &str, resource: &str, request: &str| json!({"containerName": container, "resourceName": resource, "requestName": request});
        let mappings = [mapping("a", "x.io/gpu", "r0"), mapping("b", "x.io/gpu", "r1"), mapping("a", "x.io/nic", "r2")];
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "a"}, {"name": "c"}]},
            "status": {"extendedResourceClaimStatus": {"resourceClaimName": "made", "requestMappings": mappings}}}))
        .unwrap();
        let [a, c] = &pod.spec.as_ref().unwrap().containers[..] else { panic!("there are two") };
        assert_eq!(mapped(&pod, a).collect::<Vec<_>>(), [("made", "r0"), ("made", "r2")]);
        assert_eq!(mapped(&pod, c).count(), 0);
        assert!(
            is_claimed(&pod, a, "x.io/gpu") && !is_claimed(&pod, a, "x.io/other") && !is_claimed(&pod, c, "x.io/gpu")
        );
        assert!(extended(&Pod::default()).is_none());
    }

    #[test]
    fn requests_select_devices() {
        let device = |requests: &[&str]| Device {
            pool: String::new(),
            device: String::new(),
            share_id: None,
            requests: requests.iter().map(|name| (*name).to_owned()).collect(),
            cdi_ids: Vec::new(),
        };
        for (requests, wanted, expected) in [
            (&["a"][..], None, true),
            (&["a"], Some("a"), true),
            (&["a"], Some("b"), false),
            (&["a/x"], Some("a"), true),
            (&["a/x"], Some("a/x"), true),
            (&[], Some("a"), true),
        ] {
            assert_eq!(is_same_request(&device(requests), wanted), expected, "{requests:?} {wanted:?}");
        }
    }

    #[test]
    fn only_allocated_claims_are_prepared() {
        let claim = |status: serde_json::Value| -> ResourceClaim {
            serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "d", "uid": "u"}, "spec": {},
                "status": status}))
            .unwrap()
        };
        assert_eq!(ClaimState::of(&claim(json!({}))), Err("ResourceClaim c: not allocated".to_owned()));
        let result =
            |driver: &str, device: &str| json!({"request": "r", "driver": driver, "pool": "p", "device": device});
        let results = [result("a", "0"), result("b", "0"), result("a", "1")];
        let state = ClaimState::of(&claim(json!({"allocation": {"devices": {"results": results}}}))).unwrap();
        assert_eq!(state.drivers.keys().collect::<Vec<_>>(), ["a", "b"]);
        let reserved = claim(json!({"reservedFor": [{"resource": "pods", "name": "p", "uid": "1"}]}));
        assert!(is_reserved_for(&reserved, "1") && !is_reserved_for(&reserved, "2"));
    }
}
