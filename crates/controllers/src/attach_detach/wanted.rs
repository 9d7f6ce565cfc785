//! Which volumes the pods of a node want attached to it.
//!
//! Pure, over what [`Storage`] answers from caches.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, Pod};
use sha2::{Digest, Sha256};

use crate::pods::{is_terminal, name_of};
use crate::volume_protection::claims_of;

/// What is known about claims, volumes and drivers.
pub(super) trait Storage {
    /// The volume that a claim of a pod's namespace is bound to.
    fn volume_of(&self, pod: &Pod, claim: &str) -> Option<Arc<PersistentVolume>>;
    /// Whether a driver's volumes must be attached.
    fn attaches(&self, driver: &str) -> bool;
    /// A reference to a pod, for events.
    fn reference(&self, pod: &Pod) -> ObjectReference;
}

/// A volume that is wanted on a node.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    /// The PersistentVolume.
    pub(super) volume: String,
    pub(super) driver: String,
    pub(super) handle: String,
    /// Only one node may have it.
    pub(super) is_exclusive: bool,
    /// The pods that want it.
    pub(super) pods: Vec<ObjectReference>,
}

impl Wanted {
    /// The name that nodes report a volume by.
    pub(super) fn unique_name(&self) -> String {
        unique_name(&self.driver, &self.handle)
    }

    /// The name of the VolumeAttachment, which drivers and kubelets compute as well.
    pub(super) fn attachment_name(&self, node: &str) -> String {
        let hash = Sha256::digest(format!("{}{}{node}", self.handle, self.driver));
        hash.iter().fold("csi-".to_owned(), |mut name, byte| {
            // Writing to a string does not fail.
            let _ = write!(name, "{byte:02x}");
            name
        })
    }
}

/// Whether an attachment's name is one that this controller gives: the others are somebody else's.
pub(super) fn is_own_name(name: &str) -> bool {
    name.strip_prefix("csi-").is_some_and(|hash| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The name that nodes report a CSI volume by.
pub(super) fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

/// The volumes that pods of one node want attached, by name.
pub(super) fn wanted_on(pods: &[Arc<Pod>], storage: &impl Storage) -> Vec<Wanted> {
    let mut wanted = BTreeMap::<String, Wanted>::new();
    for pod in pods.iter().filter(|pod| !is_over(pod)) {
        for claim in claims_of(pod) {
            let Some(volume) = storage.volume_of(pod, &claim) else { continue };
            let Some(spec) = &volume.spec else { continue };
            let Some(csi) = spec.csi.as_ref().filter(|csi| storage.attaches(&csi.driver)) else { continue };
            let modes = spec.access_modes.as_deref().unwrap_or_default();
            let is_shared = modes.iter().any(|mode| matches!(mode.as_str(), "ReadWriteMany" | "ReadOnlyMany"));
            let name = name_of(&volume.metadata).to_owned();
            let entry = wanted.entry(name.clone()).or_insert_with(|| Wanted {
                volume: name,
                driver: csi.driver.clone(),
                handle: csi.volume_handle.clone(),
                is_exclusive: !modes.is_empty() && !is_shared,
                pods: Vec::new(),
            });
            entry.pods.push(storage.reference(pod));
        }
    }
    wanted.into_values().collect()
}

/// Whether a pod has ended, or is being deleted and none of its containers runs any more.
fn is_over(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut known = statuses.peekable();
    let has_any = known.peek().is_some();
    let mut none_runs = || known.all(|status| status.state.as_ref().is_some_and(|state| state.running.is_none()));
    is_terminal(pod) || pod.metadata.deletion_timestamp.is_some() && has_any && none_runs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_are_named_as_drivers_expect() {
        let wanted = Wanted {
            volume: "pv".to_owned(),
            driver: "driver".to_owned(),
            handle: "vol".to_owned(),
            is_exclusive: true,
            pods: Vec::new(),
        };
        assert_eq!(wanted.unique_name(), "kubernetes.io/csi/driver^vol");
        // printf 'voldrivernode' | sha256sum
        let expected = "csi-4af94228ee9d441e02225497584706bfc975bdb4d2db3571d8c5db2668c1e969";
        assert_eq!(wanted.attachment_name("node"), expected);
    }
}
