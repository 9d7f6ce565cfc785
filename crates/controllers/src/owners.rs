//! Who controls an object: controller references, and which objects a controller takes over or lets go.
//!
//! Invariant: an object has at most one controller, and only objects without one are adopted.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kedge_client::{Change, Client, Informer, object_key};
use kedge_meta::{LabelSelector, ObjectKey};
use kube::Resource;
use kube::api::{Api, Patch, PatchParams};
use serde::de::DeserializeOwned;

use crate::error::{ReconcileError, is_not_found};

/// The reference to an object's controller.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// Whether `owner` controls the object.
pub(crate) fn is_controlled_by(meta: &ObjectMeta, owner: &ObjectMeta) -> bool {
    controller_of(meta).is_some_and(|reference| Some(&reference.uid) == owner.uid.as_ref())
}

/// The reference that makes `owner` the controller of what carries it.
pub(crate) fn controller_reference<K>(owner: &K) -> OwnerReference
where
    K: Resource,
    K::DynamicType: Default,
{
    let kind = K::DynamicType::default();
    OwnerReference {
        api_version: K::api_version(&kind).into_owned(),
        kind: K::kind(&kind).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

pub(crate) use kedge_client::label_selector as selector_of;

/// Whether a selector matches an object's labels.
pub(crate) fn selects(selector: &LabelSelector, meta: &ObjectMeta) -> bool {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    selector.matches(meta.labels.as_ref().unwrap_or(&NONE))
}

/// What to do about ownership of candidates.
#[derive(Debug)]
pub(crate) struct Claims<K> {
    /// Already controlled, and still selected.
    pub(crate) owned: Vec<Arc<K>>,
    /// Selected, and controlled by nobody.
    pub(crate) adopt: Vec<Arc<K>>,
    /// Controlled, and no longer selected.
    pub(crate) release: Vec<Arc<K>>,
}

/// Sorts candidates of the owner's namespace by what is to be done about them.
pub(crate) fn plan_claims<K: Resource>(
    owner: &ObjectMeta,
    selector: &LabelSelector,
    candidates: impl IntoIterator<Item = Arc<K>>,
    may_adopt: impl Fn(&K) -> bool,
) -> Claims<K> {
    let mut claims = Claims { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    let owner_lives = owner.deletion_timestamp.is_none();
    for candidate in candidates {
        let meta = candidate.meta();
        let selected = selects(selector, meta);
        match controller_of(meta) {
            Some(reference) if Some(&reference.uid) != owner.uid.as_ref() => {}
            Some(_) if selected => claims.owned.push(candidate),
            Some(_) if owner_lives => claims.release.push(candidate),
            Some(_) => {}
            None => {
                let adoptable = owner_lives && selected && meta.deletion_timestamp.is_none();
                if adoptable && may_adopt(&candidate) {
                    claims.adopt.push(candidate);
                }
            }
        }
    }
    claims
}

/// Takes over and lets go as planned, and returns what is owned then.
pub(crate) async fn execute_claims<O, K>(
    client: &Client,
    owner: &O,
    claims: Claims<K>,
) -> Result<Vec<Arc<K>>, ReconcileError>
where
    O: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    O::DynamicType: Default,
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    execute_tracked_claims(client, owner, claims, &[]).await
}

/// The same; what is taken over gets finalizers, and what is let go loses them.
pub(crate) async fn execute_tracked_claims<O, K>(
    client: &Client,
    owner: &O,
    claims: Claims<K>,
    finalizers: &[&str],
) -> Result<Vec<Arc<K>>, ReconcileError>
where
    O: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    O::DynamicType: Default,
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let Claims { mut owned, adopt, release } = claims;
    let namespace = owner.meta().namespace.clone().unwrap_or_default();
    let objects = Api::<K>::namespaced(client.clone(), &namespace);
    if !adopt.is_empty() && still_lives(client, owner, &namespace).await? {
        let reference = controller_reference(owner);
        for object in adopt {
            let mut patch = serde_json::json!({
                "metadata": { "ownerReferences": [reference], "uid": object.meta().uid },
            });
            if !finalizers.is_empty() {
                patch["metadata"]["finalizers"] = finalizers.into();
            }
            if let Some(object) = patch_owner(&objects, &object, patch).await? {
                owned.push(Arc::new(object));
            }
        }
    }
    for object in release {
        let mut patch = serde_json::json!({
            "metadata": {
                "ownerReferences": [{ "$patch": "delete", "uid": owner.meta().uid }],
                "uid": object.meta().uid,
            },
        });
        if !finalizers.is_empty() {
            patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = finalizers.into();
        }
        patch_owner(&objects, &object, patch).await?;
    }
    Ok(owned)
}

/// Asks the API, not the cache: an owner that is gone or being deleted must not adopt.
async fn still_lives<O>(client: &Client, owner: &O, namespace: &str) -> Result<bool, ReconcileError>
where
    O: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    O::DynamicType: Default,
{
    let name = owner.meta().name.clone().unwrap_or_default();
    let fresh = Api::<O>::namespaced(client.clone(), namespace).get_opt(&name).await?;
    Ok(fresh.is_some_and(|fresh| fresh.meta().uid == owner.meta().uid && fresh.meta().deletion_timestamp.is_none()))
}

/// An object that is gone, or is another one by now (422: the uid differs), needs no patch.
async fn patch_owner<K>(objects: &Api<K>, object: &K, patch: serde_json::Value) -> Result<Option<K>, ReconcileError>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let name = object.meta().name.clone().unwrap_or_default();
    match objects.patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 422 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The keys of owners (of kind `O`) that a change of a dependent concerns: its controller before and after, and, for a
/// dependent without a controller, every owner that selects it.
pub(crate) fn owners_of_change<O, K>(
    change: &Change<K>,
    owners: &Informer<O>,
    selector: impl Fn(&O) -> Option<LabelSelector>,
) -> Vec<ObjectKey>
where
    O: Resource + Clone,
    O::DynamicType: Default,
    K: Resource,
{
    let mut keys = Vec::new();
    let mut add_controller = |meta: &ObjectMeta| {
        if let Some(key) = controller_key::<O>(meta)
            && !keys.contains(&key)
        {
            keys.push(key);
        }
    };
    if let Change::Updated { old, .. } = change {
        add_controller(old.meta());
    }
    let object = change.object().meta();
    add_controller(object);
    if controller_of(object).is_none() && !matches!(change, Change::Deleted(_)) {
        let namespace = object.namespace.as_deref().unwrap_or_default();
        for owner in owners.in_namespace(namespace) {
            if selector(&owner).is_some_and(|selector| !selector.is_everything() && selects(&selector, object)) {
                keys.push(object_key(&*owner));
            }
        }
    }
    keys
}

/// The key of an object's controller where it is of kind `O`, whatever its version.
pub(crate) fn controller_key<O>(meta: &ObjectMeta) -> Option<ObjectKey>
where
    O: Resource,
    O::DynamicType: Default,
{
    let kind = O::DynamicType::default();
    let reference = controller_of(meta)?;
    let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
    let matches = reference.kind == O::kind(&kind) && group == O::group(&kind);
    matches.then(|| ObjectKey::new(meta.namespace.clone().unwrap_or_default(), reference.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn owner(uid: &str, terminating: bool) -> ReplicaSet {
        let metadata = ObjectMeta {
            name: Some("web".to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some(uid.to_owned()),
            deletion_timestamp: terminating.then_some(Time(Timestamp::UNIX_EPOCH)),
            ..ObjectMeta::default()
        };
        ReplicaSet { metadata, ..ReplicaSet::default() }
    }

    fn pod(name: &str, app: &str, owner: Option<&ReplicaSet>) -> Arc<Pod> {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            labels: Some(BTreeMap::from([("app".to_owned(), app.to_owned())])),
            owner_references: owner.map(|owner| vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        };
        Arc::new(Pod { metadata, ..Pod::default() })
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect()
    }

    #[test]
    fn orphans_are_adopted_and_strangers_released() {
        let selector = LabelSelector::parse("app=web").unwrap();
        let check = |terminating: bool, owned: &[&str], adopt: &[&str], release: &[&str]| {
            let set = owner("1", terminating);
            let other = owner("2", false);
            let pods = [
                pod("mine", "web", Some(&set)),
                pod("relabeled", "db", Some(&set)),
                pod("orphan", "web", None),
                pod("foreign", "web", Some(&other)),
                pod("unrelated", "db", None),
            ];
            let claims = plan_claims(&set.metadata, &selector, pods, |_| true);
            assert_eq!(names(&claims.owned), owned);
            assert_eq!(names(&claims.adopt), adopt);
            assert_eq!(names(&claims.release), release);
        };
        check(false, &["mine"], &["orphan"], &["relabeled"]);
        check(true, &["mine"], &[], &[]);
    }

    #[test]
    fn a_change_concerns_its_controllers_or_whoever_selects_it() {
        let mut set = owner("1", false);
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        set.spec.get_or_insert_default().selector.match_labels = Some(labels);
        let sets = Informer::fixed([set.clone()]);
        let check = |change: Change<Pod>, expected: &[&str]| {
            let keys = owners_of_change(&change, &sets, |set: &ReplicaSet| {
                selector_of(set.spec.as_ref().map(|spec| &spec.selector))
            });
            let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
            assert_eq!(keys, expected, "{change:?}");
        };
        let mine = pod("a", "web", Some(&set));
        check(Change::Added(mine.clone()), &["default/web"]);
        check(Change::Deleted(mine.clone()), &["default/web"]);
        check(Change::Updated { old: mine, new: pod("a", "db", None) }, &["default/web"]);
        check(Change::Added(pod("a", "web", None)), &["default/web"]);
        check(Change::Deleted(pod("a", "web", None)), &[]);
        check(Change::Added(pod("a", "db", None)), &[]);
    }
}
