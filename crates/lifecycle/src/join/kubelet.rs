//! The kubelet of a machine that joins: its files, its start, its certificate.
//!
//! Invariant: the token is in a file only until the kubelet has its certificate.

use std::net::{IpAddr, SocketAddr};

use kedge_pki::{KubeconfigCluster, KubeconfigUser, write_kubeconfig, write_public};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

use super::Join;
use super::find::Found;
use crate::cluster_configuration::Argument;
use crate::health_wait::wait_for_kubelet;
use crate::init::PhaseError;
use crate::kubelet_service::{start_kubelet, stop_kubelet, write_kubelet_config, write_kubelet_flags};
use crate::node_access;
use crate::patches::PatchTarget;

const POLL: Duration = Duration::from_millis(200);
pub(super) const BOOTSTRAP_USER: &str = "tls-bootstrap-token-user";

impl Join<'_> {
    pub(super) async fn kubelet_start(&self) -> Result<(), PhaseError> {
        let found = self.found().await?;
        if !self.only_says("stop the kubelet") {
            stop_kubelet(&self.layout).await?;
            node_access::ensure_free(found.balancer).map_err(PhaseError::Missing)?;
        }
        let bootstrap = self.layout.kubeconfig("bootstrap-kubelet.conf");
        let cluster = KubeconfigCluster {
            server: found.cluster.server.clone(),
            authority_pem: found.cluster.authority_pem.clone(),
            tls_server_name: None,
        };
        let cluster = node_access::through(found.balancer, cluster);
        let user = KubeconfigUser::Token(self.token(&found.cluster)?);
        write_kubeconfig(&bootstrap, &found.configuration.cluster_name, BOOTSTRAP_USER, &cluster, &user)?;
        // A control plane has got it with its key.
        let authority = match &self.settings.ca_cert_path {
            Some(path) => self.layout.at(path),
            None => found.layout.pki().join("ca.crt"),
        };
        write_public(&authority, found.cluster.authority_pem.as_bytes())?;
        let document = self.patches.apply(PatchTarget::KubeletConfiguration, found.kubelet.clone(), self.say)?;
        write_kubelet_config(&self.layout, &document, self.say)?;
        write_kubelet_flags(&self.layout, &self.usual_flags(found).await, &self.settings.kubelet_extra_args, self.say)?;
        if self.only_says("start the kubelet") {
            return Ok(());
        }
        Ok(start_kubelet(&self.layout, self.say).await?)
    }

    async fn usual_flags(&self, found: &Found) -> Vec<Argument> {
        let flag = |name: &str, value: String| Argument { name: name.to_owned(), value };
        let mut flags = vec![
            flag("hostname-override", self.settings.node_name.clone()),
            flag("node-ip", self.settings.node_ip.to_string()),
        ];
        flags.extend(self.cri_socket().await.map(|socket| flag("container-runtime-endpoint", socket)));
        flags.extend(node_access::kubelet_flags(found.balancer, std::slice::from_ref(&found.cluster.server)));
        if !self.settings.taints.is_empty() {
            flags.push(flag("register-with-taints", self.settings.taints.join(",")));
        }
        flags
    }

    pub(super) async fn kubelet_wait_bootstrap(&self) -> Result<(), PhaseError> {
        if self.only_says("wait for the kubelet to be bootstrapped") {
            return Ok(());
        }
        let path = self.layout.kubelet_config();
        let wrap = |source| PhaseError::File { path: path.display().to_string(), source };
        let text = std::fs::read_to_string(&path).map_err(wrap)?;
        let document: Value = serde_yaml::from_str(&text).unwrap_or_default();
        if let Some(address) = health_address(&document) {
            wait_for_kubelet(address, self.settings.health_patience, self.say).await?;
        }
        (self.say)("[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap");
        self.wait_for_certificate().await?;
        // The token has done its work, and is nobody's to read any more.
        let bootstrap = self.layout.kubeconfig("bootstrap-kubelet.conf");
        match std::fs::remove_file(&bootstrap) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(PhaseError::File { path: bootstrap.display().to_string(), source })
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn wait_for_certificate(&self) -> Result<(), PhaseError> {
        let (kubeconfig, patience) = (self.layout.kubeconfig("kubelet.conf"), self.settings.bootstrap_patience);
        let deadline = Instant::now() + patience;
        while !kubeconfig.exists() {
            if Instant::now() > deadline {
                return Err(PhaseError::Missing(format!(
                    "the kubelet has no certificate after {} s: see its log, and `kubectl get csr` on the control plane",
                    patience.as_secs()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// Where a kubelet with this configuration says that it is well; `None` where it says so nowhere.
pub(crate) fn health_address(kubelet: &Value) -> Option<SocketAddr> {
    let address = kubelet["healthzBindAddress"].as_str().map_or(Ok(IpAddr::from([127, 0, 0, 1])), str::parse).ok()?;
    let port = kubelet["healthzPort"].as_u64().map_or(Ok(10248), u16::try_from).ok()?;
    (port > 0).then(|| SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_kubelet_says_where_it_is_well() {
        let text = |value: Value| health_address(&value).map(|address| address.to_string());
        assert_eq!(text(json!({})).as_deref(), Some("127.0.0.1:10248"));
        assert_eq!(text(json!({"healthzBindAddress": "::1", "healthzPort": 1})).as_deref(), Some("[::1]:1"));
        assert_eq!(text(json!({"healthzPort": 0})), None);
    }
}
