//! The ConfigMap `cluster-info` in `kube-public`: where the API is and whose certificates it shows, for anybody to read and
//! for token holders to believe.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kedge_client::Client;
use serde_json::json;

use crate::error::BootstrapError;
use crate::objects::put;
use crate::rbac::ensure_cluster_info_rbac;

/// Publishes where the API is (`https://host:port`) and its authority, and lets anybody read it.
pub async fn ensure_cluster_info(client: &Client, server: &str, authority_pem: &str) -> Result<(), BootstrapError> {
    let kubeconfig = cluster_info_kubeconfig(server, authority_pem)?;
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"kubeconfig": kubeconfig},
        "metadata": {"name": "cluster-info", "namespace": "kube-public"},
    });
    put(client, map).await?;
    ensure_cluster_info_rbac(client).await
}

/// A kubeconfig with one cluster of no name and nothing else, as kubeadm publishes it.
pub fn cluster_info_kubeconfig(server: &str, authority_pem: &str) -> Result<String, BootstrapError> {
    let document = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "", "preferences": {},
        "clusters": [{"name": "", "cluster": {
            "certificate-authority-data": STANDARD.encode(authority_pem), "server": server,
        }}],
        "contexts": null, "users": null,
    });
    serde_yaml::to_string(&document)
        .map_err(|error| BootstrapError::Kubeconfig { what: error.to_string(), source: None })
}
