//! The Deployment controller: rolls templates out by growing and shrinking ReplicaSets.
//!
//! Not a maker of pods. Invariant: a template has one ReplicaSet, whose name is the Deployment's and the template's hash.

#[cfg(test)]
mod level_driven;
mod plan;
mod revision;
mod scale;
mod status;
mod view;

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kedge_client::{Change, Informer, Queue, object_key, object_reference};
use kedge_meta::ObjectKey;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};

use crate::error::{ReconcileError, is_already_exists, is_conflict, is_namespace_terminating, message_of, unless_gone};
use crate::expectations::Expectations;
use crate::owners::{
    controller_key, controller_of, execute_claims, is_controlled_by, owners_of_change, plan_claims, selector_of,
};
use crate::pods::is_terminal;
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use plan::{Plan, SetUpdate};
use view::{Sets, replicas_of, same_template, set_name};

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let deployments = starter.informer::<Deployment>();
    let sets = starter.informer::<ReplicaSet>();
    let pods = starter.informer::<Pod>();
    let queue = Queue::new();
    starter.enqueue(&deployments, &queue, |change| vec![object_key(&**change.object())]);
    let owners = deployments.clone();
    starter.enqueue(&sets, &queue, move |change| owners_of_change(change, &owners, selector));
    let (owners, middle) = (deployments.clone(), sets.clone());
    starter.enqueue(&pods, &queue, move |change| recreated_by(change, &middle, &owners));
    let workers = starter.context.config.concurrency;
    let expectations = Expectations::default();
    let controller = Deployments { context: starter.context.clone(), deployments, sets, pods, expectations };
    starter.work(Arc::new(controller), queue, workers);
}

fn selector(deployment: &Deployment) -> Option<kedge_meta::LabelSelector> {
    selector_of(deployment.spec.as_ref().map(|spec| &spec.selector))
}

/// A pod's end matters to a Deployment that waits for it before it starts new ones.
fn recreated_by(change: &Change<Pod>, sets: &Informer<ReplicaSet>, owners: &Informer<Deployment>) -> Vec<ObjectKey> {
    let pod = change.object();
    if !matches!(change, Change::Deleted(_)) && !is_terminal(pod) {
        return Vec::new();
    }
    let set = controller_key::<ReplicaSet>(&pod.metadata).and_then(|key| sets.get(&key));
    let owner = set.and_then(|set| controller_key::<Deployment>(&set.metadata));
    let is_recreated = |key: &ObjectKey| {
        let deployment = owners.get(key);
        deployment.as_deref().and_then(view::View::new).is_some_and(|view| !view.is_rolling)
    };
    owner.filter(is_recreated).into_iter().collect()
}

struct Deployments {
    context: Context,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    expectations: Expectations,
}

impl Controller for Deployments {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(deployment) = self.deployments.get(key) else {
            self.expectations.forget(key);
            return Ok(Next::Done);
        };
        let now = self.context.now();
        if let Some(lag) = self.expectations.lag(key, &self.sets, now) {
            return Ok(Next::After(lag));
        }
        let Some(selector) = selector(&deployment).filter(|selector| !selector.is_everything()) else {
            return Ok(Next::Done);
        };
        let candidates = self.sets.in_namespace(&key.namespace);
        let claims = plan_claims(&deployment.metadata, &selector, candidates, |_| true);
        let sets = execute_claims(&self.context.client, &*deployment, claims).await?;
        let plan = plan::plan(&deployment, sets, |sets| self.old_pods_run(key, sets), now);
        let look_again = plan.look_again;
        self.execute(key, &deployment, plan).await?;
        Ok(Next::Done.sooner(look_again))
    }
}

impl Deployments {
    fn old_pods_run(&self, key: &ObjectKey, sets: &Sets) -> bool {
        let old: HashSet<&String> = sets.old.iter().filter_map(|set| set.metadata.uid.as_ref()).collect();
        let run =
            |pod: &Pod| controller_of(&pod.metadata).is_some_and(|owner| old.contains(&owner.uid)) && !is_terminal(pod);
        !self.pods.filter_in(&key.namespace, run).is_empty()
    }

    async fn execute(&self, key: &ObjectKey, deployment: &Arc<Deployment>, plan: Plan) -> Result<(), ReconcileError> {
        let deployments = Api::<Deployment>::namespaced(self.context.client.clone(), &key.namespace);
        let mut current = (**deployment).clone();
        let created = match plan.create {
            Some(set) => self.create(key, &current, set).await?,
            None => true,
        };
        for update in plan.update {
            self.update(key, deployment, update).await?;
        }
        self.delete(key, &plan.delete).await?;
        if let Some(annotated) = plan.deployment.filter(|_| created) {
            current = deployments.replace(&key.name, &PostParams::default(), &annotated).await?;
        }
        if let Some(status) = plan.status {
            current.status = Some(status);
            deployments.replace_status(&key.name, &PostParams::default(), &current).await?;
        }
        Ok(())
    }

