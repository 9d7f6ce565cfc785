//! The resources that a container has, as the runtime reports them, in the words of the spec.
//!
//! Pure. Invariant: an amount that equals what was granted is written as the spec writes it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use kedge_cri::v1;
use kedge_meta::Quantity;

use crate::allocation::PodResources;
use crate::resize::Amounts;
use crate::resources;
use crate::runtime_state::ContainerRecord;
use crate::spec;

const MIN_SHARES: i64 = 2;
const MIN_MILLI_CPU_LIMIT: i64 = 10;

type List = Option<BTreeMap<String, ApiQuantity>>;

/// What a running container has. `actuated` is what the node last gave it.
pub(super) fn container_resources(
    container: &Container,
    record: &ContainerRecord,
    previous: Option<&ContainerStatus>,
    actuated: Option<&ResourceRequirements>,
) -> ResourceRequirements {
    let mut resources = container.resources.clone().unwrap_or_default();
    if !record.running() {
        return resources;
    }
    let granted = Amounts::of(&resources);
    let former = previous
        .filter(|previous| {
            let running = previous.state.as_ref().is_some_and(|state| state.running.is_some());
            running && previous.container_id == Some(super::containers::container_id(&record.id))
        })
        .and_then(|previous| previous.resources.as_ref());
    let seen = record.resources.as_ref();
    let limit = seen
        .and_then(cpu_limit)
        .filter(|limit| *limit > MIN_MILLI_CPU_LIMIT || granted.cpu_limit > MIN_MILLI_CPU_LIMIT);
    let request =
        seen.and_then(cpu_request).filter(|request| *request > MIN_SHARES || granted.cpu_request > MIN_SHARES);
    let memory = seen.map(|seen| seen.memory_limit_in_bytes).filter(|limit| *limit > 0);
    let known = seen.is_some();
    put(&mut resources.limits, "cpu", limit.map(Quantity::from_millis), former.filter(|_| !known).map(|f| &f.limits));
    put(
        &mut resources.limits,
        "memory",
        memory.map(Quantity::from_units),
        former.filter(|_| !known).map(|f| &f.limits),
    );
    put(
        &mut resources.requests,
        "cpu",
        request.map(Quantity::from_millis),
        former.filter(|_| !known).map(|f| &f.requests),
    );
    // The kernel knows no memory request.
    let memory = actuated.and_then(|actuated| spec::amount(actuated.requests.as_ref(), "memory"));
    put(&mut resources.requests, "memory", memory, former.map(|former| &former.requests));
    resources
}

/// Puts in what was seen, else what was known before, else leaves what was granted.
fn put(list: &mut List, name: &str, seen: Option<Quantity>, former: Option<&List>) {
    let Some(list) = list.as_mut() else { return };
    let granted = spec::amount(Some(&*list), name);
    if let Some(seen) = seen {
        if granted != Some(seen) {
            list.insert(name.to_owned(), written(name, seen));
        }
    } else if let Some(former) = former.and_then(Option::as_ref).and_then(|former| former.get(name)) {
        list.insert(name.to_owned(), former.clone());
    }
}

