//! The cluster's certificates and keys in kubeadm's layout, TLS configurations made of them, and kubeconfig files.
//!
//! Invariants: a certificate authority or service-account key that exists is never replaced; a leaf certificate is made
//! anew when it is about to expire or lacks a name; files appear whole or not at all, private ones with mode 0600.

mod authority;
mod cluster;
mod file;
mod kubeconfig;
mod tls;

pub use authority::{CertificateAuthority, Identity, LeafRequest, Usage};
pub use cluster::{ClusterNames, ClusterPki};
pub use file::write_private;
pub use kubeconfig::{
    KubeconfigEntry, default_kubeconfig_path, kubeconfig_server, merge_kubeconfig, remove_from_kubeconfig,
};
pub use tls::{client_config, server_config, server_config_without_client_certificates};

use std::path::PathBuf;

/// Why certificates, keys or kubeconfigs are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file can't be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// `read`, `write`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is there but not what it should be.
    #[error("{path} is not usable: {why}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Half of a certificate authority is missing.
    #[error(
        "{missing} is missing but {present} exists; restore it from a backup, or move both away to start a new authority"
    )]
    HalfAuthority {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// A certificate can't be made.
    #[error("cannot make the certificate of {name}")]
    Generate {
        /// Common name.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// TLS refuses the material.
    #[error("the TLS material is not usable: {0}")]
    Tls(String),
}
