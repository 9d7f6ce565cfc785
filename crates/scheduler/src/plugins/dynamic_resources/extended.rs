//! Extended resources that device classes stand behind: on a node that has none of such a resource itself, a claim that is
//! made for the pod asks for as many devices of the class.
//!
//! Pure. Invariant: what a node has of a resource itself is NodeResourcesFit's, what it has not is a claim's; no resource
//! is both on one node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ContainerExtendedResourceRequest};
use k8s_openapi::api::resource::v1::ResourceClaimSpec;
use k8s_openapi::api::resource::v1::{DeviceClaim, DeviceClass, DeviceRequest, ExactDeviceRequest, ResourceClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kedge_meta::Quantity;

use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// Marks a claim that was made for a pod's extended resources.
const ANNOTATION: &str = "resource.kubernetes.io/extended-resource-claim";
/// Before the name of a class, it is a resource of that class.
const CLASS_PREFIX: &str = "deviceclass.resource.kubernetes.io/";
/// The name of the claim while it is only thought of; none in the API can have it.
const UNMADE: &str = "<extended-resources>";

/// What a pod asks for of resources behind which device classes stand.
#[derive(Debug, Clone)]
pub(crate) struct Extended {
    /// The class behind each resource.
    classes: BTreeMap<String, String>,
    /// The claim that an attempt before this one left behind.
    left: Option<Arc<ResourceClaim>>,
    /// The claim that is made, without what it asks for.
    unmade: ResourceClaim,
}

/// Whether a claim was made for the extended resources of a pod.
pub(crate) fn is_made_for(claim: &ResourceClaim, pod: &PodInfo) -> bool {
    let annotations = claim.metadata.annotations.as_ref();
    let is_marked = annotations.and_then(|all| all.get(ANNOTATION)).is_some_and(|value| value == "true");
    let mut owners = claim.metadata.owner_references.iter().flatten();
    is_marked && owners.any(|owner| owner.controller == Some(true) && owner.uid == pod.uid)
}

/// The resources of a pod behind which a class may stand.
pub(crate) fn extended_names(pod: &PodInfo) -> impl Iterator<Item = &String> {
    let asked = pod.requests.extended.iter().filter(|(name, amount)| **amount > 0 && is_extended(name));
    asked.map(|(name, _)| name)
}

fn is_extended(name: &str) -> bool {
    let Some((domain, _)) = name.split_once('/') else { return false };
    let is_native = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    name.starts_with(CLASS_PREFIX) || (!is_native && !name.starts_with("requests."))
}

/// The name of the class behind a resource: of several the newest.
fn class_of(classes: &[Arc<DeviceClass>], resource: &str) -> Option<String> {
    let name = |class: &DeviceClass| class.metadata.name.clone().unwrap_or_default();
    if let Some(wanted) = resource.strip_prefix(CLASS_PREFIX) {
        return classes.iter().map(|class| name(class)).find(|name| name == wanted);
    }
    let named = classes.iter().filter(|class| class.spec.extended_resource_name.as_deref() == Some(resource));
    let made = |class: &DeviceClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let newest = named.max_by(|one, other| made(one).cmp(&made(other)).then_with(|| name(other).cmp(&name(one))));
    newest.map(|class| name(class))
}

impl Extended {
    /// What a pod asks for, where a class stands behind any of it; `claims` are those of its namespace.
    pub(crate) fn of(pod: &PodInfo, classes: &[Arc<DeviceClass>], claims: &[Arc<ResourceClaim>]) -> Option<Self> {
        let backed = |name: &String| Some((name.clone(), class_of(classes, name)?));
        let classes: BTreeMap<String, String> = extended_names(pod).filter_map(backed).collect();
        if classes.is_empty() {
            return None;
        }
        let left = claims.iter().find(|claim| is_made_for(claim, pod)).cloned();
        Some(Self { classes, left, unmade: unmade(pod) })
    }

    /// The claim that an attempt before left behind: its devices may be of no use on the node that is chosen now, so it has
    /// to go first.
    pub(crate) fn left(&self) -> Option<&Arc<ResourceClaim>> {
        self.left.as_ref()
    }

    /// The resources behind which classes stand.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.classes.keys().cloned().collect()
    }

    /// The claim that the pod needs on a node, with which of its requests is for which container; `None` where the node has
    /// everything itself.
    pub(crate) fn claim(
        &self,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Option<(ResourceClaim, Vec<ContainerExtendedResourceRequest>)> {
        let lacking = self.classes.iter().filter(|(name, _)| node.allocatable.amount(name) == 0);
        let (mut requests, mut mappings) = (Vec::new(), Vec::new());
        for (resource, class) in lacking {
            let of_resource = requests_for(pod, resource, class);
            requests.extend(of_resource.0);
            mappings.extend(of_resource.1);
        }
        if requests.is_empty() {
            return None;
        }
        requests.sort_by(|one: &DeviceRequest, other| one.name.cmp(&other.name));
        let devices = Some(DeviceClaim { requests: Some(requests), ..DeviceClaim::default() });
        Some((ResourceClaim { spec: ResourceClaimSpec { devices }, ..self.unmade.clone() }, mappings))
    }
}

fn unmade(pod: &PodInfo) -> ResourceClaim {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.key.name.clone(),
        uid: pod.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    let metadata = ObjectMeta {
        name: Some(UNMADE.to_owned()),
        namespace: Some(pod.key.namespace.clone()),
        // Not the API's: by it, the devices are known as promised until the claim is there.
        uid: Some(uuid::Uuid::new_v4().to_string()),
        generate_name: Some(format!("{}-extended-resources-", pod.key.name)),
        owner_references: Some(vec![owner]),
        annotations: Some([(ANNOTATION.to_owned(), "true".to_owned())].into()),
        ..ObjectMeta::default()
    };
    ResourceClaim { metadata, ..ResourceClaim::default() }
}

type Requests = (Vec<DeviceRequest>, Vec<ContainerExtendedResourceRequest>);

/// The requests for one resource. Init containers that end use what the containers after them have, and share among them
/// what they need beyond that.
fn requests_for(pod: &PodInfo, resource: &str, class: &str) -> Requests {
    let Some(spec) = pod.pod().spec.as_ref() else { return Requests::default() };
    let inits =
        spec.init_containers.iter().flatten().map(|init| (init, init.restart_policy.as_deref() != Some("Always")));
    let containers: Vec<(&Container, bool)> = inits.chain(spec.containers.iter().map(|one| (one, false))).collect();
    let mapping = |container: &Container, request: &str| ContainerExtendedResourceRequest {
        container_name: container.name.clone(),
        resource_name: resource.to_owned(),
        request_name: request.to_owned(),
    };
    let mut lasting: Vec<Option<DeviceRequest>> = vec![None; containers.len()];
    let mut mappings = Vec::new();
    for (at, (container, _)) in containers.iter().enumerate().filter(|(_, (_, ends))| !ends) {
        let amount = asked(container, resource);
        if amount > 0 {
            let name = request_name(at, container, resource);
            mappings.push(mapping(container, &name));
            lasting[at] = Some(request(name, class, amount));
        }
    }
    let mut shared: Option<DeviceRequest> = None;
    let mut sharing = Vec::new();
    for (at, (container, _)) in containers.iter().enumerate().filter(|(_, (_, ends))| *ends) {
        let mut missing = asked(container, resource);
        for later in lasting[at..].iter().flatten() {
            if missing > 0 {
                missing -= count(later);
                mappings.push(mapping(container, &later.name));
            }
        }
        if missing > 0 {
            sharing.push(*container);
            let own = request(request_name(at, container, resource), class, missing);
            if shared.as_ref().is_none_or(|most| count(most) < missing) {
                shared = Some(own);
            }
        }
    }
    if let Some(shared) = &shared {
        mappings.extend(sharing.into_iter().map(|container| mapping(container, &shared.name)));
    }
    (shared.into_iter().chain(lasting.into_iter().flatten()).collect(), mappings)
}

fn request(name: String, class: &str, count: i64) -> DeviceRequest {
    let exactly = ExactDeviceRequest {
        device_class_name: class.to_owned(),
        allocation_mode: Some("ExactCount".to_owned()),
        count: Some(count),
        ..ExactDeviceRequest::default()
    };
    DeviceRequest { name, exactly: Some(exactly), first_available: None }
}

fn count(request: &DeviceRequest) -> i64 {
    request.exactly.as_ref().and_then(|exactly| exactly.count).unwrap_or_default()
}

fn asked(container: &Container, resource: &str) -> i64 {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let amount = requests.and_then(|requests| requests.get(resource));
    amount.map(|amount| amount.0.parse::<Quantity>().unwrap_or_default().units()).unwrap_or_default()
}

/// Upstream's name: the container's place among all, and the resource's among those that it asks for.
fn request_name(at: usize, container: &Container, resource: &str) -> String {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let place = requests.and_then(|requests| requests.keys().position(|name| name == resource)).unwrap_or_default();
    format!("container-{at}-request-{place}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::{node, pod};
    use serde_json::{Value, json};

    fn class(name: &str, resource: Option<&str>, made: &str) -> Arc<DeviceClass> {
        let value =
            json!({"metadata": {"name": name, "creationTimestamp": made}, "spec": {"extendedResourceName": resource}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn asking(name: &str, resources: Value) -> Value {
        json!({"name": name, "resources": {"requests": resources}})
    }

    fn with(inits: &[Value], containers: &[Value]) -> PodInfo {
        pod(json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {"initContainers": inits, "containers": containers}}))
    }

    const OLD: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn the_newest_class_stands_behind_a_resource() {
        let classes = [
            class("b", Some("x.io/gpu"), OLD),
            class("a", Some("x.io/gpu"), OLD),
            class("new", Some("x.io/nic"), "2026-02-01T00:00:00Z"),
            class("old", Some("x.io/nic"), OLD),
        ];
        for (resource, expected) in [
            ("x.io/gpu", Some("a")),
            ("x.io/nic", Some("new")),
            ("deviceclass.resource.kubernetes.io/old", Some("old")),
            ("deviceclass.resource.kubernetes.io/none", None),
            ("x.io/none", None),
        ] {
            assert_eq!(class_of(&classes, resource).as_deref(), expected, "{resource}");
        }
    }

    #[test]
    fn only_what_the_node_lacks_is_claimed() {
        let classes = [class("gpus", Some("x.io/gpu"), OLD)];
        let wanted = with(&[], &[asking("c", json!({"x.io/gpu": "2", "cpu": "1"}))]);
        let extended = Extended::of(&wanted, &classes, &[]).unwrap();
        let has = |amount: &str| {
            node(json!({"metadata": {"name": "n"}, "status": {"allocatable": {"x.io/gpu": amount}}}), vec![])
        };
        assert!(extended.claim(&wanted, &has("4")).is_none());
        let (claim, mappings) = extended.claim(&wanted, &has("0")).unwrap();
        let requests = claim.spec.devices.unwrap().requests.unwrap();
        assert_eq!((requests.len(), count(&requests[0])), (1, 2));
        assert_eq!(requests[0].name, "container-0-request-1", "after cpu");
        assert_eq!(mappings[0].container_name, "c");
        let metadata = &claim.metadata;
        assert_eq!(metadata.generate_name.as_deref(), Some("p-extended-resources-"));
        assert!(is_made_for(&ResourceClaim { metadata: metadata.clone(), ..ResourceClaim::default() }, &wanted));
        let plain = with(&[], &[asking("c", json!({"cpu": "1", "hugepages-2Mi": "2Mi", "y.io/none": "1"}))]);
        assert!(Extended::of(&plain, &classes, &[]).is_none());
    }

    #[test]
    fn containers_that_end_use_what_others_need_later() {
        let check = |inits: &[i64], containers: &[i64], requests: &str, mappings: &str| {
            let one = |kind: &str, at: usize, amount: i64| {
                let resources = if amount == 0 { json!({}) } else { json!({"r.io/x": amount.to_string()}) };
                asking(&format!("{kind}{at}"), resources)
            };
            let inits: Vec<Value> = inits.iter().enumerate().map(|(at, amount)| one("i", at, *amount)).collect();
            let containers: Vec<Value> =
                containers.iter().enumerate().map(|(at, amount)| one("c", at, *amount)).collect();
            let found = requests_for(&with(&inits, &containers), "r.io/x", "k");
            let number = |name: &str| name.split('-').nth(1).unwrap().to_owned();
            let named = |request: &DeviceRequest| format!("{}x{}", number(&request.name), count(request));
            let mapped = |one: &ContainerExtendedResourceRequest| {
                format!("{}>{}", one.container_name, number(&one.request_name))
            };
            assert_eq!(found.0.iter().map(named).collect::<Vec<_>>().join(" "), requests);
            assert_eq!(found.1.iter().map(mapped).collect::<Vec<_>>().join(" "), mappings);
        };
        check(&[], &[1, 0, 2], "0x1 2x2", "c0>0 c2>2");
        check(&[1], &[2], "1x2", "c0>1 i0>1");
        check(&[3], &[1, 1], "0x1 1x1 2x1", "c0>1 c1>2 i0>1 i0>2 i0>0");
        check(&[2, 4], &[1], "1x3 2x1", "c0>2 i0>2 i1>2 i0>1 i1>1");
        check(&[2], &[], "0x2", "i0>0");
    }
}
