//! What makes a joining machine a further control plane: the authorities of the first one, certificates and manifests of its
//! own, a member of etcd, and its mark in the cluster.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use kedge_bootstrap::{CertificateKey, download_certs};
use kedge_client::{Client, client_from_kubeconfig};
use kube::Api;
use kube::api::ListParams;
use tokio::time::Instant;

use super::{Found, Join};
use crate::addresses::nth_address;
use crate::certs::{CertificateFacts, ensure_certificates};
use crate::cluster_configuration::LocalEndpoint;
use crate::cluster_objects::{control_plane_taint, mark_control_plane};
use crate::etcd_members::EtcdMembers;
use crate::health_wait::{HEALTH_PATIENCE, wait_for_components};
use crate::host::MANIFESTS_DIR;
use crate::init::{PhaseError, failed};
use crate::kubeconfigs::{KubeconfigFacts, ensure_kubeconfigs};
use crate::manifests::{CONTROL_PLANE, EtcdMember, ManifestFacts, control_plane_pod, etcd_pod, write_manifest};
use crate::system_images::SystemImages;

const PROMOTE_PAUSE: Duration = Duration::from_millis(500);
const ETCD_ENDPOINT: &str = "kubeadm.kubernetes.io/etcd.advertise-client-urls";
pub(super) const CLOSING: &str = "
This node has joined the cluster and a new control plane instance was created:

* Certificate signing request was sent to apiserver and approval was received.
* The Kubelet was informed of the new secure connection details.
* Control plane label and taint were applied to the new node.
* The Kubernetes control plane instances scaled up.
* A new etcd member was added to the local/stacked etcd cluster.

To start administering your cluster from this node, you need to run the following as a regular user:

\tmkdir -p $HOME/.kube
\tsudo cp -i /etc/kubernetes/admin.conf $HOME/.kube/config
\tsudo chown $(id -u):$(id -g) $HOME/.kube/config

Run 'kubectl get nodes' to see this node join the cluster.
";

/// What only a control plane is asked for.
#[derive(Debug, Clone)]
pub struct ControlPlaneSettings {
    /// The key of the uploaded certificates; without it they were copied by hand.
    pub certificate_key: Option<CertificateKey>,
    /// The port of its API server.
    pub bind_port: u16,
}

