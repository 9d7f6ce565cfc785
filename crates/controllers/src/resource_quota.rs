//! The ResourceQuota controller: counts what a namespace uses of its quotas.
//!
//! Not the admission, which holds writes to the quota. Invariant: only what a quota limits is counted, and kinds without
//! an informer are listed by metadata and only for quotas that name them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, Service,
};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use kedge_client::{Change, Informer, Queue, object_key};
use kedge_meta::{ObjectKey, Quantity};
use kedge_quota::{Amounts, Item, format, looks_at, of_claim, of_pod, of_resource_claim, of_service};
use kube::Resource;
use kube::api::{Api, ListParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::discovery::discover;
use crate::error::ReconcileError;
use crate::runtime::{Context, Controller, Next, Outcome, Starter};

/// How often kinds without an informer are counted again.
const RECOUNT: Duration = Duration::from_secs(10);

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let quotas = starter.informer::<ResourceQuota>();
    let queue = Queue::new();
    starter.enqueue(&quotas, &queue, |change| vec![object_key(&**change.object())]);
    let pods = feed::<Pod>(&mut starter, &quotas, &queue);
    let services = feed::<Service>(&mut starter, &quotas, &queue);
    let claims = feed::<PersistentVolumeClaim>(&mut starter, &quotas, &queue);
    let devices = feed::<ResourceClaim>(&mut starter, &quotas, &queue);
    let workers = starter.context.config.concurrency;
    let controller = Quotas { context: starter.context.clone(), quotas, pods, services, claims, devices };
    starter.work(Arc::new(controller), queue, workers);
}

/// Every change of a kind concerns the quotas of its namespace.
fn feed<K>(starter: &mut Starter<'_>, quotas: &Informer<ResourceQuota>, queue: &Queue<ObjectKey>) -> Informer<K>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let informer = starter.informer::<K>();
    let quotas = quotas.clone();
    starter.enqueue(&informer, queue, move |change: &Change<K>| match quotas.is_empty() {
        true => Vec::new(),
        false => {
            let namespace = change.object().meta().namespace.clone().unwrap_or_default();
            quotas.in_namespace(&namespace).iter().map(|quota| object_key(&**quota)).collect()
        }
    });
    informer
}

struct Quotas {
    context: Context,
    quotas: Informer<ResourceQuota>,
    pods: Informer<Pod>,
    services: Informer<Service>,
    claims: Informer<PersistentVolumeClaim>,
    devices: Informer<ResourceClaim>,
}

impl Controller for Quotas {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(quota) = self.quotas.get(key) else { return Ok(Next::Done) };
        let Some(spec) = &quota.spec else { return Ok(Next::Done) };
        let (mut used, looked_at) = self.count(&key.namespace, spec);
        let listed = plan_listed(spec);
        for (name, (group, resource)) in &listed {
            let count = self.list(&key.namespace, group, resource).await?;
            used.insert(name.clone(), Quantity::from_units(count));
        }
        let status = plan_status(spec, &used);
        if quota.status.as_ref() != Some(&status) {
            let changed = ResourceQuota { status: Some(status), ..(*quota).clone() };
            let quotas = Api::<ResourceQuota>::namespaced(self.context.client.clone(), &key.namespace);
            quotas.replace_status(&key.name, &PostParams::default(), &changed).await?;
        }
        // Nobody waits for the status of a full namespace: admission counts by itself.
        Ok(Next::Done.sooner((!listed.is_empty()).then_some(RECOUNT)).after_idle_look_at(looked_at))
    }
}

