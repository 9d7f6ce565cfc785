//! What pods, Services and claims use of a quota.
//!
//! Pure. Amounts are upstream's: a pod uses the larger of what its containers need together and what any init container
//! needs, and its overhead.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, Pod, ResourceQuotaSpec, ScopedResourceSelectorRequirement, Service,
};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use kedge_meta::Quantity;

use crate::pods::is_terminal;

/// Amounts by resource name.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

const DEVICE_CLASS_SUFFIX: &str = ".deviceclass.resource.k8s.io/devices";
const STORAGE_CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";

fn add(amounts: &mut Amounts, name: &str, amount: Quantity) {
    let entry = amounts.entry(name.to_owned()).or_insert(Quantity::ZERO);
    *entry = *entry + amount;
}

fn parse(amounts: Option<&BTreeMap<String, ApiQuantity>>) -> Amounts {
    let parsed = |(name, amount): (&String, &ApiQuantity)| Some((name.clone(), amount.0.parse().ok()?));
    amounts.into_iter().flatten().filter_map(parsed).collect()
}

fn larger(into: &mut Amounts, other: Amounts) {
    for (name, amount) in other {
        let entry = into.entry(name).or_insert(Quantity::ZERO);
        *entry = (*entry).max(amount);
    }
}

fn sum(into: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        add(into, name, *amount);
    }
}

/// What a pod needs of each resource, by `requests` or by `limits`.
fn pod_amounts(pod: &Pod, limits: bool) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let of = |container: &Container| {
        let resources = container.resources.as_ref();
        parse(match limits {
            true => resources.and_then(|resources| resources.limits.as_ref()),
            false => resources.and_then(|resources| resources.requests.as_ref()),
        })
    };
    let mut total = Amounts::new();
    spec.containers.iter().for_each(|container| sum(&mut total, &of(container)));
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let mut needs = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sum(&mut sidecars, &needs);
            needs = sidecars.clone();
        } else {
            sum(&mut needs, &sidecars);
        }
        larger(&mut most, needs);
    }
    sum(&mut total, &sidecars);
    larger(&mut total, most);
    if !total.is_empty() {
        sum(&mut total, &parse(spec.overhead.as_ref()));
    }
    total
}

/// Whether a pod still uses what it asked for.
fn is_using(pod: &Pod, now: Timestamp) -> bool {
    let meta = &pod.metadata;
    let overdue = meta
        .deletion_timestamp
        .as_ref()
        .zip(meta.deletion_grace_period_seconds)
        .is_some_and(|(since, grace)| now.duration_since(since.0) > SignedDuration::from_secs(grace));
    !is_terminal(pod) && !overdue
}

/// What a pod uses.
pub(crate) fn of_pod(pod: &Pod, now: Timestamp) -> Amounts {
    let mut used = Amounts::from([("count/pods".to_owned(), Quantity::from_units(1))]);
    if !is_using(pod, now) {
        return used;
    }
    add(&mut used, "pods", Quantity::from_units(1));
    for (name, amount) in pod_amounts(pod, false) {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            add(&mut used, &name, amount);
        }
        add(&mut used, &format!("requests.{name}"), amount);
    }
    for (name, amount) in pod_amounts(pod, true) {
        add(&mut used, &format!("limits.{name}"), amount);
    }
    used
}

/// What a Service uses.
pub(crate) fn of_service(service: &Service) -> Amounts {
    let one = Quantity::from_units(1);
    let mut used = Amounts::from([("services".to_owned(), one), ("count/services".to_owned(), one)]);
    let Some(spec) = &service.spec else { return used };
    let ports = Quantity::from_units(spec.ports.as_ref().map_or(0, Vec::len) as i64);
    match spec.type_.as_deref() {
        Some("NodePort") => add(&mut used, "services.nodeports", ports),
        Some("LoadBalancer") => {
            add(&mut used, "services.loadbalancers", one);
            if spec.allocate_load_balancer_node_ports != Some(false) {
                add(&mut used, "services.nodeports", ports);
            }
        }
        _ => {}
    }
    used
}

/// What a claim uses, of its storage class as well.
pub(crate) fn of_claim(claim: &PersistentVolumeClaim) -> Amounts {
    let one = Quantity::from_units(1);
    let mut used =
        Amounts::from([("persistentvolumeclaims".to_owned(), one), ("count/persistentvolumeclaims".to_owned(), one)]);
    let spec = claim.spec.as_ref();
    let requests =
        parse(spec.and_then(|spec| spec.resources.as_ref()).and_then(|resources| resources.requests.as_ref()));
    let storage = requests.get("storage").copied().unwrap_or_default();
    add(&mut used, "requests.storage", storage);
    if let Some(class) = spec.and_then(|spec| spec.storage_class_name.as_ref()).filter(|class| !class.is_empty()) {
        add(&mut used, &format!("{class}{STORAGE_CLASS_SUFFIX}requests.storage"), storage);
        add(&mut used, &format!("{class}{STORAGE_CLASS_SUFFIX}persistentvolumeclaims"), one);
    }
    used
}

