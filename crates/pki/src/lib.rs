//! The cluster's certificates and keys in kubeadm's layout, TLS configurations made of them, and kubeconfig files.
//!
//! Invariants: a certificate authority or service-account key that exists is never replaced; a leaf certificate is made
//! anew when it is about to expire or lacks a name; files appear whole or not at all, private ones with mode 0600.

mod authority;
mod bundle;
mod certificate;
mod cluster;
mod facts;
mod file;
mod followed;
mod key;
mod kubeconfig;
mod reload;
mod renewal;
mod request;
mod tls;
mod usages;

pub use authority::{CertificateAuthority, Identity, LeafRequest, Usage};
pub use bundle::{bundle_of, certificates_in, signer_in};
pub use certificate::AlternativeNames;
pub use cluster::{ClusterNames, ClusterPki, ensure_service_account_key};
pub use facts::{CertificateFacts, hex_digest, public_key_pin, public_key_pins};
pub use file::{write_private, write_public};
pub use followed::FileMarks;
pub use kubeconfig::{
    KubeconfigCluster, KubeconfigEntry, KubeconfigUser, default_kubeconfig_path, kubeconfig_certificate,
    kubeconfig_identity, kubeconfig_server, kubeconfig_text, merge_kubeconfig, remove_from_kubeconfig,
    replace_kubeconfig_authority, write_kubeconfig,
};
pub use reload::{ServerFiles, following_client_config, following_client_verifier, following_identity};
pub use renewal::{CertificateDirs, KNOWN_AUTHORITIES, KNOWN_CERTIFICATES, KnownAuthority, KnownCertificate, Renewed};
pub use request::{CertificateRequest, PendingIdentity};
pub use tls::{
    certificates_der, client_config, client_config_for_any_server, client_config_without_server_authority,
    client_verifier, server_config, server_config_without_client_certificates,
};

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
    /// The authority does not sign this.
    #[error("no certificate for {name}: {why}")]
    Refused {
        /// Common name.
        name: String,
        /// Why.
        why: String,
    },
    /// TLS refuses the material.
    #[error("the TLS material is not usable: {0}")]
    Tls(String),
}