impl Quotas {
    /// What is used, and how many objects that took to find out.
    fn count(&self, namespace: &str, spec: &ResourceQuotaSpec) -> (Amounts, usize) {
        let now = self.context.now();
        let mut used = Amounts::new();
        let mut add = |amounts: Amounts| {
            for (name, amount) in amounts {
                let entry = used.entry(name).or_insert(Quantity::ZERO);
                *entry = *entry + amount;
            }
        };
        let (pods, claims) = (self.pods.in_namespace(namespace), self.claims.in_namespace(namespace));
        let mut looked_at = pods.len() + claims.len();
        pods.iter().filter(|pod| looks_at(spec, Item::Pod(pod))).for_each(|pod| add(of_pod(pod, now)));
        let seen = claims.iter().filter(|claim| looks_at(spec, Item::Claim(claim)));
        seen.for_each(|claim| add(of_claim(claim)));
        if looks_at(spec, Item::Other) {
            let (services, devices) = (self.services.in_namespace(namespace), self.devices.in_namespace(namespace));
            looked_at += services.len() + devices.len();
            services.iter().filter_map(|service| service.spec.as_ref()).for_each(|spec| add(of_service(spec)));
            devices.iter().for_each(|claim| add(of_resource_claim(&claim.spec)));
        }
        (used, looked_at)
    }

    async fn list(&self, namespace: &str, group: &str, resource: &str) -> Result<i64, ReconcileError> {
        let kinds = discover(&self.context.client).await?;
        let kind = kinds
            .iter()
            .find(|kind| kind.is_namespaced && kind.resource.group == group && kind.resource.plural == resource);
        match kind {
            Some(kind) => {
                let list = kind.api(&self.context.client, namespace).list(&ListParams::default()).await?;
                Ok(list.items.len() as i64)
            }
            None => Ok(0),
        }
    }
}

/// The limited resources that are counted by listing: by name in the quota, with their group and resource.
fn plan_listed(spec: &ResourceQuotaSpec) -> BTreeMap<String, (String, String)> {
    let known = ["pods", "services", "persistentvolumeclaims"];
    let listed = |name: &String| {
        let (group, resource) = match name.strip_prefix("count/") {
            Some(counted) => {
                let (resource, group) = counted.split_once('.').unwrap_or((counted, ""));
                (group.to_owned(), resource.to_owned())
            }
            None if matches!(name.as_str(), "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas") => {
                (String::new(), name.clone())
            }
            None => return None,
        };
        let is_known = group.is_empty() && known.contains(&resource.as_str());
        (!is_known).then(|| (name.clone(), (group, resource)))
    };
    spec.hard.iter().flatten().filter_map(|(name, _)| listed(name)).collect()
}

fn plan_status(spec: &ResourceQuotaSpec, used: &Amounts) -> ResourceQuotaStatus {
    let hard = spec.hard.clone().unwrap_or_default();
    let amount = |name: &String| ApiQuantity(format(name, used.get(name).copied().unwrap_or_default()));
    let used = hard.keys().map(|name| (name.clone(), amount(name))).collect();
    ResourceQuotaStatus { hard: Some(hard), used: Some(used) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(names: &[&str]) -> ResourceQuotaSpec {
        let hard = names.iter().map(|&name| (name.to_owned(), ApiQuantity("5".to_owned()))).collect();
        ResourceQuotaSpec { hard: Some(hard), ..ResourceQuotaSpec::default() }
    }

    #[test]
    fn only_limited_resources_are_reported() {
        let used =
            Amounts::from([("pods".to_owned(), Quantity::from_units(2)), ("cpu".to_owned(), Quantity::from_units(1))]);
        let status = plan_status(&spec(&["pods", "secrets"]), &used);
        let show: Vec<String> =
            status.used.unwrap().into_iter().map(|(name, amount)| format!("{name}={}", amount.0)).collect();
        assert_eq!(show, ["pods=2", "secrets=0"]);
    }

    #[test]
    fn kinds_without_informer_are_listed() {
        let listed = plan_listed(&spec(&["pods", "count/pods", "secrets", "count/deployments.apps", "requests.cpu"]));
        let show: Vec<String> = listed.into_values().map(|(group, resource)| format!("{resource}.{group}")).collect();
        assert_eq!(show, ["deployments.apps", "secrets."]);
    }
}
