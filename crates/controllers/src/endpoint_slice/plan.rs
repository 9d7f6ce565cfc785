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
        let metadata = ObjectMeta {
            labels: fresh.metadata.labels,
            annotations: fresh.metadata.annotations,
            owner_references: fresh.metadata.owner_references,
            ..old.metadata.clone()
        };
        plan.update.push(EndpointSlice { metadata, ..fresh });
    }
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
mod tests {
    use super::*;
    use crate::pods::fixtures::{pod, ready, with_phase};
    use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

    fn service() -> Service {
        let mut service = Service {
            spec: Some(ServiceSpec {
                ports: Some(vec![ServicePort { port: 80, ..ServicePort::default() }]),
                ip_families: Some(vec!["IPv4".to_owned()]),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        };
        service.metadata.name = Some("web".to_owned());
        service.metadata.namespace = Some("default".to_owned());
        service.metadata.uid = Some("service".to_owned());
        service
    }

    fn endpoint_pod(number: usize) -> Arc<Pod> {
        let mut pod = ready(pod(&format!("pod-{number:03}")), 0);
        pod.status.get_or_insert_default().pod_ip = Some(format!("10.0.{}.{}", number / 250, number % 250 + 1));
        Arc::new(pod)
    }

    fn run(service: &Service, pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>]) -> Plan {
        let zones = Zones::from([("node-1".to_owned(), None)]);
        plan(service, pods, &zones, slices, Timestamp::UNIX_EPOCH)
    }

    /// The slices after a plan was executed.
    fn apply(plan: Plan, slices: Vec<Arc<EndpointSlice>>) -> Vec<Arc<EndpointSlice>> {
        let gone = |slice: &EndpointSlice| {
            plan.delete
                .iter()
                .map(|slice| &slice.metadata.name)
                .chain(plan.update.iter().map(|slice| &slice.metadata.name))
                .any(|name| *name == slice.metadata.name)
        };
        let mut after: Vec<_> = slices.into_iter().filter(|slice| !gone(slice)).collect();
        for mut slice in plan.update.clone().into_iter().chain(plan.create.clone()) {
            let count = after.len();
            slice.metadata.name.get_or_insert_with(|| format!("web-{count}"));
            after.push(Arc::new(slice));
        }
        after
    }

    fn sizes(slices: &[impl AsRef<EndpointSlice>]) -> Vec<usize> {
        let mut sizes: Vec<usize> =
            slices.iter().map(|slice| slice.as_ref().endpoints.as_ref().map_or(0, Vec::len)).collect();
        sizes.sort();
        sizes
    }

    fn show(plan: &Plan) -> String {
        let refs = |slices: &[EndpointSlice]| {
            let slices: Vec<Arc<EndpointSlice>> = slices.iter().cloned().map(Arc::new).collect();
            sizes(&slices)
        };
        format!("create {:?} update {:?} delete {:?}", refs(&plan.create), refs(&plan.update), sizes(&plan.delete))
    }

    #[test]
    fn slices_are_filled_kept_and_emptied_with_few_writes() {
        let service = service();
        let pods: Vec<Arc<Pod>> = (0..250).map(endpoint_pod).collect();
        let mut slices = Vec::new();
        let mut step = |count: usize, expected: &str| {
            let plan = run(&service, &pods[..count], &slices);
            assert_eq!(show(&plan), expected, "{count} pods");
            slices = apply(plan, std::mem::take(&mut slices));
            let again = run(&service, &pods[..count], &slices);
            assert_eq!(show(&again), "create [] update [] delete []", "{count} pods, settled");
        };
        step(0, "create [0] update [] delete []");
        step(3, "create [] update [3] delete []");
        step(4, "create [] update [4] delete []");
        step(250, "create [46, 100, 100] update [] delete []");
        step(2, "create [] update [2] delete [46, 100, 100]");
        step(0, "create [] update [0] delete []");
    }

    #[test]
    fn a_pod_that_becomes_unready_changes_only_its_slice() {
        let service = service();
        let mut pods: Vec<Arc<Pod>> = (0..3).map(endpoint_pod).collect();
        let slices = apply(run(&service, &pods, &[]), Vec::new());
        Arc::make_mut(&mut pods[1]).status.get_or_insert_default().conditions = None;
        let plan = run(&service, &pods, &slices);
        assert_eq!(show(&plan), "create [] update [3] delete []");
        let endpoints = plan.update[0].endpoints.as_ref().unwrap();
        let ready: Vec<_> =
            endpoints.iter().map(|endpoint| endpoint.conditions.as_ref().unwrap().ready.unwrap()).collect();
        assert_eq!(ready, [true, false, true]);
        Arc::make_mut(&mut pods[1]).metadata.name = Some("pod-001".to_owned());
        pods[2] = Arc::new(with_phase((*pods[2]).clone(), "Failed"));
        assert_eq!(show(&run(&service, &pods, &slices)), "create [] update [2] delete []");
    }

    #[test]
    fn labels_ports_and_families_change_slices() {
        let mut service = service();
        let pods: Vec<Arc<Pod>> = (0..2).map(endpoint_pod).collect();
        let slices = apply(run(&service, &pods, &[]), Vec::new());
        service.metadata.labels = Some(BTreeMap::from([("team".to_owned(), "a".to_owned())]));
        let plan = run(&service, &pods, &slices);
        assert_eq!(show(&plan), "create [] update [2] delete []");
        assert_eq!(plan.update[0].metadata.labels.as_ref().unwrap()["team"], "a");
        let spec = service.spec.get_or_insert_default();
        spec.ports.get_or_insert_default()[0].port = 81;
        assert_eq!(show(&run(&service, &pods, &slices)), "create [] update [2] delete []");
        service.spec.get_or_insert_default().ip_families = Some(vec!["IPv6".to_owned()]);
        assert_eq!(show(&run(&service, &pods, &slices)), "create [0] update [] delete [2]");
    }

    #[test]
    fn pods_on_unknown_nodes_wait() {
        let pods = [endpoint_pod(1)];
        let plan = plan(&service(), &pods, &Zones::new(), &[], Timestamp::UNIX_EPOCH);
        assert!(plan.misses_nodes);
        assert_eq!(show(&plan), "create [0] update [] delete []");
    }
}
