//! What each phase does in the cluster: configuration, certificates for others, the node's mark, tokens, add-ons.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::ConfigMap;
use kedge_bootstrap::{create_token, ensure_cluster_info, ensure_node_bootstrap_rbac, public_key_pin, upload_certs};
use kube::Api;
use serde_json::Value;

use super::closing::Closing;
use super::{Init, PhaseError};
use crate::Say;
use crate::addons::{NetworkAddon, dns_objects, doctor_objects, network_objects, proxy_objects};
use crate::cluster_configuration::ClusterConfiguration;
use crate::cluster_objects::{
    ApplyError, apply_objects, mark_control_plane, upload_cluster_configuration, upload_kubelet_configuration,
    wait_for_node,
};
use crate::node_access;
use crate::patches::{PatchTarget, Patches, PatchesError};
use crate::system_images::SystemImages;

/// What the phase bootstrap-token lets others do, in upstream's words.
pub(crate) const GRANTS: [&str; 4] = [
    "Node Bootstrap tokens to get nodes",
    "Node Bootstrap tokens to post CSRs in order for nodes to get long term certificate credentials",
    "the csrapprover controller automatically approve CSRs from a Node Bootstrap Token",
    "certificate rotation for all node client certificates in the cluster",
];

impl Init<'_> {
    pub(super) async fn upload_config(&self, part: Option<&str>) -> Result<(), PhaseError> {
        if self.only_says("store the configuration in the ConfigMaps kubeadm-config and kubelet-config") {
            return Ok(());
        }
        let client = self.admin().await?;
        if part.is_none_or(|part| part == "kubeadm") {
            upload_cluster_configuration(client, &self.settings.cluster, self.say).await?;
            node_access::note(client, self.settings.api_balancer).await?;
        }
        if part.is_none_or(|part| part == "kubelet") {
            upload_kubelet_configuration(client, &self.kubelet_document(), self.say).await?;
        }
        Ok(())
    }

    pub(super) async fn upload_certs(&self) -> Result<(), PhaseError> {
        if !self.settings.upload_certs {
            (self.say)("[upload-certs] Skipping phase. Please see --upload-certs");
            return Ok(());
        }
        if self.only_says("store the certificates in the Secret kubeadm-certs") {
            return Ok(());
        }
        let (client, key) = (self.admin().await?, &self.settings.certificate_key);
        upload_certs(client, &self.layout.pki(), key, self.settings.has_own_etcd(), self.say).await?;
        if !self.settings.skip_certificate_key_print {
            (self.say)(&format!("[upload-certs] Using certificate key:\n{key}"));
        }
        Ok(())
    }

    pub(super) async fn mark(&self) -> Result<(), PhaseError> {
        if self.only_says("label and taint the node as a control plane") {
            return Ok(());
        }
        let client = self.admin().await?;
        wait_for_node(client, &self.settings.node_name).await?;
        Ok(mark_control_plane(client, &self.settings.node_name, &self.settings.taints, self.say).await?)
    }

    pub(super) async fn bootstrap_token(&self) -> Result<(), PhaseError> {
        let say = self.say;
        if !self.settings.skip_token_print {
            let texts: Vec<String> = self.settings.tokens.iter().map(|spec| spec.token.to_string()).collect();
            match &texts[..] {
                [one] => say(&format!("[bootstrap-token] Using token: {one}")),
                several => say(&format!("[bootstrap-token] Using tokens: [{}]", several.join(" "))),
            }
        }
        say("[bootstrap-token] Configuring bootstrap tokens, cluster-info ConfigMap, RBAC Roles");
        if self.only_says("make the tokens and what they may do") {
            return Ok(());
        }
        let client = self.admin().await?;
        for spec in &self.settings.tokens {
            create_token(client, spec).await?;
        }
        ensure_node_bootstrap_rbac(client).await?;
        for what in GRANTS {
            say(&format!("[bootstrap-token] Configured RBAC rules to allow {what}"));
        }
        say("[bootstrap-token] Creating the \"cluster-info\" ConfigMap in the \"kube-public\" namespace");
        let server = format!("https://{}", self.settings.endpoint());
        Ok(ensure_cluster_info(client, &server, &self.authority()?).await?)
    }

    fn authority(&self) -> Result<String, PhaseError> {
        let path = self.layout.pki().join("ca.crt");
        std::fs::read_to_string(&path).map_err(|source| PhaseError::File { path: path.display().to_string(), source })
    }

    pub(super) async fn addons(&self, part: Option<&str>) -> Result<(), PhaseError> {
        let is_asked = |name: &str| {
            let usual = name != "doctor" && (name != "network" || self.settings.with_network);
            part.map_or(usual, |part| part == name)
        };
        let networking = &self.settings.cluster.networking;
        let (balancer, image) = (self.balancer_of_cluster().await?, SystemImages::of_machine(None).kedge);
        if is_asked("coredns") {
            let address = self.settings.service_ips(10).first().map(IpAddr::to_string).unwrap_or_default();
            let ranges = [networking.pod_subnet.as_str(), &networking.service_subnet];
            let ranges = ranges.into_iter().filter(|range| !range.is_empty()).collect::<Vec<_>>().join(",");
            let mut objects = dns_objects(&address, &networking.dns_domain, &ranges, &image);
            patch_dns(&self.patches, &mut objects, self.say)?;
            self.addon("CoreDNS", &objects).await?;
        }
        if is_asked("kube-proxy") {
            let endpoint = node_access::host_port(balancer, &self.settings.endpoint());
            let objects = proxy_objects(&endpoint, &networking.pod_subnet, &image, &self.settings.proxy);
            self.addon("kube-proxy", &objects).await?;
        }
        if is_asked("network") {
            let cluster = self.made_with().await?;
            let pod_subnet = &cluster.networking.pod_subnet;
            let endpoint = node_access::host_port(balancer, &cluster.endpoint(&self.settings.local));
            let flags = &self.settings.network_flags;
            let addon = NetworkAddon { pod_subnet, endpoint: &endpoint, image: &image, flags };
            self.addon("kedge-network", &network_objects(&addon)).await?;
        }
        if is_asked("doctor") {
            self.addon("kedge-doctor", &doctor_objects(&image, 1)).await?;
        }
        Ok(())
    }

    /// Where the balancers of the cluster's nodes listen; the cluster knows, whatever was said now.
    async fn balancer_of_cluster(&self) -> Result<Option<SocketAddr>, PhaseError> {
        match self.settings.dry_run {
            true => Ok(self.settings.api_balancer),
            false => Ok(node_access::ask(self.admin().await?).await?),
        }
    }

    /// What the cluster was made with, where nobody says now which range pods have.
    async fn made_with(&self) -> Result<ClusterConfiguration, PhaseError> {
        let said = &self.settings.cluster;
        if !said.networking.pod_subnet.is_empty() || self.settings.dry_run {
            return Ok(said.clone());
        }
        let maps: Api<ConfigMap> = Api::namespaced(self.admin().await?.clone(), "kube-system");
        let map = maps.get("kubeadm-config").await.map_err(|source| failed("ConfigMap", "kubeadm-config", source))?;
        let text = map.data.and_then(|data| data.get("ClusterConfiguration").cloned()).unwrap_or_default();
        match ClusterConfiguration::from_cluster(&text) {
            Ok(cluster) if !cluster.networking.pod_subnet.is_empty() => Ok(cluster),
            Ok(_) => Err(PhaseError::Missing(
                "the cluster was made without --pod-network-cidr, so its nodes have no ranges for pods".to_owned(),
            )),
            Err(error) => Err(PhaseError::Missing(format!("the ConfigMap kubeadm-config cannot be read: {error}"))),
        }
    }

    async fn addon(&self, name: &str, objects: &[Value]) -> Result<(), PhaseError> {
        if self.only_says(&format!("apply the addon {name}")) {
            return Ok(());
        }
        apply_objects(self.admin().await?, objects).await?;
        (self.say)(&format!("[addons] Applied essential addon: {name}"));
        Ok(())
    }

    pub(super) fn show_join_command(&self) -> Result<(), PhaseError> {
        let pin = public_key_pin(&self.authority()?).map_err(PhaseError::Missing)?;
        for spec in &self.settings.tokens {
            let closing = Closing {
                endpoint: &self.settings.endpoint(),
                token: &spec.token,
                pin: pin.clone(),
                is_shared: !self.settings.cluster.control_plane_endpoint.is_empty(),
                key: self.settings.upload_certs.then_some(&self.settings.certificate_key),
                hides_token: self.settings.skip_token_print,
                hides_key: self.settings.skip_certificate_key_print,
                has_network: self.settings.with_network,
            };
            (self.say)(&closing.text());
        }
        Ok(())
    }
}

/// Changes the Deployment of cluster DNS by its patches.
pub(crate) fn patch_dns(patches: &Patches, objects: &mut [Value], say: Say<'_>) -> Result<(), PatchesError> {
    for deployment in objects.iter_mut().filter(|object| object["kind"] == "Deployment") {
        *deployment = patches.apply(PatchTarget::CoreDnsDeployment, deployment.take(), say)?;
    }
    Ok(())
}

pub(crate) fn failed(kind: &str, name: &str, source: kube::Error) -> PhaseError {
    ApplyError { kind: kind.to_owned(), name: name.to_owned(), source: Box::new(source) }.into()
}
