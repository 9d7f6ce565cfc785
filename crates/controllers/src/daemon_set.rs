//! The DaemonSet controller: a pod on every node that should have one, and updates that move from node to node.
//!
//! Invariant: pods are decided about only when the cache shows this controller's last writes.

#[cfg(test)]
mod level_driven;
mod plan;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{ContainerImage, Node, Pod};
use kedge_client::{Change, Informer, Queue, object_key, object_reference};
use kedge_meta::{LabelSelector, ObjectKey};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;

use crate::error::ReconcileError;
use crate::expectations::Expectations;
use crate::history::{self, History, REVISION_HASH, Revisions, hash_of};
use crate::metrics::Waiting;
use crate::owners::{controller_key, execute_claims, owners_of_change, plan_claims, selector_of};
use crate::pod_control::PodControl;
use crate::pods::{is_terminal, name_of, phase, time_to_available};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use plan::{Plan, View, daemon_template, plan_nodes, plan_status, plan_update, pod_for};

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(15 * 60);
/// At most so many pods are created or deleted in one go.
const BURST: usize = 250;

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let sets = starter.informer::<DaemonSet>();
    let pods = starter.informer::<Pod>();
    let nodes = starter.informer::<Node>();
    let revisions = starter.informer::<ControllerRevision>();
    let queue = Queue::new();
    starter.enqueue(&sets, &queue, |change| vec![object_key(&**change.object())]);
    let owners = sets.clone();
    starter.enqueue(&pods, &queue, move |change| owners_of_change(change, &owners, selector));
    starter.enqueue(&revisions, &queue, |change| {
        controller_key::<DaemonSet>(&change.object().metadata).into_iter().collect()
    });
    let all = sets.clone();
    starter.enqueue(&nodes, &queue, move |change| match is_relevant(change) {
        true => all.list().iter().map(|set| object_key(&**set)).collect(),
        false => Vec::new(),
    });
    let workers = starter.context.config.concurrency;
    let controller = Daemons {
        context: starter.context.clone(),
        sets,
        pods,
        nodes,
        revisions,
        expectations: Expectations::default(),
        expected_revisions: Expectations::default(),
        backoffs: Mutex::default(),
    };
    starter.work(Arc::new(controller), queue, workers);
}

fn selector(set: &DaemonSet) -> Option<LabelSelector> {
    selector_of(set.spec.as_ref().map(|spec| &spec.selector))
}

/// Labels and taints decide where daemons run, and images where they can be updated; heartbeats don't.
fn is_relevant(change: &Change<Node>) -> bool {
    match change {
        Change::Updated { old, new } => {
            let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
            old.metadata.labels != new.metadata.labels || taints(old) != taints(new) || images(old) != images(new)
        }
        Change::Added(_) | Change::Deleted(_) => true,
    }
}

fn images(node: &Node) -> Option<&[ContainerImage]> {
    node.status.as_ref()?.images.as_deref()
}

struct Daemons {
    context: Context,
    sets: Informer<DaemonSet>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    revisions: Informer<ControllerRevision>,
    expectations: Expectations,
    expected_revisions: Expectations,
    /// How often the pod of a set ended on a node, and when that may be repaired next.
    backoffs: Mutex<HashMap<(ObjectKey, String), (Duration, Timestamp)>>,
}

impl Controller for Daemons {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key);
            self.expected_revisions.forget(key);
            self.backoffs.lock().retain(|(set, _), _| set != key);
            return Ok(Next::Done);
        };
        let (Some(spec), Some(selector)) = (&set.spec, selector(&set)) else { return Ok(Next::Done) };
        if selector.is_everything() {
            let text = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.context.warning(&object_reference(&*set), "SelectingAll", text);
            return Ok(Next::Done);
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let history =
            History { context: &self.context, cache: &self.revisions, expectations: &self.expected_revisions };
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let revisions = match history.sync(&*set, &selector, &spec.template, collisions).await? {
            history::Outcome::Found(revisions) => revisions,
            history::Outcome::Lagging(lag) => return Ok(Next::After(lag)),
            history::Outcome::Collision => return self.count_collision(key, &set).await,
        };
        let claims = plan_claims(&set.metadata, &selector, self.pods.in_namespace(&key.namespace), |_| true);
        let pods = execute_claims(&self.context.client, &*set, claims).await?;
        let now = self.context.now();
        let nodes = self.nodes.list();
        let template = daemon_template(&spec.template);
        let view = View::new(spec, &template, &nodes, &pods, hash_of(&revisions.current), now);
        let lag = self.expectations.lag(key, &self.pods, now);
        let (mut next, mut is_idle) = (Next::Done.sooner(lag), true);
        let mut result = Ok(());
        if lag.is_some() {
            self.context.metrics.workloads().waits_for_pods(Waiting::DaemonSets);
        } else {
            match self.manage(key, &set, &view).await {
                Ok(managed) => (next, is_idle) = (next.sooner(managed.look_again), managed.is_idle),
                Err(error) => result = Err(error),
            }
        }
        self.write_status(key, &set, plan_status(&view, &set, lag.is_none())).await?;
        result?;
        self.truncate(&history, key, spec.revision_history_limit, &revisions, &pods).await?;
        let min_ready = spec.min_ready_seconds.unwrap_or_default();
        next = next.sooner(pods.iter().filter_map(|pod| time_to_available(pod, min_ready, now)).min());
        Ok(if is_idle { next.after_idle_look_at(nodes.len() + pods.len()) } else { next })
    }
}

