//! `UpgradeConfiguration` of `kubeadm.k8s.io/v1beta4`: what of it has an effect, and what not.
//!
//! Pure. Invariant: a field that is in no list is an error; one that upstream has and Kedge lacks is named.

use serde::Deserialize;
use serde_json::Value;

use crate::patches::PatchesConfiguration;
use crate::timeouts::Timeouts;

/// What the commands are told, each in a section of its own.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct UpgradeConfiguration {
    pub(crate) apply: ApplySection,
    pub(crate) diff: DiffSection,
    pub(crate) node: NodeSection,
    pub(crate) plan: PlanSection,
    pub(crate) timeouts: Timeouts,
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

impl UpgradeConfiguration {
    /// The fields that were given and do nothing.
    pub(crate) fn without_effect(&self) -> Vec<String> {
        let fields = [
            // Images are made on the machine, and a plan changes nothing anyway.
            ("apply.imagePullPolicy", &self.apply.image_pull_policy),
            ("apply.imagePullSerial", &self.apply.image_pull_serial),
            ("node.imagePullPolicy", &self.node.image_pull_policy),
            ("node.imagePullSerial", &self.node.image_pull_serial),
            ("plan.dryRun", &self.plan.dry_run),
        ];
        let named = fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.to_owned());
        let named = named.chain(self.timeouts.without_effect(&["upgradeManifests", "kubeletHealthCheck"]));
        named.map(|name| format!("UpgradeConfiguration.{name}")).collect()
    }
}
