//! The PersistentVolume of a claim, and what is read from claims and volumes again and again.
//!
//! Pure. Invariant: a claim's volume has one name, which its uid makes.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{
    LocalVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
    PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kedge_client::object_reference;
use kedge_meta::Quantity;

use crate::class::PROVISIONER;

/// Keeps a volume's object until its directory is gone; the name that external provisioners share.
pub(crate) const FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
pub(crate) const HOSTNAME: &str = "kubernetes.io/hostname";

/// An annotation of an object.
pub(crate) fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The name of a claim's volume.
pub(crate) fn volume_name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default())
}

/// The amount of storage in a list of resources.
pub(crate) fn storage(amounts: Option<&BTreeMap<String, ApiQuantity>>) -> Quantity {
    amounts.and_then(|amounts| amounts.get("storage")).and_then(|amount| amount.0.parse().ok()).unwrap_or_default()
}

/// What a claim asks for.
pub(crate) fn requested(claim: &PersistentVolumeClaim) -> Option<&BTreeMap<String, ApiQuantity>> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()
}

/// Whether this provisioner made a volume.
pub(crate) fn is_ours(volume: &PersistentVolume) -> bool {
    annotation(&volume.metadata, PROVISIONED_BY) == Some(PROVISIONER)
}

/// The host name to which a volume's node affinity ties it.
pub(crate) fn host_of(volume: &PersistentVolume) -> Option<&str> {
    let required = volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    let expressions = required.node_selector_terms.iter().flat_map(|term| term.match_expressions.iter().flatten());
    let by_host = expressions.into_iter().find(|expression| expression.key == HOSTNAME)?;
    by_host.values.as_ref()?.first().map(String::as_str)
}

/// The volume that describes a claim's directory.
pub(crate) fn new_volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    host: &str,
    path: &Path,
) -> PersistentVolume {
    let spec = claim.spec.clone().unwrap_or_default();
    let size = ApiQuantity(
        requested(claim)
            .and_then(|amounts| amounts.get("storage"))
            .map_or_else(|| "0".to_owned(), |amount| amount.0.clone()),
    );
    let deletes = class.reclaim_policy.as_deref().unwrap_or("Delete") == "Delete";
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(volume_name(claim)),
            annotations: Some([(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())].into()),
            finalizers: deletes.then(|| vec![FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: Some([("storage".to_owned(), size)].into()),
            claim_ref: Some(object_reference(claim)),
            local: Some(LocalVolumeSource { path: path.display().to_string(), fs_type: None }),
            mount_options: class.mount_options.clone(),
            node_affinity: Some(VolumeNodeAffinity { required: Some(only_host(host)) }),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
            storage_class_name: class.metadata.name.clone(),
            volume_attributes_class_name: spec.volume_attributes_class_name,
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

fn only_host(host: &str) -> NodeSelector {
    let by_host = NodeSelectorRequirement {
        key: HOSTNAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![host.to_owned()]),
    };
    NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm { match_expressions: Some(vec![by_host]), match_fields: None }],
    }
}
