//! What the Deployment controller asks about a Deployment and its ReplicaSets, with upstream's defaults.
//!
//! Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::int_or_percent::fenceposts;

pub(crate) const HASH_LABEL: &str = "pod-template-hash";
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
pub(crate) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(crate) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(crate) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// A Deployment's spec with defaults applied.
#[derive(Debug, Clone)]
pub(crate) struct View<'a> {
    pub(crate) deployment: &'a Deployment,
    pub(crate) spec: &'a DeploymentSpec,
    pub(crate) replicas: i32,
    pub(crate) is_rolling: bool,
    pub(crate) max_surge: i32,
    pub(crate) max_unavailable: i32,
    pub(crate) is_paused: bool,
    /// `None` where there is no deadline.
    pub(crate) progress_deadline: Option<i64>,
}

impl<'a> View<'a> {
    /// `None` for a Deployment without a spec, which the API server does not let in.
    pub(crate) fn new(deployment: &'a Deployment) -> Option<Self> {
        let spec = deployment.spec.as_ref()?;
        let replicas = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.as_ref();
        let is_rolling = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate");
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let (max_surge, max_unavailable) = match is_rolling {
            true => fenceposts(surge, unavailable, replicas),
            false => (0, 0),
        };
        Some(Self {
            deployment,
            spec,
            replicas,
            is_rolling,
            max_surge,
            max_unavailable: if replicas == 0 { 0 } else { max_unavailable.min(replicas) },
            is_paused: spec.paused == Some(true),
            progress_deadline: spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX).map(i64::from),
        })
    }

    pub(crate) fn name(&self) -> &str {
        self.deployment.metadata.name.as_deref().unwrap_or_default()
    }
}

pub(crate) fn replicas_of(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

pub(crate) fn available_of(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default()
}

pub(crate) fn created_of(meta: &ObjectMeta) -> Option<Timestamp> {
    meta.creation_timestamp.as_ref().map(|time| time.0)
}

pub(crate) fn set_name(set: &ReplicaSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// The number in an annotation; `None` where there is none.
pub(crate) fn annotated<T: std::str::FromStr>(meta: &ObjectMeta, annotation: &str) -> Option<T> {
    meta.annotations.as_ref()?.get(annotation)?.parse().ok()
}

pub(crate) fn revision_of(meta: &ObjectMeta) -> i64 {
    annotated(meta, REVISION).unwrap_or_default()
}

pub(crate) fn sum<'a>(sets: impl IntoIterator<Item = &'a Arc<ReplicaSet>>, count: impl Fn(&ReplicaSet) -> i32) -> i32 {
    sets.into_iter().map(|set| count(set)).sum()
}

/// The ReplicaSets of a Deployment, told apart by their templates.
#[derive(Debug, Clone)]
pub(crate) struct Sets {
    /// The one whose template is the Deployment's; of several the oldest.
    pub(crate) new: Option<Arc<ReplicaSet>>,
    /// All others, oldest first.
    pub(crate) old: Vec<Arc<ReplicaSet>>,
}

impl Sets {
    pub(crate) fn new(template: &PodTemplateSpec, mut sets: Vec<Arc<ReplicaSet>>) -> Self {
        sets.sort_by(|a, b| {
            let by_time = created_of(&a.metadata).cmp(&created_of(&b.metadata));
            by_time.then_with(|| a.metadata.name.cmp(&b.metadata.name))
        });
        let current = sets.iter().position(|set| {
            set.spec
                .as_ref()
                .and_then(|spec| spec.template.as_ref())
                .is_some_and(|other| same_template(template, other))
        });
        let new = current.map(|index| sets.remove(index));
        Self { new, old: sets }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    /// Those that want pods.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.all().filter(|set| replicas_of(set) > 0)
    }
}

/// Whether two templates are equal but for the hash label.
pub(crate) fn same_template(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    let plain = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        let metadata = template.metadata.get_or_insert_default();
        if let Some(labels) = metadata.labels.as_mut() {
            labels.remove(HASH_LABEL);
        }
        // Absent and empty are the same, and a null in the stored form is neither.
        metadata.labels = metadata.labels.take().filter(|labels| !labels.is_empty());
        metadata.annotations = metadata.annotations.take().filter(|annotations| !annotations.is_empty());
        template
    };
    plain(one) == plain(other)
}

#[cfg(test)]
pub(crate) mod fixtures {
    //! Deployments and ReplicaSets as tests need them.

