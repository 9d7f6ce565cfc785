//! The StatefulSet controller: pods with names, an order and claims of their own.
//!
//! Invariant: there is never a second pod of an ordinal, as its name is the ordinal's; claims are made before their pod.

mod identity;
#[cfg(test)]
mod level_driven;
mod plan;

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kedge_client::{Change, Informer, Queue, object_key, object_reference};
use kedge_meta::{LabelSelector, ObjectKey};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};

use crate::error::{
    ReconcileError, is_already_exists, is_namespace_terminating, is_not_found, message_of, unless_gone,
};
use crate::expectations::Expectations;
use crate::history::{self, History, Revisions, template_of};
use crate::metrics::Waiting;
use crate::owners::{controller_key, execute_claims, owners_of_change, plan_claims, selector_of};
use crate::pods::{name_of, phase};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use identity::{claims, new_pod, ordinal_of, plan_owners, revision_of};
use plan::{Plan, View};

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let sets = starter.informer::<StatefulSet>();
    let pods = starter.informer::<Pod>();
    let claims = starter.informer::<PersistentVolumeClaim>();
    let revisions = starter.informer::<ControllerRevision>();
    let queue = Queue::new();
    starter.enqueue(&sets, &queue, |change| vec![object_key(&**change.object())]);
    let owners = sets.clone();
    starter.enqueue(&pods, &queue, move |change| owners_of_change(change, &owners, selector));
    starter.enqueue(&revisions, &queue, |change: &Change<ControllerRevision>| {
        controller_key::<StatefulSet>(&change.object().metadata).into_iter().collect()
    });
    let workers = starter.context.config.concurrency;
    let controller = StatefulSets {
        context: starter.context.clone(),
        sets,
        pods,
        claims,
        revisions,
        expectations: Expectations::default(),
        expected_revisions: Expectations::default(),
    };
    starter.work(Arc::new(controller), queue, workers);
}

fn selector(set: &StatefulSet) -> Option<LabelSelector> {
    selector_of(set.spec.as_ref().map(|spec| &spec.selector))
}

struct StatefulSets {
    context: Context,
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    revisions: Informer<ControllerRevision>,
    expectations: Expectations,
    expected_revisions: Expectations,
}

impl Controller for StatefulSets {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key);
            self.expected_revisions.forget(key);
            return Ok(Next::Done);
        };
        let (Some(spec), Some(selector)) = (&set.spec, selector(&set)) else { return Ok(Next::Done) };
        let now = self.context.now();
        if let Some(lag) = self.expectations.lag(key, &self.pods, now) {
            self.context.metrics.workloads().waits_for_pods(Waiting::StatefulSets);
            return Ok(Next::After(lag));
        }
        let candidates = self.pods.in_namespace(&key.namespace);
        let claimed = plan_claims(&set.metadata, &selector, candidates, |pod| ordinal_of(&key.name, pod).is_some());
        let pods = execute_claims(&self.context.client, &*set, claimed).await?;
        let history =
            History { context: &self.context, cache: &self.revisions, expectations: &self.expected_revisions };
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let revisions = match history.sync(&*set, &selector, &spec.template, collisions).await? {
            history::Outcome::Found(revisions) => revisions,
            history::Outcome::Lagging(lag) => return Ok(Next::After(lag)),
            history::Outcome::Collision => return self.count_collision(key, &set).await,
        };
        let current = current_revision(&set, &revisions);
        let update = name_of(&revisions.current.metadata);
        let view = View { set: &set, spec, current: name_of(&current.metadata), update, now };
        let plan = plan::plan(&view, &pods);
        let next = Next::Done.sooner(plan.look_again);
        let next = if plan.changes_no_pod() { next.after_idle_look_at(pods.len()) } else { next };
        let result = self.execute(key, &set, spec, &plan, &current, &revisions).await;
        self.write_status(key, &set, plan).await?;
        result?;
        let live: HashSet<String> =
            pods.iter().map(|pod| revision_of(pod).to_owned()).chain([name_of(&current.metadata).to_owned()]).collect();
        history.truncate(key, &revisions.others, &live, spec.revision_history_limit.unwrap_or(10)).await?;
        Ok(next)
    }
}

/// The revision that the status names, as long as it exists.
fn current_revision(set: &StatefulSet, revisions: &Revisions) -> ControllerRevision {
    let name = set.status.as_ref().and_then(|status| status.current_revision.as_ref());
    let known = revisions.others.iter().find(|revision| revision.metadata.name.as_ref() == name);
    known.map_or_else(|| revisions.current.clone(), |known| (**known).clone())
}

impl StatefulSets {
    async fn execute(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        plan: &Plan,
        current: &ControllerRevision,
        revisions: &Revisions,
    ) -> Result<(), ReconcileError> {
        for pod in &plan.recreate {
            let what = format!("StatefulSet {key} is recreating");
            let name = name_of(&pod.metadata);
            let about = object_reference(set);
            match phase(pod) {
                "Failed" => self.context.warning(&about, "RecreatingFailedPod", format!("{what} failed Pod {name}")),
                _ => self.context.normal(&about, "RecreatingTerminatedPod", format!("{what} terminated Pod {name}")),
            }
            self.delete(key, set, pod).await?;
        }
        for (ordinal, is_updated) in &plan.create {
            let revision = if *is_updated { &revisions.current } else { current };
            let template = if *is_updated { Some(spec.template.clone()) } else { template_of(revision) };
            let template = template.unwrap_or_else(|| spec.template.clone());
            self.ensure_claims(key, set, spec, *ordinal).await?;
            self.create(key, set, &new_pod(set, spec, &template, name_of(&revision.metadata), *ordinal)).await?;
        }
        for ordinal in &plan.claim {
            self.ensure_claims(key, set, spec, *ordinal).await?;
        }
        self.keep_owners_of_claims(key, set, spec, plan).await?;
        for pod in &plan.delete {
            self.delete(key, set, pod).await?;
        }
        Ok(())
    }

