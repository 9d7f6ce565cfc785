//! The slices that mirror Endpoints, and how to come to them from those that are there.
//!
//! Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::api::ObjectMeta;

use crate::endpoint_slice::plan::{MANAGED_BY, SERVICE_NAME, in_place_of};
use crate::owners::controller_reference;
use crate::pods::name_of;

pub(super) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// At most so many addresses of a subset are mirrored.
pub(super) const MOST_ADDRESSES: usize = 1000;
const OWN_ANNOTATIONS: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

/// Addresses that are not mirrored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// Those that are none.
    pub(crate) invalid: usize,
    /// Those for which a slice has no room.
    pub(crate) too_many: usize,
}

/// How many endpoints a plan changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) added: usize,
    pub(crate) updated: usize,
    pub(crate) removed: usize,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<Arc<EndpointSlice>>,
    pub(super) skipped: Skipped,
    pub(super) changed: Changed,
}

/// One slice for each subset and address family, and which addresses are in none.
fn desired(endpoints: &Endpoints) -> (Vec<EndpointSlice>, Skipped) {
    let (mut slices, mut skipped) = (Vec::new(), Skipped::default());
    for subset in endpoints.subsets.iter().flatten() {
        let mut by_family: BTreeMap<&str, Vec<Endpoint>> = BTreeMap::new();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        let mut taken = 0;
        for (address, is_ready) in ready.chain(not_ready) {
            if taken == MOST_ADDRESSES {
                skipped.too_many += 1;
                continue;
            }
            let Ok(ip) = address.ip.parse::<IpAddr>().map(|ip| ip.to_canonical()) else {
                skipped.invalid += 1;
                continue;
            };
            taken += 1;
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            by_family.entry(family).or_default().push(mirror(address, ip, is_ready));
        }
        for (family, mirrored) in by_family {
            slices.push(new_slice(endpoints, subset, family, mirrored));
        }
    }
    (slices, skipped)
}

