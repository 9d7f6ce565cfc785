//! `kedge join`: the phases by which a machine becomes a worker, or a further control plane, of a cluster that is there, in
//! kubeadm's order and with its lines.
//!
//! Invariant: nothing is written before the cluster is trusted and its configuration is read. What a join that failed leaves,
//! `kedge reset` takes away.

mod control_plane;
mod settings;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kedge_bootstrap::{DiscoveredCluster, discover};
use kedge_client::Client;
use kedge_pki::{KubeconfigCluster, KubeconfigUser, write_kubeconfig, write_public};
use kube::Api;
use serde_json::Value;
use tokio::time::Instant;

use crate::Say;
use crate::checks::{CheckFacts, Role, check_runtime, mend_aloud, run_checks};
use crate::cluster_configuration::{Argument, ClusterConfiguration};
use crate::health_wait::wait_for_kubelet;
use crate::host::HostLayout;
use crate::init::{InitError, PhaseError, failed};
use crate::kubelet_service::{start_kubelet, stop_kubelet, write_kubelet_config, write_kubelet_flags};
use crate::node_access;
use crate::system_images::{make_system_images, runtime_socket};

pub use control_plane::ControlPlaneSettings;
pub(crate) use control_plane::service_ips;
pub use settings::{JoinFlags, JoinSettings};

const DISCOVERY_PATIENCE: Duration = Duration::from_secs(300);
const BOOTSTRAP_PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(200);
const BOOTSTRAP_USER: &str = "tls-bootstrap-token-user";
const CLOSING: &str = "
This node has joined the cluster:
* Certificate signing request was sent to apiserver and a response was received.
* The Kubelet was informed of the new secure connection details.

Run 'kubectl get nodes' on the control-plane to see this node join the cluster.
";

/// A machine that joins.
pub struct Join<'a> {
    settings: JoinSettings,
    layout: HostLayout,
    say: Say<'a>,
}

/// A cluster as who joins needs it.
struct Found {
    cluster: DiscoveredCluster,
    /// What it was made with.
    configuration: ClusterConfiguration,
    /// The configuration that its kubelets share.
    kubelet: Value,
    /// Where the balancers of its nodes listen.
    balancer: Option<SocketAddr>,
}

impl<'a> Join<'a> {
    /// Prepares a run; changes nothing.
    pub fn new(settings: JoinSettings, say: Say<'a>) -> Self {
        Self { settings, layout: HostLayout::default(), say }
    }

    /// Runs all phases.
    pub async fn run(&self) -> Result<(), InitError> {
        let in_phase = |phase: &str| {
            let phase = phase.to_owned();
            move |source| InitError { phase, source }
        };
        self.check().await.map_err(in_phase("preflight"))?;
        let found = self.find().await.map_err(in_phase("preflight"))?;
        let Some(own) = &self.settings.control_plane else {
            self.kubelet_start(&found).await.map_err(in_phase("kubelet-start"))?;
            (self.say)(CLOSING);
            return Ok(());
        };
        self.refuse_without_endpoint(&found).map_err(in_phase("preflight"))?;
        self.prepare(&found, own).await.map_err(in_phase("control-plane-prepare"))?;
        self.kubelet_start(&found).await.map_err(in_phase("kubelet-start"))?;
        self.etcd(&found, own).await.map_err(in_phase("etcd-join"))?;
        self.settle(own).await.map_err(in_phase("control-plane-join"))?;
        (self.say)(control_plane::CLOSING);
        Ok(())
    }

    async fn check(&self) -> Result<(), PhaseError> {
        let own = self.settings.control_plane.as_ref();
        let facts = CheckFacts {
            role: if own.is_some() { Role::ControlPlane } else { Role::Worker },
            node_name: self.settings.node_name.clone(),
            node_ip: self.settings.node_ip,
            api_port: own.map_or(6443, |own| own.bind_port),
            cri_socket: self.cri_socket().await,
            etcd_data_dir: None,
            ranges: Vec::new(),
            root: "/".into(),
        };
        if self.settings.fix {
            mend_aloud(&facts, self.say);
        }
        let runtime = check_runtime(facts.cri_socket.as_deref()).await;
        Ok(run_checks(&facts, runtime, &self.settings.ignore_preflight_errors, self.say)?)
    }

