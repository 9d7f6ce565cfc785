//! `JoinConfiguration` of `kubeadm.k8s.io/v1beta4`: what of it has an effect, and what not.
//!
//! Pure. Invariant: a field that is in no list is an error; one that upstream has and Kedge lacks is named.

use serde::Deserialize;

use crate::documents::{ApiEndpoint, NodeRegistration};
use crate::patches::PatchesConfiguration;
use crate::timeouts::Timeouts;

/// The timeouts that count.
const TIMEOUTS: [&str; 4] = ["controlPlaneComponentHealthCheck", "kubeletHealthCheck", "tlsBootstrap", "discovery"];

/// What a machine that joins is told.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct JoinConfiguration {
    /// Where the cluster's authority is written.
    pub ca_cert_path: String,
    /// What only a control plane is told; a worker has none.
    pub control_plane: Option<JoinControlPlane>,
    /// How the cluster is found.
    pub discovery: JoinDiscovery,
    /// Whether to change nothing.
    pub dry_run: bool,
    /// The node.
    pub node_registration: NodeRegistration,
    /// Phases to leave out.
    pub skip_phases: Vec<String>,
    pub(super) timeouts: Timeouts,
    pub(super) patches: PatchesConfiguration,
}

/// What only a control plane is told.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct JoinControlPlane {
    /// The key of the uploaded certificates.
    pub certificate_key: String,
    /// Where its API server is reached.
    #[serde(rename = "localAPIEndpoint")]
    pub local_api_endpoint: ApiEndpoint,
}

/// How the cluster is found: one of both ways.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct JoinDiscovery {
    /// By a token.
    pub bootstrap_token: Option<TokenDiscovery>,
    /// By a file.
    pub file: Option<FileDiscovery>,
    /// The token with which the kubelet asks for its certificate.
    pub tls_bootstrap_token: String,
}

/// By a token.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TokenDiscovery {
    /// `host:port` of the API server.
    pub api_server_endpoint: String,
    /// Pins of the authority's public key.
    pub ca_cert_hashes: Vec<String>,
    /// The token.
    pub token: String,
    /// Whether its signature alone is enough.
    #[serde(rename = "unsafeSkipCAVerification")]
    pub unsafe_skip_ca_verification: bool,
}

/// By a file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct FileDiscovery {
    /// A kubeconfig.
    pub kube_config_path: String,
}

impl JoinConfiguration {
    /// The fields that were given and do nothing.
    pub(crate) fn without_effect(&self) -> Vec<String> {
        let times = self.timeouts.without_effect(&TIMEOUTS);
        let named = times.chain(self.node_registration.without_effect().map(str::to_owned));
        named.map(|name| format!("JoinConfiguration.{name}")).collect()
    }
}
