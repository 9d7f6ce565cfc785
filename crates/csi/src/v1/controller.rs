//! `csi.v1.Controller`: what a driver does away from the node. The node agent never calls it; drivers of tests serve it.

use std::collections::HashMap;

use super::{CapacityRange, Volume, VolumeCapability};

/// Makes a volume, or finds the one that was made for this name.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CreateVolumeRequest {
    /// The caller's name for it.
    #[prost(string, tag = "1")]
    pub name: String,
    /// How large.
    #[prost(message, optional, tag = "2")]
    pub capacity_range: Option<CapacityRange>,
    /// All the ways in which it may be used.
    #[prost(message, repeated, tag = "3")]
    pub volume_capabilities: Vec<VolumeCapability>,
    /// The class's parameters.
    #[prost(map = "string, string", tag = "4")]
    pub parameters: HashMap<String, String>,
    /// What the driver needs and nobody else may see.
    #[prost(map = "string, string", tag = "5")]
    pub secrets: HashMap<String, String>,
}

/// The volume.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CreateVolumeResponse {
    /// As it was made.
    #[prost(message, optional, tag = "1")]
    pub volume: Option<Volume>,
}

/// Removes a volume and what is in it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeleteVolumeRequest {
    /// The driver's name for the volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// What the driver needs and nobody else may see.
    #[prost(map = "string, string", tag = "2")]
    pub secrets: HashMap<String, String>,
}

/// Done.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeleteVolumeResponse {}

/// Attaches a volume to a node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControllerPublishVolumeRequest {
    /// The driver's name for the volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// The driver's name for the node.
    #[prost(string, tag = "2")]
    pub node_id: String,
    /// How it is to be used.
    #[prost(message, optional, tag = "3")]
    pub volume_capability: Option<VolumeCapability>,
    /// Nobody may write.
    #[prost(bool, tag = "4")]
    pub readonly: bool,
    /// What the driver needs and nobody else may see.
    #[prost(map = "string, string", tag = "5")]
    pub secrets: HashMap<String, String>,
    /// The volume's attributes.
    #[prost(map = "string, string", tag = "6")]
    pub volume_context: HashMap<String, String>,
}

/// Attached.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControllerPublishVolumeResponse {
    /// What the node must be told.
    #[prost(map = "string, string", tag = "1")]
    pub publish_context: HashMap<String, String>,
}

/// Detaches a volume from a node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControllerUnpublishVolumeRequest {
    /// The driver's name for the volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// The driver's name for the node.
    #[prost(string, tag = "2")]
    pub node_id: String,
    /// What the driver needs and nobody else may see.
    #[prost(map = "string, string", tag = "3")]
    pub secrets: HashMap<String, String>,
}

/// Done.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControllerUnpublishVolumeResponse {}

/// Asks what the controller service can do.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControllerGetCapabilitiesRequest {}

/// What the controller service can do.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControllerGetCapabilitiesResponse {
    /// One for each.
    #[prost(message, repeated, tag = "1")]
    pub capabilities: Vec<ControllerServiceCapability>,
}

/// One thing that the controller service can do.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControllerServiceCapability {
    /// A call.
    #[prost(message, optional, tag = "1")]
    pub rpc: Option<ControllerServiceRpc>,
}

/// A call of the controller service.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControllerServiceRpc {
    /// 1 create and delete, 2 publish and unpublish, 9 expand.
    #[prost(int32, tag = "1")]
    pub r#type: i32,
}
