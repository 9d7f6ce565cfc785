//! The effects on pods that workload controllers share: create, delete, with upstream's events on the owner.
//!
//! Invariant: every pod that is created or deleted is expected in the cache afterwards.

use std::future::Future;
use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kedge_meta::ObjectKey;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};

use crate::error::{ReconcileError, is_namespace_terminating, is_not_found, message_of};
use crate::expectations::Expectations;
use crate::pods::name_of;
use crate::runtime::Context;

/// The owner on whose behalf pods are created and deleted.
pub(crate) struct PodControl<'a> {
    pub(crate) context: &'a Context,
    pub(crate) expectations: &'a Expectations,
    pub(crate) key: &'a ObjectKey,
    pub(crate) owner: &'a ObjectReference,
}

impl PodControl<'_> {
    /// Creates a pod. A namespace that is being deleted is no error: nothing is to be created there any more.
    pub(crate) async fn create(&self, pod: &Pod) -> Result<Option<Pod>, ReconcileError> {
        let pods = Api::<Pod>::namespaced(self.context.client.clone(), &self.key.namespace);
        match pods.create(&PostParams::default(), pod).await {
            Ok(pod) => {
                self.expectations.created(self.key, &pod.metadata, self.context.now());
                let text = format!("Created pod: {}", name_of(&pod.metadata));
                self.context.normal(self.owner, "SuccessfulCreate", text);
                Ok(Some(pod))
            }
            Err(error) if is_namespace_terminating(&error) => Ok(None),
            Err(error) => {
                self.context.warning(self.owner, "FailedCreate", format!("Error creating: {}", message_of(&error)));
                Err(error.into())
            }
        }
    }

    /// Deletes a pod; one that is gone already is no error.
    pub(crate) async fn delete(&self, pod: &Pod) -> Result<(), ReconcileError> {
        let name = name_of(&pod.metadata);
        let pods = Api::<Pod>::namespaced(self.context.client.clone(), &self.key.namespace);
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match pods.delete(name, &parameters).await {
            Ok(_) => {
                self.expectations.deleted(self.key, &pod.metadata, self.context.now());
                self.context.normal(self.owner, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => {
                self.context.warning(self.owner, "FailedDelete", format!("Error deleting: {}", message_of(&error)));
                Err(error.into())
            }
        }
    }

    /// Creates many pods, a few at first, so that a mistake which fails all of them costs few requests.
    pub(crate) async fn create_many(&self, pods: &[Pod]) -> Result<(), ReconcileError> {
        slow_start(pods, |pod| async move { self.create(pod).await.map(|_| ()) }).await
    }

    /// Deletes many pods, and tries each.
    pub(crate) async fn delete_many(&self, pods: &[Arc<Pod>]) -> Result<(), ReconcileError> {
        join_all(pods.iter().map(|pod| self.delete(pod))).await.into_iter().collect()
    }
}

/// The most requests in flight for one key.
const LARGEST_BATCH: usize = 64;

/// Runs `act` on all items in batches of 1, 2, 4, …; stops after the first batch with a failure.
pub(crate) async fn slow_start<'a, T, F>(items: &'a [T], act: impl Fn(&'a T) -> F) -> Result<(), ReconcileError>
where
    F: Future<Output = Result<(), ReconcileError>>,
{
    let mut batch = 1;
    let mut rest = items;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(batch.min(rest.len()));
        join_all(now.iter().map(&act)).await.into_iter().collect::<Result<(), _>>()?;
        rest = later;
        batch = (batch * 2).min(LARGEST_BATCH);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_failure_stops_the_next_batch() {
        for (fails_at, attempts) in [(Some(0), 1), (Some(1), 3), (Some(3), 7), (None, 20)] {
            let items: Vec<usize> = (0..20).collect();
            let count = AtomicUsize::new(0);
            let result = slow_start(&items, |item| {
                count.fetch_add(1, Ordering::Relaxed);
                async move {
                    match fails_at == Some(*item) {
                        true => Err(ReconcileError::Object("no".to_owned())),
                        false => Ok(()),
                    }
                }
            })
            .await;
            assert_eq!(result.is_err(), fails_at.is_some());
            assert_eq!(count.load(Ordering::Relaxed), attempts);
        }
    }
}
