//! The container runtime interface (CRI v1): a client, the search for a runtime on this machine, and a containerd of
//! Kedge's own.
//!
//! It is not a container runtime and holds no pod logic: every call is one request to containerd or CRI-O. Invariant:
//! nothing here ties the life of a container, or of containerd, to the life of this process.

mod config;
mod containerd;
mod containerd_api;
mod discover;
mod error;
mod host;
mod images;
mod import;
mod layout;
mod messages;
mod process;
mod runtime;
mod stop_signal;

pub use config::CgroupDriver;
pub use containerd::{PrivateContainerd, PrivateContainerdConfig, PrivateContainerdError};
pub use containerd_api::SnapshotMount;
pub use discover::{WELL_KNOWN_ENDPOINTS, discover_endpoint};
pub use error::CriError;
pub use import::{ImageImport, ImportError};
pub use runtime::Runtime;
pub use stop_signal::StopSignal;

pub mod v1 {
    //! The messages of the CRI.

    pub use k8s_cri::v1::*;

    pub use crate::messages::{ContainerConfig, ContainerStatus, ContainerStatusResponse, Mount};
}
