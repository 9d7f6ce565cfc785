//! `JoinConfiguration` of `kubeadm.k8s.io/v1beta4`: what of it has an effect, and what not.
//!
//! Pure. Invariant: a field that is in no list is an error; one that upstream has and Kedge lacks is named.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::cluster_configuration::{ApiEndpoint, ConfigurationError, NodeRegistration, parse_duration};
use crate::patches::PatchesConfiguration;

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

/// How long things are waited for, as Go writes durations.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Timeouts {
    pub(super) discovery: Option<String>,
    #[serde(rename = "tlsBootstrap")]
    pub(super) tls_bootstrap: Option<String>,
    control_plane_component_health_check: Value,
    kubelet_health_check: Value,
    #[serde(rename = "kubernetesAPICall")]
    kubernetes_api_call: Value,
    #[serde(rename = "etcdAPICall")]
    etcd_api_call: Value,
    upgrade_manifests: Value,
}

impl JoinConfiguration {
    /// The fields that were given and do nothing.
    pub(crate) fn without_effect(&self) -> Vec<String> {
        let times = &self.timeouts;
        let fields = [
            ("timeouts.controlPlaneComponentHealthCheck", &times.control_plane_component_health_check),
            ("timeouts.kubeletHealthCheck", &times.kubelet_health_check),
            ("timeouts.kubernetesAPICall", &times.kubernetes_api_call),
            ("timeouts.etcdAPICall", &times.etcd_api_call),
            ("timeouts.upgradeManifests", &times.upgrade_manifests),
        ];
        let named = fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name);
        let named = named.chain(self.node_registration.without_effect());
        named.map(|name| format!("JoinConfiguration.{name}")).collect()
    }
}

/// A duration of the file, or the usual one.
pub(super) fn patience(field: &str, text: Option<&str>, usual: Duration) -> Result<Duration, ConfigurationError> {
    let Some(text) = text else { return Ok(usual) };
    parse_duration(text).ok_or_else(|| ConfigurationError::Value {
        field: format!("timeouts.{field}"),
        why: format!("{text:?} is no duration like 5m0s"),
    })
}
