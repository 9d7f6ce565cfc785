//! Mirror pods: the API's images of static pods, so that they can be seen but not changed there.
//!
//! Invariant: a mirror carries its static pod's hash, and one that carries another hash is deleted and made anew.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};

use crate::spec;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What has to happen to a static pod's mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MirrorPlan {
    /// It is right.
    Keep,
    /// There is none.
    Create,
    /// It shows another pod, or is being deleted.
    Replace,
}

/// Compares a static pod with its mirror.
pub(crate) fn plan_mirror(pod: &Pod, mirror: Option<&Pod>) -> MirrorPlan {
    let Some(mirror) = mirror else { return MirrorPlan::Create };
    let hash = spec::annotation(mirror, spec::CONFIG_MIRROR_ANNOTATION);
    let same = hash.is_some() && hash == spec::annotation(pod, spec::CONFIG_HASH_ANNOTATION);
    if same && mirror.metadata.deletion_timestamp.is_none() { MirrorPlan::Keep } else { MirrorPlan::Replace }
}

/// The mirror of a static pod; the node owns it.
pub(crate) fn mirror_of(pod: &Pod, node: Option<&Node>) -> Pod {
    let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
    let hash = annotations.get(spec::CONFIG_HASH_ANNOTATION).cloned().unwrap_or_default();
    annotations.insert(spec::CONFIG_MIRROR_ANNOTATION.to_owned(), hash);
    let owner = node.and_then(|node| {
        Some(OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: node.metadata.name.clone()?,
            uid: node.metadata.uid.clone()?,
            controller: Some(true),
            block_owner_deletion: None,
        })
    });
    Pod {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            labels: pod.metadata.labels.clone(),
            annotations: Some(annotations),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: pod.spec.clone(),
        status: None,
    }
}

/// Creates a mirror; it may be there already.
pub(crate) async fn create(client: &Client, mirror: Pod) -> Result<(), kube::Error> {
    let api = Api::<Pod>::namespaced(client.clone(), spec::namespace(&mirror));
    match tokio::time::timeout(REQUEST_TIMEOUT, api.create(&PostParams::default(), &mirror)).await {
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(()),
        Ok(result) => result.map(|_| ()),
        Err(elapsed) => Err(kube::Error::Service(Box::new(elapsed))),
    }
}

/// Deletes a mirror at once; it may be gone already.
pub(crate) async fn delete(client: &Client, mirror: &Arc<Pod>) -> Result<(), kube::Error> {
    let api = Api::<Pod>::namespaced(client.clone(), spec::namespace(mirror));
    let preconditions = Preconditions { uid: mirror.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }.grace_period(0);
    match tokio::time::timeout(REQUEST_TIMEOUT, api.delete(spec::name(mirror), &params)).await {
        Ok(Err(kube::Error::Api(status))) if status.code == 404 || status.code == 409 => Ok(()),
        Ok(result) => result.map(|_| ()),
        Err(elapsed) => Err(kube::Error::Service(Box::new(elapsed))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    #[test]
    fn a_mirror_shows_exactly_one_pod() {
        let text = b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b}]}\n";
        let read =
            |text: &[u8]| manifest::parse(std::path::Path::new("/a"), text, "n", jiff::Timestamp::UNIX_EPOCH).unwrap();
        let pod = read(text);
        assert_eq!(plan_mirror(&pod, None), MirrorPlan::Create);
        let mut mirror = mirror_of(&pod, None);
        assert!(spec::is_mirror(&mirror));
        assert_eq!(plan_mirror(&pod, Some(&mirror)), MirrorPlan::Keep);
        let changed =
            read(b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: c}]}\n");
        assert_eq!(plan_mirror(&changed, Some(&mirror)), MirrorPlan::Replace);
        mirror.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(plan_mirror(&pod, Some(&mirror)), MirrorPlan::Replace);
    }
}
