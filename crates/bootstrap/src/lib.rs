//! How machines come to trust a cluster and the cluster them: bootstrap tokens, the discovery of a cluster by one, the
//! transfer of a control plane's certificates, and the certificates that nodes ask for and renew.
//!
//! Names, layouts and texts are kubeadm's, so that its users and tools find what they know. Not a place for phases: who calls
//! what in which order is `lifecycle`'s and the commands' business. Invariant: a private key never leaves the machine it was
//! made on, but encrypted in the transfer of a control plane's authorities.

mod authority_following;
mod authority_transfer;
mod certificate_key;
mod certificate_store;
mod certs_secret;
mod cluster_info;
mod discovery;
mod error;
mod join_command;
mod local_renewal;
mod node_certificate;
mod objects;
mod rbac;
mod rotation;
mod signing_request;
mod token;
mod tokens;

pub use authority_following::{AuthorityFollower, SIGNER_ANNOTATION, TRUSTED_ANNOTATION};
pub use authority_transfer::{download_next_authority, remove_next_authority, upload_next_authority};
pub use certificate_key::CertificateKey;
pub use certificate_store::CertificateStore;
pub use certs_secret::{download_certs, transferred_files, upload_certs};
pub use cluster_info::{cluster_info_kubeconfig, ensure_cluster_info, publish_cluster_authority, published_authority};
pub use discovery::{DiscoveredCluster, Discovery, discover};
pub use error::BootstrapError;
pub use join_command::join_command;
pub use kedge_pki::{public_key_pin, public_key_pins};
pub use local_renewal::LocalRenewal;
pub use node_certificate::{NodeCertificate, NodeIdentity, renewal_command};
pub use rbac::{ensure_cluster_admins, ensure_node_bootstrap_rbac};
pub use rotation::keep_rotated;
pub use signing_request::{CLIENT_SIGNER, KUBELET_CLIENT_SIGNER, KUBELET_SERVING_SIGNER, SigningRequest};
pub use token::BootstrapToken;
pub use tokens::{TokenInfo, TokenSpec, create_token, delete_token, list_tokens};

/// Told what is done, line by line.
pub type Say<'a> = &'a (dyn Fn(&str) + Send + Sync);
