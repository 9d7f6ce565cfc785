//! The ConfigMap `cluster-info` in `kube-public`: where the API is and whose certificates it shows, for anybody to read and
//! for token holders to believe.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::ConfigMap;
use kedge_client::Client;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::error::BootstrapError;
use crate::objects::put;
use crate::rbac::{ensure_cluster_info_rbac, ensure_nodes_read_cluster_info};

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

/// The authorities that the kubeconfig in `cluster-info` names.
pub(crate) fn authority_in(kubeconfig: &str) -> Option<String> {
    let document: Value = serde_yaml::from_str(kubeconfig).ok()?;
    let data = document.pointer("/clusters/0/cluster/certificate-authority-data")?.as_str()?;
    String::from_utf8(STANDARD.decode(data).ok()?).ok()
}

/// The authorities that `cluster-info` names; `None` where it is not there.
pub async fn published_authority(client: &Client) -> Result<Option<String>, BootstrapError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
    let found = maps.get_opt("cluster-info").await;
    let found = found.map_err(BootstrapError::api("cannot read the ConfigMap cluster-info"))?;
    Ok(found.and_then(|map| authority_in(map.data?.get("kubeconfig")?)))
}

/// Names other authorities in `cluster-info`, and lets nodes read it, so that they follow. `false` where it is not there.
pub async fn publish_cluster_authority(client: &Client, authority_pem: &str) -> Result<bool, BootstrapError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
    let what = "unable to update ConfigMap \"cluster-info\"";
    let found = maps.get_opt("cluster-info").await.map_err(BootstrapError::api(what))?;
    let Some(text) = found.and_then(|map| map.data?.remove("kubeconfig")) else { return Ok(false) };
    let wrong = |why: &str| BootstrapError::Kubeconfig { what: format!("{what}: {why}"), source: None };
    let mut document: Value = serde_yaml::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
    let cluster = document.pointer_mut("/clusters/0/cluster").ok_or_else(|| wrong("it names no cluster"))?;
    cluster["certificate-authority-data"] = STANDARD.encode(authority_pem).into();
    let text = serde_yaml::to_string(&document).map_err(|error| wrong(&error.to_string()))?;
    let patch = Patch::Merge(json!({"data": {"kubeconfig": text}}));
    maps.patch("cluster-info", &PatchParams::default(), &patch).await.map_err(BootstrapError::api(what))?;
    ensure_nodes_read_cluster_info(client).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_reads_back() {
        let text = cluster_info_kubeconfig("https://lb:6443", "one\ntwo\n").unwrap();
        assert_eq!(authority_in(&text).as_deref(), Some("one\ntwo\n"));
        assert_eq!(authority_in("clusters: []"), None);
    }
}
