//! In-place resizes: what has to change in running containers so that they have what was granted, whether a resize can be
//! granted at all, and what events say about it.
//!
//! Pure. Source: KEP-1287. Invariant: of the changes of one resource, decreases come before increases.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use kedge_meta::Quantity;
use serde::Serialize;

use crate::admit::{Room, admit};
use crate::allocation::PodResources;
use crate::resources;
use crate::runtime_state::PodRuntime;
use crate::spec;

/// Below these amounts the kernel does not tell CPU requests and limits apart.
const MIN_SHARES: i64 = 2;
const MIN_MILLI_CPU_LIMIT: i64 = 10;

/// What matters of a container's resources: CPU in thousandths, memory in bytes; zero where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) cpu_request: i64,
    pub(crate) cpu_limit: i64,
    pub(crate) memory_request: i64,
    pub(crate) memory_limit: i64,
}

impl Amounts {
    pub(crate) fn of(resources: &ResourceRequirements) -> Self {
        let read = |list: &Option<BTreeMap<String, ApiQuantity>>, name: &str| spec::amount(list.as_ref(), name);
        Self {
            cpu_request: read(&resources.requests, "cpu").map_or(0, Quantity::millis),
            cpu_limit: read(&resources.limits, "cpu").map_or(0, Quantity::millis),
            memory_request: read(&resources.requests, "memory").map_or(0, Quantity::units),
            memory_limit: read(&resources.limits, "memory").map_or(0, Quantity::units),
        }
    }

    fn same_cpu(self, other: Self) -> bool {
        let equal = |a: i64, b: i64, least: i64| a == b || (a <= least && b <= least);
        equal(self.cpu_request, other.cpu_request, MIN_SHARES)
            && equal(self.cpu_limit, other.cpu_limit, MIN_MILLI_CPU_LIMIT)
    }

    fn same_memory(self, other: Self) -> bool {
        (self.memory_request, self.memory_limit) == (other.memory_request, other.memory_limit)
    }
}

/// A running container whose limits are to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerUpdate {
    pub(crate) name: String,
    pub(crate) container_id: String,
    pub(crate) from: Amounts,
    pub(crate) to: Amounts,
}

/// What has to happen so that a pod has what was granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResizePlan {
    /// Containers that take their new resources only by a restart, by their id in the runtime.
    pub(crate) restarts: Vec<String>,
    pub(crate) memory: Vec<ContainerUpdate>,
    pub(crate) cpu: Vec<ContainerUpdate>,
    /// The resources of the pod as a whole changed.
    pub(crate) pod: bool,
}

impl ResizePlan {
    pub(crate) fn is_empty(&self) -> bool {
        self.restarts.is_empty() && self.memory.is_empty() && self.cpu.is_empty() && !self.pod
    }
}

/// The plan for a pod (with what was granted) of which `actuated` is in force.
pub(crate) fn plan_resize(pod: &Pod, runtime: &PodRuntime, actuated: &PodResources) -> ResizePlan {
    let none = ResourceRequirements::default();
    let own = spec::pod_spec(pod).resources.as_ref();
    let mut plan = ResizePlan {
        // Before the pod's cgroup is made, nothing of it is in force.
        pod: actuated.pod.is_some() && !same_resources(own.unwrap_or(&none), actuated.pod.as_ref().unwrap_or(&none)),
        ..ResizePlan::default()
    };
    for container in spec::init_containers(pod).iter().chain(spec::containers(pod)) {
        let running = runtime.container(&container.name).filter(|record| record.running());
        let (Some(record), Some(before)) = (running, actuated.containers.get(&container.name)) else { continue };
        let from = Amounts::of(before);
        let to = Amounts::of(container.resources.as_ref().unwrap_or(&none));
        let (cpu, memory) = (!from.same_cpu(to), !from.same_memory(to));
        if (cpu && restarts(container, "cpu")) || (memory && restarts(container, "memory")) {
            plan.restarts.push(record.id.clone());
            continue;
        }
        let update = || ContainerUpdate { name: container.name.clone(), container_id: record.id.clone(), from, to };
        if memory {
            plan.memory.push(update());
        }
        if cpu {
            plan.cpu.push(update());
        }
    }
    plan.memory.sort_by_key(|update| {
        (update.to.memory_limit, update.to.memory_request) > (update.from.memory_limit, update.from.memory_request)
    });
    plan.cpu.sort_by_key(|update| {
        (update.to.cpu_limit, update.to.cpu_request) > (update.from.cpu_limit, update.from.cpu_request)
    });
    plan
}

fn restarts(container: &Container, resource: &str) -> bool {
    let policies = container.resize_policy.iter().flatten();
    policies.into_iter().any(|policy| policy.resource_name == resource && policy.restart_policy == "RestartContainer")
}

/// A resize that the node does not grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// `Deferred` or `Infeasible`.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Whether a pod can have what it asks for, beside the `others` with what they were granted.
pub(crate) fn judge(pod: &Pod, others: &[&Pod], room: &Room) -> Result<(), Refusal> {
    if spec::is_static(pod) {
        let message = "In-place resize of static-pods is not supported".to_owned();
        return Err(Refusal { reason: "Infeasible", message });
    }
    for (resource, capacity) in [("memory", room.memory), ("cpu", room.cpu_millis)] {
        let requested = resources::pod_request(pod, resource);
        if requested > capacity {
            let message =
                format!("Node didn't have enough capacity: {resource}, requested: {requested}, capacity: {capacity}");
            return Err(Refusal { reason: "Infeasible", message });
        }
    }
    // A pod that runs here is not asked again whether it may: only amounts are looked at.
    let mut asked = pod.clone();
    if let Some(asked) = asked.spec.as_mut() {
        asked.node_selector = None;
    }
    admit(&asked, others, room, &[]).map_err(|stop| Refusal { reason: "Deferred", message: stop.message })
}

/// One container in the text of an event.
#[derive(Serialize)]
struct NamedResources<'a> {
    name: &'a str,
    resources: ResourceRequirements,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<NamedResources<'a>>,
    containers: Vec<NamedResources<'a>>,
    generation: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

/// The text of an event about a resize: what happened, and the resources of all containers.
pub(crate) fn event_text(what: &str, pod: &Pod, generation: Option<i64>, error: &str) -> String {
    let summary = Summary {
        init_containers: spec::init_containers(pod).iter().map(named).collect(),
        containers: spec::containers(pod).iter().map(named).collect(),
        generation: generation.unwrap_or(0),
        error,
    };
    match serde_json::to_string(&summary) {
        Ok(summary) => format!("{what}: {summary}"),
        Err(_) => what.to_owned(),
    }
}

fn named(container: &Container) -> NamedResources<'_> {
    NamedResources { name: &container.name, resources: container.resources.clone().unwrap_or_default() }
}

/// Whether two sets of resources are the same amounts, however they are written.
pub(crate) fn same_resources(a: &ResourceRequirements, b: &ResourceRequirements) -> bool {
    let amounts = |list: &Option<BTreeMap<String, ApiQuantity>>| -> BTreeMap<String, Result<Quantity, String>> {
        let read = |amount: &ApiQuantity| amount.0.parse::<Quantity>().map_err(|_| amount.0.clone());
        list.iter().flatten().map(|(name, amount)| (name.clone(), read(amount))).collect()
    };
    amounts(&a.requests) == amounts(&b.requests) && amounts(&a.limits) == amounts(&b.limits) && a.claims == b.claims
}

#[cfg(test)]
#[path = "resize/tests.rs"]
mod tests;
