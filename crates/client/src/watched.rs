//! A kind as it is watched: without who owns which field, and in one namespace with that namespace in the URL, so that
//! rights in that namespace are enough.
//!
//! Whether a kind has namespaces is known at compile time only, and an informer serves every kind. Invariant: asked for
//! by namespace only where the kind has namespaces.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Resource, core::NamespaceResourceScope};
use serde::{Deserialize, Deserializer};

use crate::unowned;

/// An object that is watched: `metadata.managedFields` is not read, and always absent.
#[derive(Debug, Clone)]
pub struct Watched<K>(K);

impl<K> Watched<K> {
    /// The object as its users know it.
    pub fn into_inner(self) -> K {
        self.0
    }
}

impl<'de, K: Deserialize<'de>> Deserialize<'de> for Watched<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        unowned::deserialize(deserializer).map(Self)
    }
}

impl<K: Resource> Resource for Watched<K> {
    type DynamicType = K::DynamicType;
    type Scope = NamespaceResourceScope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn api_version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::api_version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn metadata_api() -> bool {
        K::metadata_api()
    }

    fn url_path(dynamic: &Self::DynamicType, namespace: Option<&str>) -> String {
        K::url_path(dynamic, namespace)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

/// An event with the object as its users know it.
pub(crate) fn plain<K>(event: Event<Watched<K>>) -> Event<K> {
    match event {
        Event::Apply(object) => Event::Apply(object.0),
        Event::Delete(object) => Event::Delete(object.0),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(object.0),
        Event::InitDone => Event::InitDone,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Service};
    use kube::core::{ObjectList, WatchEvent};

    use super::*;

    #[test]
    fn the_namespace_is_in_the_url() {
        let path = Watched::<ConfigMap>::url_path(&(), Some("kube-system"));
        assert_eq!(path, "/api/v1/namespaces/kube-system/configmaps");
        let text = r#"{"metadata": {"name": "a", "managedFields": [{"manager": "m"}]}}"#;
        let object: Watched<ConfigMap> = serde_json::from_str(text).expect("it is one");
        assert_eq!((object.meta().name.as_deref(), &object.meta().managed_fields), (Some("a"), &None));
    }

    #[test]
    fn regress_a_condition_without_a_time_stops_no_watch() {
        let status = r#"{"conditions": [{"type": "A", "status": "True", "lastTransitionTime": null}]}"#;
        let object =
            format!(r#"{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "a"}}, "status": {status}}}"#);
        let event = format!(r#"{{"type": "MODIFIED", "object": {object}}}"#);
        let event: WatchEvent<Watched<Service>> = serde_json::from_str(&event).expect("it is one");
        assert!(matches!(event, WatchEvent::Modified(service) if service.meta().name.as_deref() == Some("a")));
        let list = format!(r#"{{"metadata": {{}}, "items": [{object}]}}"#);
        let list: ObjectList<Watched<Service>> = serde_json::from_str(&list).expect("it is one");
        assert_eq!(list.items.len(), 1);
    }
}
