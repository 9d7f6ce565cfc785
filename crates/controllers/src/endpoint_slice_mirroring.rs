//! The EndpointSlice mirroring controller: Endpoints that somebody writes by hand for a Service without a selector appear
//! as EndpointSlices, which is what proxies read.
//!
//! Invariant: it touches only slices that it manages.

mod plan;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kedge_client::{Informer, Queue, object_key, object_reference};
use kedge_meta::ObjectKey;
use kube::api::{Api, DeleteParams, PostParams};
use tokio::time::Instant;

use crate::endpoint_slice::desired::is_selecting;
use crate::endpoint_slice::figures::write_counts;
use crate::endpoint_slice::plan::{MANAGED_BY, SERVICE_NAME};
use crate::error::{ReconcileError, is_namespace_terminating, unless_gone};
use crate::expectations::Expectations;
use crate::pods::name_of;
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
pub(crate) use plan::{Changed, Skipped};
use plan::{MANAGER, MOST_ADDRESSES, Plan, plan};

const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let services = starter.informer::<Service>();
    let endpoints = starter.informer::<Endpoints>();
    let slices = starter.informer::<EndpointSlice>();
    let known = slices.clone();
    starter.context.metrics.show("endpointslice-mirroring-controller", move |text| {
        let mirrored = known.filter(|slice| service_of(slice).is_some());
        write_counts(text, "endpoint_slice_mirroring_controller", &mirrored, service_of, MOST_ADDRESSES);
    });
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

impl Controller for Mirroring {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let began = Instant::now();
        let outcome = self.mirror(key).await;
        self.context.metrics.mirroring().ended(began.elapsed());
        outcome
    }
}

impl Mirroring {
    async fn mirror(&self, key: &ObjectKey) -> Outcome {
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
            Some(endpoints) => {
                let plan = plan(&endpoints, &existing);
                self.context.metrics.mirroring().planned(plan.changed, plan.skipped);
                self.tell_of_skipped(&endpoints, plan.skipped);
                plan
            }
            None => Plan { delete: existing, ..Plan::default() },
        };
        self.execute(key, plan).await?;
        Ok(Next::Done)
    }

    fn tell_of_skipped(&self, endpoints: &Endpoints, skipped: Skipped) {
        let about = object_reference(endpoints);
        if skipped.invalid > 0 {
            let text = format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", skipped.invalid);
            self.context.warning(&about, "InvalidIPAddress", text);
        }
        if skipped.too_many > 0 {
            let text = format!(
                "A max of {MOST_ADDRESSES} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses \
                 were skipped",
                skipped.too_many + skipped.invalid
            );
            self.context.warning(&about, "TooManyAddressesToMirror", text);
        }
    }

    async fn execute(&self, key: &ObjectKey, plan: Plan) -> Result<(), ReconcileError> {
        let slices = Api::<EndpointSlice>::namespaced(self.context.client.clone(), &key.namespace);
        let metrics = self.context.metrics.mirroring();
        for slice in &plan.create {
            match slices.create(&PostParams::default(), slice).await {
                Ok(created) => {
                    self.expectations.created(key, &created.metadata, self.context.now());
                    metrics.changed("create");
                }
                Err(error) if is_namespace_terminating(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        for slice in &plan.update {
            let updated = slices.replace(name_of(&slice.metadata), &PostParams::default(), slice).await?;
            self.expectations.updated(key, &updated.metadata, self.context.now());
            metrics.changed("update");
        }
        for slice in &plan.delete {
            unless_gone(slices.delete(name_of(&slice.metadata), &DeleteParams::default()).await)?;
            self.expectations.deleted(key, &slice.metadata, self.context.now());
            metrics.changed("delete");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_and_those_who_ask_are_not_mirrored() {
        let mut endpoints = Endpoints::default();
        assert!(is_mirrored(&endpoints));
        endpoints.metadata.labels = Some([(SKIP_MIRROR.to_owned(), "true".to_owned())].into());
        assert!(!is_mirrored(&endpoints));
    }
}
