//! How a Service's slices become what they should be, with few and small writes.
//!
//! Pure. A slice whose endpoints all stay is not written; new endpoints go into slices that are written anyway, then into
//! the fullest one with room for all of them, then into new slices.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::desired::{
    Family, Zones, endpoint, endpoint_ports, families, is_candidate, is_headless, publishes_not_ready, trigger_time,
};
use crate::owners::controller_reference;
use crate::pods::{name_of, node_name};

pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(crate) const MANAGER: &str = "endpointslice-controller.k8s.io";
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// At most so many endpoints are in a slice.
pub(super) const SLICE_SIZE: usize = 100;

/// What to write.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) create: Vec<EndpointSlice>,
    pub(crate) update: Vec<EndpointSlice>,
    pub(crate) delete: Vec<Arc<EndpointSlice>>,
    /// A pod runs on a node that is not known (yet); it has been left out.
    pub(crate) misses_nodes: bool,
}

/// Ports as a key: two slices serve the same ports exactly if these are equal.
type PortKey = Vec<(String, i32, String, String)>;

/// Plans the slices of a Service from the pods that it selects.
pub(crate) fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    zones: &Zones,
    slices: &[Arc<EndpointSlice>],
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let candidates: Vec<&Arc<Pod>> = pods.iter().filter(|pod| is_candidate(pod)).collect();
    let trigger = trigger_time(service, pods).unwrap_or(now);
    let families = families(service);
    for slice in slices {
        if !families.iter().any(|family| family.name() == slice.address_type) {
            plan.delete.push(slice.clone());
        }
    }
    for family in families {
        let of_family: Vec<&Arc<EndpointSlice>> =
            slices.iter().filter(|slice| slice.address_type == family.name()).collect();
        let mut desired: BTreeMap<PortKey, (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
        for pod in &candidates {
            if node_name(pod).is_some_and(|node| !zones.contains_key(node)) && !publishes_not_ready(service) {
                plan.misses_nodes = true;
                continue;
            }
            let Some(endpoint) = endpoint(pod, service, family, zones) else { continue };
            let ports = endpoint_ports(pod, service);
            desired.entry(port_key(&ports)).or_insert_with(|| (ports, Vec::new())).1.push(endpoint);
        }
        let maker = Maker { service, family, trigger };
        plan_family(&maker, desired, &of_family, &mut plan);
    }
    plan
}

fn plan_family(
    maker: &Maker<'_>,
    mut desired: BTreeMap<PortKey, (Vec<EndpointPort>, Vec<Endpoint>)>,
    slices: &[&Arc<EndpointSlice>],
    plan: &mut Plan,
) {
    if desired.is_empty() {
        // One empty slice says that the Service has been looked at.
        desired.insert(PortKey::new(), (Vec::new(), Vec::new()));
    }
    let mut by_ports: BTreeMap<PortKey, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in slices {
        by_ports.entry(port_key(slice.ports.as_deref().unwrap_or_default())).or_default().push(slice);
    }
    let mut own = Plan::default();
    for (key, (ports, endpoints)) in desired {
        let existing = by_ports.remove(&key).unwrap_or_default();
        plan_ports(maker, ports, endpoints, &existing, &mut own);
    }
    own.delete.extend(by_ports.into_values().flatten().cloned());
    reuse(&mut own);
    plan.create.append(&mut own.create);
    plan.update.append(&mut own.update);
    plan.delete.append(&mut own.delete);
}

/// What would be deleted takes the content of what would be created: one write instead of two, and no moment without.
fn reuse(plan: &mut Plan) {
    while !plan.create.is_empty()
        && let Some(old) = plan.delete.pop()
    {
        let fresh = plan.create.remove(0);
        plan.update.push(in_place_of(&old, fresh));
    }
}

/// A slice with the content of `fresh` under the name of one that is there.
pub(crate) fn in_place_of(old: &EndpointSlice, fresh: EndpointSlice) -> EndpointSlice {
    let metadata = ObjectMeta {
        labels: fresh.metadata.labels,
        annotations: fresh.metadata.annotations,
        owner_references: fresh.metadata.owner_references,
        ..old.metadata.clone()
    };
    EndpointSlice { metadata, ..fresh }
}

/// The slices of one family and one set of ports.
fn plan_ports(
    maker: &Maker<'_>,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
    existing: &[&Arc<EndpointSlice>],
    plan: &mut Plan,
) {
    let mut wanted: BTreeMap<Identity, Endpoint> =
        endpoints.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
    let is_placeholder = wanted.is_empty();
    let mut drafts: Vec<Draft> = existing.iter().map(|slice| Draft::new(maker, slice, &mut wanted)).collect();
    for draft in drafts.iter_mut().filter(|draft| draft.is_changed && !draft.endpoints.is_empty()) {
        draft.fill(&mut wanted);
    }
    let fits = |draft: &&mut Draft| !draft.is_changed && draft.endpoints.len() + wanted.len() <= SLICE_SIZE;
    if !wanted.is_empty()
        && let Some(draft) = drafts.iter_mut().filter(fits).max_by_key(|draft| draft.endpoints.len())
    {
        draft.fill(&mut wanted);
    }
    // Emptied slices are used again before new ones are made.
    for draft in drafts.iter_mut().filter(|draft| draft.endpoints.is_empty()) {
        draft.fill(&mut wanted);
    }
    let keep_empty = usize::from(is_placeholder);
    let mut kept = 0;
    for draft in drafts {
        if draft.endpoints.is_empty() && kept >= keep_empty {
            plan.delete.push(draft.before.clone());
            continue;
        }
        kept += usize::from(draft.endpoints.is_empty());
        if draft.is_changed {
            plan.update.push(maker.update(&draft.before, draft.endpoints));
        }
    }
    if is_placeholder && kept == 0 {
        plan.create.push(maker.create(ports, Vec::new()));
        return;
    }
    let rest: Vec<Endpoint> = wanted.into_values().collect();
    plan.create.extend(rest.chunks(SLICE_SIZE).map(|chunk| maker.create(ports.clone(), chunk.to_vec())));
}

