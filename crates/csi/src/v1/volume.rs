//! What volumes are described with.

use std::collections::HashMap;

/// How a volume is to be used.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct VolumeCapability {
    /// As a block device or as a mounted file system.
    #[prost(oneof = "volume_capability::AccessType", tags = "1, 2")]
    pub access_type: Option<volume_capability::AccessType>,
    /// From how many nodes, and whether to write.
    #[prost(message, optional, tag = "3")]
    pub access_mode: Option<VolumeAccessMode>,
}

/// The alternatives of [`VolumeCapability`].
pub mod volume_capability {
    /// How a volume is to be seen.
    #[derive(Clone, PartialEq, Eq, prost::Oneof)]
    pub enum AccessType {
        /// A block device.
        #[prost(message, tag = "1")]
        Block(super::BlockVolume),
        /// A file system.
        #[prost(message, tag = "2")]
        Mount(super::MountVolume),
    }
}

/// As a block device.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BlockVolume {}

/// As a file system.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MountVolume {
    /// Such as `ext4`; the driver's choice where empty.
    #[prost(string, tag = "1")]
    pub fs_type: String,
    /// Options for mount, which may be secret.
    #[prost(string, repeated, tag = "2")]
    pub mount_flags: Vec<String>,
    /// The group of all files, where the driver can do that.
    #[prost(string, tag = "3")]
    pub volume_mount_group: String,
}

/// See [`crate::AccessMode`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct VolumeAccessMode {
    /// Its number.
    #[prost(int32, tag = "1")]
    pub mode: i32,
}

/// A size, at least one end of it given.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CapacityRange {
    /// Not smaller, in bytes.
    #[prost(int64, tag = "1")]
    pub required_bytes: i64,
    /// Not larger, in bytes.
    #[prost(int64, tag = "2")]
    pub limit_bytes: i64,
}

/// A volume as its driver made it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Volume {
    /// Its size, 0 where unknown.
    #[prost(int64, tag = "1")]
    pub capacity_bytes: i64,
    /// The driver's name for it.
    #[prost(string, tag = "2")]
    pub volume_id: String,
    /// What later calls must be told.
    #[prost(map = "string, string", tag = "3")]
    pub volume_context: HashMap<String, String>,
    /// Where it can be reached from.
    #[prost(message, repeated, tag = "5")]
    pub accessible_topology: Vec<Topology>,
}

/// A place, by its labels.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Topology {
    /// Key and value of each label.
    #[prost(map = "string, string", tag = "1")]
    pub segments: HashMap<String, String>,
}
