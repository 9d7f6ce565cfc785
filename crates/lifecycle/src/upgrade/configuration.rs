//! `UpgradeConfiguration` of `kubeadm.k8s.io/v1beta4`: what of it has an effect, and what not.
//!
//! Pure. Invariant: a field that is in no list is an error; one that upstream has and Kedge lacks is named.

use serde::Deserialize;
use serde_json::Value;

use crate::patches::PatchesConfiguration;

/// What the commands are told, each in a section of its own.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct UpgradeConfiguration {
    pub(crate) apply: ApplySection,
    pub(crate) diff: DiffSection,
    pub(crate) node: NodeSection,
    pub(crate) plan: PlanSection,
    pub(crate) timeouts: UpgradeTimeouts,
}

/// `kedge upgrade apply`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct ApplySection {
    pub(crate) kubernetes_version: Option<String>,
    pub(crate) allow_experimental_upgrades: Option<bool>,
    #[serde(rename = "allowRCUpgrades")]
    pub(crate) allow_rc_upgrades: Option<bool>,
    pub(crate) certificate_renewal: Option<bool>,
    pub(crate) dry_run: Option<bool>,
    pub(crate) etcd_upgrade: Option<bool>,
    pub(crate) force_upgrade: Option<bool>,
    pub(crate) ignore_preflight_errors: Vec<String>,
    pub(crate) patches: PatchesConfiguration,
    pub(crate) print_config: Option<bool>,
    pub(crate) skip_phases: Vec<String>,
    image_pull_policy: Value,
    image_pull_serial: Value,
}

/// `kedge upgrade diff`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct DiffSection {
    pub(crate) kubernetes_version: Option<String>,
    pub(crate) context_lines: Option<usize>,
}

/// `kedge upgrade node`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct NodeSection {
    pub(crate) certificate_renewal: Option<bool>,
    pub(crate) dry_run: Option<bool>,
    pub(crate) etcd_upgrade: Option<bool>,
    pub(crate) ignore_preflight_errors: Vec<String>,
    pub(crate) skip_phases: Vec<String>,
    pub(crate) patches: PatchesConfiguration,
    image_pull_policy: Value,
    image_pull_serial: Value,
}

/// `kedge upgrade plan`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct PlanSection {
    pub(crate) kubernetes_version: Option<String>,
    pub(crate) allow_experimental_upgrades: Option<bool>,
    #[serde(rename = "allowRCUpgrades")]
    pub(crate) allow_rc_upgrades: Option<bool>,
    dry_run: Value,
    pub(crate) etcd_upgrade: Option<bool>,
    pub(crate) ignore_preflight_errors: Vec<String>,
    pub(crate) print_config: Option<bool>,
}

/// How long things are waited for, as Go writes durations.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct UpgradeTimeouts {
    pub(crate) upgrade_manifests: Option<String>,
    control_plane_component_health_check: Value,
    kubelet_health_check: Value,
    #[serde(rename = "kubernetesAPICall")]
    kubernetes_api_call: Value,
    #[serde(rename = "etcdAPICall")]
    etcd_api_call: Value,
    #[serde(rename = "tlsBootstrap")]
    tls_bootstrap: Value,
    discovery: Value,
}

impl UpgradeConfiguration {
    /// The fields that were given and do nothing.
    pub(crate) fn without_effect(&self) -> Vec<String> {
        let times = &self.timeouts;
        let fields = [
            // Images are made on the machine, and a plan changes nothing anyway.
            ("apply.imagePullPolicy", &self.apply.image_pull_policy),
            ("apply.imagePullSerial", &self.apply.image_pull_serial),
            ("node.imagePullPolicy", &self.node.image_pull_policy),
            ("node.imagePullSerial", &self.node.image_pull_serial),
            ("plan.dryRun", &self.plan.dry_run),
            ("timeouts.controlPlaneComponentHealthCheck", &times.control_plane_component_health_check),
            ("timeouts.kubeletHealthCheck", &times.kubelet_health_check),
            ("timeouts.kubernetesAPICall", &times.kubernetes_api_call),
            ("timeouts.etcdAPICall", &times.etcd_api_call),
            ("timeouts.tlsBootstrap", &times.tls_bootstrap),
            ("timeouts.discovery", &times.discovery),
        ];
        let named = fields.into_iter().filter(|(_, value)| !value.is_null());
        named.map(|(name, _)| format!("UpgradeConfiguration.{name}")).collect()
    }
}
