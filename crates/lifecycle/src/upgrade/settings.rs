//! What `kedge upgrade` was asked for.

use std::path::PathBuf;

use super::health::CommandCheck;

/// Asks a person; whether they agree.
pub type Confirm = fn() -> bool;

/// What all of its commands are told.
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
    /// Asks before anything is changed; nobody is asked where absent.
    pub confirm: Option<Confirm>,
    /// Tries the command lines of components.
    pub takes_command: CommandCheck,
}
