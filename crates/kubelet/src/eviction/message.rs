//! What an evicted pod, and a pod that is refused under pressure, is told.
//!
//! Pure. Invariant: the texts are upstream's, with the space at their end.

use k8s_openapi::api::core::v1::{Container, Pod};
use kedge_meta::Quantity;

use super::state::Observations;
use super::threshold::{Pressure, Resource, Threshold, binary, decimal};
use super::usage::{ContainerUsage, PodUsage};
use crate::spec;

/// The reason of the pod's status and of the event.
pub(crate) const REASON: &str = "Evicted";

/// Why a pod goes when the node runs short.
pub(crate) fn low_on(
    resource: Resource,
    pod: &Pod,
    usage: Option<&PodUsage>,
    due: &[Threshold],
    seen: &Observations,
) -> String {
    let mut message = format!("The node was low on resource: {}. ", resource.name());
    let first = due.iter().filter(|threshold| threshold.signal.resource() == resource).find_map(|threshold| {
        let observation = seen.get(&threshold.signal)?;
        Some((threshold.value.of(observation.capacity), observation.available))
    });
    if let Some((wanted, available)) = first {
        let available = match resource {
            Resource::Memory | Resource::EphemeralStorage => binary(available),
            Resource::Inodes | Resource::Pids => decimal(available),
        };
        message += &format!("Threshold quantity: {}, available: {available}. ", binary(wanted));
    }
    let Some(usage) = usage else { return message };
    message += &pod_part(resource, pod, usage).unwrap_or_default();
    for container in &usage.containers {
        message += &container_part(resource, pod, container).unwrap_or_default();
    }
    message
}

/// What a pod with resources of its own used.
fn pod_part(resource: Resource, pod: &Pod, usage: &PodUsage) -> Option<String> {
    let own = spec::pod_spec(pod).resources.as_ref()?.requests.as_ref().filter(|_| resource == Resource::Memory)?;
    let request = own.get(resource.name())?;
    let used = binary(usage.memory?);
    let name = spec::name(pod);
    Some(format!("Pod {name} was using {used}, request is {}, has larger consumption of memory. ", request.0))
}

/// What a container used beyond its request.
fn container_part(resource: Resource, pod: &Pod, usage: &ContainerUsage) -> Option<String> {
    let known = |container: &&Container| container.name == usage.name;
    let container = spec::containers(pod).iter().chain(spec::init_containers(pod)).find(known)?;
    let used = match resource {
        Resource::Memory => usage.memory?,
        Resource::EphemeralStorage => usage.rootfs?.bytes.saturating_add(usage.logs?.bytes),
        Resource::Inodes | Resource::Pids => return None,
    };
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let request = requests.and_then(|requests| requests.get(resource.name())).map_or("0", |amount| amount.0.as_str());
    let asked: Quantity = request.parse().unwrap_or_default();
    if Quantity::from_units(used) <= asked {
        return None;
    }
    let (name, used, resource) = (&usage.name, binary(used), resource.name());
    Some(format!("Container {name} was using {used}, request is {request}, has larger consumption of {resource}. "))
}

/// Why a pod is not taken in under pressure.
pub(crate) fn had_condition(pressures: &[Pressure]) -> String {
    let names: Vec<&str> = pressures.iter().map(|pressure| pressure.condition()).collect();
    format!("The node had condition: [{}]. ", names.join(" "))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::state::Observation;
    use super::super::threshold::{Amount, Signal};
    use super::super::usage::DiskUsage;
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p" },
            "spec": { "containers": [
                { "name": "a", "resources": { "requests": { "memory": "10Mi" } } },
                { "name": "b" },
            ] },
        }))
        .unwrap()
    }

    fn check(signal: Signal, pod: &Pod, usage: Option<PodUsage>, expected: &str) {
        let threshold =
            Threshold { signal, value: Amount::Bytes(100 << 20), grace_period: Duration::ZERO, minimum_reclaim: None };
        let seen = [(signal, Observation { available: 5000, capacity: 1 << 30 })].into();
        assert_eq!(low_on(signal.resource(), pod, usage.as_ref(), &[threshold], &seen), expected);
    }

    #[test]
    fn what_ran_short_and_who_used_it() {
        let disk = |bytes: i64| Some(DiskUsage { bytes, inodes: 1 });
        let container = |name: &str, memory: i64| ContainerUsage {
            name: name.to_owned(),
            memory: Some(memory),
            rootfs: disk(1024),
            logs: disk(1),
        };
        let usage = || PodUsage {
            memory: Some(30 << 20),
            containers: vec![container("a", 10 << 20), container("b", 20 << 20)],
            ..PodUsage::default()
        };
        let start = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 5000. ";
        check(Signal::MemoryAvailable, &pod(), None, start);
        let blamed = "Container b was using 20Mi, request is 0, has larger consumption of memory. ";
        check(Signal::MemoryAvailable, &pod(), Some(usage()), &format!("{start}{blamed}"));
        check(
            Signal::ImagefsInodesFree,
            &pod(),
            Some(usage()),
            "The node was low on resource: inodes. Threshold quantity: 100Mi, available: 5k. ",
        );
        check(
            Signal::NodefsAvailable,
            &pod(),
            Some(usage()),
            "The node was low on resource: ephemeral-storage. Threshold quantity: 100Mi, available: 5000. \
             Container a was using 1025, request is 0, has larger consumption of ephemeral-storage. \
             Container b was using 1025, request is 0, has larger consumption of ephemeral-storage. ",
        );
        let mut whole = pod();
        whole.spec.as_mut().unwrap().resources =
            serde_json::from_value(json!({ "requests": { "memory": "8Mi" } })).ok();
        let of_pod = "Pod p was using 30Mi, request is 8Mi, has larger consumption of memory. ";
        check(Signal::MemoryAvailable, &whole, Some(usage()), &format!("{start}{of_pod}{blamed}"));
    }

    #[test]
    fn pressures_are_listed() {
        assert_eq!(
            had_condition(&[Pressure::Memory, Pressure::Disk]),
            "The node had condition: [MemoryPressure DiskPressure]. "
        );
    }
}
