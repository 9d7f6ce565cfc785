//! Flags of `kedge upgrade`, spelled as kubeadm spells them.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct UpgradeFlags {
    #[command(subcommand)]
    pub(crate) command: UpgradeCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UpgradeCommand {
    /// Show what this kedge would change in the cluster, and whether the cluster can be upgraded. Changes nothing.
    Plan {
        /// The version that is asked for [default: that of this kedge].
        #[arg(value_name = "VERSION")]
        wanted: Option<String>,
        #[command(flatten)]
        shared: SharedFlags,
        /// How to report.
        #[arg(long, short, value_enum, default_value_t = PlanOutput::Text)]
        output: PlanOutput,
    },
    /// Upgrade the first control plane and what the whole cluster shares, to the version of this kedge.
    Apply {
        /// The version that is asked for; another than that of this kedge is refused.
        #[arg(value_name = "VERSION")]
        wanted: Option<String>,
        #[command(flatten)]
        shared: SharedFlags,
        #[command(flatten)]
        work: WorkFlags,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
        /// Upgrade although some requirements are not met, or to an older version; do not ask.
        #[arg(long, short)]
        force: bool,
    },
    /// Upgrade this machine: a further control plane, or a worker.
    Node {
        #[command(flatten)]
        shared: NodeFlags,
        #[command(flatten)]
        work: WorkFlags,
    },
    /// Show how the manifests of the static pods would change.
    Diff {
        /// The version that is asked for; another than that of this kedge is refused.
        #[arg(value_name = "VERSION")]
        wanted: Option<String>,
        /// Kubeconfig of the administrator [default: /etc/kubernetes/admin.conf].
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
        /// How many lines of context to show.
        #[arg(long, short, value_name = "LINES", default_value_t = 3)]
        context_lines: usize,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NodeFlags {
    /// Who to be to the API [default: admin.conf on a control plane, kubelet.conf elsewhere, in /etc/kubernetes].
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Checks whose errors are shown as warnings; `all` for all.
    #[arg(long, value_name = "CHECKS", value_delimiter = ',')]
    pub(crate) ignore_preflight_errors: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SharedFlags {
    #[command(flatten)]
    pub(crate) node: NodeFlags,
    /// Allow versions that are alpha, beta or release candidates.
    #[arg(long, visible_alias = "allow-release-candidate-upgrades")]
    pub(crate) allow_experimental_upgrades: bool,
    /// Show the configuration of the cluster that is used.
    #[arg(long)]
    pub(crate) print_config: bool,
    /// Whether etcd is upgraded too.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) etcd_upgrade: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WorkFlags {
    /// Change nothing; show what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Whether the certificates of the components that are upgraded are renewed.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) certificate_renewal: bool,
    /// Phases to leave out: control-plane, upload-config, kubeconfig, kubelet-config, bootstrap-token, addon.
    #[arg(long, value_name = "PHASES", value_delimiter = ',')]
    pub(crate) skip_phases: Vec<String>,
}

/// How a plan is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanOutput {
    /// For people.
    Text,
    /// For machines.
    Json,
    /// For machines.
    Yaml,
}
