//! The kubelet of a machine: its configuration from the cluster, and its start on the new binary.
//!
//! Containers go on while it is away.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kedge_client::Client;
use kedge_pki::write_public;
use kube::Api;
use serde_json::Value;
use tokio::time::Instant;

use super::host_facts::HostFacts;
use super::journal::timestamped;
use crate::Say;
use crate::cluster_configuration::ClusterConfiguration;
use crate::health_wait::{HealthPatience, wait_for_kubelet};
use crate::host::HostLayout;
use crate::init::{PhaseError, failed};
use crate::join::health_address;
use crate::kubelet_service::{has_systemd_service, start_kubelet, write_kubelet_config};

const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);

/// The machine's kubelet.
pub(super) struct KubeletUpgrade<'a> {
    pub(super) layout: &'a HostLayout,
    pub(super) say: Say<'a>,
    /// How long it may take to become well.
    pub(super) patience: HealthPatience,
    pub(super) client: &'a Client,
    pub(super) host: &'a HostFacts,
    pub(super) cluster: &'a ClusterConfiguration,
    /// Where the balancers of the cluster's nodes listen.
    pub(super) balancer: Option<SocketAddr>,
}

impl KubeletUpgrade<'_> {
    /// Writes the configuration, after a copy of the old one.
    pub(super) fn write(&self, document: &Value) -> Result<(), PhaseError> {
        let path = self.layout.kubelet_config();
        let copy = timestamped(self.layout, "kubeadm-kubelet-config", Timestamp::now()).join("config.yaml");
        (self.say)(&format!("[upgrade] Backing up kubelet config file to {}", copy.display()));
        let old = std::fs::read(&path);
        let old = old.map_err(|source| PhaseError::File { path: path.display().to_string(), source })?;
        write_public(&copy, &old)?;
        write_kubelet_config(self.layout, document, self.say)?;
        (self.say)("[upgrade/kubelet-config] The kubelet configuration for this node was successfully upgraded!");
        Ok(())
    }

    /// Starts it from this binary, where Kedge keeps it running; says how, where systemd does.
    pub(super) async fn restart(&self, document: &Value) -> Result<(), PhaseError> {
        if has_systemd_service() {
            (self.say)(
                "[upgrade/kubelet] Now restart the kubelet on the new binary: systemctl daemon-reload && systemctl restart \
                 kubelet",
            );
            return Ok(());
        }
        start_kubelet(self.layout, self.say).await?;
        if let Some(address) = health_address(document) {
            wait_for_kubelet(address, self.patience, self.say).await?;
        }
        self.wait_for_node().await
    }

    /// The Node shows the new kubelet, and that it is well.
    async fn wait_for_node(&self) -> Result<(), PhaseError> {
        let (name, version) = (&self.host.node_name, kedge_meta::full_version());
        let nodes: Api<Node> = Api::all(self.client.clone());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = nodes.get(name).await;
            let status = found.as_ref().ok().and_then(|node| node.status.as_ref());
            let shown = status.and_then(|status| Some(status.node_info.as_ref()?.kubelet_version.as_str()));
            let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
            let is_ready = conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
            if shown == Some(version) && is_ready {
                (self.say)(&format!("[upgrade/kubelet] The kubelet of the node {name} runs {version}"));
                return Ok(());
            }
            if Instant::now() > deadline {
                let seconds = PATIENCE.as_secs();
                return Err(match found {
                    Err(error) => failed("Node", name, error),
                    Ok(_) => PhaseError::Missing(format!(
                        "the node {name} is not Ready with the kubelet {version} after {seconds} s: see its log, and \
                         `kubectl describe node {name}`"
                    )),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
