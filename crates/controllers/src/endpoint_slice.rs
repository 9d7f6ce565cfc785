//! The EndpointSlice controller: which pods are behind a Service, for the proxies and DNS.
//!
//! Invariant: it writes only slices that it manages, and never from a cache that does not show its last writes.

pub(crate) mod desired;
pub(crate) mod figures;
#[cfg(test)]
mod level_driven;
pub(crate) mod plan;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kedge_client::{Change, Informer, Queue, object_key, object_reference};
use kedge_meta::{LabelSelector, ObjectKey};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};

use crate::error::{ReconcileError, is_namespace_terminating, message_of, unless_gone};
use crate::expectations::Expectations;
use crate::owners::selects;
use crate::pods::name_of;
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use desired::{is_endpoint_change, is_selecting, zone_of};
use plan::{MANAGED_BY, MANAGER, Plan, SERVICE_NAME, zones_of};

/// How soon a pod on an unknown node is looked at again.
const NODE_PATIENCE: Duration = Duration::from_secs(1);

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let services = starter.informer::<Service>();
    let pods = starter.informer::<Pod>();
    let nodes = starter.informer::<Node>();
    let slices = starter.informer::<EndpointSlice>();
    let queue = Queue::new();
    starter.enqueue(&services, &queue, |change| vec![object_key(&**change.object())]);
    let of_pods = services.clone();
    starter.enqueue(&pods, &queue, move |change| services_of_pod(change, &of_pods));
    let of_nodes = services.clone();
    starter.enqueue(&nodes, &queue, move |change| services_of_node(change, &of_nodes));
    starter.enqueue(&slices, &queue, |change| service_of_slice(change.object()).into_iter().collect());
    let (known, of_services) = (slices.clone(), services.clone());
    starter.context.metrics.show("endpointslice-controller", move |text| {
        let managed = known.filter(|slice| service_of_slice(slice).is_some());
        figures::write(text, &managed, &of_services.list());
    });
    let workers = starter.context.config.concurrency;
    let expectations = Expectations::default();
    let controller = Slices { context: starter.context.clone(), services, pods, nodes, slices, expectations };
    starter.work(Arc::new(controller), queue, workers);
}

/// The Services that select a pod before or after a change that matters to them.
pub(crate) fn services_of_pod(change: &Change<Pod>, services: &Informer<Service>) -> Vec<ObjectKey> {
    let old = match change {
        Change::Updated { old, new } if !is_endpoint_change(old, new) => return Vec::new(),
        Change::Updated { old, .. } => Some(old),
        _ => None,
    };
    let new = change.object();
    let namespace = new.metadata.namespace.as_deref().unwrap_or_default();
    let concerned = services.in_namespace(namespace).into_iter().filter(|service| {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let Some(selector) = selector.filter(|selector| !selector.is_empty()) else { return false };
        let selector = LabelSelector::from_map(selector);
        selects(&selector, &new.metadata) || old.is_some_and(|old| selects(&selector, &old.metadata))
    });
    concerned.map(|service| object_key(&*service)).collect()
}

/// A node that comes, goes or changes its zone may change any Service.
fn services_of_node(change: &Change<Node>, services: &Informer<Service>) -> Vec<ObjectKey> {
    if matches!(change, Change::Updated { old, new } if zone_of(old) == zone_of(new)) {
        return Vec::new();
    }
    services.filter(is_selecting).iter().map(|service| object_key(&**service)).collect()
}

fn service_of_slice(slice: &EndpointSlice) -> Option<ObjectKey> {
    let labels = slice.metadata.labels.as_ref()?;
    let is_managed = labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER);
    let service = labels.get(SERVICE_NAME).filter(|_| is_managed)?;
    Some(ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), service.clone()))
}

struct Slices {
    context: Context,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    expectations: Expectations,
}

impl Controller for Slices {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(service) = self.services.get(key) else {
            // The slices go with their owner.
            self.expectations.forget(key);
            return Ok(Next::Done);
        };
        let now = self.context.now();
        if !is_selecting(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        if let Some(lag) = self.expectations.lag(key, &self.slices, now) {
            self.context.metrics.endpoints().ended("stale");
            return Ok(Next::After(lag));
        }
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).into_iter().flatten();
        let selector = LabelSelector::from_map(selector);
        let pods = self.pods.filter_in(&key.namespace, |pod| selects(&selector, &pod.metadata));
        let slices = self.slices.filter_in(&key.namespace, |slice| service_of_slice(slice).as_ref() == Some(key));
        let slices: Vec<_> = slices.into_iter().filter(|slice| slice.metadata.deletion_timestamp.is_none()).collect();
        let zones = zones_of(&pods, |node| self.nodes.get(&ObjectKey::cluster(node)).map(|node| zone_of(&node)));
        let plan = plan::plan(&service, &pods, &zones, &slices, now);
        let look_again = plan.misses_nodes.then_some(NODE_PATIENCE);
        let metrics = self.context.metrics.endpoints();
        let synced = figures::synced(&service, &plan, &slices);
        match self.execute(key, plan).await {
            Ok(()) => {
                metrics.synced(synced);
                metrics.ended("success");
                Ok(Next::Done.sooner(look_again))
            }
            Err(error) => {
                metrics.ended("error");
                self.report(key, &service, &error);
                Err(error)
            }
        }
    }
}

impl Slices {
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
            let uid = slice.metadata.uid.clone();
            let parameters = DeleteParams {
                preconditions: Some(Preconditions { uid, resource_version: None }),
                ..DeleteParams::default()
            };
            unless_gone(slices.delete(name_of(&slice.metadata), &parameters).await)?;
            self.expectations.deleted(key, &slice.metadata, self.context.now());
        }
        Ok(())
    }

    fn report(&self, key: &ObjectKey, service: &Service, error: &ReconcileError) {
        if let (false, ReconcileError::Api(cause)) = (error.is_race(), error) {
            let text = format!("Error updating Endpoint Slices for Service {key}: {}", message_of(cause));
            self.context.warning(&object_reference(service), "FailedToUpdateEndpointSlices", text);
        }
    }
}
