//! The root CA publisher: every namespace has the ConfigMap `kube-root-ca.crt` with the bundle that pods verify the API
//! server with.
//!
//! Invariant: the ConfigMap's `ca.crt` is the configured bundle, and nothing else is in its data.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kedge_client::{Informer, InformerOptions, Queue, object_key};
use kedge_meta::ObjectKey;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::Instant;

use crate::error::{is_already_exists, is_namespace_terminating, is_not_found};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use crate::service_account::is_active;

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
     distributions of Kubernetes clusters.";

/// Starts the controller, unless there is no bundle to publish.
pub(crate) fn start(mut starter: Starter<'_>) {
    if starter.context.config.root_ca_pem.borrow().is_empty() {
        return;
    }
    let namespaces = starter.informer::<Namespace>();
    // Only these ConfigMaps: others may be many and large.
    let options =
        InformerOptions { field_selector: Some(format!("metadata.name={NAME}")), ..InformerOptions::default() };
    let config_maps = starter.context.informers.select::<ConfigMap>(options);
    starter.wait_for(&config_maps);
    let queue = Queue::new();
    starter.enqueue(&namespaces, &queue, |change| vec![object_key(&**change.object())]);
    starter.enqueue(&config_maps, &queue, |change| {
        vec![ObjectKey::cluster(change.object().metadata.namespace.clone().unwrap_or_default())]
    });
    let (again, all) = (queue.clone(), namespaces.clone());
    let look_again = move || all.list().iter().for_each(|namespace| again.add(object_key(&**namespace)));
    starter.spawn(follow_bundle(starter.context.clone(), look_again));
    let workers = starter.context.config.concurrency;
    let controller = Publisher { context: starter.context.clone(), namespaces, config_maps };
    starter.work(Arc::new(controller), queue, workers);
}

/// Looks at everything again when the bundle has changed.
pub(crate) async fn follow_bundle(context: Context, look_again: impl Fn() + Send) {
    let mut bundle = context.config.root_ca_pem.clone();
    // Where nobody can change it, there is nothing to wait for.
    while let Some(Ok(())) = context.shutdown.run_until_cancelled(bundle.changed()).await {
        look_again();
    }
}

struct Publisher {
    context: Context,
    namespaces: Informer<Namespace>,
    config_maps: Informer<ConfigMap>,
}

#[derive(Debug, PartialEq)]
enum Action {
    Create(ConfigMap),
    Update(ConfigMap),
}

impl Controller for Publisher {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        if !self.namespaces.get(key).is_some_and(|namespace| is_active(&namespace)) {
            return Ok(Next::Done);
        }
        let current = self.config_maps.get(&ObjectKey::new(&key.name, NAME));
        let config_maps = Api::<ConfigMap>::namespaced(self.context.client.clone(), &key.name);
        let bundle = self.context.config.root_ca_pem.borrow().clone();
        let began = Instant::now();
        let result = match plan(&key.name, current.as_deref(), &bundle) {
            None => return Ok(Next::Done),
            Some(Action::Create(map)) => config_maps.create(&PostParams::default(), &map).await,
            Some(Action::Update(map)) => config_maps.replace(NAME, &PostParams::default(), &map).await,
        };
        let code = match &result {
            Ok(_) => 200,
            Err(kube::Error::Api(status)) if status.code != 0 => status.code,
            Err(_) => 500,
        };
        self.context.metrics.cluster().published(code, began.elapsed());
        match result {
            Ok(_) => Ok(Next::Done),
            Err(error) if is_already_exists(&error) || is_namespace_terminating(&error) || is_not_found(&error) => {
                Ok(Next::Done)
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn plan(namespace: &str, current: Option<&ConfigMap>, bundle: &str) -> Option<Action> {
    let data = BTreeMap::from([("ca.crt".to_owned(), bundle.to_owned())]);
    let Some(current) = current else {
        return Some(Action::Create(ConfigMap {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                namespace: Some(namespace.to_owned()),
                annotations: Some(BTreeMap::from([(DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned())])),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        }));
    };
    let annotations = current.metadata.annotations.as_ref();
    let described = annotations.is_some_and(|annotations| annotations.contains_key(DESCRIPTION));
    if current.data.as_ref() == Some(&data) && described {
        return None;
    }
    let mut map = ConfigMap { data: Some(data), ..current.clone() };
    let annotations = map.metadata.annotations.get_or_insert_default();
    annotations.insert(DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned());
    Some(Action::Update(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_is_created_kept_and_mended() {
        let Some(Action::Create(created)) = plan("team", None, "PEM") else { panic!("nothing is created") };
        assert_eq!(plan("team", Some(&created), "PEM"), None);
        let Some(Action::Update(updated)) = plan("team", Some(&created), "NEW") else { panic!("nothing is updated") };
        assert_eq!(updated.data.unwrap()["ca.crt"], "NEW");
        let mut spoiled = created.clone();
        spoiled.data.get_or_insert_default().insert("other".to_owned(), "x".to_owned());
        assert_eq!(plan("team", Some(&spoiled), "PEM"), Some(Action::Update(created)));
    }
}
