//! Figures of EndpointSlices: what a pass changes, and what there is.
//!
//! Pure.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kedge_meta::ObjectKey;
use kedge_metrics::Text;

use super::plan::{Plan, SLICE_SIZE};
use super::service_of_slice;
use crate::metrics::{Synced, write_gauges};
use crate::pods::name_of;

const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";

/// What a plan changes of a Service's slices.
pub(super) fn synced<'a>(service: &'a Service, plan: &Plan, before: &[Arc<EndpointSlice>]) -> Synced<'a> {
    let gone: HashSet<&str> = plan
        .update
        .iter()
        .chain(plan.delete.iter().map(|slice| &**slice))
        .map(|slice| name_of(&slice.metadata))
        .collect();
    let old = before.iter().filter(|slice| gone.contains(name_of(&slice.metadata)));
    let old: HashSet<&str> = old.flat_map(|slice| addresses(slice)).collect();
    let new: HashSet<&str> = plan.create.iter().chain(&plan.update).flat_map(addresses).collect();
    let hints = service.metadata.annotations.as_ref().and_then(|annotations| annotations.get(TOPOLOGY_MODE));
    let uses_topology = hints.is_some_and(|mode| mode.eq_ignore_ascii_case("auto"));
    let distribution = service.spec.as_ref().and_then(|spec| spec.traffic_distribution.as_deref());
    Synced {
        added: new.difference(&old).count(),
        removed: old.difference(&new).count(),
        slices: [plan.create.len(), plan.update.len(), plan.delete.len()],
        uses_topology,
        traffic_distribution: distribution.filter(|_| !uses_topology).unwrap_or_default(),
    }
}

fn addresses(slice: &EndpointSlice) -> impl Iterator<Item = &str> {
    slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint.addresses.first()).map(String::as_str)
}

/// What there is of slices, and how Services want their traffic distributed.
pub(super) fn write(text: &mut Text, slices: &[Arc<EndpointSlice>], services: &[Arc<Service>]) {
    write_counts(text, "endpoint_slice_controller", slices, service_of_slice, SLICE_SIZE);
    let mut distributions: BTreeMap<[String; 1], f64> = BTreeMap::new();
    let wanted = services.iter().filter_map(|service| service.spec.as_ref()?.traffic_distribution.clone());
    wanted.for_each(|wanted| *distributions.entry([wanted]).or_default() += 1.0);
    let name = "endpoint_slice_controller_services_count_by_traffic_distribution";
    let help = "Number of Services using some specific trafficDistribution";
    write_gauges(text, name, help, ["traffic_distribution"], &distributions);
}

/// How many slices and endpoints there are, and how many slices of a size would do.
pub(crate) fn write_counts(
    text: &mut Text,
    subsystem: &str,
    slices: &[Arc<EndpointSlice>],
    service_of: impl Fn(&EndpointSlice) -> Option<ObjectKey>,
    size: usize,
) {
    let mut groups: BTreeMap<_, usize> = BTreeMap::new();
    let mut endpoints = 0;
    for slice in slices {
        let count = slice.endpoints.as_ref().map_or(0, Vec::len);
        let ports = serde_json::to_string(&slice.ports).unwrap_or_default();
        *groups.entry((service_of(slice), slice.address_type.clone(), ports)).or_default() += count;
        endpoints += count;
    }
    // An empty one stays where there is nothing to tell of a Service.
    let mut by_service: BTreeMap<_, usize> = BTreeMap::new();
    for ((service, ..), count) in &groups {
        *by_service.entry(service).or_default() += count.div_ceil(size);
    }
    let desired: usize = by_service.values().map(|count| (*count).max(1)).sum();
    let figures = [
        ("num_endpoint_slices", "Number of EndpointSlices", slices.len()),
        ("endpoints_desired", "Number of endpoints desired", endpoints),
        (
            "desired_endpoint_slices",
            "Number of EndpointSlices that would exist with perfect endpoint allocation",
            desired,
        ),
    ];
    for (name, help, value) in figures {
        let value = f64::from(u32::try_from(value).unwrap_or(u32::MAX));
        text.single(&format!("{subsystem}_{name}"), "gauge", help, value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::metrics::shown;

    fn slice(name: &str, service: &str, addresses: &[&str]) -> EndpointSlice {
        let labels = json!({"kubernetes.io/service-name": service,
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"});
        let endpoints: Vec<_> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
        let value = json!({"metadata": {"name": name, "namespace": "d", "labels": labels}, "addressType": "IPv4",
            "endpoints": endpoints, "ports": [{"port": 80}]});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_comes_and_goes_is_counted_once() {
        let before = [Arc::new(slice("a", "web", &["1", "2"])), Arc::new(slice("b", "web", &["3"]))];
        let plan = Plan {
            create: vec![slice("c", "web", &["5"])],
            update: vec![slice("a", "web", &["1", "4"])],
            ..Plan::default()
        };
        let service: Service =
            serde_json::from_value(json!({"metadata": {}, "spec": {"trafficDistribution": "PreferClose"}})).unwrap();
        let synced = synced(&service, &plan, &before);
        assert_eq!((synced.added, synced.removed, synced.slices), (2, 1, [1, 1, 0]));
        assert_eq!((synced.uses_topology, synced.traffic_distribution), (false, "PreferClose"));
    }

    #[test]
    fn what_there_is_is_shown() {
        let slices = [slice("a", "web", &["1"]), slice("b", "web", &["2"]), slice("c", "db", &[])].map(Arc::new);
        let service: Service =
            serde_json::from_value(json!({"metadata": {}, "spec": {"trafficDistribution": "PreferClose"}})).unwrap();
        let text = shown(|text| write(text, &slices, &[Arc::new(service.clone())]));
        for line in [
            "endpoint_slice_controller_num_endpoint_slices 3",
            "endpoint_slice_controller_endpoints_desired 2",
            "endpoint_slice_controller_desired_endpoint_slices 2",
            "endpoint_slice_controller_services_count_by_traffic_distribution{traffic_distribution=\"PreferClose\"} 1",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
