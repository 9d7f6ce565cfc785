//! Revisions of templates, as DaemonSets and StatefulSets keep them in ControllerRevisions.
//!
//! Invariant: a template has one revision; going back to an old template makes its revision the newest.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kedge_client::{Informer, object_key};
use kedge_meta::{LabelSelector, ObjectKey};
use kube::Resource;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{ReconcileError, is_already_exists, unless_gone};
use crate::expectations::Expectations;
use crate::hash::template_hash;
use crate::owners::{controller_reference, execute_claims, is_controlled_by, plan_claims};
use crate::pods::name_of;
use crate::runtime::Context;

/// The label of revisions and of the pods made from them.
pub(crate) const REVISION_HASH: &str = "controller-revision-hash";
const CONTROLLER_HASH: &str = "controller.kubernetes.io/hash";

/// The revisions of one set.
pub(crate) struct Revisions {
    /// That of the current template.
    pub(crate) current: ControllerRevision,
    /// All others, oldest first.
    pub(crate) others: Vec<Arc<ControllerRevision>>,
}

/// What became of looking for the current template's revision.
pub(crate) enum Outcome {
    Found(Box<Revisions>),
    /// Another template has the same hash: the collision count must grow.
    Collision,
    /// The cache does not show the last write yet.
    Lagging(std::time::Duration),
}

/// The hash in a revision's labels.
pub(crate) fn hash_of(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(REVISION_HASH).or_else(|| labels.get(CONTROLLER_HASH)));
    label.map(String::as_str).unwrap_or_default()
}

/// The part of a set that a revision keeps: a patch that puts the template back.
fn template_data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).expect("API objects are serializable");
    template["$patch"] = json!("replace");
    json!({ "spec": { "template": template } })
}

/// The template that a revision keeps.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// How the current template's revision comes about.
#[derive(Debug, PartialEq)]
enum Plan {
    Use(Arc<ControllerRevision>),
    /// An old one becomes the newest again.
    Renew(Box<ControllerRevision>),
    Create(i64),
}

fn plan(revisions: &[Arc<ControllerRevision>], data: &Value) -> Plan {
    let newest = revisions.iter().map(|revision| revision.revision).max().unwrap_or_default();
    let same = |revision: &&Arc<ControllerRevision>| revision.data.as_ref().is_some_and(|kept| kept.0 == *data);
    match revisions.iter().filter(same).max_by_key(|revision| revision.revision) {
        None => Plan::Create(newest + 1),
        Some(found) if found.revision == newest => Plan::Use(found.clone()),
        Some(found) => Plan::Renew(Box::new(ControllerRevision { revision: newest + 1, ..(**found).clone() })),
    }
}

/// Old revisions beyond the limit that no pod is of.
pub(crate) fn plan_truncation(
    others: &[Arc<ControllerRevision>],
    live: &HashSet<String>,
    limit: i32,
) -> Vec<Arc<ControllerRevision>> {
    let is_live = |revision: &&Arc<ControllerRevision>| {
        live.contains(hash_of(revision)) || live.contains(name_of(&revision.metadata))
    };
    let mut idle: Vec<&Arc<ControllerRevision>> = others.iter().filter(|revision| !is_live(revision)).collect();
    idle.sort_by_key(|revision| revision.revision);
    let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
    idle.into_iter().take(surplus).cloned().collect()
}

/// Access to revisions for one controller.
pub(crate) struct History<'a> {
    pub(crate) context: &'a Context,
    pub(crate) cache: &'a Informer<ControllerRevision>,
    pub(crate) expectations: &'a Expectations,
}

