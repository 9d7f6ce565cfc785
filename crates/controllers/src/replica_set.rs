//! The ReplicaSet controller, which is the ReplicationController's as well: keeps as many pods as are wanted.
//!
//! Invariant: the number of pods is never decided from a cache that does not show this controller's own writes.

mod kind;
#[cfg(test)]
mod level_driven;
mod plan;
mod ranking;

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kedge_client::{Informer, Queue, object_key, object_reference};
use kedge_meta::ObjectKey;
use kube::api::{Api, PostParams};

use crate::error::{ReconcileError, message_of};
use crate::expectations::Expectations;
use crate::metrics::Waiting;
use crate::owners::{controller_of, controller_reference, execute_claims, owners_of_change, plan_claims};
use crate::pod_control::PodControl;
use crate::pods::{from_template, is_active};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use kind::ReplicaKind;
use plan::{Attempt, Scale, plan_next_look, plan_scale, plan_status};
pub(crate) use ranking::sort_for_deletion;

/// Starts the controller of ReplicaSets.
pub(crate) fn start(starter: Starter<'_>) {
    start_kind::<ReplicaSet>(starter);
}

/// Starts the controller of ReplicationControllers.
pub(crate) fn start_replication_controller(starter: Starter<'_>) {
    start_kind::<ReplicationController>(starter);
}

fn start_kind<K: ReplicaKind>(mut starter: Starter<'_>) {
    let sets = starter.informer::<K>();
    let pods = starter.informer::<Pod>();
    let queue = Queue::new();
    starter.enqueue(&sets, &queue, |change| vec![object_key(&**change.object())]);
    let owners = sets.clone();
    starter.enqueue(&pods, &queue, move |change| owners_of_change(change, &owners, K::selector));
    let workers = starter.context.config.concurrency;
    let controller = Replicas { context: starter.context.clone(), sets, pods, expectations: Expectations::default() };
    starter.work(Arc::new(controller), queue, workers);
}

struct Replicas<K> {
    context: Context,
    sets: Informer<K>,
    pods: Informer<Pod>,
    expectations: Expectations,
}

impl<K: ReplicaKind> Controller for Replicas<K> {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key);
            return Ok(Next::Done);
        };
        let Some(selector) = set.selector() else { return Ok(Next::Done) };
        let now = self.context.now();
        let lag = self.expectations.lag(key, &self.pods, now);
        if lag.is_some() {
            self.context.metrics.workloads().waits_for_pods(Waiting::ReplicaSets);
        }
        let claims = plan_claims(set.meta(), &selector, self.pods.in_namespace(&key.namespace), is_active);
        let pods = execute_claims(&self.context.client, &*set, claims).await?;
        let (attempt, error) = match lag.is_none() && set.meta().deletion_timestamp.is_none() {
            true => self.scale(key, &set, &pods, now).await,
            false => (Attempt::None, None),
        };
        self.write_status(key, &set, &pods, &attempt, now).await?;
        let next = Next::Done.sooner(lag).sooner(plan_next_look(set.min_ready_seconds(), &pods, now));
        match (error, attempt) {
            (Some(error), _) => Err(error),
            (None, Attempt::None | Attempt::Settled) => Ok(next.after_idle_look_at(pods.len())),
            (None, _) => Ok(next),
        }
    }
}

impl<K: ReplicaKind> Replicas<K> {
    async fn scale(
        &self,
        key: &ObjectKey,
        set: &K,
        pods: &[Arc<Pod>],
        now: Timestamp,
    ) -> (Attempt, Option<ReconcileError>) {
        let owner = object_reference(set);
        let control = PodControl { context: &self.context, expectations: &self.expectations, key, owner: &owner };
        let (reason, result) = match plan_scale(set.wanted(), pods, || self.related(key, set), now) {
            Scale::Keep => return (Attempt::Settled, None),
            Scale::Create(count) => {
                let Some(template) = set.template() else { return (Attempt::None, None) };
                let pod = from_template(template, controller_reference(set), &key.namespace);
                ("FailedCreate", control.create_many(&vec![pod; count]).await)
            }
            Scale::Delete(pods) => ("FailedDelete", control.delete_many(&pods).await),
        };
        match result {
            Ok(()) => (Attempt::Succeeded, None),
            Err(error) => {
                let message = match &error {
                    ReconcileError::Api(error) => message_of(error),
                    other => other.to_string(),
                };
                (Attempt::Failed(reason, message), Some(error))
            }
        }
    }

    /// The pods of all sets that have the same owner, this one's among them.
    fn related(&self, key: &ObjectKey, set: &K) -> Vec<Arc<Pod>> {
        let owner = controller_of(set.meta()).map(|owner| &owner.uid);
        let sisters = self.sets.in_namespace(&key.namespace).into_iter().filter(|sister| {
            sister.meta().uid == set.meta().uid
                || owner.is_some() && controller_of(sister.meta()).map(|owner| &owner.uid) == owner
        });
        let uids: HashSet<Option<String>> = sisters.map(|sister| sister.meta().uid.clone()).collect();
        self.pods.filter_in(&key.namespace, |pod| {
            controller_of(&pod.metadata).is_some_and(|owner| uids.contains(&Some(owner.uid.clone())))
        })
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        set: &K,
        pods: &[Arc<Pod>],
        attempt: &Attempt,
        now: Timestamp,
    ) -> Result<(), ReconcileError> {
        let changed = set.with_status(plan_status(set, pods, attempt, now));
        // Through the kind's own form, which may have no place for every count.
        if changed.status() == set.status() {
            return Ok(());
        }
        let sets = Api::<K>::namespaced(self.context.client.clone(), &key.namespace);
        sets.replace_status(&key.name, &PostParams::default(), &changed).await?;
        Ok(())
    }
}
