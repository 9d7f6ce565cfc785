//! ReplicaSet and ReplicationController as one kind of thing: so many pods of a template.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kedge_meta::LabelSelector;
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::owners::selector_of;

/// A condition of either kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    pub(crate) type_: String,
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) last_transition_time: Option<Time>,
}

/// The status of either kind.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ReplicaStatus {
    pub(crate) replicas: i32,
    pub(crate) fully_labeled: i32,
    pub(crate) ready: i32,
    pub(crate) available: i32,
    pub(crate) terminating: Option<i32>,
    pub(crate) observed_generation: i64,
    pub(crate) conditions: Vec<Condition>,
}

/// ReplicaSet or ReplicationController.
pub(crate) trait ReplicaKind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
    fn wanted(&self) -> i32;
    fn selector(&self) -> Option<LabelSelector>;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn min_ready_seconds(&self) -> i32;
    fn status(&self) -> ReplicaStatus;
    fn with_status(&self, status: ReplicaStatus) -> Self;

    fn template_labels(&self) -> Option<&BTreeMap<String, String>> {
        self.template()?.metadata.as_ref()?.labels.as_ref()
    }
}

impl ReplicaKind for ReplicaSet {
    fn wanted(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn selector(&self) -> Option<LabelSelector> {
        selector_of(self.spec.as_ref().map(|spec| &spec.selector))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
    }

    fn status(&self) -> ReplicaStatus {
        let status = self.status.clone().unwrap_or_default();
        ReplicaStatus {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or_default(),
            ready: status.ready_replicas.unwrap_or_default(),
            available: status.available_replicas.unwrap_or_default(),
            terminating: status.terminating_replicas,
            observed_generation: status.observed_generation.unwrap_or_default(),
            conditions: status.conditions.into_iter().flatten().map(from_replica_set).collect(),
        }
    }

    fn with_status(&self, status: ReplicaStatus) -> Self {
        let conditions = status.conditions.into_iter().map(into_replica_set).collect();
        let status = ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: nonzero(status.fully_labeled),
            ready_replicas: nonzero(status.ready),
            available_replicas: nonzero(status.available),
            terminating_replicas: status.terminating,
            observed_generation: Some(status.observed_generation),
            conditions: Some(conditions).filter(|conditions: &Vec<_>| !conditions.is_empty()),
        };
        Self { status: Some(status), ..self.clone() }
    }
}

impl ReplicaKind for ReplicationController {
    fn wanted(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn selector(&self) -> Option<LabelSelector> {
        let selector = self.spec.as_ref()?.selector.as_ref()?;
        Some(LabelSelector::from_map(selector)).filter(|selector| !selector.is_everything())
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
    }

    fn status(&self) -> ReplicaStatus {
        let status = self.status.clone().unwrap_or_default();
        ReplicaStatus {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or_default(),
            ready: status.ready_replicas.unwrap_or_default(),
            available: status.available_replicas.unwrap_or_default(),
            terminating: None,
            observed_generation: status.observed_generation.unwrap_or_default(),
            conditions: status.conditions.into_iter().flatten().map(from_replication_controller).collect(),
        }
    }

    fn with_status(&self, status: ReplicaStatus) -> Self {
        let conditions = status.conditions.into_iter().map(into_replication_controller).collect();
        let status = ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: nonzero(status.fully_labeled),
            ready_replicas: nonzero(status.ready),
            available_replicas: nonzero(status.available),
            observed_generation: Some(status.observed_generation),
            conditions: Some(conditions).filter(|conditions: &Vec<_>| !conditions.is_empty()),
        };
        Self { status: Some(status), ..self.clone() }
    }
}

/// Upstream leaves out counts of zero.
fn nonzero(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}

fn from_replica_set(condition: ReplicaSetCondition) -> Condition {
    let ReplicaSetCondition { type_, status, reason, message, last_transition_time } = condition;
    Condition { type_, status, reason, message, last_transition_time }
}

fn into_replica_set(condition: Condition) -> ReplicaSetCondition {
    let Condition { type_, status, reason, message, last_transition_time } = condition;
    ReplicaSetCondition { type_, status, reason, message, last_transition_time }
}

fn from_replication_controller(condition: ReplicationControllerCondition) -> Condition {
    let ReplicationControllerCondition { type_, status, reason, message, last_transition_time } = condition;
    Condition { type_, status, reason, message, last_transition_time }
}

fn into_replication_controller(condition: Condition) -> ReplicationControllerCondition {
    let Condition { type_, status, reason, message, last_transition_time } = condition;
    ReplicationControllerCondition { type_, status, reason, message, last_transition_time }
}