/// So many devices count where a claim asks for all: what an allocation can hold at most.
const ALL_DEVICES: i64 = 32;

/// The devices that a claim may get, by class; of alternatives, the most of each class.
pub(crate) fn of_resource_claim(claim: &ResourceClaim) -> Amounts {
    let count = |mode: Option<&str>, count: Option<i64>| match mode {
        Some("All") => ALL_DEVICES,
        _ => count.unwrap_or(1),
    };
    let mut used = Amounts::new();
    for request in claim.spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten()) {
        let exactly = request.exactly.iter();
        let exactly =
            exactly.map(|asked| (&asked.device_class_name, count(asked.allocation_mode.as_deref(), asked.count)));
        let alternatives = request.first_available.iter().flatten();
        let alternatives =
            alternatives.map(|asked| (&asked.device_class_name, count(asked.allocation_mode.as_deref(), asked.count)));
        let mut most = Amounts::new();
        for (class, devices) in exactly.chain(alternatives) {
            let name = format!("{class}{DEVICE_CLASS_SUFFIX}");
            larger(&mut most, Amounts::from([(name, Quantity::from_units(devices))]));
        }
        sum(&mut used, &most);
    }
    used
}

/// Whether all scopes of a quota take a pod in.
pub(crate) fn scopes_match(spec: &ResourceQuotaSpec, pod: &Pod) -> bool {
    let named = spec.scopes.iter().flatten().all(|scope| scope_matches(scope, pod));
    let expressions = spec.scope_selector.as_ref().and_then(|selector| selector.match_expressions.as_ref());
    named && expressions.into_iter().flatten().all(|expression| expression_matches(expression, pod))
}

/// Whether a quota looks at pods only.
pub(crate) fn is_scoped(spec: &ResourceQuotaSpec) -> bool {
    let selector = spec.scope_selector.as_ref().and_then(|selector| selector.match_expressions.as_ref());
    spec.scopes.as_ref().is_some_and(|scopes| !scopes.is_empty()) || selector.is_some_and(|all| !all.is_empty())
}

fn scope_matches(scope: &str, pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let is_best_effort = || pod_amounts(pod, false).is_empty() && pod_amounts(pod, true).is_empty();
    let has_deadline = spec.is_some_and(|spec| spec.active_deadline_seconds.is_some());
    match scope {
        "Terminating" => has_deadline,
        "NotTerminating" => !has_deadline,
        "BestEffort" => is_best_effort(),
        "NotBestEffort" => !is_best_effort(),
        "PriorityClass" => {
            spec.is_some_and(|spec| spec.priority_class_name.as_ref().is_some_and(|name| !name.is_empty()))
        }
        "CrossNamespacePodAffinity" => spec.is_some_and(has_cross_namespace_affinity),
        _ => false,
    }
}

fn has_cross_namespace_affinity(spec: &k8s_openapi::api::core::v1::PodSpec) -> bool {
    let Some(affinity) = &spec.affinity else { return false };
    let near = affinity.pod_affinity.as_ref();
    let far = affinity.pod_anti_affinity.as_ref();
    let required = [
        near.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_ref()),
        far.and_then(|far| far.required_during_scheduling_ignored_during_execution.as_ref()),
    ];
    let preferred = [
        near.and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_ref()),
        far.and_then(|far| far.preferred_during_scheduling_ignored_during_execution.as_ref()),
    ];
    let weighted = preferred.into_iter().flatten().flatten().map(|term| &term.pod_affinity_term);
    let mut terms = required.into_iter().flatten().flatten().chain(weighted);
    terms.any(|term| {
        term.namespace_selector.is_some() || term.namespaces.as_ref().is_some_and(|names| !names.is_empty())
    })
}

fn expression_matches(expression: &ScopedResourceSelectorRequirement, pod: &Pod) -> bool {
    if expression.scope_name != "PriorityClass" {
        return scope_matches(&expression.scope_name, pod);
    }
    let class = pod.spec.as_ref().and_then(|spec| spec.priority_class_name.as_deref()).unwrap_or_default();
    let is_listed = expression.values.iter().flatten().any(|value| value == class);
    match expression.operator.as_str() {
        "In" => is_listed,
        "NotIn" => !is_listed,
        "Exists" => !class.is_empty(),
        "DoesNotExist" => class.is_empty(),
        _ => false,
    }
}

