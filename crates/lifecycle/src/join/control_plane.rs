//! What makes a joining machine a further control plane: the authorities of the first one, certificates and manifests of its
//! own, and its mark in the cluster.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use kedge_bootstrap::{CertificateKey, download_certs, transferred_files};

use super::Join;
use super::find::Found;
use crate::addresses::nth_address;
use crate::certs::{CertificateFacts, ensure_certificates};
use crate::cluster_configuration::{LocalEndpoint, Period};
use crate::cluster_objects::{control_plane_taint, mark_control_plane, wait_for_node};
use crate::health_wait::wait_for_components;
use crate::host::MANIFESTS_DIR;
use crate::init::PhaseError;
use crate::kubeconfigs::{KubeconfigFacts, ensure_kubeconfigs};
use crate::manifests::{CONTROL_PLANE, ManifestFacts, control_plane_pod, write_manifest};
use crate::system_images::SystemImages;

const ETCD_LINE: &str = "* A new etcd member was added to the local/stacked etcd cluster.\n";
const CLOSING: &str = "
This node has joined the cluster and a new control plane instance was created:

* Certificate signing request was sent to apiserver and approval was received.
* The Kubelet was informed of the new secure connection details.
* Control plane label and taint were applied to the new node.
* The Kubernetes control plane instances scaled up.
";
const AFTERWARDS: &str = "
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

/// What is said at the end.
pub(super) fn closing(found: Option<&Found>) -> String {
    let has_etcd = found.is_none_or(|found| found.configuration.local_etcd().is_some());
    format!("{CLOSING}{}{AFTERWARDS}", if has_etcd { ETCD_LINE } else { "" })
}