    async fn find(&self) -> Result<Found, PhaseError> {
        let cluster = discover(&self.settings.discovery, DISCOVERY_PATIENCE).await?;
        let client = cluster.client(Some(&self.token(&cluster)?))?;
        (self.say)(
            "[preflight] Reading configuration from the \"kubeadm-config\" ConfigMap in namespace \"kube-system\"...",
        );
        let (text, map) = entry(&client, "kubeadm-config", "ClusterConfiguration").await?;
        let wrong = |map: &str, why: String| PhaseError::Missing(format!("the ConfigMap {map} cannot be read: {why}"));
        let configuration =
            ClusterConfiguration::from_cluster(&text).map_err(|error| wrong("kubeadm-config", error.to_string()))?;
        let balancer = node_access::noted(&map);
        let (text, _) = entry(&client, "kubelet-config", "kubelet").await?;
        let kubelet = serde_yaml::from_str(&text).map_err(|error| wrong("kubelet-config", error.to_string()))?;
        self.refuse_known_name(&client).await?;
        let with_etcd = self.settings.control_plane.is_some() && configuration.local_etcd().is_some();
        // The add-ons' image, which no registry has.
        make_system_images(self.cri_socket().await, with_etcd).await?;
        Ok(Found { cluster, configuration, kubelet, balancer })
    }

    /// The token that the kubelet asks for its certificate with.
    fn token(&self, cluster: &DiscoveredCluster) -> Result<String, PhaseError> {
        let own = self.settings.tls_bootstrap_token.as_ref().map(ToString::to_string);
        own.or_else(|| cluster.user_token.clone()).ok_or_else(|| {
            PhaseError::Missing("the discovery file has no token; name one with --tls-bootstrap-token".to_owned())
        })
    }

    /// Two machines with one name would take each other's pods.
    async fn refuse_known_name(&self, client: &Client) -> Result<(), PhaseError> {
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

    async fn cri_socket(&self) -> Option<String> {
        runtime_socket(self.settings.cri_socket.as_deref()).await
    }

    async fn kubelet_start(&self, found: &Found) -> Result<(), PhaseError> {
        stop_kubelet(&self.layout).await?;
        node_access::ensure_free(found.balancer).map_err(PhaseError::Missing)?;
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
        let authority = self.layout.at(Path::new(&found.configuration.certificates_dir).join("ca.crt"));
        write_public(&authority, found.cluster.authority_pem.as_bytes())?;
        write_kubelet_config(&self.layout, &found.kubelet, self.say)?;
        let flag = |name: &str, value: String| Argument { name: name.to_owned(), value };
        let mut flags = vec![
            flag("hostname-override", self.settings.node_name.clone()),
            flag("node-ip", self.settings.node_ip.to_string()),
        ];
        flags.extend(self.cri_socket().await.map(|socket| flag("container-runtime-endpoint", socket)));
        flags.extend(node_access::kubelet_flags(found.balancer, std::slice::from_ref(&found.cluster.server)));
        write_kubelet_flags(&self.layout, &flags, &[], self.say)?;
        start_kubelet(&self.layout, self.say).await?;
        if let Some(address) = health_address(&found.kubelet) {
            wait_for_kubelet(address, self.say).await?;
        }
        (self.say)("[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap");
        self.wait_for_certificate().await?;
        // The token has done its work, and is nobody's to read any more.
        std::fs::remove_file(&bootstrap)
            .map_err(|source| PhaseError::File { path: bootstrap.display().to_string(), source })
    }

    async fn wait_for_certificate(&self) -> Result<(), PhaseError> {
        let kubeconfig = self.layout.kubeconfig("kubelet.conf");
        let deadline = Instant::now() + BOOTSTRAP_PATIENCE;
        while !kubeconfig.exists() {
            if Instant::now() > deadline {
                return Err(PhaseError::Missing(format!(
                    "the kubelet has no certificate after {} s: see its log, and `kubectl get csr` on the control plane",
                    BOOTSTRAP_PATIENCE.as_secs()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
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
