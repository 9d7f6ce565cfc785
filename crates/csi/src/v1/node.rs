//! `csi.v1.Node`: what a driver does on the node where a volume is used.

use std::collections::HashMap;

use super::{CapacityRange, Topology, VolumeCapability};

/// Makes a volume ready on this node, once for all pods.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeStageVolumeRequest {
    /// The driver's name for the volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// What the attachment gave.
    #[prost(map = "string, string", tag = "2")]
    pub publish_context: HashMap<String, String>,
    /// A directory that exists.
    #[prost(string, tag = "3")]
    pub staging_target_path: String,
    /// How it is to be used.
    #[prost(message, optional, tag = "4")]
    pub volume_capability: Option<VolumeCapability>,
    /// What the driver needs and nobody else may see.
    #[prost(map = "string, string", tag = "5")]
    pub secrets: HashMap<String, String>,
    /// The volume's attributes.
    #[prost(map = "string, string", tag = "6")]
    pub volume_context: HashMap<String, String>,
}

/// Done.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeStageVolumeResponse {}

/// Undoes [`NodeStageVolumeRequest`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeUnstageVolumeRequest {
    /// The driver's name for the volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// As it was staged.
    #[prost(string, tag = "2")]
    pub staging_target_path: String,
}

/// Done.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeUnstageVolumeResponse {}

/// Makes a volume appear at a path of a pod.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodePublishVolumeRequest {
    /// The driver's name for the volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// What the attachment gave.
    #[prost(map = "string, string", tag = "2")]
    pub publish_context: HashMap<String, String>,
    /// Where it was staged, if it was.
    #[prost(string, tag = "3")]
    pub staging_target_path: String,
    /// The driver makes it; its parent exists.
    #[prost(string, tag = "4")]
    pub target_path: String,
    /// How it is to be used.
    #[prost(message, optional, tag = "5")]
    pub volume_capability: Option<VolumeCapability>,
    /// Nobody may write.
    #[prost(bool, tag = "6")]
    pub readonly: bool,
    /// What the driver needs and nobody else may see.
    #[prost(map = "string, string", tag = "7")]
    pub secrets: HashMap<String, String>,
    /// The volume's attributes, and what the driver wants to know about the pod.
    #[prost(map = "string, string", tag = "8")]
    pub volume_context: HashMap<String, String>,
}

/// Done.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodePublishVolumeResponse {}

/// Undoes [`NodePublishVolumeRequest`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeUnpublishVolumeRequest {
    /// The driver's name for the volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// As it was published.
    #[prost(string, tag = "2")]
    pub target_path: String,
}

/// Done.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeUnpublishVolumeResponse {}

/// Asks how full a volume is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeGetVolumeStatsRequest {
    /// The driver's name for the volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// Where it was published or staged.
    #[prost(string, tag = "2")]
    pub volume_path: String,
    /// Where it was staged, if it was.
    #[prost(string, tag = "3")]
    pub staging_target_path: String,
}

/// How full a volume is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeGetVolumeStatsResponse {
    /// One for bytes and one for inodes.
    #[prost(message, repeated, tag = "1")]
    pub usage: Vec<VolumeUsage>,
    /// Whether something is wrong with it.
    #[prost(message, optional, tag = "2")]
    pub volume_condition: Option<VolumeCondition>,
}

/// An amount in one unit.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct VolumeUsage {
    /// Left.
    #[prost(int64, tag = "1")]
    pub available: i64,
    /// Of.
    #[prost(int64, tag = "2")]
    pub total: i64,
    /// Taken.
    #[prost(int64, tag = "3")]
    pub used: i64,
    /// 1 is bytes, 2 is inodes.
    #[prost(int32, tag = "4")]
    pub unit: i32,
}

/// Whether something is wrong with a volume.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct VolumeCondition {
    /// Something is.
    #[prost(bool, tag = "1")]
    pub abnormal: bool,
    /// What it is.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Asks what the node service can do.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeGetCapabilitiesRequest {}

/// What the node service can do.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeGetCapabilitiesResponse {
    /// One for each.
    #[prost(message, repeated, tag = "1")]
    pub capabilities: Vec<NodeServiceCapability>,
}

/// One thing that the node service can do.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeServiceCapability {
    /// A call.
    #[prost(message, optional, tag = "1")]
    pub rpc: Option<NodeServiceRpc>,
}

/// A call of the node service.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeServiceRpc {
    /// 1 stage, 2 statistics, 3 expansion, 4 condition, 5 single-node modes, 6 mount group.
    #[prost(int32, tag = "1")]
    pub r#type: i32,
}

/// Asks what the driver calls this node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeGetInfoRequest {}

/// What the driver calls this node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeGetInfoResponse {
    /// Its name.
    #[prost(string, tag = "1")]
    pub node_id: String,
    /// So many volumes fit, 0 where that is not limited.
    #[prost(int64, tag = "2")]
    pub max_volumes_per_node: i64,
    /// Where it is.
    #[prost(message, optional, tag = "3")]
    pub accessible_topology: Option<Topology>,
}

/// Makes a file system as large as its volume has become.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeExpandVolumeRequest {
    /// The driver's name for the volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// Where it was published.
    #[prost(string, tag = "2")]
    pub volume_path: String,
    /// The size that it has.
    #[prost(message, optional, tag = "3")]
    pub capacity_range: Option<CapacityRange>,
    /// Where it was staged, if it was.
    #[prost(string, tag = "4")]
    pub staging_target_path: String,
    /// How it is used.
    #[prost(message, optional, tag = "5")]
    pub volume_capability: Option<VolumeCapability>,
    /// What the driver needs and nobody else may see.
    #[prost(map = "string, string", tag = "6")]
    pub secrets: HashMap<String, String>,
}

/// Done.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeExpandVolumeResponse {
    /// The size now.
    #[prost(int64, tag = "1")]
    pub capacity_bytes: i64,
}