    /// False where the namespace takes nothing new any more.
    async fn create(&self, key: &ObjectKey, deployment: &Deployment, set: ReplicaSet) -> Result<bool, ReconcileError> {
        let sets = Api::<ReplicaSet>::namespaced(self.context.client.clone(), &key.namespace);
        match sets.create(&PostParams::default(), &set).await {
            Ok(created) => {
                self.expectations.created(key, &created.metadata, self.context.now());
                self.report_scaling(deployment, set_name(&created), 0, replicas_of(&created));
                Ok(true)
            }
            Err(error) if is_already_exists(&error) => self.resolve_collision(key, deployment, &set).await,
            Err(error) if is_namespace_terminating(&error) => Ok(false),
            Err(error) => {
                let text = format!("Failed to create new replica set \"{}\": {}", set_name(&set), message_of(&error));
                self.context.warning(&object_reference(deployment), "ReplicaSetCreateError", &text);
                self.report_failed_creation(key, deployment, text).await?;
                Err(error.into())
            }
        }
    }

    /// A name that is taken: by our own set that the cache does not show yet, or by another template with the same hash.
    async fn resolve_collision(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        wanted: &ReplicaSet,
    ) -> Result<bool, ReconcileError> {
        let sets = Api::<ReplicaSet>::namespaced(self.context.client.clone(), &key.namespace);
        let Some(found) = sets.get_opt(set_name(wanted)).await? else {
            return Err(ReconcileError::Object("the ReplicaSet that was in the way is gone".to_owned()));
        };
        let templates = (wanted.spec.as_ref(), found.spec.as_ref());
        let same = match templates {
            (Some(wanted), Some(found)) => match (&wanted.template, &found.template) {
                (Some(wanted), Some(found)) => same_template(wanted, found),
                _ => false,
            },
            _ => false,
        };
        if same && is_controlled_by(&found.metadata, &deployment.metadata) {
            self.expectations.created(key, &found.metadata, self.context.now());
            return Ok(true);
        }
        let mut changed = deployment.clone();
        let count = changed.status.get_or_insert_default().collision_count.get_or_insert_default();
        *count += 1;
        tracing::info!(deployment = %key, collisions = *count, "found a hash collision; bumping collisionCount");
        let deployments = Api::<Deployment>::namespaced(self.context.client.clone(), &key.namespace);
        deployments.replace_status(&key.name, &PostParams::default(), &changed).await?;
        Err(ReconcileError::Object("the template's hash collides with another ReplicaSet's".to_owned()))
    }

    async fn report_failed_creation(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        text: String,
    ) -> Result<(), ReconcileError> {
        let mut changed = deployment.clone();
        let has_deadline = view::View::new(deployment).is_some_and(|view| view.progress_deadline.is_some());
        let conditions = changed.status.get_or_insert_default().conditions.get_or_insert_default();
        let before = conditions.clone();
        let failed = status::progressing("False", "ReplicaSetCreateError", text, self.context.now());
        status::set_condition(conditions, failed);
        if !has_deadline || *conditions == before {
            return Ok(());
        }
        let deployments = Api::<Deployment>::namespaced(self.context.client.clone(), &key.namespace);
        match deployments.replace_status(&key.name, &PostParams::default(), &changed).await {
            Err(error) if !is_conflict(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn update(&self, key: &ObjectKey, deployment: &Deployment, update: SetUpdate) -> Result<(), ReconcileError> {
        let sets = Api::<ReplicaSet>::namespaced(self.context.client.clone(), &key.namespace);
        let updated = sets.replace(set_name(&update.set), &PostParams::default(), &update.set).await?;
        self.expectations.updated(key, &updated.metadata, self.context.now());
        if let Some(before) = update.scaled_from {
            self.report_scaling(deployment, set_name(&update.set), before, replicas_of(&update.set));
        }
        Ok(())
    }

    fn report_scaling(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        if from == to {
            return;
        }
        let direction = if from < to { "up" } else { "down" };
        let text = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.context.normal(&object_reference(deployment), "ScalingReplicaSet", text);
    }

    async fn delete(&self, key: &ObjectKey, gone: &[Arc<ReplicaSet>]) -> Result<(), ReconcileError> {
        let sets = Api::<ReplicaSet>::namespaced(self.context.client.clone(), &key.namespace);
        for set in gone {
            let parameters = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: set.metadata.uid.clone(),
                    resource_version: set.metadata.resource_version.clone(),
                }),
                ..DeleteParams::background()
            };
            unless_gone(sets.delete(set_name(set), &parameters).await)?;
        }
        Ok(())
    }
}
