//! What `kedge upgrade` was asked for: flags, the configuration file, and what follows from both.
//!
//! Invariant: flags win over the file, the file over defaults; both lists of checks to ignore count.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::configuration::{ApplySection, NodeSection, PlanSection, UpgradeConfiguration};
use super::health::CommandCheck;
use crate::documents::{ConfigurationError, Documents};
use crate::health_wait::HealthPatience;

/// Asks a person; whether they agree.
pub type Confirm = fn() -> bool;

/// How long upstream waits for a component.
const MANIFEST_PATIENCE: Duration = Duration::from_secs(300);
const CONTEXT_LINES: usize = 3;

/// The command that is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeCommand {
    /// `kedge upgrade plan`.
    Plan,
    /// `kedge upgrade apply`.
    Apply,
    /// `kedge upgrade node`.
    Node,
    /// `kedge upgrade diff`.
    Diff,
}

/// Flags, as they were given; what a command lacks is absent.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the names are the flags', which say themselves what they are for")]
pub struct UpgradeFlags {
    pub version: Option<String>,
    pub config: Option<PathBuf>,
    pub kubeconfig: Option<PathBuf>,
    pub ignore_preflight_errors: Vec<String>,
    pub allow_experimental_upgrades: bool,
    pub print_config: bool,
    pub etcd_upgrade: Option<bool>,
    pub certificate_renewal: Option<bool>,
    pub force: bool,
    pub dry_run: bool,
    pub skip_phases: Vec<String>,
    pub patches: Option<PathBuf>,
    pub context_lines: Option<usize>,
}

/// The same, complete.
#[derive(Debug, Clone)]
pub struct UpgradeSettings {
    /// The version that is asked for: this binary's where absent.
    pub version: Option<String>,
    /// Who one is to the API: the administrator, and on a worker its kubelet, where absent.
    pub kubeconfig: Option<PathBuf>,
    /// Checks whose errors are warnings.
    pub ignore_preflight_errors: Vec<String>,
    /// Whether unstable versions are allowed.
    pub allows_unstable: bool,
    /// Whether the cluster's configuration is shown.
    pub print_config: bool,
    /// Whether etcd is upgraded too.
    pub upgrades_etcd: bool,
    /// Whether the certificates of what is upgraded are renewed.
    pub renews_certificates: bool,
    /// Whether what speaks against it, and can be, is passed over.
    pub force: bool,
    /// Whether nothing is changed.
    pub dry_run: bool,
    /// Phases to leave out.
    pub skip_phases: Vec<String>,
    /// Where patches to what is written are.
    pub patches: Option<PathBuf>,
    /// How long a component may take to become well.
    pub manifest_patience: Duration,
    /// How long the kubelet may take to become well.
    pub health_patience: HealthPatience,
    /// How many lines of context a difference is shown with.
    pub context_lines: usize,
    /// What in the file has no effect.
    pub without_effect: Vec<String>,
    /// Asks before anything is changed; nobody is asked where absent.
    pub confirm: Option<Confirm>,
    /// Tries the command lines of components.
    pub takes_command: CommandCheck,
}

impl UpgradeSettings {
    /// Reads the file, and puts the flags of a command above it.
    pub fn new(
        command: UpgradeCommand,
        flags: UpgradeFlags,
        takes_command: CommandCheck,
    ) -> Result<Self, ConfigurationError> {
        let (file, without_effect) = read_file(flags.config.as_deref())?;
        let section = Section::of(command, &file);
        Ok(Self {
            version: flags.version.or(section.version),
            kubeconfig: flags.kubeconfig,
            ignore_preflight_errors: [flags.ignore_preflight_errors, section.ignore_preflight_errors].concat(),
            allows_unstable: flags.allow_experimental_upgrades || section.allows_unstable,
            print_config: flags.print_config || section.print_config,
            upgrades_etcd: flags.etcd_upgrade.or(section.etcd_upgrade).unwrap_or(true),
            renews_certificates: flags.certificate_renewal.or(section.certificate_renewal).unwrap_or(true),
            force: flags.force || section.force,
            dry_run: flags.dry_run || section.dry_run,
            skip_phases: if flags.skip_phases.is_empty() { section.skip_phases } else { flags.skip_phases },
            patches: flags.patches.or(section.patches),
            manifest_patience: file.timeouts.patience("upgradeManifests", MANIFEST_PATIENCE)?,
            health_patience: file.timeouts.health()?,
            context_lines: flags.context_lines.or(file.diff.context_lines).unwrap_or(CONTEXT_LINES),
            without_effect,
            confirm: None,
            takes_command,
        })
    }
}

