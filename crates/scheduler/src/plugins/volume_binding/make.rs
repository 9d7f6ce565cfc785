//! Whether a volume can be made for a claim on a node: the class must have a provisioner and allow the node's place, and
//! where the driver tells how much room it has, there must be enough.
//!
//! Pure.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, TopologySelectorTerm};
use k8s_openapi::api::storage::v1::{CSIStorageCapacity, StorageClass};
use kedge_meta::Quantity;

use super::find::requested;
use crate::framework::Surroundings;
use crate::node_info::NodeInfo;
use crate::selectors::label_selector_matches;

const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Whether a volume can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Making {
    Can,
    Cannot,
    TooFull,
}

/// Whether a volume can be made for a claim on a node.
pub(super) fn can_make(
    claim: &PersistentVolumeClaim,
    class: Option<&StorageClass>,
    node: &NodeInfo,
    surroundings: &Surroundings,
) -> Making {
    let Some(class) = class else { return Making::Cannot };
    let has_provisioner = !class.provisioner.is_empty() && class.provisioner != NO_PROVISIONER;
    if !has_provisioner || !is_allowed(class.allowed_topologies.as_deref().unwrap_or_default(), node) {
        return Making::Cannot;
    }
    match has_room(claim, class, node, surroundings) {
        true => Making::Can,
        false => Making::TooFull,
    }
}

/// Whether one of the terms, if there are any, holds for the node. A term that says nothing holds for none.
fn is_allowed(terms: &[TopologySelectorTerm], node: &NodeInfo) -> bool {
    let holds = |term: &TopologySelectorTerm| {
        let requirements = term.match_label_expressions.as_deref().unwrap_or_default();
        let meets = |key: &str, values: &[String]| node.labels().get(key).is_some_and(|value| values.contains(value));
        !requirements.is_empty() && requirements.iter().all(|one| meets(&one.key, &one.values))
    };
    terms.is_empty() || terms.iter().any(holds)
}

fn has_room(claim: &PersistentVolumeClaim, class: &StorageClass, node: &NodeInfo, surroundings: &Surroundings) -> bool {
    let driver = surroundings.drivers.iter().find(|driver| driver.metadata.name.as_ref() == Some(&class.provisioner));
    let tells = driver.is_some_and(|driver| driver.spec.storage_capacity == Some(true));
    let size = requested(claim);
    let is_enough = |capacity: &CSIStorageCapacity| {
        let most = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref());
        most.and_then(|most| most.0.parse::<Quantity>().ok()).is_some_and(|most| most >= size)
    };
    !tells
        || surroundings.capacities.iter().any(|capacity| {
            Some(&capacity.storage_class_name) == class.metadata.name.as_ref()
                && is_enough(capacity)
                && label_selector_matches(capacity.node_topology.as_ref(), node.labels())
        })
}
