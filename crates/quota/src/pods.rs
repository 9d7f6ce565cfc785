//! What a pod uses: the larger of what its containers need together and what any container before them needs, and its
//! overhead. While it is resized, what it has counts as well as what it is to have.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::amounts::{Amounts, add, add_all, one_of, raise, read};

/// What a pod uses at a time: one that has ended, or that should have gone, only a place in the store.
pub fn of_pod(pod: &Pod, now: Timestamp) -> Amounts {
    let mut used = one_of(["count/pods"]);
    if !is_using(pod, now) {
        return used;
    }
    used.extend(one_of(["pods"]));
    for (name, amount) in sum(pod, Side::Requests) {
        if is_extended(&name) {
            add(&mut used, &format!("requests.{name}"), amount);
        } else if matches!(&*name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            add(&mut used, &format!("requests.{name}"), amount);
            add(&mut used, &name, amount);
        }
    }
    for (name, amount) in sum(pod, Side::Limits) {
        if matches!(&*name, "cpu" | "memory" | "ephemeral-storage") {
            add(&mut used, &format!("limits.{name}"), amount);
        }
    }
    used
}

fn is_using(pod: &Pod, now: Timestamp) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let meta = &pod.metadata;
    let deleted = meta.deletion_timestamp.as_ref().zip(meta.deletion_grace_period_seconds);
    let is_overdue = deleted.is_some_and(|(at, grace)| now.duration_since(at.0) > SignedDuration::from_secs(grace));
    !matches!(phase, Some("Succeeded" | "Failed")) && !is_overdue
}

/// Whether a resource is of somebody else's making, as devices are.
fn is_extended(name: &str) -> bool {
    let is_native = name.contains("kubernetes.io/") && !name.starts_with("deviceclass.resource.kubernetes.io/");
    name.contains('/') && !is_native && !name.starts_with("requests.")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Requests,
    Limits,
}

impl Side {
    fn of(self, resources: Option<&ResourceRequirements>) -> Option<&BTreeMap<String, ApiQuantity>> {
        match self {
            Side::Requests => resources?.requests.as_ref(),
            Side::Limits => resources?.limits.as_ref(),
        }
    }
}

fn sum(pod: &Pod, side: Side) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let granted = Granted::of(pod);
    let mut total = Amounts::new();
    for container in &spec.containers {
        add_all(&mut total, &granted.effective(container, side));
    }
    // One that comes before the others runs beside the sidecars that were started before it.
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let needs = if container.restart_policy.as_deref() == Some("Always") {
            add_all(&mut sidecars, &granted.effective(container, side));
            sidecars.clone()
        } else {
            let mut needs = read(side.of(container.resources.as_ref()));
            add_all(&mut needs, &sidecars);
            needs
        };
        raise(&mut most, needs);
    }
    add_all(&mut total, &sidecars);
    raise(&mut total, most);
    let of_pod = read(side.of(spec.resources.as_ref()));
    total.extend(of_pod.into_iter().filter(|(name, _)| is_pod_level(name)));
    let overhead = read(spec.overhead.as_ref());
    // What is not limited is not limited by the overhead either.
    let counts = |name: &String| side == Side::Requests || total.contains_key(name);
    let overhead: Amounts = overhead.into_iter().filter(|(name, _)| counts(name)).collect();
    add_all(&mut total, &overhead);
    total
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// What a node has granted to the containers of a pod.
struct Granted<'a> {
    by_container: BTreeMap<&'a str, &'a ContainerStatus>,
    /// The node will never grant what the pod is to have.
    is_infeasible: bool,
}

impl<'a> Granted<'a> {
    fn of(pod: &'a Pod) -> Self {
        let status = pod.status.as_ref();
        let containers = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
        let before = status.and_then(|status| status.init_container_statuses.as_ref()).into_iter().flatten();
        let by_container = containers.chain(before).map(|container| (container.name.as_str(), container)).collect();
        let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        let pending = conditions.find(|condition| condition.type_ == "PodResizePending");
        let is_infeasible = pending.is_some_and(|condition| condition.reason.as_deref() == Some("Infeasible"));
        Self { by_container, is_infeasible }
    }

