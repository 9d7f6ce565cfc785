//! Whom to trust, and what the cluster that was found is made with.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kedge_bootstrap::{DiscoveredCluster, discover};
use kedge_client::Client;
use kube::Api;
use serde_json::Value;

use super::Join;
use crate::cluster_configuration::ClusterConfiguration;
use crate::host::HostLayout;
use crate::init::{PhaseError, failed};
use crate::node_access;

/// A cluster as who joins needs it.
pub(super) struct Found {
    pub(super) cluster: DiscoveredCluster,
    /// What it was made with.
    pub(super) configuration: ClusterConfiguration,
    /// The configuration that its kubelets share.
    pub(super) kubelet: Value,
    /// Where the balancers of its nodes listen.
    pub(super) balancer: Option<SocketAddr>,
    /// Where this machine keeps things of this cluster.
    pub(super) layout: HostLayout,
}

impl Join<'_> {
    /// The cluster; looked for once.
    pub(super) async fn found(&self) -> Result<&Found, PhaseError> {
        self.found.get_or_try_init(|| self.find()).await
    }

    async fn find(&self) -> Result<Found, PhaseError> {
        let cluster = discover(&self.settings.discovery, self.settings.discovery_patience).await?;
        let client = cluster.client(Some(&self.token(&cluster)?))?;
        let say = self.say;
        say("[preflight] Reading configuration from the \"kubeadm-config\" ConfigMap in namespace \"kube-system\"...");
        say("[preflight] Use 'kedge init phase upload-config kubeadm --config your-config-file' to re-upload it.");
        let (text, map) = entry(&client, "kubeadm-config", "ClusterConfiguration").await?;
        let wrong = |map: &str, why: String| PhaseError::Missing(format!("the ConfigMap {map} cannot be read: {why}"));
        let configuration =
            ClusterConfiguration::from_cluster(&text).map_err(|error| wrong("kubeadm-config", error.to_string()))?;
        let balancer = node_access::noted(&map);
        let (text, _) = entry(&client, "kubelet-config", "kubelet").await?;
        let kubelet = serde_yaml::from_str(&text).map_err(|error| wrong("kubelet-config", error.to_string()))?;
        let layout = self.layout.clone().with_certificates(std::path::Path::new(&configuration.certificates_dir));
        Ok(Found { cluster, configuration, kubelet, balancer, layout })
    }

    /// The token that the kubelet asks for its certificate with.
    pub(super) fn token(&self, cluster: &DiscoveredCluster) -> Result<String, PhaseError> {
        let own = self.settings.tls_bootstrap_token.as_ref().map(ToString::to_string);
        own.or_else(|| cluster.user_token.clone()).ok_or_else(|| {
            PhaseError::Missing("the discovery file has no token; name one with --tls-bootstrap-token".to_owned())
        })
    }

    /// Two machines with one name would take each other's pods.
    pub(super) async fn refuse_known_name(&self, client: &Client) -> Result<(), PhaseError> {
        let name = &self.settings.node_name;
        let node =
            Api::<Node>::all(client.clone()).get_opt(name).await.map_err(|source| failed("Node", name, source))?;
        let conditions = node.and_then(|node| node.status?.conditions).unwrap_or_default();
        if !conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
            return Ok(());
        }
        Err(PhaseError::Missing(format!(
            "a Node with name {name:?} and status \"Ready\" already exists in the cluster. You must delete the existing Node \
             or change the name of this new joining Node"
        )))
    }
}

/// An entry of a ConfigMap, and the rest of it.
async fn entry(client: &Client, name: &str, key: &str) -> Result<(String, ConfigMap), PhaseError> {
    let map = Api::<ConfigMap>::namespaced(client.clone(), "kube-system").get(name).await;
    let mut map = map.map_err(|source| failed("ConfigMap", name, source))?;
    let text = map.data.as_mut().and_then(|data| data.remove(key));
    let text = text.ok_or_else(|| PhaseError::Missing(format!("the ConfigMap {name} has no {key}")))?;
    Ok((text, map))
}
