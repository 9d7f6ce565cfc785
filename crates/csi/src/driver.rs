//! The node service of one driver.
//!
//! Requests are put together here, so that callers speak of access modes and paths and not of message fields. Invariant:
//! secrets appear in no log and no error of this crate.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::channel::Channel;
use crate::error::CsiError;
use crate::v1;
use crate::v1::volume_capability::AccessType as WireAccessType;

/// From how many nodes and with how many writers a volume is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessMode {
    /// One node reads and writes.
    SingleNodeWriter = 1,
    /// Many nodes read.
    MultiNodeReaderOnly = 3,
    /// Many nodes read and write.
    MultiNodeMultiWriter = 5,
    /// One pod of one node reads and writes.
    SingleNodeSingleWriter = 6,
    /// Several pods of one node read and write.
    SingleNodeMultiWriter = 7,
}

/// How a volume appears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessType {
    /// As a block device.
    Block,
    /// As a file system.
    Mount {
        /// Such as `ext4`; the driver's choice where empty.
        fs_type: String,
        /// Options for mount.
        flags: Vec<String>,
        /// The group of all files, for drivers that set it.
        group: Option<u32>,
    },
}

impl AccessType {
    fn capability(&self, mode: AccessMode) -> v1::VolumeCapability {
        let access_type = match self {
            Self::Block => WireAccessType::Block(v1::BlockVolume {}),
            Self::Mount { fs_type, flags, group } => WireAccessType::Mount(v1::MountVolume {
                fs_type: fs_type.clone(),
                mount_flags: flags.clone(),
                volume_mount_group: group.map(|group| group.to_string()).unwrap_or_default(),
            }),
        };
        v1::VolumeCapability {
            access_type: Some(access_type),
            access_mode: Some(v1::VolumeAccessMode { mode: mode as i32 }),
        }
    }
}

/// What a driver's node service can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeCapabilities {
    /// Volumes are staged once for all pods.
    pub stage: bool,
    /// It knows how full a volume is.
    pub stats: bool,
    /// It makes file systems larger.
    pub expand: bool,
    /// It says whether something is wrong with a volume.
    pub condition: bool,
    /// It tells one pod from several on a node.
    pub single_node_multi_writer: bool,
    /// It sets the group of a volume's files.
    pub mount_group: bool,
}

