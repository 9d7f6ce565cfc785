//! The garbage collector: deletes objects whose owners are gone, waits for dependents or lets them go where a deletion
//! asks for that.
//!
//! Invariant: nothing is deleted on the word of the graph alone: the object and its owners are read afresh first, and the
//! deletion names the uid.

mod attempt;
mod graph;
mod monitor;

use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kedge_client::Queue;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Notify, mpsc, watch};

use crate::discovery::{ApiKind, Metadata};
use crate::error::{ReconcileError, unless_gone};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use attempt::{OwnerState, Verdict};
use graph::{FOREGROUND, Graph, Node, ORPHAN, Uid, Work};
use monitor::{Kinds, Monitor, Seen};

/// At most so many changes wait for the graph; the watches wait then.
const PENDING: usize = 256;

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let context = starter.context.clone();
    let (seen, pending) = mpsc::channel(PENDING);
    let (kinds, known) = watch::channel(Kinds::default());
    let (tell_ready, mut ready) = watch::channel(false);
    let look_again = Arc::new(Notify::new());
    let monitor = Monitor {
        metrics: context.metrics.clone(),
        client: context.client.clone(),
        seen,
        kinds,
        look_again: look_again.clone(),
        ready: tell_ready,
        shutdown: context.shutdown.clone(),
    };
    let queue = Queue::new();
    let graph = Arc::new(Mutex::new(Graph::default()));
    starter.spawn(monitor.run());
    let absorber = Absorber { graph: graph.clone(), queue: queue.clone(), look_again: look_again.clone() };
    let shutdown = context.shutdown.clone();
    starter.spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = absorber.run(pending) => {}
        }
    });
    starter.synced.push(async move { drop(ready.wait_for(|ready| *ready).await) }.boxed());
    let workers = context.config.concurrency.max(2);
    let collector = Collector { context, graph, queue: queue.clone(), kinds: known, look_again };
    starter.work(Arc::new(collector), queue, workers);
}

/// A piece of work as a key.
impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Delete(uid) => write!(f, "delete {uid}"),
            Work::Orphan(uid) => write!(f, "orphan dependents of {uid}"),
            Work::Report(uid) => write!(f, "report {uid}"),
        }
    }
}

/// Brings what the watches see into the graph.
struct Absorber {
    graph: Arc<Mutex<Graph>>,
    queue: Queue<Work>,
    look_again: Arc<Notify>,
}

impl Absorber {
    async fn run(self, mut pending: mpsc::Receiver<Seen>) {
        while let Some(seen) = pending.recv().await {
            for work in self.absorb(seen) {
                self.queue.add(work);
            }
        }
    }

    fn absorb(&self, seen: Seen) -> Vec<Work> {
        let mut graph = self.graph.lock();
        match seen {
            Seen::There(kind, object) => {
                if matches!(kind.resource.plural.as_str(), "customresourcedefinitions" | "apiservices") {
                    self.look_again.notify_one();
                }
                graph.observe(&kind, &object.metadata)
            }
            Seen::Gone(object) => graph.remove(object.metadata.uid.as_deref().unwrap_or_default()),
            Seen::Only(kind, uids) => {
                let known = graph.observed(&kind.resource.api_version, &kind.resource.kind);
                known.iter().filter(|uid| !uids.contains(&***uid)).flat_map(|uid| graph.remove(uid)).collect()
            }
        }
    }
}

struct Collector {
    context: Context,
    graph: Arc<Mutex<Graph>>,
    queue: Queue<Work>,
    kinds: watch::Receiver<Kinds>,
    look_again: Arc<Notify>,
}

impl Controller for Collector {
    type Key = Work;

    async fn reconcile(&self, work: &Work) -> Outcome {
        let uid = match work {
            Work::Delete(uid) | Work::Orphan(uid) | Work::Report(uid) => uid,
        };
        let Some(node) = self.graph.lock().get(uid).cloned() else { return Ok(Next::Done) };
        match work {
            Work::Delete(uid) => self.delete(uid, &node).await,
            Work::Orphan(uid) => self.orphan(uid, &node).await,
            Work::Report(_) => {
                self.report(&node, uid);
                Ok(Next::Done)
            }
        }
    }
}

