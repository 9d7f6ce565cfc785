//! The ServiceAccount controller: every namespace has the account `default`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kedge_client::{Change, Informer, Queue, object_key};
use kedge_meta::ObjectKey;
use kube::api::{Api, ObjectMeta, PostParams};

use crate::error::{is_already_exists, is_namespace_terminating, is_not_found};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};

const NAME: &str = "default";

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let namespaces = starter.informer::<Namespace>();
    let accounts = starter.informer::<ServiceAccount>();
    let queue = Queue::new();
    starter.enqueue(&namespaces, &queue, |change| vec![object_key(&**change.object())]);
    starter.enqueue(&accounts, &queue, deleted_account);
    let workers = starter.context.config.concurrency;
    let controller = ServiceAccounts { context: starter.context.clone(), namespaces, accounts };
    starter.work(Arc::new(controller), queue, workers);
}

struct ServiceAccounts {
    context: Context,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

impl Controller for ServiceAccounts {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(namespace) = self.namespaces.get(key) else { return Ok(Next::Done) };
        if !is_active(&namespace) || self.accounts.contains(&ObjectKey::new(&key.name, NAME)) {
            return Ok(Next::Done);
        }
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                namespace: Some(key.name.clone()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        let accounts = Api::<ServiceAccount>::namespaced(self.context.client.clone(), &key.name);
        match accounts.create(&PostParams::default(), &account).await {
            Ok(_) => Ok(Next::Done),
            Err(error) if is_already_exists(&error) || is_namespace_terminating(&error) || is_not_found(&error) => {
                Ok(Next::Done)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether things may be created in a namespace.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Active");
    phase == "Active" && namespace.metadata.deletion_timestamp.is_none()
}

/// The namespace that lost its account.
fn deleted_account(change: &Change<ServiceAccount>) -> Vec<ObjectKey> {
    match change {
        Change::Deleted(account) if account.metadata.name.as_deref() == Some(NAME) => {
            vec![ObjectKey::cluster(account.metadata.namespace.clone().unwrap_or_default())]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loss_of_the_default_account_matters() {
        let account = |name: &str| {
            let metadata =
                ObjectMeta { name: Some(name.to_owned()), namespace: Some("team".to_owned()), ..ObjectMeta::default() };
            Arc::new(ServiceAccount { metadata, ..ServiceAccount::default() })
        };
        assert_eq!(deleted_account(&Change::Deleted(account("default"))), [ObjectKey::cluster("team")]);
        assert_eq!(deleted_account(&Change::Deleted(account("builder"))), []);
        assert_eq!(deleted_account(&Change::Added(account("default"))), []);
    }
}