/// What the file says to one of the commands.
#[derive(Default)]
struct Section {
    version: Option<String>,
    ignore_preflight_errors: Vec<String>,
    allows_unstable: bool,
    print_config: bool,
    etcd_upgrade: Option<bool>,
    certificate_renewal: Option<bool>,
    force: bool,
    dry_run: bool,
    skip_phases: Vec<String>,
    patches: Option<PathBuf>,
}

impl Section {
    fn of(command: UpgradeCommand, file: &UpgradeConfiguration) -> Self {
        match command {
            UpgradeCommand::Plan => Self::of_plan(&file.plan),
            UpgradeCommand::Apply => Self::of_apply(&file.apply),
            UpgradeCommand::Node => Self::of_node(&file.node),
            // What would be applied is compared, and that is patched.
            UpgradeCommand::Diff => Self {
                version: file.diff.kubernetes_version.clone(),
                patches: file.apply.patches.directory(),
                ..Self::default()
            },
        }
    }

    fn of_plan(section: &PlanSection) -> Self {
        Self {
            version: section.kubernetes_version.clone(),
            ignore_preflight_errors: section.ignore_preflight_errors.clone(),
            allows_unstable: is(section.allow_experimental_upgrades) || is(section.allow_rc_upgrades),
            print_config: is(section.print_config),
            etcd_upgrade: section.etcd_upgrade,
            ..Self::default()
        }
    }

    fn of_apply(section: &ApplySection) -> Self {
        Self {
            version: section.kubernetes_version.clone(),
            ignore_preflight_errors: section.ignore_preflight_errors.clone(),
            allows_unstable: is(section.allow_experimental_upgrades) || is(section.allow_rc_upgrades),
            print_config: is(section.print_config),
            etcd_upgrade: section.etcd_upgrade,
            certificate_renewal: section.certificate_renewal,
            force: is(section.force_upgrade),
            dry_run: is(section.dry_run),
            skip_phases: section.skip_phases.clone(),
            patches: section.patches.directory(),
        }
    }

    fn of_node(section: &NodeSection) -> Self {
        Self {
            ignore_preflight_errors: section.ignore_preflight_errors.clone(),
            etcd_upgrade: section.etcd_upgrade,
            certificate_renewal: section.certificate_renewal,
            dry_run: is(section.dry_run),
            skip_phases: section.skip_phases.clone(),
            patches: section.patches.directory(),
            ..Self::default()
        }
    }
}

fn is(value: Option<bool>) -> bool {
    value == Some(true)
}

fn wrong(field: &str, why: String) -> ConfigurationError {
    ConfigurationError::Value { field: field.to_owned(), why }
}