impl Collector {
    async fn delete(&self, uid: &Uid, node: &Node) -> Outcome {
        if node.is_being_deleted && !node.waits_for_dependents {
            return Ok(Next::Done);
        }
        let Some(kind) = self.kind(&node.place.api_version, &node.place.kind, node.is_virtual)? else {
            return Ok(Next::Done);
        };
        let objects = kind.api(&self.context.client, &node.place.namespace);
        let fresh =
            objects.get_opt(&node.place.name).await?.filter(|object| object.metadata.uid.as_deref() == Some(uid));
        let Some(fresh) = fresh else {
            self.lose(uid);
            return Ok(Next::Done);
        };
        if node.is_virtual {
            self.graph.lock().confirm(uid);
        }
        if node.waits_for_dependents {
            return self.release_after_dependents(uid, node, &objects, &fresh).await;
        }
        let mut states = Vec::new();
        for owner in fresh.metadata.owner_references.iter().flatten() {
            states.push(self.owner_state(&kind, &fresh.metadata, owner).await?);
        }
        let has_waiting_dependents = {
            let graph = self.graph.lock();
            node.dependents.iter().any(|dependent| graph.get(dependent).is_some_and(|node| node.waits_for_dependents))
        };
        self.execute(&objects, &fresh, attempt::plan(&fresh.metadata, &states, has_waiting_dependents)).await
    }

    /// The kind behind a name. One that is unknown is looked for; a virtual object of no known kind is left alone.
    fn kind(&self, api_version: &str, kind: &str, is_virtual: bool) -> Result<Option<Arc<ApiKind>>, ReconcileError> {
        let found = self.kinds.borrow().get(api_version, kind);
        if found.is_none() {
            self.look_again.notify_one();
            if !is_virtual {
                return Err(ReconcileError::Object(format!(
                    "no kind \"{kind}\" is registered for version \"{api_version}\""
                )));
            }
            tracing::debug!(api_version, kind, "an owner is of a kind that is not served");
        }
        Ok(found)
    }

    /// An object turned out to be gone: its dependents are next.
    fn lose(&self, uid: &str) {
        for work in self.graph.lock().remove(uid) {
            self.queue.add(work);
        }
    }

    async fn owner_state(
        &self,
        dependent: &ApiKind,
        meta: &ObjectMeta,
        owner: &OwnerReference,
    ) -> Result<OwnerState, ReconcileError> {
        let Some(kind) = self.kind(&owner.api_version, &owner.kind, false)? else { return Ok(OwnerState::Unknown) };
        if kind.is_namespaced && !dependent.is_namespaced {
            // The owner's namespace can't be known; acting on a guess would lose data.
            return Ok(OwnerState::Unknown);
        }
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let fresh = kind.api(&self.context.client, namespace).get_opt(&owner.name).await?;
        Ok(match fresh.filter(|fresh| fresh.metadata.uid.as_ref() == Some(&owner.uid)) {
            None => OwnerState::Absent,
            Some(fresh) => {
                let finalizers = fresh.metadata.finalizers.iter().flatten();
                let is_foreground = finalizers.into_iter().any(|finalizer| finalizer == FOREGROUND);
                match fresh.metadata.deletion_timestamp.is_some() && is_foreground {
                    true => OwnerState::WaitsForDependents,
                    false => OwnerState::Solid,
                }
            }
        })
    }

    async fn execute(&self, objects: &Api<Metadata>, fresh: &Metadata, verdict: Verdict) -> Outcome {
        match verdict {
            Verdict::Keep => {}
            Verdict::Disown(left) => patch(objects, &fresh.metadata, json!({ "ownerReferences": left })).await?,
            Verdict::Delete { policy, unblocked } => {
                if let Some(unblocked) = unblocked {
                    patch(objects, &fresh.metadata, json!({ "ownerReferences": unblocked })).await?;
                }
                delete(objects, &fresh.metadata, policy).await?;
            }
        }
        Ok(Next::Done)
    }

    /// Lets a foreground deletion finish once no dependent blocks it; else sees to the dependents.
    async fn release_after_dependents(
        &self,
        uid: &Uid,
        node: &Node,
        objects: &Api<Metadata>,
        fresh: &Metadata,
    ) -> Outcome {
        let blocking: Vec<(Uid, bool)> = {
            let graph = self.graph.lock();
            let of = |dependent: &Uid| Some((dependent.clone(), graph.get(dependent)?));
            let blocking = node.dependents.iter().filter_map(of).filter(|(_, dependent)| dependent.blocks(uid));
            blocking.map(|(dependent, node)| (dependent, node.waits_for_dependents)).collect()
        };
        if blocking.is_empty() {
            remove_finalizer(objects, &fresh.metadata, FOREGROUND).await?;
        }
        for (dependent, _) in blocking.into_iter().filter(|(_, waits)| !waits) {
            self.queue.add(Work::Delete(dependent));
        }
        Ok(Next::Done)
    }