impl History<'_> {
    /// Finds the revision of the owner's template, or makes it.
    pub(crate) async fn sync<K>(
        &self,
        owner: &K,
        selector: &LabelSelector,
        template: &PodTemplateSpec,
        collisions: Option<i32>,
    ) -> Result<Outcome, ReconcileError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let key = object_key(owner);
        if let Some(lag) = self.expectations.lag(&key, self.cache, self.context.now()) {
            return Ok(Outcome::Lagging(lag));
        }
        let claims = plan_claims(owner.meta(), selector, self.cache.in_namespace(&key.namespace), |_| true);
        let mut all = execute_claims(&self.context.client, owner, claims).await?;
        all.sort_by_key(|revision| (revision.revision, revision.metadata.name.clone()));
        let data = template_data(template);
        let api = Api::<ControllerRevision>::namespaced(self.context.client.clone(), &key.namespace);
        let current = match plan(&all, &data) {
            Plan::Use(revision) => (*revision).clone(),
            Plan::Renew(revision) => {
                let name = name_of(&revision.metadata);
                let renewed = api.replace(name, &PostParams::default(), &revision).await?;
                self.expectations.updated(&key, &renewed.metadata, self.context.now());
                renewed
            }
            Plan::Create(number) => {
                let wanted = new_revision(owner, template, data, number, collisions);
                match self.create(&api, &key, owner.meta(), &wanted).await? {
                    Some(created) => created,
                    None => return Ok(Outcome::Collision),
                }
            }
        };
        all.retain(|revision| revision.metadata.name != current.metadata.name);
        Ok(Outcome::Found(Box::new(Revisions { current, others: all })))
    }

    /// `None` where the name belongs to another template.
    async fn create(
        &self,
        api: &Api<ControllerRevision>,
        key: &ObjectKey,
        owner: &ObjectMeta,
        wanted: &ControllerRevision,
    ) -> Result<Option<ControllerRevision>, ReconcileError> {
        let created = match api.create(&PostParams::default(), wanted).await {
            Ok(created) => created,
            Err(error) if is_already_exists(&error) => {
                let found = api.get(name_of(&wanted.metadata)).await?;
                if found.data != wanted.data || !is_controlled_by(&found.metadata, owner) {
                    return Ok(None);
                }
                found
            }
            Err(error) => return Err(error.into()),
        };
        self.expectations.created(key, &created.metadata, self.context.now());
        Ok(Some(created))
    }

    /// Deletes old revisions that are no longer needed.
    pub(crate) async fn truncate(
        &self,
        key: &ObjectKey,
        others: &[Arc<ControllerRevision>],
        live: &HashSet<String>,
        limit: i32,
    ) -> Result<(), ReconcileError> {
        let api = Api::<ControllerRevision>::namespaced(self.context.client.clone(), &key.namespace);
        for revision in plan_truncation(others, live, limit) {
            unless_gone(api.delete(name_of(&revision.metadata), &DeleteParams::default()).await)?;
        }
        Ok(())
    }
}

fn new_revision<K>(
    owner: &K,
    template: &PodTemplateSpec,
    data: Value,
    number: i64,
    collisions: Option<i32>,
) -> ControllerRevision
where
    K: Resource<DynamicType = ()>,
{
    let hash = template_hash(&data, collisions);
    let mut labels: BTreeMap<String, String> =
        template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    labels.insert(REVISION_HASH.to_owned(), hash.clone());
    labels.insert(CONTROLLER_HASH.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", name_of(owner.meta()))),
            namespace: owner.meta().namespace.clone(),
            labels: Some(labels),
            annotations: owner.meta().annotations.clone(),
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision: number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodSpec;

    fn revision(number: i64, data: &str) -> Arc<ControllerRevision> {
        let labels = BTreeMap::from([(REVISION_HASH.to_owned(), data.to_owned())]);
        Arc::new(ControllerRevision {
            metadata: ObjectMeta { name: Some(data.to_owned()), labels: Some(labels), ..ObjectMeta::default() },
            data: Some(RawExtension(json!(data))),
            revision: number,
        })
    }

    #[test]
    fn a_template_has_one_revision() {
        let known = [revision(1, "a"), revision(2, "b")];
        assert_eq!(plan(&known, &json!("b")), Plan::Use(known[1].clone()));
        assert_eq!(plan(&known, &json!("c")), Plan::Create(3));
        assert_eq!(plan(&[], &json!("c")), Plan::Create(1));
        let Plan::Renew(renewed) = plan(&known, &json!("a")) else { panic!("it is not renewed") };
        assert_eq!((renewed.revision, &renewed.data), (3, &Some(RawExtension(json!("a")))));
    }

    #[test]
    fn old_revisions_without_pods_go() {
        let known = [revision(1, "a"), revision(2, "b"), revision(3, "c")];
        let gone = |live: &[&str], limit| -> Vec<i64> {
            let live = live.iter().map(|&hash| hash.to_owned()).collect();
            plan_truncation(&known, &live, limit).iter().map(|revision| revision.revision).collect()
        };
        assert_eq!(gone(&[], 10), Vec::<i64>::new());
        assert_eq!(gone(&[], 1), [1, 2]);
        assert_eq!(gone(&["a"], 0), [2, 3]);
    }

    #[test]
    fn a_revision_gives_its_template_back() {
        let template = PodTemplateSpec {
            spec: Some(PodSpec { hostname: Some("h".to_owned()), ..PodSpec::default() }),
            ..PodTemplateSpec::default()
        };
        let data = Some(RawExtension(template_data(&template)));
        assert_eq!(template_of(&ControllerRevision { data, ..ControllerRevision::default() }), Some(template));
    }
}