fn mirror(address: &EndpointAddress, ip: IpAddr, is_ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(is_ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn new_slice(endpoints: &Endpoints, subset: &EndpointSubset, family: &str, mirrored: Vec<Endpoint>) -> EndpointSlice {
    let name = name_of(&endpoints.metadata);
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let ports = subset.ports.iter().flatten().map(|port| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    });
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations_of(endpoints)).filter(|annotations| !annotations.is_empty()),
            owner_references: Some(vec![controller_reference(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        ports: Some(ports.collect()),
        endpoints: Some(mirrored),
    }
}

/// What is written about Endpoints, but for what is about them alone.
fn annotations_of(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !OWN_ANNOTATIONS.contains(&name.as_str()));
    annotations
}

/// Family, ports and address of an endpoint.
type Place<'a> = (&'a str, String, &'a str);

fn by_place<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> HashMap<Place<'a>, &'a Endpoint> {
    let each = slices.flat_map(|slice| slice.endpoints.iter().flatten().map(move |endpoint| (slice, endpoint)));
    each.map(|(slice, endpoint)| {
        let address = endpoint.addresses.first().map(String::as_str).unwrap_or_default();
        ((slice.address_type.as_str(), format!("{:?}", slice.ports), address), endpoint)
    })
    .collect()
}

/// What becomes of the endpoints of a Service.
fn changed(existing: &[Arc<EndpointSlice>], wanted: &[EndpointSlice]) -> Changed {
    let (before, after) = (by_place(existing.iter().map(|slice| &**slice)), by_place(wanted.iter()));
    Changed {
        added: after.keys().filter(|place| !before.contains_key(*place)).count(),
        updated: after.iter().filter(|(place, new)| before.get(*place).is_some_and(|old| old != *new)).count(),
        removed: before.keys().filter(|place| !after.contains_key(*place)).count(),
    }
}

/// Slices of the same family are updated rather than replaced.
pub(super) fn plan(endpoints: &Endpoints, existing: &[Arc<EndpointSlice>]) -> Plan {
    let (wanted, skipped) = desired(endpoints);
    let mut plan = Plan { skipped, changed: changed(existing, &wanted), ..Plan::default() };
    let mut left: Vec<Arc<EndpointSlice>> = existing.to_vec();
    left.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    for wanted in wanted {
        let same_ports =
            |slice: &Arc<EndpointSlice>| slice.address_type == wanted.address_type && slice.ports == wanted.ports;
        let same_family = |slice: &Arc<EndpointSlice>| slice.address_type == wanted.address_type;
        let Some(position) = left.iter().position(same_ports).or_else(|| left.iter().position(same_family)) else {
            plan.create.push(wanted);
            continue;
        };
        let known = left.remove(position);
        let is_same = known.ports == wanted.ports
            && known.endpoints == wanted.endpoints
            && known.metadata.labels == wanted.metadata.labels
            && known.metadata.annotations.clone().unwrap_or_default() == annotations_of(endpoints);
        if !is_same {
            plan.update.push(in_place_of(&known, wanted));
        }
    }
    plan.delete = left;
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(addresses: &[&str]) -> Endpoints {
        let addresses =
            addresses.iter().map(|&ip| EndpointAddress { ip: ip.to_owned(), ..EndpointAddress::default() }).collect();
        let port = k8s_openapi::api::core::v1::EndpointPort { port: 80, ..Default::default() };
        let subset =
            EndpointSubset { addresses: Some(addresses), ports: Some(vec![port]), ..EndpointSubset::default() };
        let mut endpoints = Endpoints { subsets: Some(vec![subset]), ..Endpoints::default() };
        endpoints.metadata.name = Some("web".to_owned());
        endpoints
    }

    #[test]
    fn subsets_become_slices_of_each_family() {
        let both = endpoints(&["192.0.2.1", "fd00::1", "192.0.2.2"]);
        let first = plan(&both, &[]);
        let sizes: Vec<_> = first
            .create
            .iter()
            .map(|slice| (slice.address_type.as_str(), slice.endpoints.as_ref().unwrap().len()))
            .collect();
        assert_eq!(sizes, [("IPv4", 2), ("IPv6", 1)]);
        let existing: Vec<Arc<EndpointSlice>> = first.create.into_iter().map(Arc::new).collect();
        let again = plan(&both, &existing);
        assert_eq!((again.create.len(), again.update.len(), again.delete.len()), (0, 0, 0));
        let fewer = plan(&endpoints(&["192.0.2.1"]), &existing);
        assert_eq!((fewer.create.len(), fewer.update.len(), fewer.delete.len()), (0, 1, 1));
        assert_eq!(first.changed, Changed { added: 3, ..Changed::default() });
        assert_eq!(again.changed, Changed::default());
        assert_eq!(fewer.changed, Changed { removed: 2, ..Changed::default() });
        let mut not_ready = both;
        let subset = &mut not_ready.subsets.as_mut().unwrap()[0];
        subset.not_ready_addresses = subset.addresses.as_mut().map(|addresses| vec![addresses.remove(0)]);
        assert_eq!(plan(&not_ready, &existing).changed, Changed { updated: 1, ..Changed::default() });
    }

    #[test]
    fn what_no_slice_can_say_is_skipped() {
        let addresses: Vec<String> =
            (0..MOST_ADDRESSES + 5).map(|at| format!("10.0.{}.{}", at / 256, at % 256)).collect();
        let mut all: Vec<&str> = vec!["nonsense"];
        all.extend(addresses.iter().map(String::as_str));
        let plan = plan(&endpoints(&all), &[]);
        assert_eq!(plan.skipped, Skipped { invalid: 1, too_many: 5 });
        assert_eq!(plan.create[0].endpoints.as_ref().map(Vec::len), Some(MOST_ADDRESSES));
    }

    #[test]
    fn annotations_are_mirrored_but_for_those_about_the_endpoints_themselves() {
        let mut annotated = endpoints(&["192.0.2.1"]);
        let own = OWN_ANNOTATIONS.map(|name| (name.to_owned(), "x".to_owned()));
        annotated.metadata.annotations = Some(own.into_iter().collect());
        let bare = plan(&annotated, &[]).create.remove(0);
        assert_eq!(bare.metadata.annotations, None);
        annotated.metadata.annotations.as_mut().unwrap().insert("a".to_owned(), "b".to_owned());
        let changed = plan(&annotated, &[Arc::new(bare)]);
        let annotations = changed.update[0].metadata.annotations.clone().unwrap();
        assert_eq!(annotations, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        let written = Arc::new(changed.update.into_iter().next().unwrap());
        assert!(plan(&annotated, &[written]).update.is_empty());
    }
}