    /// Lets go of all dependents, then of the owner.
    ///
    /// DIVERGES: upstream believes its graph, which may not show a dependent that was made a moment ago; that one would
    /// be deleted as an orphan of nobody. This asks the API, once for each kind, as it happens rarely.
    async fn orphan(&self, uid: &Uid, node: &Node) -> Outcome {
        let kinds = self.kinds.borrow().collectable();
        let is_namespaced = !node.place.namespace.is_empty();
        for kind in kinds.iter().filter(|kind| kind.is_namespaced || !is_namespaced) {
            let all = match is_namespaced {
                true => kind.api(&self.context.client, &node.place.namespace),
                false => kind.api_for_all(&self.context.client),
            };
            for object in all.list(&ListParams::default()).await?.items {
                let references = object.metadata.owner_references.as_deref().unwrap_or_default();
                let left: Vec<&OwnerReference> = references.iter().filter(|owner| *owner.uid != **uid).collect();
                if left.len() < references.len() {
                    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
                    let objects = kind.api(&self.context.client, namespace);
                    patch(&objects, &object.metadata, json!({ "ownerReferences": left })).await?;
                }
            }
        }
        let Some(kind) = self.kind(&node.place.api_version, &node.place.kind, false)? else { return Ok(Next::Done) };
        let objects = kind.api(&self.context.client, &node.place.namespace);
        let fresh = objects.get_opt(&node.place.name).await?;
        if let Some(fresh) = fresh.filter(|fresh| fresh.metadata.uid.as_deref() == Some(uid)) {
            remove_finalizer(&objects, &fresh.metadata, ORPHAN).await?;
        }
        Ok(Next::Done)
    }

    fn report(&self, node: &Node, uid: &str) {
        let graph = self.graph.lock();
        let namespace = &node.place.namespace;
        let about = ObjectReference {
            api_version: Some(node.place.api_version.to_string()),
            kind: Some(node.place.kind.to_string()),
            namespace: Some(namespace.to_string()),
            name: Some(node.place.name.to_string()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        for owner in &node.owners {
            let elsewhere = graph
                .get(&owner.uid)
                .is_some_and(|owner| !owner.place.namespace.is_empty() && owner.place.namespace != *namespace);
            if elsewhere {
                let text = format!(
                    "ownerRef [{}/{}, namespace: {namespace}, name: {}, uid: {}] does not exist in namespace \"{namespace}\"",
                    owner.api_version, owner.kind, owner.name, owner.uid
                );
                self.context.warning(&about, "OwnerRefInvalidNamespace", text);
            }
        }
    }
}

/// Patches an object's metadata, provided that it is still as it was read.
async fn patch(
    objects: &Api<Metadata>,
    meta: &ObjectMeta,
    mut change: serde_json::Value,
) -> Result<(), ReconcileError> {
    change["resourceVersion"] = json!(meta.resource_version);
    change["uid"] = json!(meta.uid);
    let name = meta.name.as_deref().unwrap_or_default();
    let patch = Patch::Merge(json!({ "metadata": change }));
    unless_gone(objects.patch_metadata(name, &PatchParams::default(), &patch).await)?;
    Ok(())
}

async fn remove_finalizer(objects: &Api<Metadata>, meta: &ObjectMeta, finalizer: &str) -> Result<(), ReconcileError> {
    let finalizers = meta.finalizers.as_deref().unwrap_or_default();
    if !finalizers.iter().any(|present| present == finalizer) {
        return Ok(());
    }
    let left: Vec<&String> = finalizers.iter().filter(|present| *present != finalizer).collect();
    patch(objects, meta, json!({ "finalizers": left })).await
}

async fn delete(objects: &Api<Metadata>, meta: &ObjectMeta, policy: PropagationPolicy) -> Result<(), ReconcileError> {
    let parameters = DeleteParams {
        propagation_policy: Some(policy),
        preconditions: Some(Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() }),
        ..DeleteParams::default()
    };
    unless_gone(objects.delete(meta.name.as_deref().unwrap_or_default(), &parameters).await)?;
    Ok(())
}
