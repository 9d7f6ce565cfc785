//! One form for both kinds of CSI volumes: persistent ones and those written into a pod.
//!
//! Pure. Invariant: names of attachments and ephemeral volumes are upstream's, as other programs compute them too.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{CSIVolumeSource, PersistentVolume, Pod, SecretReference};
use kedge_csi::{AccessMode, NodeCapabilities};
use sha2::{Digest, Sha256};

use crate::pod;

/// A volume of a CSI driver.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CsiSource {
    pub(crate) driver: String,
    pub(crate) handle: String,
    /// The persistent volume's name, or the volume's name in the pod.
    pub(crate) spec_name: String,
    pub(crate) fs_type: String,
    pub(crate) read_only: bool,
    pub(crate) attributes: HashMap<String, String>,
    pub(crate) stage_secret: Option<SecretReference>,
    pub(crate) publish_secret: Option<SecretReference>,
    pub(crate) expand_secret: Option<SecretReference>,
    pub(crate) access_modes: Vec<String>,
    pub(crate) mount_options: Vec<String>,
    pub(crate) block: bool,
    /// Its life is the pod's.
    pub(crate) ephemeral: bool,
}

impl CsiSource {
    /// A persistent volume of a CSI driver; `None` for other volumes.
    pub(crate) fn persistent(volume: &PersistentVolume, claim_read_only: bool) -> Option<Self> {
        let spec = volume.spec.as_ref()?;
        let csi = spec.csi.as_ref()?;
        Some(Self {
            driver: csi.driver.clone(),
            handle: csi.volume_handle.clone(),
            spec_name: volume.metadata.name.clone().unwrap_or_default(),
            fs_type: csi.fs_type.clone().unwrap_or_default(),
            read_only: claim_read_only || csi.read_only.unwrap_or(false),
            attributes: attributes(csi.volume_attributes.as_ref()),
            stage_secret: csi.node_stage_secret_ref.clone(),
            publish_secret: csi.node_publish_secret_ref.clone(),
            expand_secret: csi.node_expand_secret_ref.clone(),
            access_modes: spec.access_modes.clone().unwrap_or_default(),
            mount_options: spec.mount_options.clone().unwrap_or_default(),
            block: spec.volume_mode.as_deref() == Some("Block"),
            ephemeral: false,
        })
    }

    /// A volume that is written into the pod.
    pub(crate) fn inline(pod: &Pod, name: &str, csi: &CSIVolumeSource) -> Self {
        let secret = csi.node_publish_secret_ref.as_ref().map(|reference| SecretReference {
            name: Some(reference.name.clone()),
            namespace: Some(pod::namespace(pod).to_owned()),
        });
        Self {
            driver: csi.driver.clone(),
            handle: ephemeral_handle(pod::uid(pod), name),
            spec_name: name.to_owned(),
            fs_type: csi.fs_type.clone().unwrap_or_default(),
            read_only: csi.read_only.unwrap_or(false),
            attributes: attributes(csi.volume_attributes.as_ref()),
            stage_secret: None,
            publish_secret: secret,
            expand_secret: None,
            access_modes: Vec::new(),
            mount_options: Vec::new(),
            block: false,
            ephemeral: true,
        }
    }

    /// How the driver is told to use it.
    pub(crate) fn access_mode(&self, capabilities: NodeCapabilities) -> AccessMode {
        let several = capabilities.single_node_multi_writer;
        match self.access_modes.first().map(String::as_str) {
            Some("ReadOnlyMany") => AccessMode::MultiNodeReaderOnly,
            Some("ReadWriteMany") => AccessMode::MultiNodeMultiWriter,
            Some("ReadWriteOncePod") if several => AccessMode::SingleNodeSingleWriter,
            _ if several => AccessMode::SingleNodeMultiWriter,
            _ => AccessMode::SingleNodeWriter,
        }
    }

    pub(crate) fn lifecycle(&self) -> &'static str {
        if self.ephemeral { "Ephemeral" } else { "Persistent" }
    }

    /// Whether the kubelet gives its files to the pod's group, by the driver's policy.
    pub(crate) fn takes_group(&self, policy: &str) -> bool {
        match policy {
            "None" => false,
            _ if self.read_only => false,
            "File" => true,
            _ => {
                let once = |mode: &String| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod";
                !self.fs_type.is_empty() && self.access_modes.iter().any(once)
            }
        }
    }
}

fn attributes(map: Option<&BTreeMap<String, String>>) -> HashMap<String, String> {
    map.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn hex(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The handle of a volume that is written into a pod.
pub(crate) fn ephemeral_handle(pod_uid: &str, volume: &str) -> String {
    format!("csi-{}", hex(&[pod_uid, volume]))
}

/// The name of a VolumeAttachment.
pub(crate) fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", hex(&[handle, driver, node]))
}

/// The directory of a volume's staging place.
pub(crate) fn staging_name(handle: &str) -> String {
    hex(&[handle])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(modes: &[&str], fs_type: &str) -> CsiSource {
        let mut source = CsiSource::inline(&Pod::default(), "v", &CSIVolumeSource::default());
        source.access_modes = modes.iter().map(|mode| (*mode).to_owned()).collect();
        source.fs_type = fs_type.to_owned();
        source
    }

    #[test]
    fn access_modes_are_the_protocols() {
        let check = |mode: &str, several: bool, expected: AccessMode| {
            let capabilities = NodeCapabilities { single_node_multi_writer: several, ..NodeCapabilities::default() };
            assert_eq!(source(&[mode], "").access_mode(capabilities), expected, "{mode} {several}");
        };
        check("ReadWriteOnce", false, AccessMode::SingleNodeWriter);
        check("ReadWriteOnce", true, AccessMode::SingleNodeMultiWriter);
        check("ReadWriteOncePod", false, AccessMode::SingleNodeWriter);
        check("ReadWriteOncePod", true, AccessMode::SingleNodeSingleWriter);
        check("ReadOnlyMany", true, AccessMode::MultiNodeReaderOnly);
        check("ReadWriteMany", false, AccessMode::MultiNodeMultiWriter);
    }

    #[test]
    fn the_drivers_policy_decides_about_the_group() {
        let check = |policy: &str, modes: &[&str], fs_type: &str, expected: bool| {
            assert_eq!(source(modes, fs_type).takes_group(policy), expected, "{policy} {modes:?} {fs_type:?}");
        };
        check("None", &["ReadWriteOnce"], "ext4", false);
        check("File", &["ReadWriteMany"], "", true);
        check("ReadWriteOnceWithFSType", &["ReadWriteOnce"], "ext4", true);
        check("ReadWriteOnceWithFSType", &["ReadWriteOnce"], "", false);
        check("ReadWriteOnceWithFSType", &["ReadWriteMany"], "ext4", false);
        check("ReadWriteOnceWithFSType", &["ReadWriteOncePod"], "xfs", true);
        let mut read_only = source(&["ReadWriteOnce"], "ext4");
        read_only.read_only = true;
        assert!(!read_only.takes_group("File"));
    }

    #[test]
    fn names_are_hashes_of_what_they_stand_for() {
        // printf handledrivernode | sha256sum
        assert_eq!(attachment_name("handle", "driver", "node"), format!("csi-{}", hex(&["handledrivernode"])));
        assert_eq!(staging_name(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