/// Memory in the largest binary unit that holds it exactly.
fn written(name: &str, amount: Quantity) -> ApiQuantity {
    let bytes = amount.units();
    if name == "memory" && bytes > 0 {
        for (suffix, unit) in [("Gi", 1_i64 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
            if bytes % unit == 0 {
                return ApiQuantity(format!("{}{suffix}", bytes / unit));
            }
        }
    }
    ApiQuantity(amount.to_string())
}

fn cpu_limit(seen: &v1::LinuxContainerResources) -> Option<i64> {
    (seen.cpu_quota > 0 && seen.cpu_period > 0).then(|| seen.cpu_quota * 1000 / seen.cpu_period)
}

/// Shares are rounded down on their way to the kernel.
fn cpu_request(seen: &v1::LinuxContainerResources) -> Option<i64> {
    (seen.cpu_shares > 0).then(|| (seen.cpu_shares * 1000 + 1023) / 1024)
}

/// The requests that a pod as a whole was granted, and the resources of it that are in force.
// DIVERGES: upstream reads the pod's cgroup here.
pub(super) fn pod_resources(pod: &Pod, actuated: &PodResources) -> (List, ResourceRequirements) {
    let in_force = actuated.overlay(pod);
    let limits = resources::pod_resources(&in_force);
    let cpu = cpu_limit(&limits).map(|millis| ("cpu", Quantity::from_millis(millis)));
    let memory = Some(limits.memory_limit_in_bytes).filter(|limit| *limit > 0);
    let limits = cpu.into_iter().chain(memory.map(|limit| ("memory", Quantity::from_units(limit))));
    let limits: BTreeMap<_, _> = limits.map(|(name, amount)| (name.to_owned(), written(name, amount))).collect();
    let effective = ResourceRequirements {
        requests: requests(&in_force),
        limits: Some(limits).filter(|l| !l.is_empty()),
        claims: None,
    };
    (requests(pod), effective)
}

fn requests(pod: &Pod) -> List {
    let pod_spec = spec::pod_spec(pod);
    let containers = spec::containers(pod).iter().chain(spec::init_containers(pod));
    let lists = containers.filter_map(|container| container.resources.as_ref()?.requests.as_ref());
    let own = pod_spec.resources.as_ref().and_then(|own| own.requests.as_ref());
    let names: BTreeSet<&String> =
        lists.chain(own).chain(pod_spec.overhead.as_ref()).flat_map(BTreeMap::keys).collect();
    let total = |name: &str| match (name, resources::pod_request(pod, name)) {
        ("cpu", millis) => Quantity::from_millis(millis),
        (_, units) => Quantity::from_units(units),
    };
    let list: BTreeMap<String, ApiQuantity> =
        names.into_iter().map(|name| (name.clone(), written(name, total(name)))).collect();
    Some(list).filter(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;

    use super::*;
    use crate::runtime_state::ContainerPhase;
    use crate::runtime_state::fixtures::container;

    fn list(entries: &[(&str, &str)]) -> List {
        Some(entries.iter().map(|(k, v)| ((*k).to_owned(), ApiQuantity((*v).to_owned()))).collect())
    }

    fn asked(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Container {
        let resources = ResourceRequirements { requests: list(requests), limits: list(limits), claims: None };
        Container { name: "a".to_owned(), resources: Some(resources), ..Container::default() }
    }

    #[test]
    fn what_the_runtime_has_is_shown() {
        let wanted = asked(&[("cpu", "0.1"), ("memory", "32Mi")], &[("cpu", "200m"), ("memory", "64Mi")]);
        let mut record = container("a", ContainerPhase::Running, 0);
        record.resources = Some(v1::LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 30_000,
            cpu_shares: 102,
            memory_limit_in_bytes: 96 << 20,
            ..Default::default()
        });
        let actuated = asked(&[("memory", "16Mi")], &[]).resources;
        let got = container_resources(&wanted, &record, None, actuated.as_ref());
        assert_eq!(got.limits, list(&[("cpu", "300m"), ("memory", "96Mi")]));
        assert_eq!(got.requests, list(&[("cpu", "0.1"), ("memory", "16Mi")]), "equal amounts keep their form");
    }

    #[test]
    fn what_is_not_asked_for_or_too_small_stays_as_it_is() {
        let mut record = container("a", ContainerPhase::Running, 0);
        record.resources = Some(v1::LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 1000,
            cpu_shares: 2,
            ..Default::default()
        });
        let wanted = asked(&[("cpu", "1m")], &[("cpu", "5m")]);
        assert_eq!(container_resources(&wanted, &record, None, None), wanted.resources.clone().unwrap());
        let none = Container { name: "a".to_owned(), ..Container::default() };
        assert_eq!(container_resources(&none, &record, None, None), ResourceRequirements::default());
    }

    #[test]
    fn a_pod_as_a_whole_has_what_its_containers_have() {
        let wanted = asked(&[("cpu", "100m"), ("memory", "32Mi")], &[("cpu", "200m"), ("memory", "64Mi")]);
        let spec = PodSpec { containers: vec![wanted], ..PodSpec::default() };
        let pod = Pod { spec: Some(spec), ..Pod::default() };
        let before = asked(&[("cpu", "50m"), ("memory", "32Mi")], &[("cpu", "200m"), ("memory", "64Mi")]);
        let containers = [("a".to_owned(), before.resources.unwrap())].into();
        let (allocated, in_force) = pod_resources(&pod, &PodResources { pod: None, containers });
        assert_eq!(allocated, list(&[("cpu", "100m"), ("memory", "32Mi")]));
        assert_eq!(in_force.requests, list(&[("cpu", "50m"), ("memory", "32Mi")]));
        assert_eq!(in_force.limits, list(&[("cpu", "200m"), ("memory", "64Mi")]));
        assert_eq!(pod_resources(&Pod::default(), &PodResources::default()), (None, ResourceRequirements::default()));
    }
}