/// The document of a file, and what in the file has no effect.
fn read_file(path: Option<&Path>) -> Result<(UpgradeConfiguration, Vec<String>), ConfigurationError> {
    let Some(path) = path else { return Ok((UpgradeConfiguration::default(), Vec::new())) };
    let text = std::fs::read_to_string(path);
    let documents = Documents::read(&text.map_err(|error| wrong("--config", format!("{}: {error}", path.display())))?)?;
    let missing = || wrong("--config", "no UpgradeConfiguration found in the supplied config".to_owned());
    let file = documents.upgrade.ok_or_else(missing)?;
    // Upstream takes the cluster's own configuration, too, whatever else stands in the file.
    let others = documents.kinds.into_iter().filter(|kind| kind != "UpgradeConfiguration");
    let without_effect = file.without_effect().into_iter().chain(others).collect();
    Ok((file, without_effect))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: UpgradeConfiguration
apply:
  kubernetesVersion: v1.36.1
  etcdUpgrade: false
  certificateRenewal: false
  forceUpgrade: true
  allowRCUpgrades: true
  ignorePreflightErrors: [CreateJob]
  patches: {directory: /srv/patches}
  skipPhases: [addon]
  imagePullSerial: true
node: {dryRun: true, patches: {directory: /srv/others}}
diff: {contextLines: 7}
plan: {printConfig: true}
timeouts: {upgradeManifests: 1m30s, discovery: 5m0s}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
";

    fn settings(command: UpgradeCommand, text: &str, flags: UpgradeFlags) -> Result<UpgradeSettings, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("upgrade.yaml");
        std::fs::write(&path, text).unwrap();
        let flags = UpgradeFlags { config: Some(path), ..flags };
        UpgradeSettings::new(command, flags, |_, _| Ok(Vec::new())).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            format!("{error}: {cause}")
        })
    }

    #[test]
    fn each_command_has_its_section() {
        let apply = settings(UpgradeCommand::Apply, FILE, UpgradeFlags::default()).unwrap();
        assert_eq!(apply.version.as_deref(), Some("v1.36.1"));
        assert!(!apply.upgrades_etcd && !apply.renews_certificates && apply.force && apply.allows_unstable);
        assert_eq!(apply.patches.as_deref(), Some(Path::new("/srv/patches")));
        assert_eq!((apply.skip_phases, apply.manifest_patience), (vec!["addon".to_owned()], Duration::from_secs(90)));
        let unused =
            ["apply.imagePullSerial", "timeouts.discovery"].map(|field| format!("UpgradeConfiguration.{field}"));
        assert_eq!(apply.without_effect, [&unused[..], &["ClusterConfiguration".to_owned()]].concat());
        let node = settings(UpgradeCommand::Node, FILE, UpgradeFlags::default()).unwrap();
        assert!(node.dry_run && node.upgrades_etcd && !node.force && node.version.is_none());
        assert_eq!(node.patches.as_deref(), Some(Path::new("/srv/others")));
        let diff = settings(UpgradeCommand::Diff, FILE, UpgradeFlags::default()).unwrap();
        assert_eq!((diff.context_lines, diff.patches.is_some()), (7, true));
        let plan = settings(UpgradeCommand::Plan, FILE, UpgradeFlags::default()).unwrap();
        assert!(plan.print_config && !plan.allows_unstable);
    }

    #[test]
    fn flags_win() {
        let flags = UpgradeFlags {
            version: Some("v1.36.0".to_owned()),
            etcd_upgrade: Some(true),
            ignore_preflight_errors: vec!["StaticPodManifest".to_owned()],
            patches: Some("/flag".into()),
            skip_phases: vec!["kubeconfig".to_owned()],
            ..UpgradeFlags::default()
        };
        let apply = settings(UpgradeCommand::Apply, FILE, flags).unwrap();
        assert_eq!((apply.version.as_deref(), apply.upgrades_etcd), (Some("v1.36.0"), true));
        assert_eq!(apply.ignore_preflight_errors, ["StaticPodManifest", "CreateJob"]);
        assert_eq!((apply.patches, apply.skip_phases), (Some("/flag".into()), vec!["kubeconfig".to_owned()]));
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        let check = |text: &str, expected: &str| {
            let error = settings(UpgradeCommand::Apply, text, UpgradeFlags::default()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(&FILE.replace("forceUpgrade", "forceUpgrad"), "unknown field `forceUpgrad`");
        check(&FILE.replace("1m30s", "soon"), "timeouts.upgradeManifests: \"soon\" is no duration");
        check("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n", "no UpgradeConfiguration found");
    }
}
