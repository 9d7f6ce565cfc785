//! The volumes of the pods of one node: made before containers start, kept up to date while they run, taken down after
//! they end; and the objects and tokens that they are made of.
//!
//! A library of the node agent: it knows no workers, runtime state or probes, and starts no container. Invariants: paths
//! are upstream's, a volume that was set up once is never lost because the API server is away, and nothing outside a pod's
//! own directory is removed.

mod atomic;
mod claims;
mod container_mounts;
mod csi;
mod dirs;
mod empty_dir;
mod failure;
mod host_path;
mod image;
mod local;
mod mount_table;
mod nfs;
mod objects;
mod ownership;
mod payload;
mod persistent;
mod pod;
mod set_up;
mod tear_down;
mod tokens;
mod trust_bundle;
mod usage;

pub use container_mounts::{
    ContainerVolumes, ImageSource, PlannedMounts, container_devices, plan_container_mounts, recursive_read_only_status,
};
pub use dirs::VolumeDirs;
pub use failure::VolumeError;
pub use image::mount_image;
pub use objects::{ObjectError, Objects};
pub use set_up::{BlockDevice, Deps, MountedVolumes, PodFields, VolumeNews, Volumes};
pub use tear_down::TearDownError;
pub use usage::VolumeUsage;