impl NodeCapabilities {
    fn read(answer: &v1::NodeGetCapabilitiesResponse) -> Self {
        let has = |number: i32| {
            answer.capabilities.iter().any(|capability| capability.rpc.as_ref().is_some_and(|rpc| rpc.r#type == number))
        };
        Self {
            stage: has(1),
            stats: has(2),
            expand: has(3),
            condition: has(4),
            single_node_multi_writer: has(5),
            mount_group: has(6),
        }
    }
}

/// A volume that is to be made ready on this node.
#[derive(Clone)]
pub struct Stage {
    /// The driver's name for the volume.
    pub volume_id: String,
    /// A directory that exists.
    pub staging_path: PathBuf,
    /// How it is to be seen.
    pub access_type: AccessType,
    /// How it is to be used.
    pub access_mode: AccessMode,
    /// What the attachment gave.
    pub publish_context: HashMap<String, String>,
    /// The volume's attributes.
    pub volume_context: HashMap<String, String>,
    /// What the driver needs and nobody else may see.
    pub secrets: HashMap<String, String>,
}

/// A volume that is to appear at a path.
#[derive(Clone)]
pub struct Publish {
    /// The driver's name for the volume.
    pub volume_id: String,
    /// Where it was staged, if it was.
    pub staging_path: Option<PathBuf>,
    /// The driver makes it; its parent exists.
    pub target_path: PathBuf,
    /// Nobody may write.
    pub read_only: bool,
    /// How it is to be seen.
    pub access_type: AccessType,
    /// How it is to be used.
    pub access_mode: AccessMode,
    /// What the attachment gave.
    pub publish_context: HashMap<String, String>,
    /// The volume's attributes, and what the driver wants to know about the pod.
    pub volume_context: HashMap<String, String>,
    /// What the driver needs and nobody else may see.
    pub secrets: HashMap<String, String>,
}

/// A client of one driver; cheap to clone.
#[derive(Clone, Debug)]
pub struct Driver {
    channel: Channel,
}

impl Driver {
    /// Dials at the first call. Each call ends by `deadline`.
    pub fn new(socket: &Path, deadline: Duration) -> Self {
        Self { channel: Channel::new(socket, deadline) }
    }

    /// What the driver calls this node.
    pub async fn node_info(&self) -> Result<v1::NodeGetInfoResponse, CsiError> {
        self.channel.call("/csi.v1.Node/NodeGetInfo", v1::NodeGetInfoRequest {}).await
    }

    /// What the node service can do.
    pub async fn capabilities(&self) -> Result<NodeCapabilities, CsiError> {
        let answer = self.channel.call("/csi.v1.Node/NodeGetCapabilities", v1::NodeGetCapabilitiesRequest {}).await?;
        Ok(NodeCapabilities::read(&answer))
    }

    /// Makes a volume ready on this node.
    pub async fn stage(&self, stage: Stage) -> Result<(), CsiError> {
        let request = v1::NodeStageVolumeRequest {
            volume_capability: Some(stage.access_type.capability(stage.access_mode)),
            volume_id: stage.volume_id,
            publish_context: stage.publish_context,
            staging_target_path: text(&stage.staging_path),
            secrets: stage.secrets,
            volume_context: stage.volume_context,
        };
        self.channel.call::<_, v1::NodeStageVolumeResponse>("/csi.v1.Node/NodeStageVolume", request).await.map(|_| ())
    }

    /// Undoes [`Driver::stage`].
    pub async fn unstage(&self, volume_id: &str, staging_path: &Path) -> Result<(), CsiError> {
        let request =
            v1::NodeUnstageVolumeRequest { volume_id: volume_id.to_owned(), staging_target_path: text(staging_path) };
        let method = "/csi.v1.Node/NodeUnstageVolume";
        self.channel.call::<_, v1::NodeUnstageVolumeResponse>(method, request).await.map(|_| ())
    }

    /// Makes a volume appear at a path.
    pub async fn publish(&self, publish: Publish) -> Result<(), CsiError> {
        let request = v1::NodePublishVolumeRequest {
            volume_capability: Some(publish.access_type.capability(publish.access_mode)),
            volume_id: publish.volume_id,
            publish_context: publish.publish_context,
            staging_target_path: publish.staging_path.as_deref().map(text).unwrap_or_default(),
            target_path: text(&publish.target_path),
            readonly: publish.read_only,
            secrets: publish.secrets,
            volume_context: publish.volume_context,
        };
        let method = "/csi.v1.Node/NodePublishVolume";
        self.channel.call::<_, v1::NodePublishVolumeResponse>(method, request).await.map(|_| ())
    }

    /// Undoes [`Driver::publish`].
    pub async fn unpublish(&self, volume_id: &str, target_path: &Path) -> Result<(), CsiError> {
        let request =
            v1::NodeUnpublishVolumeRequest { volume_id: volume_id.to_owned(), target_path: text(target_path) };
        let method = "/csi.v1.Node/NodeUnpublishVolume";
        self.channel.call::<_, v1::NodeUnpublishVolumeResponse>(method, request).await.map(|_| ())
    }

    /// How full a volume is, where the driver knows.
    pub async fn stats(&self, volume_id: &str, volume_path: &Path) -> Result<v1::NodeGetVolumeStatsResponse, CsiError> {
        let request = v1::NodeGetVolumeStatsRequest {
            volume_id: volume_id.to_owned(),
            volume_path: text(volume_path),
            staging_target_path: String::new(),
        };
        self.channel.call("/csi.v1.Node/NodeGetVolumeStats", request).await
    }

    /// Makes the file system of a published volume as large as `bytes`; the size that it has then, 0 where unknown.
    pub async fn expand(&self, publish: &Publish, bytes: i64) -> Result<i64, CsiError> {
        let request = v1::NodeExpandVolumeRequest {
            volume_id: publish.volume_id.clone(),
            volume_path: text(&publish.target_path),
            capacity_range: Some(v1::CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
            staging_target_path: publish.staging_path.as_deref().map(text).unwrap_or_default(),
            volume_capability: Some(publish.access_type.capability(publish.access_mode)),
            secrets: publish.secrets.clone(),
        };
        let answer: v1::NodeExpandVolumeResponse = self.channel.call("/csi.v1.Node/NodeExpandVolume", request).await?;
        Ok(answer.capacity_bytes)
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn capabilities_are_read_by_number() {
        let capability = |number: i32| v1::NodeServiceCapability { rpc: Some(v1::NodeServiceRpc { r#type: number }) };
        let answer =
            v1::NodeGetCapabilitiesResponse { capabilities: vec![capability(1), capability(6), capability(99)] };
        let expected = NodeCapabilities { stage: true, mount_group: true, ..NodeCapabilities::default() };
        assert_eq!(NodeCapabilities::read(&answer), expected);
    }

    #[test]
    fn a_publish_request_has_the_protocols_numbers() {
        let access_type = AccessType::Mount { fs_type: "ext4".to_owned(), flags: vec![], group: Some(7) };
        let request = v1::NodePublishVolumeRequest {
            volume_id: "v".to_owned(),
            target_path: "/t".to_owned(),
            volume_capability: Some(access_type.capability(AccessMode::SingleNodeWriter)),
            readonly: true,
            ..Default::default()
        };
        let expected: &[u8] = &[
            0x0a, 1, b'v', // volume_id = 1
            0x22, 2, b'/', b't', // target_path = 4
            0x2a, 15, // volume_capability = 5
            0x12, 9, 0x0a, 4, b'e', b'x', b't', b'4', 0x1a, 1,
            b'7', // mount = 2: fs_type = 1, volume_mount_group = 3
            0x1a, 2, 0x08, 1, // access_mode = 3: mode = 1
            0x30, 1, // readonly = 6
        ];
        assert_eq!(request.encode_to_vec(), expected);
    }
}