/// What makes an endpoint the same one: its addresses and its pod.
type Identity = (Vec<String>, Option<String>);

fn identity(endpoint: &Endpoint) -> Identity {
    (endpoint.addresses.clone(), endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()))
}

/// A slice as it will be.
struct Draft {
    before: Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    is_changed: bool,
}

impl Draft {
    /// Keeps, in their newest form, the endpoints that are still wanted, and takes them out of `wanted`.
    fn new(maker: &Maker<'_>, slice: &Arc<EndpointSlice>, wanted: &mut BTreeMap<Identity, Endpoint>) -> Self {
        let mut is_changed = !maker.has_right_metadata(slice);
        let mut endpoints = Vec::new();
        for endpoint in slice.endpoints.iter().flatten() {
            match wanted.remove(&identity(endpoint)) {
                Some(fresh) => {
                    is_changed |= fresh != *endpoint;
                    endpoints.push(fresh);
                }
                None => is_changed = true,
            }
        }
        Self { before: slice.clone(), endpoints, is_changed }
    }

    fn fill(&mut self, wanted: &mut BTreeMap<Identity, Endpoint>) {
        while self.endpoints.len() < SLICE_SIZE
            && let Some((_, endpoint)) = wanted.pop_first()
        {
            self.endpoints.push(endpoint);
            self.is_changed = true;
        }
    }
}

fn port_key(ports: &[EndpointPort]) -> PortKey {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut key: PortKey = ports
        .iter()
        .map(|port| (text(&port.name), port.port.unwrap_or_default(), text(&port.protocol), text(&port.app_protocol)))
        .collect();
    key.sort();
    key
}

/// Makes slices of one Service and family.
struct Maker<'a> {
    service: &'a Service,
    family: Family,
    trigger: Timestamp,
}

impl Maker<'_> {
    fn create(&self, ports: Vec<EndpointPort>, endpoints: Vec<Endpoint>) -> EndpointSlice {
        let name = name_of(&self.service.metadata);
        let slice = EndpointSlice {
            metadata: ObjectMeta {
                generate_name: Some(format!("{name}-")),
                namespace: self.service.metadata.namespace.clone(),
                owner_references: Some(vec![controller_reference(self.service)]),
                ..ObjectMeta::default()
            },
            address_type: self.family.name().to_owned(),
            ports: Some(ports),
            endpoints: None,
        };
        self.update(&slice, endpoints)
    }

    fn update(&self, slice: &EndpointSlice, endpoints: Vec<Endpoint>) -> EndpointSlice {
        let mut slice = slice.clone();
        slice.endpoints = Some(endpoints);
        slice.metadata.labels = Some(self.labels());
        if !slice
            .metadata
            .owner_references
            .iter()
            .flatten()
            .any(|owner| Some(&owner.uid) == self.service.metadata.uid.as_ref())
        {
            slice.metadata.owner_references = Some(vec![controller_reference(self.service)]);
        }
        let annotations = slice.metadata.annotations.get_or_insert_default();
        annotations.insert(TRIGGER_TIME.to_owned(), kedge_meta::format_time(self.trigger));
        slice
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let reserved = [SERVICE_NAME, MANAGED_BY, HEADLESS];
        let own = self.service.metadata.labels.iter().flatten();
        let mut labels: BTreeMap<String, String> = own
            .filter(|(key, _)| !reserved.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        labels.insert(SERVICE_NAME.to_owned(), name_of(&self.service.metadata).to_owned());
        labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
        if is_headless(self.service) {
            labels.insert(HEADLESS.to_owned(), String::new());
        }
        labels
    }

    /// A Service that was deleted and made anew takes its slices over.
    fn has_right_metadata(&self, slice: &EndpointSlice) -> bool {
        let owners = slice.metadata.owner_references.iter().flatten();
        let is_owned = owners.into_iter().any(|owner| Some(&owner.uid) == self.service.metadata.uid.as_ref());
        is_owned && slice.metadata.labels.as_ref() == Some(&self.labels())
    }
}

/// Names of nodes and their zones, for the pods that may become endpoints.
pub(crate) fn zones_of<'a>(
    pods: impl IntoIterator<Item = &'a Arc<Pod>>,
    get: impl Fn(&str) -> Option<Option<String>>,
) -> Zones {
    let mut known: HashMap<&str, Option<Option<String>>> = HashMap::new();
    for pod in pods {
        if let Some(node) = node_name(pod) {
            known.entry(node).or_insert_with(|| get(node));
        }
    }
    known.into_iter().filter_map(|(node, zone)| Some((node.to_owned(), zone?))).collect()
}

#[cfg(test)]
mod tests;