    use super::*;
    use std::collections::BTreeMap;

    use k8s_openapi::api::apps::v1::{DeploymentStrategy, ReplicaSetSpec, ReplicaSetStatus, RollingUpdateDeployment};
    use k8s_openapi::api::core::v1::{Container, PodSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    pub(crate) fn template(image: &str) -> PodTemplateSpec {
        PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(BTreeMap::from([("app".to_owned(), "web".to_owned())])),
                ..ObjectMeta::default()
            }),
            spec: Some(PodSpec {
                containers: vec![Container {
                    name: "web".to_owned(),
                    image: Some(image.to_owned()),
                    ..Container::default()
                }],
                ..PodSpec::default()
            }),
        }
    }

    pub(crate) fn deployment(replicas: i32, surge: i32, unavailable: i32) -> Deployment {
        let rolling = RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(surge)),
            max_unavailable: Some(IntOrString::Int(unavailable)),
        };
        Deployment {
            metadata: ObjectMeta {
                name: Some("web".to_owned()),
                namespace: Some("default".to_owned()),
                uid: Some("deployment".to_owned()),
                generation: Some(1),
                ..ObjectMeta::default()
            },
            spec: Some(DeploymentSpec {
                replicas: Some(replicas),
                selector: LabelSelector {
                    match_labels: Some(BTreeMap::from([("app".to_owned(), "web".to_owned())])),
                    ..LabelSelector::default()
                },
                strategy: Some(DeploymentStrategy {
                    type_: Some("RollingUpdate".to_owned()),
                    rolling_update: Some(rolling),
                }),
                template: template("v1"),
                progress_deadline_seconds: Some(600),
                ..DeploymentSpec::default()
            }),
            status: None,
        }
    }

    /// A set whose image is its name, created `age` seconds after the epoch.
    pub(crate) fn set(image: &str, age: i64, replicas: i32, available: i32) -> Arc<ReplicaSet> {
        Arc::new(ReplicaSet {
            metadata: ObjectMeta {
                name: Some(image.to_owned()),
                namespace: Some("default".to_owned()),
                uid: Some(image.to_owned()),
                creation_timestamp: Some(Time(Timestamp::from_second(age).expect("a small number"))),
                annotations: Some(BTreeMap::from([(REVISION.to_owned(), age.to_string())])),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(replicas),
                template: Some(template(image)),
                ..ReplicaSetSpec::default()
            }),
            status: Some(ReplicaSetStatus {
                replicas,
                ready_replicas: Some(available),
                available_replicas: Some(available),
                ..ReplicaSetStatus::default()
            }),
        })
    }

    pub(crate) fn annotate(set: &mut Arc<ReplicaSet>, annotation: &str, value: i32) {
        let annotations = Arc::make_mut(set).metadata.annotations.get_or_insert_default();
        annotations.insert(annotation.to_owned(), value.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::{deployment, set, template};
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_hash_label_does_not_make_a_template_new() {
        let mut labeled = template("v1");
        let labels = labeled.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(HASH_LABEL.to_owned(), "abc".to_owned());
        assert!(same_template(&template("v1"), &labeled));
        assert!(!same_template(&template("v2"), &labeled));
        let mut bare = template("v1");
        bare.metadata = None;
        let mut empty = template("v1");
        empty.metadata = Some(ObjectMeta { labels: Some(BTreeMap::new()), ..ObjectMeta::default() });
        assert!(same_template(&bare, &empty));
    }

    #[test]
    fn the_oldest_of_equal_sets_is_the_new_one() {
        let sets = Sets::new(&template("v1"), vec![set("v2", 5, 1, 1), set("v1", 9, 1, 1), set("v1", 3, 1, 1)]);
        assert_eq!(sets.new.map(|set| revision_of(&set.metadata)), Some(3));
        assert_eq!(sets.old.iter().map(|set| revision_of(&set.metadata)).collect::<Vec<_>>(), [5, 9]);
    }

    #[test]
    fn unavailability_is_bounded_by_the_replicas() {
        let check = |replicas, surge, unavailable, expected| {
            let deployment = deployment(replicas, surge, unavailable);
            let view = View::new(&deployment).unwrap();
            assert_eq!((view.max_surge, view.max_unavailable), expected);
        };
        check(3, 1, 1, (1, 1));
        check(3, 0, 9, (0, 3));
        check(0, 1, 1, (1, 0));
        check(3, 0, 0, (0, 1));
    }
}
