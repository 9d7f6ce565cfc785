//! From a pod's requests and limits to what the kernel takes: CPU shares and quota, memory limits, out-of-memory scores,
//! the QoS class and the name of the pod's cgroup.
//!
//! Pure. Invariant: the numbers are upstream's.

use k8s_openapi::api::core::v1::{Container, Pod};
use kedge_cri::v1;
use kedge_meta::Quantity;

use crate::config::CgroupDriver;
use crate::spec;

const QUOTA_PERIOD_MICROS: i64 = 100_000;
const MIN_QUOTA_MICROS: i64 = 1000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;

/// The quality-of-service class of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The class: `Guaranteed` where every container limits CPU and memory and requests just that, `BestEffort` where none
/// says anything.
pub(crate) fn qos_class(pod: &Pod) -> QosClass {
    let mut any = false;
    let mut guaranteed = true;
    // Resources of the pod as a whole take the place of its containers'.
    if let Some(own) =
        spec::pod_spec(pod).resources.as_ref().filter(|own| own.requests.is_some() || own.limits.is_some())
    {
        for resource in ["cpu", "memory"] {
            let limit = spec::amount(own.limits.as_ref(), resource).filter(|amount| *amount > Quantity::ZERO);
            let request =
                spec::amount(own.requests.as_ref(), resource).or(limit).filter(|amount| *amount > Quantity::ZERO);
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
        return class(any, guaranteed);
    }
    for container in spec::containers(pod).iter().chain(spec::init_containers(pod)) {
        for resource in ["cpu", "memory"] {
            let request = spec::request(container, resource).filter(|amount| *amount > Quantity::ZERO);
            let limit = spec::limit(container, resource).filter(|amount| *amount > Quantity::ZERO);
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    class(any, guaranteed)
}

fn class(any: bool, guaranteed: bool) -> QosClass {
    match (any, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

/// CPU shares of an amount in thousandths.
pub(crate) fn cpu_shares(millis: i64) -> i64 {
    if millis == 0 { MIN_SHARES } else { (millis * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES) }
}

/// CPU quota in microseconds for each period; zero where there is no limit.
pub(crate) fn cpu_quota(millis: i64) -> i64 {
    if millis == 0 { 0 } else { (millis * QUOTA_PERIOD_MICROS / 1000).max(MIN_QUOTA_MICROS) }
}

/// How willing the kernel shall be to end the container when memory runs out.
pub(crate) fn oom_score_adjust(pod: &Pod, container: &Container, memory_capacity: u64) -> i64 {
    if spec::pod_spec(pod).priority.unwrap_or(0) >= 2_000_000_000 {
        return -997;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = spec::request(container, "memory").unwrap_or(Quantity::ZERO).units();
            let capacity = i64::try_from(memory_capacity).unwrap_or(i64::MAX).max(1);
            let adjust = 1000 - (1000i128 * i128::from(request) / i128::from(capacity));
            // Never as safe as a guaranteed container, never as exposed as one of best effort.
            i64::try_from(adjust).unwrap_or(2).clamp(3, 999)
        }
    }
}

/// The limits of one container.
pub(crate) fn container_resources(
    pod: &Pod,
    container: &Container,
    memory_capacity: u64,
) -> v1::LinuxContainerResources {
    let request = spec::request(container, "cpu").map_or(0, Quantity::millis);
    let limit = spec::limit(container, "cpu").map_or(0, Quantity::millis);
    v1::LinuxContainerResources {
        cpu_period: QUOTA_PERIOD_MICROS,
        cpu_quota: cpu_quota(limit),
        cpu_shares: cpu_shares(request),
        memory_limit_in_bytes: spec::limit(container, "memory").map_or(0, Quantity::units),
        oom_score_adj: oom_score_adjust(pod, container, memory_capacity),
        hugepage_limits: hugepage_limits(container),
        ..Default::default()
    }
}

fn hugepage_limits(container: &Container) -> Vec<v1::HugepageLimit> {
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    limits
        .into_iter()
        .flatten()
        .filter_map(|(resource, amount)| {
            let size = resource.strip_prefix("hugepages-")?;
            let bytes = amount.0.parse::<Quantity>().ok()?.units();
            let page_size = format!("{}B", size.trim_end_matches('i'));
            Some(v1::HugepageLimit { page_size, limit: u64::try_from(bytes).ok()? })
        })
        .collect()
}

/// The limits of a whole pod, for its cgroup: its own, or what its containers add up to. A limit counts only where every
/// container has one.
pub(crate) fn pod_resources(pod: &Pod) -> v1::LinuxContainerResources {
    let own = spec::pod_spec(pod).resources.as_ref();
    let total = |resource: &str| -> i64 {
        let own = own.and_then(|own| spec::amount(own.requests.as_ref().or(own.limits.as_ref()), resource));
        own.map(|amount| read(amount, resource)).unwrap_or_else(|| {
            effective(pod, |container| spec::request(container, resource).map(|amount| read(amount, resource)))
                .unwrap_or(0)
        })
    };
    let bound = |resource: &str| -> Option<i64> {
        let own = own.and_then(|own| spec::amount(own.limits.as_ref(), resource));
        own.map(|amount| read(amount, resource)).or_else(|| {
            effective(pod, |container| spec::limit(container, resource).map(|amount| read(amount, resource)))
                .filter(|_| spec::containers(pod).iter().all(|container| spec::limit(container, resource).is_some()))
        })
    };
    // What the sandbox itself takes comes on top.
    let overhead = |resource: &str| {
        spec::amount(spec::pod_spec(pod).overhead.as_ref(), resource).map_or(0, |amount| read(amount, resource))
    };
    v1::LinuxContainerResources {
        cpu_period: QUOTA_PERIOD_MICROS,
        cpu_shares: cpu_shares(total("cpu") + overhead("cpu")),
        cpu_quota: bound("cpu").map_or(0, |limit| cpu_quota(limit + overhead("cpu"))),
        memory_limit_in_bytes: bound("memory").map_or(0, |limit| limit + overhead("memory")),
        ..Default::default()
    }
}

/// CPU in thousandths, everything else in whole units.
fn read(amount: Quantity, resource: &str) -> i64 {
    if resource == "cpu" { amount.millis() } else { amount.units() }
}

/// What a pod needs at its peak: the sum of its containers, or the most of its init containers where that is more.
fn effective(pod: &Pod, amount: impl Fn(&Container) -> Option<i64>) -> Option<i64> {
    let apps: i64 = spec::containers(pod).iter().filter_map(&amount).sum();
    let mut sidecars = 0;
    let mut peak = 0;
    for container in spec::init_containers(pod) {
        let own = amount(container).unwrap_or(0);
        if spec::is_restartable_init(container) {
            sidecars += own;
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + own);
        }
    }
    Some((apps + sidecars).max(peak)).filter(|amount| *amount > 0)
}

/// What a pod requests in total, for admission.
pub(crate) fn pod_request(pod: &Pod, resource: &str) -> i64 {
    let pod_spec = spec::pod_spec(pod);
    let overhead = spec::amount(pod_spec.overhead.as_ref(), resource).map_or(0, |amount| read(amount, resource));
    let own = pod_spec
        .resources
        .as_ref()
        .and_then(|own| spec::amount(own.requests.as_ref().or(own.limits.as_ref()), resource));
    let own = own.map(|amount| read(amount, resource));
    let containers =
        || effective(pod, |container| spec::request(container, resource).map(|amount| read(amount, resource)));
    own.or_else(containers).unwrap_or(0) + overhead
}

/// What a pod may use in total: its own limit, or the sum of those that its containers have. `None` where there is none.
pub(crate) fn pod_limit(pod: &Pod, resource: &str) -> Option<i64> {
    let pod_spec = spec::pod_spec(pod);
    let own = pod_spec.resources.as_ref().and_then(|own| spec::amount(own.limits.as_ref(), resource));
    let own = own.map(|amount| read(amount, resource));
    let limit = own.or_else(|| {
        effective(pod, |container| spec::limit(container, resource).map(|amount| read(amount, resource)))
    })?;
    let overhead = spec::amount(pod_spec.overhead.as_ref(), resource).map_or(0, |amount| read(amount, resource));
    Some(limit.saturating_add(overhead))
}

/// The cgroup of a pod, below the root of the cgroup file system.
pub(crate) fn cgroup_parent(pod: &Pod, driver: CgroupDriver) -> String {
    let uid = spec::uid(pod);
    let class = match qos_class(pod) {
        QosClass::Guaranteed => None,
        QosClass::Burstable => Some("burstable"),
        QosClass::BestEffort => Some("besteffort"),
    };
    match (driver, class) {
        (CgroupDriver::Cgroupfs, None) => format!("/kubepods/pod{uid}"),
        (CgroupDriver::Cgroupfs, Some(class)) => format!("/kubepods/{class}/pod{uid}"),
        (CgroupDriver::Systemd, None) => format!("kubepods-pod{}.slice", uid.replace('-', "_")),
        (CgroupDriver::Systemd, Some(class)) => format!("kubepods-{class}-pod{}.slice", uid.replace('-', "_")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

    use super::*;

    fn list(entries: &[(&str, &str)]) -> Option<BTreeMap<String, ApiQuantity>> {
        Some(entries.iter().map(|(k, v)| ((*k).to_owned(), ApiQuantity((*v).to_owned()))).collect())
    }

    fn pod(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Pod {
        let resources = ResourceRequirements { requests: list(requests), limits: list(limits), claims: None };
        let container = Container { name: "a".to_owned(), resources: Some(resources), ..Container::default() };
        let mut pod =
            Pod { spec: Some(PodSpec { containers: vec![container], ..PodSpec::default() }), ..Pod::default() };
        pod.metadata.uid = Some("u-1".to_owned());
        pod
    }

    #[test]
    fn classes_and_their_cgroups() {
        let check = |requests: &[(&str, &str)], limits: &[(&str, &str)], class: QosClass, path: &str, slice: &str| {
            let pod = pod(requests, limits);
            assert_eq!(qos_class(&pod), class);
            assert_eq!(cgroup_parent(&pod, CgroupDriver::Cgroupfs), path);
            assert_eq!(cgroup_parent(&pod, CgroupDriver::Systemd), slice);
        };
        let best = "kubepods-besteffort-podu_1.slice";
        check(&[], &[], QosClass::BestEffort, "/kubepods/besteffort/podu-1", best);
        let burst = "kubepods-burstable-podu_1.slice";
        check(&[("cpu", "1")], &[], QosClass::Burstable, "/kubepods/burstable/podu-1", burst);
        let both = [("cpu", "1"), ("memory", "1Gi")];
        check(&[], &both, QosClass::Guaranteed, "/kubepods/podu-1", "kubepods-podu_1.slice");
        check(
            &[("cpu", "1000m"), ("memory", "1Gi")],
            &both,
            QosClass::Guaranteed,
            "/kubepods/podu-1",
            "kubepods-podu_1.slice",
        );
        check(&[("cpu", "500m"), ("memory", "1Gi")], &both, QosClass::Burstable, "/kubepods/burstable/podu-1", burst);
    }

    #[test]
    fn shares_and_quotas() {
        for (millis, shares, quota) in
            [(0, 2, 0), (1, 2, 1000), (100, 102, 10_000), (1000, 1024, 100_000), (2500, 2560, 250_000)]
        {
            assert_eq!((cpu_shares(millis), cpu_quota(millis)), (shares, quota), "{millis}");
        }
    }

    #[test]
    fn out_of_memory_scores_lie_between_the_classes() {
        let capacity = 1000 * 1024 * 1024;
        let check = |requests: &[(&str, &str)], limits: &[(&str, &str)], expected: i64| {
            let pod = pod(requests, limits);
            assert_eq!(oom_score_adjust(&pod, &spec::containers(&pod)[0], capacity), expected);
        };
        check(&[], &[], 1000);
        check(&[], &[("cpu", "1"), ("memory", "1Gi")], -997);
        check(&[("memory", "500Mi")], &[], 500);
        check(&[("memory", "1Ki")], &[], 999);
        check(&[("memory", "2Gi")], &[], 3);
    }
}
