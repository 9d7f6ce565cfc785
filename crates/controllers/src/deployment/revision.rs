//! Revisions: which ReplicaSet is which, what annotations it carries, and which old ones are no longer kept.
//!
//! Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::view::{
    DESIRED_REPLICAS, HASH_LABEL, MAX_REPLICAS, REVISION, REVISION_HISTORY, Sets, View, created_of, replicas_of,
    revision_of,
};
use crate::hash::template_hash;
use crate::owners::controller_reference;

/// Annotations of a Deployment that say something about itself and not about its ReplicaSets.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
];
const HISTORY_LIMIT: usize = 2000;
const LONGEST_NAME: usize = 253;

/// The revision that the newest template has or will have.
pub(crate) fn plan_revision(sets: &Sets) -> i64 {
    sets.old.iter().map(|set| revision_of(&set.metadata)).max().unwrap_or_default() + 1
}

/// The ReplicaSet of the Deployment's template, to be created.
pub(crate) fn plan_set(view: &View<'_>, replicas: i32, revision: i64) -> ReplicaSet {
    let Deployment { metadata, status, .. } = view.deployment;
    let collisions = status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&view.spec.template, collisions);
    let mut template = view.spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = view.spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name_of_set(view.name(), &hash)),
            namespace: metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(view.deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: view.spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    };
    annotate_new(view, &mut set, revision);
    annotate_replicas(view, &mut set);
    set
}

/// A Deployment's name is cut where it leaves no room for the hash.
fn name_of_set(deployment: &str, hash: &str) -> String {
    let room = LONGEST_NAME.saturating_sub(hash.len() + 1);
    // Names are ASCII.
    format!("{}-{hash}", deployment.get(..room).unwrap_or(deployment))
}

/// Brings the new set's annotations and `minReadySeconds` up to date.
pub(crate) fn refresh_new(view: &View<'_>, set: &mut ReplicaSet, revision: i64) {
    annotate_new(view, set, revision);
    let wanted = view.spec.min_ready_seconds.unwrap_or_default();
    if let Some(spec) = set.spec.as_mut()
        && spec.min_ready_seconds.unwrap_or_default() != wanted
    {
        spec.min_ready_seconds = view.spec.min_ready_seconds;
    }
}

fn annotate_new(view: &View<'_>, set: &mut ReplicaSet, revision: i64) {
    let before = revision_of(&set.metadata);
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in view.deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    if before < revision {
        annotations.insert(REVISION.to_owned(), revision.to_string());
        if before > 0 {
            remember_revision(annotations, before);
        }
    }
}

/// A set that becomes current again keeps a note of the revisions it once was.
fn remember_revision(annotations: &mut BTreeMap<String, String>, revision: i64) {
    let history = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
    if !history.is_empty() {
        history.push(',');
    }
    history.push_str(&revision.to_string());
    while history.len() > HISTORY_LIMIT {
        match history.split_once(',') {
            Some((_, rest)) => *history = rest.to_owned(),
            None => return,
        }
    }
}

/// Notes on a set how large the Deployment is, so that a later change of scale is noticed and shared out.
pub(crate) fn annotate_replicas(view: &View<'_>, set: &mut ReplicaSet) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED_REPLICAS.to_owned(), view.replicas.to_string());
    annotations.insert(MAX_REPLICAS.to_owned(), (view.replicas + view.max_surge).to_string());
}

/// The Deployment with the revision noted on it; `None` where it is already.
pub(crate) fn plan_deployment_revision(deployment: &Deployment, revision: &str) -> Option<Deployment> {
    let current = deployment.metadata.annotations.as_ref().and_then(|annotations| annotations.get(REVISION));
    if revision.is_empty() || current.is_some_and(|current| current == revision) {
        return None;
    }
    let mut deployment = deployment.clone();
    deployment.metadata.annotations.get_or_insert_default().insert(REVISION.to_owned(), revision.to_owned());
    Some(deployment)
}

