//! What a run knows: the machine, the cluster's configuration, and a client.

use kedge_client::{Client, client_from_kubeconfig};
use serde_json::Value;

use super::Upgrade;
use super::cluster_facts::KeptConfiguration;
use super::host_facts::{ControlPlaneFacts, HostFacts};
use super::static_pods::new_manifests;
use crate::Say;
use crate::host::HostLayout;
use crate::init::PhaseError;
use crate::join::service_ips;
use crate::kubelet_service::kubelet_configuration;
use crate::patches::{PatchTarget, Patches};

/// The knowledge of one run.
pub(super) struct Session {
    pub(super) host: HostFacts,
    pub(super) client: Client,
    pub(super) kept: KeptConfiguration,
    pub(super) layout: HostLayout,
    pub(super) patches: Patches,
}

impl Session {
    /// Reads everything. `needs_control_plane` where the machine must be one.
    pub(super) async fn open(upgrade: &Upgrade<'_>, needs_control_plane: bool) -> Result<Self, PhaseError> {
        let host = HostFacts::read(&upgrade.layout)?;
        if needs_control_plane && host.control_plane.is_none() {
            return Err(PhaseError::Missing(
                "this machine is no control plane: run `kedge upgrade apply` on the first one, and `kedge upgrade node` here"
                    .to_owned(),
            ));
        }
        let file = if host.control_plane.is_some() { "admin.conf" } else { "kubelet.conf" };
        let path = upgrade.settings.kubeconfig.clone().unwrap_or_else(|| upgrade.layout.kubeconfig(file));
        let client = client_from_kubeconfig(&path).await?;
        (upgrade.say)(
            "[upgrade] Reading configuration from the \"kubeadm-config\" ConfigMap in namespace \"kube-system\"...",
        );
        let kept = KeptConfiguration::read(&client).await?;
        if upgrade.settings.print_config {
            (upgrade.say)("[upgrade/config] Configuration used:");
            kept.cluster.to_yaml().lines().for_each(|line| (upgrade.say)(&format!("\t{line}")));
        }
        let layout = upgrade.layout.clone().with_certificates(std::path::Path::new(&kept.cluster.certificates_dir));
        let patches = Patches::read(upgrade.settings.patches.as_deref(), upgrade.say)?;
        Ok(Self { host, client, kept, layout, patches })
    }

    /// The control plane of this machine.
    pub(super) fn own(&self) -> Result<&ControlPlaneFacts, PhaseError> {
        let missing = || PhaseError::Missing("this machine is no control plane".to_owned());
        self.host.control_plane.as_ref().ok_or_else(missing)
    }

    /// The manifests of this version for this machine, with its patches.
    pub(super) fn new_manifests(&self, say: Say<'_>) -> Result<Vec<(&'static str, Value)>, PhaseError> {
        let manifests = new_manifests(&self.kept.cluster, &self.host.node_name, self.own()?, &self.layout);
        let patched = manifests
            .into_iter()
            .map(|(component, pod)| Ok((component, self.patches.apply_to_pod(component, pod, say)?)));
        patched.collect()
    }

    /// The configuration of this machine's kubelet, with its patches.
    pub(super) fn own_kubelet_document(&self, say: Say<'_>) -> Result<Value, PhaseError> {
        Ok(self.patches.apply(PatchTarget::KubeletConfiguration, self.kubelet_document(), say)?)
    }

    /// The configuration of kubelets as this version writes it; what the cluster keeps wins.
    pub(super) fn kubelet_document(&self) -> Value {
        let ranges = &self.kept.cluster.networking.service_subnet;
        let dns: Vec<String> = service_ips(ranges, 10).iter().map(ToString::to_string).collect();
        kubelet_configuration(&self.kept.cluster, &dns, &self.kept.kubelet)
    }
}
