//! The disruption controller: says for each PodDisruptionBudget how many evictions it allows.
//!
//! Not the eviction itself, which is the API server's. Invariant: no more is allowed than the pods that are ready now can
//! bear.

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kedge_client::{Change, Informer, Queue, object_key, object_reference};
use kedge_meta::{LabelSelector, ObjectKey};
use kube::api::{Api, PostParams};

use crate::owners::{controller_key, controller_of, selector_of, selects};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use plan::{needs_scale, plan_disrupted, plan_status, wanted};

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let controller = Budgets {
        context: starter.context.clone(),
        budgets: starter.informer(),
        pods: starter.informer(),
        sets: starter.informer(),
        deployments: starter.informer(),
        stateful_sets: starter.informer(),
        controllers: starter.informer(),
    };
    let queue = Queue::new();
    starter.enqueue(&controller.budgets, &queue, |change| vec![object_key(&**change.object())]);
    let budgets = controller.budgets.clone();
    starter.enqueue(&controller.pods, &queue, move |change| budgets_of_pod(change, &budgets));
    // A change of scale changes what a share of it is.
    let budgets = controller.budgets.clone();
    starter.enqueue(&controller.deployments, &queue, move |change| match change {
        Change::Updated { old, new }
            if old.spec.as_ref().and_then(|spec| spec.replicas) != new.spec.as_ref().and_then(|spec| spec.replicas) =>
        {
            let namespace = new.metadata.namespace.as_deref().unwrap_or_default();
            budgets.in_namespace(namespace).iter().map(|budget| object_key(&**budget)).collect()
        }
        _ => Vec::new(),
    });
    let workers = starter.context.config.concurrency;
    starter.work(Arc::new(controller), queue, workers);
}

fn selector(budget: &PodDisruptionBudget) -> Option<LabelSelector> {
    selector_of(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()))
}

fn budgets_of_pod(change: &Change<Pod>, budgets: &Informer<PodDisruptionBudget>) -> Vec<ObjectKey> {
    let new = change.object();
    let old = match change {
        Change::Updated { old, .. } => Some(old),
        _ => None,
    };
    let concerns = |budget: &PodDisruptionBudget| {
        selector(budget).is_some_and(|selector| {
            selects(&selector, &new.metadata) || old.is_some_and(|old| selects(&selector, &old.metadata))
        })
    };
    let of_namespace = budgets.in_namespace(new.metadata.namespace.as_deref().unwrap_or_default());
    of_namespace.iter().filter(|budget| concerns(budget)).map(|budget| object_key(&**budget)).collect()
}

struct Budgets {
    context: Context,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    sets: Informer<ReplicaSet>,
    deployments: Informer<Deployment>,
    stateful_sets: Informer<StatefulSet>,
    controllers: Informer<ReplicationController>,
}

impl Controller for Budgets {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(budget) = self.budgets.get(key) else { return Ok(Next::Done) };
        let (Some(spec), Some(selector)) = (&budget.spec, selector(&budget)) else { return Ok(Next::Done) };
        if budget.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let now = self.context.now();
        let pods = self.pods.filter_in(&key.namespace, |pod| selects(&selector, &pod.metadata));
        let about = object_reference(&*budget);
        if pods.is_empty() {
            self.context.normal(&about, "NoPods", "No matching pods found");
        }
        let disrupted = plan_disrupted(&budget, &pods, now);
        for pod in &disrupted.overdue {
            let text = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
            self.context.warning(&object_reference(&**pod), "NotDeleted", text);
        }
        let scale = if needs_scale(spec) { self.scale(&pods) } else { Ok(pods.len() as i32) };
        let goal =
            scale.and_then(|scale| wanted(spec, scale).ok_or_else(|| "invalid value for IntOrString".to_owned()));
        if let Err(error) = &goal {
            let text = format!("Failed to calculate the number of expected pods: {error}");
            self.context.warning(&about, "CalculateExpectedPodCountFailed", text);
        }
        let goal = goal.as_ref().map(|goal| *goal).map_err(String::as_str);
        let status = plan_status(&budget, &pods, goal, disrupted.pods, now);
        if budget.status.as_ref() != Some(&status) {
            let changed = PodDisruptionBudget { status: Some(status), ..(*budget).clone() };
            let budgets = Api::<PodDisruptionBudget>::namespaced(self.context.client.clone(), &key.namespace);
            budgets.replace_status(&key.name, &PostParams::default(), &changed).await?;
        }
        Ok(Next::Done.sooner(disrupted.look_again))
    }
}

impl Budgets {
    /// The sum of what the pods' controllers want. Pods without one don't count.
    fn scale(&self, pods: &[Arc<Pod>]) -> Result<i32, String> {
        let mut scales: BTreeMap<String, i32> = BTreeMap::new();
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else { continue };
            if scales.contains_key(&owner.uid) {
                continue;
            }
            let (uid, scale) = self.scale_of(pod).ok_or_else(|| {
                format!("found no controllers for pod \"{}\"", pod.metadata.name.as_deref().unwrap_or_default())
            })?;
            scales.insert(uid, scale);
        }
        Ok(scales.values().sum())
    }

    /// The controller that decides about a pod's number, by uid, with its scale.
    fn scale_of(&self, pod: &Pod) -> Option<(String, i32)> {
        let meta = &pod.metadata;
        if let Some(set) = controller_key::<ReplicaSet>(meta).and_then(|key| self.sets.get(&key)) {
            let deployment = controller_key::<Deployment>(&set.metadata).and_then(|key| self.deployments.get(&key));
            return match deployment {
                Some(deployment) => {
                    Some((deployment.metadata.uid.clone()?, deployment.spec.as_ref()?.replicas.unwrap_or(1)))
                }
                None => Some((set.metadata.uid.clone()?, set.spec.as_ref()?.replicas.unwrap_or(1))),
            };
        }
        if let Some(set) = controller_key::<StatefulSet>(meta).and_then(|key| self.stateful_sets.get(&key)) {
            return Some((set.metadata.uid.clone()?, set.spec.as_ref()?.replicas.unwrap_or(1)));
        }
        let controller = controller_key::<ReplicationController>(meta).and_then(|key| self.controllers.get(&key))?;
        Some((controller.metadata.uid.clone()?, controller.spec.as_ref()?.replicas.unwrap_or(1)))
    }
}
