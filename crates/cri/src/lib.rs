//! The container runtime interface (CRI v1): a client, the search for a runtime on this machine, and a containerd of
//! Kedge's own.
//!
//! It is not a container runtime and holds no pod logic: every call is one request to containerd or CRI-O. Invariant:
//! nothing here ties the life of a container, or of containerd, to the life of this process.

mod config;
mod containerd;
mod discover;
mod error;
mod host;
mod images;
mod import;
mod layout;
mod process;
mod runtime;

pub use config::CgroupDriver;
pub use containerd::{PrivateContainerd, PrivateContainerdConfig, PrivateContainerdError};
pub use discover::{WELL_KNOWN_ENDPOINTS, discover_endpoint};
pub use error::CriError;
pub use import::{ImageImport, ImportError};
pub use k8s_cri::v1;
pub use runtime::Runtime;