    fn effective(&self, container: &Container, side: Side) -> Amounts {
        let asked = read(side.of(container.resources.as_ref()));
        let status = self.by_container.get(container.name.as_str()).filter(|status| status.resources.is_some());
        let Some(status) = status else { return asked };
        let mut has = read(side.of(status.resources.as_ref()));
        if side == Side::Requests {
            raise(&mut has, read(status.allocated_resources.as_ref()));
        }
        if !self.is_infeasible {
            raise(&mut has, asked);
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::amounts::shown;

    fn check(spec: Value, status: Value, expected: &str) {
        let pod = json!({"metadata": {}, "spec": spec, "status": status});
        let used = of_pod(&serde_json::from_value(pod).unwrap(), Timestamp::UNIX_EPOCH);
        assert_eq!(shown(&used), expected, "{spec}");
    }

    fn container(name: &str, cpu: &str) -> Value {
        json!({"name": name, "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn a_pod_uses_the_most_it_needs_at_a_time() {
        let both = json!([container("a", "100m"), container("b", "200m")]);
        let cpu = |amount: &str| format!("count/pods=1 cpu={amount} pods=1 requests.cpu={amount}");
        check(json!({"containers": both, "initContainers": [container("i", "1")]}), json!({}), &cpu("1"));
        check(json!({"containers": both, "initContainers": [container("i", "50m")]}), json!({}), &cpu("300m"));
        let mut sidecar = container("s", "2");
        sidecar["restartPolicy"] = json!("Always");
        let before = json!([container("i", "1"), sidecar, container("j", "5")]);
        check(json!({"containers": both, "initContainers": before}), json!({}), &cpu("7"));
        check(json!({"containers": both, "resources": {"requests": {"cpu": "10"}}}), json!({}), &cpu("10"));
        check(json!({"containers": both, "overhead": {"cpu": "1"}}), json!({}), &cpu("1300m"));
        check(json!({"containers": both}), json!({"phase": "Failed"}), "count/pods=1");
    }

    #[test]
    fn devices_and_huge_pages_are_counted() {
        let amounts = json!({"example.com/gpu": "2", "hugepages-2Mi": "4Mi", "kubernetes.io/x": "1"});
        let container = json!({"name": "a", "resources": {"requests": amounts, "limits": amounts}});
        let expected =
            "count/pods=1 hugepages-2Mi=4194304 pods=1 requests.example.com/gpu=2 requests.hugepages-2Mi=4194304";
        check(json!({"containers": [container]}), json!({}), expected);
        let limited = json!({"name": "a", "resources": {"limits": {"memory": "1Gi"}}});
        let spec = json!({"containers": [limited], "overhead": {"cpu": "1", "memory": "1Gi"}});
        check(
            spec,
            json!({}),
            "count/pods=1 cpu=1 limits.memory=2Gi memory=1Gi pods=1 requests.cpu=1 requests.memory=1Gi",
        );
    }

    #[test]
    fn what_a_node_has_granted_counts_as_long_as_it_is_more() {
        let spec = json!({"containers": [container("a", "1")]});
        let has = |actuated: &str, allocated: &str| json!([{"name": "a", "resources": {"requests": {"cpu": actuated}}, "allocatedResources": {"cpu": allocated}}]);
        let cpu = |amount: &str| format!("count/pods=1 cpu={amount} pods=1 requests.cpu={amount}");
        check(spec.clone(), json!({"containerStatuses": has("3", "1")}), &cpu("3"));
        check(spec.clone(), json!({"containerStatuses": has("500m", "2")}), &cpu("2"));
        check(spec.clone(), json!({"containerStatuses": has("500m", "500m")}), &cpu("1"));
        let infeasible = json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
        let status = json!({"containerStatuses": has("500m", "500m"), "conditions": infeasible});
        check(spec, status, &cpu("500m"));
    }

    #[test]
    fn a_pod_that_should_have_gone_uses_a_place_in_the_store() {
        let deleted =
            json!({"metadata": {"deletionTimestamp": "1970-01-01T00:01:00Z", "deletionGracePeriodSeconds": 30}});
        let pod: Pod = serde_json::from_value(deleted).unwrap();
        let at = |second: i64| shown(&of_pod(&pod, Timestamp::from_second(second).unwrap()));
        assert_eq!((at(90).as_str(), at(91).as_str()), ("count/pods=1 pods=1", "count/pods=1"));
    }
}