impl Join<'_> {
    pub(super) fn refuse_without_endpoint(&self, found: &Found) -> Result<(), PhaseError> {
        if !found.configuration.control_plane_endpoint.is_empty() {
            return Ok(());
        }
        Err(PhaseError::Missing(
            "unable to add a new control plane instance to a cluster that doesn't have a stable controlPlaneEndpoint \
             address\n\nPlease ensure that:\n* The cluster has a stable controlPlaneEndpoint address.\n* The certificates \
             that must be shared among control plane instances are provided.\n"
                .to_owned(),
        ))
    }

    /// Certificates, kubeconfigs and manifests; the API server waits for its etcd meanwhile.
    pub(super) async fn prepare(&self, found: &Found, own: &ControlPlaneSettings) -> Result<(), PhaseError> {
        let with_etcd = found.configuration.local_etcd().is_some();
        if let Some(key) = &own.certificate_key {
            let client = found.cluster.client(Some(&self.token(&found.cluster)?))?;
            download_certs(&client, &self.layout.pki(), key, with_etcd, self.say).await?;
        }
        let local = self.local(own);
        let node_name = &self.settings.node_name;
        let certificates = CertificateFacts {
            cluster: &found.configuration,
            local,
            node_name,
            api_service_ips: service_ips(&found.configuration.networking.service_subnet, 1),
            embedded_store: false,
        };
        ensure_certificates(&certificates, &self.layout, None, self.say)?;
        let kubeconfigs = KubeconfigFacts {
            cluster_name: &found.configuration.cluster_name,
            endpoint: found.configuration.endpoint(&local),
            local: local.host_port(),
            node_name,
        };
        ensure_kubeconfigs(&kubeconfigs, &self.layout, &["admin", "controller-manager", "scheduler"], self.say)?;
        (self.say)(&format!("[control-plane] Using manifest folder \"{MANIFESTS_DIR}\""));
        let facts = self.manifest_facts(found, own);
        for component in CONTROL_PLANE {
            (self.say)(&format!("[control-plane] Creating static Pod manifest for \"{component}\""));
            self.put_manifest(component, &control_plane_pod(component, &facts, &self.layout))?;
        }
        Ok(())
    }

    /// A member of etcd for this machine, next to those that are there.
    pub(super) async fn etcd(&self, found: &Found, own: &ControlPlaneSettings) -> Result<(), PhaseError> {
        if found.configuration.local_etcd().is_none() {
            return Ok(());
        }
        let client = self.admin().await?;
        let peer = format!("https://{}", SocketAddr::new(self.settings.node_ip, 2380));
        (self.say)("[etcd] Announced new etcd member joining to the existing etcd cluster");
        let (etcd, members) = self.ensure_member(&client, &peer).await?;
        (self.say)("[etcd] Creating static Pod manifest for \"etcd\"");
        self.put_manifest("etcd", &etcd_pod(&self.manifest_facts(found, own), &self.layout, &members))?;
        (self.say)("[etcd] Waiting for the new etcd member to join the cluster. This can take up to 4m0s");
        promote(&etcd, &peer).await
    }

    /// The member that answered, and all members with the new one among them.
    async fn ensure_member(&self, client: &Client, peer: &str) -> Result<(EtcdMembers, Vec<EtcdMember>), PhaseError> {
        let selector = ListParams::default().labels("component=etcd,tier=control-plane");
        let pods = Api::<Pod>::namespaced(client.clone(), "kube-system").list(&selector).await;
        let pods = pods.map_err(|source| failed("Pod", "etcd", source))?;
        let addresses = pods.items.iter().filter_map(|pod| pod.metadata.annotations.as_ref()?.get(ETCD_ENDPOINT));
        let addresses = addresses.filter_map(|url| url.trim_start_matches("https://").parse::<SocketAddr>().ok());
        let mut last = PhaseError::Missing("no pod of etcd says where it is reached".to_owned());
        for address in addresses {
            let etcd = match EtcdMembers::at(address, &self.layout.pki()) {
                Ok(etcd) => etcd,
                Err(error) => return Err(PhaseError::Missing(error.to_string())),
            };
            match etcd.ensure(&self.settings.node_name, peer).await {
                Ok(members) => return Ok((etcd, members)),
                Err(error) => last = PhaseError::Missing(error.to_string()),
            }
        }
        Err(last)
    }

    /// Waits for the components, and says in the cluster what this node is.
    pub(super) async fn settle(&self, own: &ControlPlaneSettings) -> Result<(), PhaseError> {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let local = self.local(own);
        let components = [
            ("kube-apiserver", SocketAddr::new(local.advertise_address, local.bind_port), "/livez"),
            ("kube-controller-manager", loopback(10257), "/healthz"),
            ("kube-scheduler", loopback(10259), "/livez"),
        ];
        wait_for_components(&components, self.say).await?;
        let client = self.admin().await?;
        Ok(mark_control_plane(&client, &self.settings.node_name, &[control_plane_taint()], self.say).await?)
    }

    async fn admin(&self) -> Result<Client, PhaseError> {
        Ok(client_from_kubeconfig(&self.layout.kubeconfig("admin.conf")).await?)
    }

    fn local(&self, own: &ControlPlaneSettings) -> LocalEndpoint {
        LocalEndpoint { advertise_address: self.settings.node_ip, bind_port: own.bind_port }
    }

    fn manifest_facts(&self, found: &Found, own: &ControlPlaneSettings) -> ManifestFacts {
        let images = SystemImages::of_machine(None);
        ManifestFacts {
            cluster: found.configuration.clone(),
            local: self.local(own),
            node_name: self.settings.node_name.clone(),
            image: images.kedge,
            etcd_image: images.etcd,
            embedded_store: false,
        }
    }

    fn put_manifest(&self, component: &str, pod: &serde_json::Value) -> Result<(), PhaseError> {
        let path = format!("{MANIFESTS_DIR}/{component}.yaml");
        write_manifest(&self.layout, component, pod).map_err(|source| PhaseError::File { path, source })
    }
}

/// Asks for the new member's vote until it has caught up with the others.
async fn promote(etcd: &EtcdMembers, peer: &str) -> Result<(), PhaseError> {
    let deadline = Instant::now() + HEALTH_PATIENCE;
    loop {
        let tried = async {
            let members = etcd.list().await?;
            match members.iter().find(|known| known.member.peer_url == peer && known.is_learner) {
                Some(known) => etcd.promote(&known.id).await,
                None => Ok(()),
            }
        };
        match tried.await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(PhaseError::Missing(format!("the new etcd member has not caught up: {error}")));
            }
            Err(error) => tracing::debug!(%error, "the new etcd member has no vote yet"),
        }
        tokio::time::sleep(PROMOTE_PAUSE).await;
    }
}

/// The nth address of every Service range: the first is the API's, the tenth DNS's.
pub(crate) fn service_ips(ranges: &str, nth: u32) -> Vec<IpAddr> {
    let ranges = ranges.split(',').filter_map(|range| range.trim().parse::<IpNet>().ok());
    ranges.filter_map(|range| nth_address(&range, nth)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_has_the_first_address_of_each_range() {
        let shown: Vec<String> = service_ips("10.96.0.0/12, fd00::/112", 1).iter().map(IpAddr::to_string).collect();
        assert_eq!(shown, ["10.96.0.1", "fd00::1"]);
    }
}