    async fn create(&self, key: &ObjectKey, set: &StatefulSet, pod: &Pod) -> Result<(), ReconcileError> {
        let pods = Api::<Pod>::namespaced(self.context.client.clone(), &key.namespace);
        let name = name_of(&pod.metadata);
        match pods.create(&PostParams::default(), pod).await {
            Ok(created) => {
                self.expectations.created(key, &created.metadata, self.context.now());
                let text = format!("create Pod {name} in StatefulSet {} successful", key.name);
                self.context.normal(&object_reference(set), "SuccessfulCreate", text);
                Ok(())
            }
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                if !is_already_exists(&error) {
                    let text =
                        format!("create Pod {name} in StatefulSet {} failed error: {}", key.name, message_of(&error));
                    self.context.warning(&object_reference(set), "FailedCreate", text);
                }
                Err(error.into())
            }
        }
    }

    async fn delete(&self, key: &ObjectKey, set: &StatefulSet, pod: &Pod) -> Result<(), ReconcileError> {
        let pods = Api::<Pod>::namespaced(self.context.client.clone(), &key.namespace);
        let name = name_of(&pod.metadata);
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        let about = object_reference(set);
        match pods.delete(name, &parameters).await {
            Ok(_) => {
                self.expectations.deleted(key, &pod.metadata, self.context.now());
                let text = format!("delete Pod {name} in StatefulSet {} successful", key.name);
                self.context.normal(&about, "SuccessfulDelete", text);
                Ok(())
            }
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => {
                let text =
                    format!("delete Pod {name} in StatefulSet {} failed error: {}", key.name, message_of(&error));
                self.context.warning(&about, "FailedDelete", text);
                Err(error.into())
            }
        }
    }

    async fn ensure_claims(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        ordinal: i32,
    ) -> Result<(), ReconcileError> {
        let api = Api::<PersistentVolumeClaim>::namespaced(self.context.client.clone(), &key.namespace);
        let pod = format!("{}-{ordinal}", key.name);
        for claim in claims(set, spec, ordinal) {
            let name = name_of(&claim.metadata);
            if let Some(known) = self.claims.get(&ObjectKey::new(&key.namespace, name)) {
                if known.metadata.deletion_timestamp.is_some() {
                    return Err(ReconcileError::Object(format!("pvc {name} is being deleted")));
                }
                continue;
            }
            match api.create(&PostParams::default(), &claim).await {
                Ok(_) => {
                    let text = format!("create Claim {name} Pod {pod} in StatefulSet {} success", key.name);
                    self.context.normal(&object_reference(set), "SuccessfulCreate", text);
                }
                Err(error) if is_already_exists(&error) || is_namespace_terminating(&error) => {}
                Err(error) => {
                    let text = format!(
                        "create Claim {name} for Pod {pod} in StatefulSet {} failed error: {}",
                        key.name,
                        message_of(&error)
                    );
                    self.context.warning(&object_reference(set), "FailedCreate", text);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Keeps the claims' owners as the retention policy wants them, before pods go.
    async fn keep_owners_of_claims(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        plan: &Plan,
    ) -> Result<(), ReconcileError> {
        if spec.volume_claim_templates.as_ref().is_none_or(Vec::is_empty)
            || spec.persistent_volume_claim_retention_policy.is_none()
        {
            return Ok(());
        }
        let api = Api::<PersistentVolumeClaim>::namespaced(self.context.client.clone(), &key.namespace);
        let owned = self.pods.in_namespace(&key.namespace);
        let members = owned.iter().filter_map(|pod| Some((ordinal_of(&key.name, pod)?, pod)));
        for (ordinal, pod) in members {
            let is_condemned = plan.condemned.iter().any(|condemned| condemned.metadata.uid == pod.metadata.uid);
            for wanted in claims(set, spec, ordinal) {
                let name = name_of(&wanted.metadata);
                let Some(known) = self.claims.get(&ObjectKey::new(&key.namespace, name)) else { continue };
                let owners = plan_owners(set, spec, &known, is_condemned, Some(pod));
                if known.metadata.owner_references.as_deref().unwrap_or_default() != owners {
                    let mut changed = (*known).clone();
                    changed.metadata.owner_references = Some(owners);
                    unless_gone(api.replace(name, &PostParams::default(), &changed).await)?;
                }
            }
        }
        Ok(())
    }

    async fn write_status(&self, key: &ObjectKey, set: &StatefulSet, plan: Plan) -> Result<(), ReconcileError> {
        if set.status.as_ref() == Some(&plan.status) {
            return Ok(());
        }
        let changed = StatefulSet { status: Some(plan.status), ..set.clone() };
        let sets = Api::<StatefulSet>::namespaced(self.context.client.clone(), &key.namespace);
        sets.replace_status(&key.name, &PostParams::default(), &changed).await?;
        Ok(())
    }

    async fn count_collision(&self, key: &ObjectKey, set: &StatefulSet) -> Outcome {
        let mut changed = set.clone();
        *changed.status.get_or_insert_default().collision_count.get_or_insert_default() += 1;
        let sets = Api::<StatefulSet>::namespaced(self.context.client.clone(), &key.namespace);
        sets.replace_status(&key.name, &PostParams::default(), &changed).await?;
        Ok(Next::Done)
    }
}