/// What became of a look at the nodes.
struct Managed {
    look_again: Option<Duration>,
    /// No pod was made or deleted.
    is_idle: bool,
}

impl Daemons {
    /// Brings the nodes in order, or else moves an update on.
    async fn manage(&self, key: &ObjectKey, set: &DaemonSet, view: &View<'_>) -> Result<Managed, ReconcileError> {
        let mut plan = plan_nodes(view);
        let look_again = self.plan_ended(key, set, &mut plan, view.now);
        if plan.create.is_empty() && plan.delete.is_empty() {
            plan = plan_update(view);
        }
        let owner = object_reference(set);
        let control = PodControl { context: &self.context, expectations: &self.expectations, key, owner: &owner };
        plan.delete.truncate(BURST);
        plan.create.truncate(BURST);
        control.delete_many(&plan.delete).await?;
        let pods: Vec<Pod> = plan.create.iter().map(|node| pod_for(set, view.template, view.hash, node)).collect();
        control.create_many(&pods).await?;
        Ok(Managed { look_again, is_idle: plan.create.is_empty() && plan.delete.is_empty() })
    }

    /// Pods that ended are replaced, with growing pauses for each node.
    fn plan_ended(&self, key: &ObjectKey, set: &DaemonSet, plan: &mut Plan, now: Timestamp) -> Option<Duration> {
        let mut backoffs = self.backoffs.lock();
        let mut look_again: Option<Duration> = None;
        for (node, pod) in std::mem::take(&mut plan.ended) {
            let has_failed = phase(&pod) == "Failed";
            if has_failed {
                let entry = backoffs.entry((key.clone(), node.clone())).or_insert((Duration::ZERO, now));
                if entry.1 > now {
                    let left = Duration::try_from(entry.1.duration_since(now)).unwrap_or_default();
                    look_again = Some(look_again.map_or(left, |sooner| sooner.min(left)));
                    continue;
                }
                let rested = now.duration_since(entry.1).unsigned_abs() > LONGEST_BACKOFF * 2;
                let pause = if rested { FIRST_BACKOFF } else { (entry.0 * 2).clamp(FIRST_BACKOFF, LONGEST_BACKOFF) };
                *entry = (
                    pause,
                    now.saturating_add(jiff::SignedDuration::try_from(pause).unwrap_or_default()).unwrap_or(now),
                );
            }
            let name = format!("{}/{}", key.namespace, name_of(&pod.metadata));
            let about = object_reference(set);
            if has_failed {
                let text = format!("Found failed daemon pod {name} on node {node}, will try to kill it");
                self.context.warning(&about, "FailedDaemonPod", text);
            } else {
                let text = format!("Found succeeded daemon pod {name} on node {node}, will try to delete it");
                self.context.normal(&about, "SucceededDaemonPod", text);
            }
            plan.delete.push(pod);
        }
        look_again
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        status: DaemonSetStatus,
    ) -> Result<(), ReconcileError> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = DaemonSet { status: Some(status), ..set.clone() };
        let sets = Api::<DaemonSet>::namespaced(self.context.client.clone(), &key.namespace);
        sets.replace_status(&key.name, &PostParams::default(), &changed).await?;
        Ok(())
    }

    async fn count_collision(&self, key: &ObjectKey, set: &DaemonSet) -> Outcome {
        let mut changed = set.clone();
        *changed.status.get_or_insert_default().collision_count.get_or_insert_default() += 1;
        let sets = Api::<DaemonSet>::namespaced(self.context.client.clone(), &key.namespace);
        sets.replace_status(&key.name, &PostParams::default(), &changed).await?;
        Ok(Next::Done)
    }

    async fn truncate(
        &self,
        history: &History<'_>,
        key: &ObjectKey,
        limit: Option<i32>,
        revisions: &Revisions,
        pods: &[Arc<Pod>],
    ) -> Result<(), ReconcileError> {
        let label = |pod: &Arc<Pod>| pod.metadata.labels.as_ref()?.get(REVISION_HASH).cloned();
        let live: HashSet<String> = pods.iter().filter(|pod| !is_terminal(pod)).filter_map(label).collect();
        history.truncate(key, &revisions.others, &live, limit.unwrap_or(10)).await
    }
}
