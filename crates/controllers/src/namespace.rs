//! The Namespace controller: empties a namespace that is being deleted, says how that goes, and lets it go when it is
//! empty.
//!
//! Invariant: the `kubernetes` finalizer goes only after a complete discovery and an attempt that found nothing left.
//! Pods go first: what they use must outlive them.

mod conditions;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kedge_client::{Change, Client, Informer, Queue, object_key};
use kedge_meta::ObjectKey;
use kube::api::{Api, DeleteParams, ListParams, PostParams};

use crate::discovery::{ApiKind, discover};
use crate::error::{ReconcileError, is_conflict, is_not_found, message_of, unless_gone};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use conditions::{Findings, plan_conditions};

const FINALIZER: &str = "kubernetes";
/// The most requests in flight for one namespace.
const PARALLEL: usize = 8;
/// How soon content that finalizers or grace periods hold is looked at again. The end of a pod wakes the key sooner.
const PATIENCE: Duration = Duration::from_secs(3);

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let namespaces = starter.informer::<Namespace>();
    let pods = starter.informer::<Pod>();
    let queue = Queue::new();
    starter.enqueue(&namespaces, &queue, |change| match change {
        Change::Deleted(_) => Vec::new(),
        change => vec![object_key(&**change.object())],
    });
    let terminating = namespaces.clone();
    starter.enqueue(&pods, &queue, move |change| match change {
        Change::Deleted(pod) => {
            let key = ObjectKey::cluster(pod.metadata.namespace.clone().unwrap_or_default());
            let is_waiting = terminating.get(&key).is_some_and(|namespace| is_terminating(&namespace));
            Vec::from_iter(is_waiting.then_some(key))
        }
        _ => Vec::new(),
    });
    let workers = starter.context.config.concurrency;
    let controller = Namespaces { context: starter.context.clone(), namespaces };
    starter.work(Arc::new(controller), queue, workers);
}

fn is_terminating(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

fn finalizers(namespace: &Namespace) -> &[String] {
    namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default()
}

struct Namespaces {
    context: Context,
    namespaces: Informer<Namespace>,
}

impl Controller for Namespaces {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        if !self.namespaces.get(key).is_some_and(|namespace| is_terminating(&namespace)) {
            return Ok(Next::Done);
        }
        let namespaces = Api::<Namespace>::all(self.context.client.clone());
        // A namespace of the same name may have come since: only a fresh read says what may be deleted.
        let Some(namespace) = namespaces.get_opt(&key.name).await? else { return Ok(Next::Done) };
        if !is_terminating(&namespace) || finalizers(&namespace).is_empty() {
            return Ok(Next::Done);
        }
        let findings = empty(&self.context.client, &key.name).await;
        let namespace = self.report(&namespaces, namespace, &findings).await?;
        if !findings.deletion_errors.is_empty() || findings.discovery_error.is_some() {
            return Err(ReconcileError::Object(format!("the namespace could not be emptied: {findings:?}")));
        }
        if !findings.is_empty() {
            return Ok(Next::After(PATIENCE));
        }
        self.finalize(&namespaces, namespace).await
    }
}

impl Namespaces {
    /// Writes phase and conditions, and returns the namespace as it is then.
    async fn report(
        &self,
        namespaces: &Api<Namespace>,
        mut namespace: Namespace,
        findings: &Findings,
    ) -> Result<Namespace, ReconcileError> {
        let before = namespace.status.clone().unwrap_or_default();
        let mut status = before.clone();
        status.phase = Some("Terminating".to_owned());
        let current = status.conditions.take().unwrap_or_default();
        // A namespace that goes at the first attempt needs no account of it.
        if !current.is_empty() || !findings.is_empty() {
            status.conditions = Some(plan_conditions(&current, findings, self.context.now()));
        }
        if status == before {
            return Ok(namespace);
        }
        namespace.status = Some(status);
        let name = namespace.metadata.name.clone().unwrap_or_default();
        Ok(namespaces.replace_status(&name, &PostParams::default(), &namespace).await?)
    }

    async fn finalize(&self, namespaces: &Api<Namespace>, mut namespace: Namespace) -> Outcome {
        let name = namespace.metadata.name.clone().unwrap_or_default();
        let left = finalizers(&namespace).iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
        namespace.spec.get_or_insert_default().finalizers = Some(left);
        let result = namespaces.replace_subresource("finalize", &name, &PostParams::default(), &namespace).await;
        match unless_gone(result) {
            Ok(_) => Ok(Next::Done),
            Err(error) if is_conflict(&error) => Err(error.into()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Deletes what can be deleted and counts what is left.
async fn empty(client: &Client, namespace: &str) -> Findings {
    let mut findings = Findings::default();
    let kinds = match discover(client).await {
        Ok(kinds) => kinds,
        Err(error) => {
            findings.discovery_error = Some(message_of(&error));
            return findings;
        }
    };
    let deletable = kinds.into_iter().filter(|kind| kind.is_namespaced && kind.supports("delete"));
    let (pods, others): (Vec<_>, Vec<_>) =
        deletable.partition(|kind| kind.resource.group.is_empty() && kind.resource.plural == "pods");
    for stage in [pods, others] {
        let mut emptied = futures::stream::iter(stage)
            .map(|kind| async move { (empty_kind(client, namespace, &kind).await, kind) })
            .buffer_unordered(PARALLEL);
        while let Some((outcome, kind)) = emptied.next().await {
            note(&mut findings, &kind, outcome);
        }
        if !findings.is_empty() {
            break;
        }
    }
    findings.deletion_errors.sort();
    findings
}

fn note(findings: &mut Findings, kind: &ApiKind, outcome: Result<Vec<Vec<String>>, kube::Error>) {
    match outcome {
        Ok(left) if left.is_empty() => {}
        Ok(left) => {
            findings.remaining.insert(kind.resource_and_group(), left.len());
            for finalizer in left.into_iter().flatten() {
                *findings.finalizers.entry(finalizer).or_default() += 1;
            }
        }
        Err(error) => findings.deletion_errors.push(message_of(&error)),
    }
}

/// Deletes all objects of a kind and returns the finalizers of each that is still there.
async fn empty_kind(client: &Client, namespace: &str, kind: &ApiKind) -> Result<Vec<Vec<String>>, kube::Error> {
    let objects = kind.api(client, namespace);
    let everything = ListParams::default();
    let parameters = DeleteParams::background();
    if kind.supports("deletecollection") {
        match objects.delete_collection(&parameters, &everything).await {
            Ok(_) => {}
            // The kind went away, or says that it can and can't.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => {}
            Err(error) => return Err(error),
        }
    } else if kind.supports("list") {
        for object in objects.list(&everything).await?.items {
            unless_gone(objects.delete(object.metadata.name.as_deref().unwrap_or_default(), &parameters).await)?;
        }
    }
    if !kind.supports("list") {
        return Ok(Vec::new());
    }
    match objects.list(&everything).await {
        Ok(list) => Ok(list.items.into_iter().map(|object| object.metadata.finalizers.unwrap_or_default()).collect()),
        Err(error) if is_not_found(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