impl Join<'_> {
    /// What a control plane was asked for; only such a one has these phases.
    pub(super) fn control_plane(&self) -> Result<&ControlPlaneSettings, PhaseError> {
        let own = self.settings.control_plane.as_ref();
        own.ok_or_else(|| PhaseError::Missing("this phase is one of control planes: add --control-plane".to_owned()))
    }

    /// A control plane needs an endpoint that all share, and the authorities, from the cluster or by hand.
    pub(super) fn refuse_incomplete(&self, found: &Found, own: &ControlPlaneSettings) -> Result<(), PhaseError> {
        let why = match found.configuration.control_plane_endpoint.as_str() {
            "" => Some(
                "unable to add a new control plane instance to a cluster that doesn't have a stable controlPlaneEndpoint \
                 address"
                    .to_owned(),
            ),
            _ if own.certificate_key.is_some() => None,
            _ => missing_files(found),
        };
        why.map_or(Ok(()), |why| {
            Err(PhaseError::Missing(format!(
                "\nOne or more conditions for hosting a new control plane instance is not satisfied.\n\n{why}\n\n\
                 Please ensure that:\n* The cluster has a stable controlPlaneEndpoint address.\n* The certificates that must \
                 be shared among control plane instances are provided.\n"
            )))
        })
    }

    pub(super) async fn download_certs(&self) -> Result<(), PhaseError> {
        let Some(key) = &self.control_plane()?.certificate_key else { return Ok(()) };
        let found = self.found().await?;
        let with_etcd = found.configuration.local_etcd().is_some();
        let client = found.cluster.client(Some(&self.token(&found.cluster)?))?;
        let downloaded = download_certs(&client, &found.layout.pki(), key, with_etcd, self.say).await;
        downloaded.map_err(PhaseError::DownloadCerts)
    }

    pub(super) async fn certs(&self) -> Result<(), PhaseError> {
        let (found, own) = (self.found().await?, self.control_plane()?);
        let certificates = CertificateFacts {
            cluster: &found.configuration,
            local: self.local(own),
            node_name: &self.settings.node_name,
            api_service_ips: service_ips(&found.configuration.networking.service_subnet, 1),
            embedded_store: false,
        };
        Ok(ensure_certificates(&certificates, &found.layout, None, self.say)?)
    }

    pub(super) async fn kubeconfigs(&self) -> Result<(), PhaseError> {
        let (found, own) = (self.found().await?, self.control_plane()?);
        let local = self.local(own);
        let kubeconfigs = KubeconfigFacts {
            cluster_name: &found.configuration.cluster_name,
            endpoint: found.configuration.endpoint(&local),
            local: local.host_port(),
            node_name: &self.settings.node_name,
            lifetime: found.configuration.certificate_validity_period.as_ref().map(Period::length),
        };
        let wanted = ["admin", "controller-manager", "scheduler"];
        Ok(ensure_kubeconfigs(&kubeconfigs, &found.layout, &wanted, self.say)?)
    }

    /// The manifests; the API server waits for its etcd.
    pub(super) async fn manifests(&self) -> Result<(), PhaseError> {
        let (found, own) = (self.found().await?, self.control_plane()?);
        (self.say)(&format!("[control-plane] Using manifest folder \"{MANIFESTS_DIR}\""));
        let facts = self.manifest_facts(found, own);
        for component in CONTROL_PLANE {
            (self.say)(&format!("[control-plane] Creating static Pod manifest for \"{component}\""));
            self.put_manifest(component, control_plane_pod(component, &facts, &found.layout))?;
        }
        Ok(())
    }

    /// Says in the cluster what this node is.
    pub(super) async fn mark(&self) -> Result<(), PhaseError> {
        self.control_plane()?;
        if self.only_says("label and taint the node as a control plane") {
            return Ok(());
        }
        let (client, name) = (self.admin().await?, &self.settings.node_name);
        wait_for_node(&client, name).await?;
        let taints = self.settings.control_plane_taints.clone().unwrap_or_else(|| vec![control_plane_taint()]);
        Ok(mark_control_plane(&client, name, &taints, self.say).await?)
    }

    pub(super) async fn wait_control_plane(&self) -> Result<(), PhaseError> {
        let local = self.local(self.control_plane()?);
        if self.only_says("wait for the control plane") {
            return Ok(());
        }
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let components = [
            ("kube-apiserver", SocketAddr::new(local.advertise_address, local.bind_port), "/livez"),
            ("kube-controller-manager", loopback(10257), "/healthz"),
            ("kube-scheduler", loopback(10259), "/livez"),
        ];
        Ok(wait_for_components(&components, self.settings.health_patience, self.say).await?)
    }

    fn local(&self, own: &ControlPlaneSettings) -> LocalEndpoint {
        LocalEndpoint { advertise_address: self.settings.node_ip, bind_port: own.bind_port }
    }

    pub(super) fn manifest_facts(&self, found: &Found, own: &ControlPlaneSettings) -> ManifestFacts {
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

    pub(super) fn put_manifest(&self, component: &str, pod: serde_json::Value) -> Result<(), PhaseError> {
        let pod = &self.patches.apply_to_pod(component, pod, self.say)?;
        let path = format!("{MANIFESTS_DIR}/{component}.yaml");
        if self.scratch.is_some() {
            (self.say)(&format!("[dryrun] Would write file \"{path}\" with content:"));
            serde_yaml::to_string(pod).unwrap_or_default().lines().for_each(|line| (self.say)(&format!("\t{line}")));
        }
        write_manifest(&self.layout, component, pod).map_err(|source| PhaseError::File { path, source })
    }
}

/// The shared files that nobody put here, in kubeadm's words.
fn missing_files(found: &Found) -> Option<String> {
    let pki = found.layout.pki();
    let with_etcd = found.configuration.local_etcd().is_some();
    let texts: Vec<String> = transferred_files(with_etcd)
        .into_iter()
        .filter(|file| !pki.join(file).exists())
        .map(|file| {
            let path = pki.join(file);
            let kind = if file.ends_with(".crt") { "certificate" } else { "private key" };
            format!("couldn't load the {kind} file {}: no such file or directory", path.display())
        })
        .collect();
    (!texts.is_empty()).then(|| format!("[{}]", texts.join(", ")))
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