/// An amount as upstream writes it: bytes in the largest binary unit that fits, everything else in decimal.
pub(crate) fn format(name: &str, amount: Quantity) -> ApiQuantity {
    let is_bytes = name.ends_with("memory") || name.ends_with("storage");
    let units = amount.units();
    if is_bytes && units > 0 && Quantity::from_units(units) == amount {
        for (suffix, power) in [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)] {
            if units % (1 << power) == 0 {
                return ApiQuantity(format!("{}{suffix}", units >> power));
            }
        }
    }
    ApiQuantity(amount.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::{pod, with_phase};
    use k8s_openapi::api::core::v1::{ResourceRequirements, ServicePort, ServiceSpec};

    fn container(cpu: &str) -> Container {
        let amounts = BTreeMap::from([("cpu".to_owned(), ApiQuantity(cpu.to_owned()))]);
        Container {
            resources: Some(ResourceRequirements { requests: Some(amounts), ..ResourceRequirements::default() }),
            ..Container::default()
        }
    }

    fn show(amounts: &Amounts) -> String {
        amounts.iter().map(|(name, amount)| format!("{name}={}", format(name, *amount).0)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_pod_uses_the_most_it_needs_at_a_time() {
        let mut user = pod("a");
        let spec = user.spec.get_or_insert_default();
        spec.containers = vec![container("100m"), container("200m")];
        spec.init_containers = Some(vec![container("1")]);
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(show(&of_pod(&user, now)), "count/pods=1 cpu=1 pods=1 requests.cpu=1");
        user.spec.get_or_insert_default().init_containers = Some(vec![container("50m")]);
        assert_eq!(show(&of_pod(&user, now)), "count/pods=1 cpu=300m pods=1 requests.cpu=300m");
        assert_eq!(show(&of_pod(&with_phase(user, "Failed"), now)), "count/pods=1");
    }

    #[test]
    fn claims_use_devices_of_classes() {
        let asks = |class: &str, count: i64| serde_json::json!({"name": "s", "deviceClassName": class, "count": count});
        let all = serde_json::json!({"deviceClassName": "nic", "allocationMode": "All"});
        let claim: ResourceClaim =
            serde_json::from_value(serde_json::json!({"metadata": {}, "spec": {"devices": {"requests": [
            {"name": "a", "exactly": asks("gpu", 2)},
            {"name": "b", "firstAvailable": [asks("gpu", 3), asks("gpu", 1), asks("tpu", 4)]},
            {"name": "c", "exactly": all}]}}}))
            .unwrap();
        let expected = "gpu.deviceclass.resource.k8s.io/devices=5 nic.deviceclass.resource.k8s.io/devices=32 \
                        tpu.deviceclass.resource.k8s.io/devices=4";
        assert_eq!(show(&of_resource_claim(&claim)), expected);
    }

    #[test]
    fn services_use_ports_and_balancers() {
        let check = |type_: &str, expected: &str| {
            let spec = ServiceSpec {
                type_: Some(type_.to_owned()),
                ports: Some(vec![ServicePort::default(), ServicePort::default()]),
                ..ServiceSpec::default()
            };
            assert_eq!(show(&of_service(&Service { spec: Some(spec), ..Service::default() })), expected);
        };
        check("ClusterIP", "count/services=1 services=1");
        check("NodePort", "count/services=1 services=1 services.nodeports=2");
        check("LoadBalancer", "count/services=1 services=1 services.loadbalancers=1 services.nodeports=2");
    }

    #[test]
    fn scopes_sort_pods() {
        let mut plain = pod("a");
        let check = |pod: &Pod, scope: &str, expected: bool| {
            let spec = ResourceQuotaSpec { scopes: Some(vec![scope.to_owned()]), ..ResourceQuotaSpec::default() };
            assert_eq!(scopes_match(&spec, pod), expected, "{scope}");
        };
        check(&plain, "BestEffort", true);
        check(&plain, "NotBestEffort", false);
        check(&plain, "NotTerminating", true);
        plain.spec.get_or_insert_default().active_deadline_seconds = Some(5);
        check(&plain, "Terminating", true);
        plain.spec.get_or_insert_default().containers = vec![container("1")];
        check(&plain, "BestEffort", false);
    }

    #[test]
    fn amounts_are_written_as_people_write_them() {
        let check = |name: &str, text: &str, expected: &str| {
            assert_eq!(format(name, text.parse().unwrap()).0, expected);
        };
        check("memory", "1073741824", "1Gi");
        check("limits.memory", "1536Mi", "1536Mi");
        check("requests.storage", "5", "5");
        check("cpu", "1500m", "1500m");
        check("pods", "1024", "1024");
    }
}
