//! The EndpointSlice mirroring controller: Endpoints that somebody writes by hand for a Service without a selector appear
//! as EndpointSlices, which is what proxies read.
//!
//! Invariant: it touches only slices that it manages.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kedge_client::{Informer, Queue, object_key};
use kedge_meta::ObjectKey;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};

use crate::endpoint_slice::desired::is_selecting;
use crate::endpoint_slice::plan::{MANAGED_BY, SERVICE_NAME};
use crate::error::{ReconcileError, is_namespace_terminating, unless_gone};
use crate::expectations::Expectations;
use crate::owners::controller_reference;
use crate::pods::name_of;
use crate::runtime::{Context, Controller, Next, Outcome, Starter};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// At most so many addresses of a subset are mirrored.
const MOST_ADDRESSES: usize = 1000;

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let services = starter.informer::<Service>();
    let endpoints = starter.informer::<Endpoints>();
    let slices = starter.informer::<EndpointSlice>();
    let queue = Queue::new();
    starter.enqueue(&services, &queue, |change| vec![object_key(&**change.object())]);
    starter.enqueue(&endpoints, &queue, |change| vec![object_key(&**change.object())]);
    starter.enqueue(&slices, &queue, |change| service_of(change.object()).into_iter().collect());
    let workers = starter.context.config.concurrency;
    let expectations = Expectations::default();
    let controller = Mirroring { context: starter.context.clone(), services, endpoints, slices, expectations };
    starter.work(Arc::new(controller), queue, workers);
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let labels = slice.metadata.labels.as_ref()?;
    let service =
        labels.get(SERVICE_NAME).filter(|_| labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER))?;
    Some(ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), service.clone()))
}

/// Whether Endpoints are somebody's work and meant for proxies.
fn is_mirrored(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    let skips = meta.labels.as_ref().and_then(|labels| labels.get(SKIP_MIRROR)).is_some_and(|value| value == "true");
    let is_lock = meta.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(LEADER));
    !skips && !is_lock
}

struct Mirroring {
    context: Context,
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Informer<EndpointSlice>,
    expectations: Expectations,
}

#[derive(Debug, Default)]
struct Plan {
    create: Vec<EndpointSlice>,
    update: Vec<EndpointSlice>,
    delete: Vec<Arc<EndpointSlice>>,
}

impl Controller for Mirroring {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        if let Some(lag) = self.expectations.lag(key, &self.slices, self.context.now()) {
            return Ok(Next::After(lag));
        }
        let service = self.services.get(key);
        let endpoints = self.endpoints.get(key).filter(|endpoints| is_mirrored(endpoints));
        let has_selector = service.as_ref().is_none_or(|service| {
            is_selecting(service)
                || service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).is_some_and(|it| !it.is_empty())
        });
        let existing = self.slices.filter(|slice| service_of(slice).as_ref() == Some(key));
        let plan = match endpoints.filter(|_| !has_selector) {
            Some(endpoints) => plan(&endpoints, &existing),
            None => Plan { delete: existing, ..Plan::default() },
        };
        self.execute(key, plan).await?;
        Ok(Next::Done)
    }
}

impl Mirroring {
    async fn execute(&self, key: &ObjectKey, plan: Plan) -> Result<(), ReconcileError> {
        let slices = Api::<EndpointSlice>::namespaced(self.context.client.clone(), &key.namespace);
        for slice in &plan.create {
            match slices.create(&PostParams::default(), slice).await {
                Ok(created) => self.expectations.created(key, &created.metadata, self.context.now()),
                Err(error) if is_namespace_terminating(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        for slice in &plan.update {
            let updated = slices.replace(name_of(&slice.metadata), &PostParams::default(), slice).await?;
            self.expectations.updated(key, &updated.metadata, self.context.now());
        }
        for slice in &plan.delete {
            unless_gone(slices.delete(name_of(&slice.metadata), &DeleteParams::default()).await)?;
            self.expectations.deleted(key, &slice.metadata, self.context.now());
        }
        Ok(())
    }
}

/// One slice for each subset and address family.
fn desired(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let mut slices = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let mut by_family: BTreeMap<&str, Vec<Endpoint>> = BTreeMap::new();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, is_ready) in ready.chain(not_ready).take(MOST_ADDRESSES) {
            let family = match address.ip.parse() {
                Ok(IpAddr::V4(_)) => "IPv4",
                Ok(IpAddr::V6(_)) => "IPv6",
                Err(_) => continue,
            };
            by_family.entry(family).or_default().push(mirror(address, is_ready));
        }
        for (family, mirrored) in by_family {
            slices.push(new_slice(endpoints, subset, family, mirrored));
        }
    }
    slices
}

fn mirror(address: &EndpointAddress, is_ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
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
            owner_references: Some(vec![controller_reference(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        ports: Some(ports.collect()),
        endpoints: Some(mirrored),
    }
}

/// Slices of the same family are updated rather than replaced.
fn plan(endpoints: &Endpoints, existing: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let mut left: Vec<Arc<EndpointSlice>> = existing.to_vec();
    left.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    for wanted in desired(endpoints) {
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
            && known.metadata.labels == wanted.metadata.labels;
        if !is_same {
            let metadata = ObjectMeta {
                labels: wanted.metadata.labels,
                owner_references: wanted.metadata.owner_references,
                ..known.metadata.clone()
            };
            plan.update.push(EndpointSlice { metadata, ..wanted });
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
    }

    #[test]
    fn locks_and_those_who_ask_are_not_mirrored() {
        let mut endpoints = endpoints(&[]);
        assert!(is_mirrored(&endpoints));
        endpoints.metadata.labels = Some([(SKIP_MIRROR.to_owned(), "true".to_owned())].into());
        assert!(!is_mirrored(&endpoints));
    }
}