/// Old sets beyond the history limit that are empty and settled.
pub(crate) fn plan_cleanup(view: &View<'_>, sets: &Sets) -> Vec<Arc<ReplicaSet>> {
    let Some(limit) = view.spec.revision_history_limit.filter(|limit| *limit != i32::MAX) else { return Vec::new() };
    let mut old: Vec<&Arc<ReplicaSet>> =
        sets.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
    let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
    old.sort_by_key(|set| (revision_of(&set.metadata), created_of(&set.metadata)));
    old.into_iter().take(surplus).filter(|set| is_settled_and_empty(set)).cloned().collect()
}

fn is_settled_and_empty(set: &ReplicaSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    status.replicas == 0
        && replicas_of(set) == 0
        && set.metadata.generation.unwrap_or_default() <= status.observed_generation.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::view::fixtures::{deployment, set, template};
    use super::*;

    #[test]
    fn a_new_set_is_named_labeled_and_annotated() {
        let mut deployment = deployment(3, 1, 0);
        let annotations = deployment.metadata.annotations.get_or_insert_default();
        annotations.insert("team".to_owned(), "a".to_owned());
        annotations.insert(NOT_COPIED[0].to_owned(), "{}".to_owned());
        let view = View::new(&deployment).unwrap();
        let set = plan_set(&view, 3, 4);
        let hash = set.metadata.labels.as_ref().unwrap()[HASH_LABEL].clone();
        assert_eq!(set.metadata.name, Some(format!("web-{hash}")));
        let spec = set.spec.as_ref().unwrap();
        assert_eq!(spec.selector.match_labels.as_ref().unwrap()[HASH_LABEL], hash);
        assert_eq!(spec.template.as_ref().unwrap().metadata.as_ref().unwrap().labels, set.metadata.labels);
        let expected = [("team", "a"), (DESIRED_REPLICAS, "3"), (MAX_REPLICAS, "4"), (REVISION, "4")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(set.metadata.annotations, Some(BTreeMap::from(expected)));
        assert!(crate::owners::is_controlled_by(&set.metadata, &deployment.metadata));
    }

    #[test]
    fn a_long_name_is_cut() {
        assert_eq!(name_of_set("web", "12345"), "web-12345");
        let name = name_of_set(&"a".repeat(250), "12345");
        assert_eq!((name.len(), name.ends_with("a-12345")), (253, true));
    }

    #[test]
    fn a_set_that_comes_back_gets_a_new_revision_and_remembers_the_old() {
        let deployment = deployment(3, 1, 0);
        let view = View::new(&deployment).unwrap();
        let mut back = (*set("v1", 2, 3, 3)).clone();
        refresh_new(&view, &mut back, 5);
        refresh_new(&view, &mut back, 9);
        assert_eq!(revision_of(&back.metadata), 9);
        assert_eq!(back.metadata.annotations.unwrap()[REVISION_HISTORY], "2,5");
    }

    #[test]
    fn the_oldest_empty_sets_go() {
        let check = |limit: Option<i32>, sizes: &[i32], expected: &[i64]| {
            let mut deployment = deployment(3, 1, 0);
            deployment.spec.get_or_insert_default().revision_history_limit = limit;
            let old = sizes.iter().zip(1..).map(|(size, age)| set(&format!("old{age}"), age, *size, *size)).collect();
            let sets = Sets::new(&template("v1"), old);
            let gone = plan_cleanup(&View::new(&deployment).unwrap(), &sets);
            assert_eq!(gone.iter().map(|set| revision_of(&set.metadata)).collect::<Vec<_>>(), expected);
        };
        check(Some(2), &[0, 0, 0], &[1]);
        check(Some(1), &[0, 1, 0], &[1]);
        check(Some(0), &[0, 0], &[1, 2]);
        check(None, &[0, 0], &[]);
        check(Some(10), &[0, 0], &[]);
    }
}
