//! Amounts of resources: what a pod asks for and what a node has.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use kedge_meta::Quantity;

type ResourceList = BTreeMap<String, ApiQuantity>;

/// What spreading assumes of containers that ask for nothing, as upstream does.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts: CPU in thousandths, everything else in whole units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) milli_cpu: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral_storage: i64,
    pub(crate) pods: i64,
    pub(crate) extended: BTreeMap<String, i64>,
}

impl Resources {
    pub(crate) fn from_list(list: Option<&ResourceList>) -> Self {
        let mut resources = Self::default();
        for (name, amount) in list.into_iter().flatten() {
            // The API server has validated the quantity; one that can't be read counts as nothing.
            let amount: Quantity = amount.0.parse().unwrap_or_default();
            match name.as_str() {
                "cpu" => resources.milli_cpu = amount.millis(),
                "memory" => resources.memory = amount.units(),
                "ephemeral-storage" => resources.ephemeral_storage = amount.units(),
                "pods" => resources.pods = amount.units(),
                _ => {
                    resources.extended.insert(name.clone(), amount.units());
                }
            }
        }
        resources
    }

    /// How much there is of a resource.
    pub(crate) fn amount(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            "pods" => self.pods,
            _ => self.extended.get(name).copied().unwrap_or_default(),
        }
    }

    /// Every resource but the number of pods, by name.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&str, i64)> {
        let core = [("cpu", self.milli_cpu), ("memory", self.memory), ("ephemeral-storage", self.ephemeral_storage)];
        core.into_iter().chain(self.extended.iter().map(|(name, amount)| (name.as_str(), *amount)))
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    fn raise_to(&mut self, other: &Self) {
        self.combine(other, std::cmp::max);
    }

    fn combine(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = with(self.pods, other.pods);
        for (name, amount) in &other.extended {
            let own = self.extended.entry(name.clone()).or_default();
            *own = with(*own, *amount);
        }
    }
}

/// What a pod asks for: its containers and sidecars together, or its largest init container with the sidecars before it,
/// whichever is more; pod-level requests win; overhead comes on top.
pub(crate) fn pod_requests(pod: &Pod) -> Resources {
    total(pod, requested_of_all(pod), |container| {
        Resources::from_list(container.resources.as_ref().and_then(|all| all.requests.as_ref()))
    })
}

/// What a pod may use at most, reckoned like its requests; overhead comes on top of what is limited only.
pub(crate) fn pod_limits(pod: &Pod) -> Resources {
    let of_all = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()).and_then(|all| all.limits.as_ref());
    let mut sum = needed(pod, of_all, |container| {
        Resources::from_list(container.resources.as_ref().and_then(|all| all.limits.as_ref()))
    });
    let mut overhead = overhead(pod);
    for (limit, more) in [
        (sum.milli_cpu, &mut overhead.milli_cpu),
        (sum.memory, &mut overhead.memory),
        (sum.ephemeral_storage, &mut overhead.ephemeral_storage),
    ] {
        *more = if limit == 0 { 0 } else { *more };
    }
    overhead.extended.retain(|name, _| sum.amount(name) != 0);
    sum.add(&overhead);
    sum
}

fn requested_of_all(pod: &Pod) -> Option<&ResourceList> {
    pod.spec.as_ref()?.resources.as_ref()?.requests.as_ref()
}

fn overhead(pod: &Pod) -> Resources {
    Resources::from_list(pod.spec.as_ref().and_then(|spec| spec.overhead.as_ref()))
}

/// The same with assumed CPU and memory for containers that ask for none: for scores, never for fitting.
pub(crate) fn pod_requests_for_score(pod: &Pod) -> Resources {
    total(pod, requested_of_all(pod), |container| {
        let list = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let mut resources = Resources::from_list(list);
        if !list.is_some_and(|list| list.contains_key("cpu")) {
            resources.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !list.is_some_and(|list| list.contains_key("memory")) {
            resources.memory = DEFAULT_MEMORY;
        }
        resources
    })
}

fn total(pod: &Pod, of_all: Option<&ResourceList>, requests: impl Fn(&Container) -> Resources) -> Resources {
    let mut sum = needed(pod, of_all, requests);
    sum.add(&overhead(pod));
    sum
}

/// What containers need together, or what the pod states `of_all` of them.
fn needed(pod: &Pod, of_all: Option<&ResourceList>, requests: impl Fn(&Container) -> Resources) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&requests(container));
    }
    let mut sidecars = Resources::default();
    let mut largest_init = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut needed = requests(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&needed);
            needed = sidecars.clone();
        } else {
            needed.add(&sidecars);
        }
        largest_init.raise_to(&needed);
    }
    sum.add(&sidecars);
    sum.raise_to(&largest_init);
    if let Some(own) = of_all {
        let stated = Resources::from_list(Some(own));
        if own.contains_key("cpu") {
            sum.milli_cpu = stated.milli_cpu;
        }
        if own.contains_key("memory") {
            sum.memory = stated.memory;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_of_a_pod() {
        let container = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let sidecar = |cpu: &str| {
            let mut container = container(cpu);
            container["restartPolicy"] = json!("Always");
            container
        };
        for (containers, init, overhead, expected) in [
            (vec![container("100m"), container("200m")], vec![], "0", 300),
            (vec![container("100m")], vec![container("500m"), container("200m")], "0", 500),
            (vec![container("100m")], vec![sidecar("300m"), container("500m")], "50m", 850),
            (vec![container("1")], vec![sidecar("300m"), container("500m")], "0", 1300),
        ] {
            let spec =
                json!({"spec": {"containers": containers, "initContainers": init, "overhead": {"cpu": overhead}}});
            let pod: Pod = serde_json::from_value(spec.clone()).unwrap();
            assert_eq!(pod_requests(&pod).milli_cpu, expected, "{spec}");
        }
    }
}
