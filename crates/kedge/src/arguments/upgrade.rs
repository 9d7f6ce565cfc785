//! Flags of `kedge upgrade`, spelled as kubeadm spells them.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use kedge_supervisor::UpgradeFlags as Asked;

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
    #[command(args_conflicts_with_subcommands = false)]
    Apply {
        #[command(subcommand)]
        command: Option<ApplyCommand>,
        /// The version that is asked for; another than that of this kedge is refused.
        #[arg(value_name = "VERSION")]
        wanted: Option<String>,
        #[command(flatten)]
        flags: ApplyFlags,
    },
    /// Upgrade this machine: a further control plane, or a worker.
    #[command(args_conflicts_with_subcommands = false)]
    Node {
        #[command(subcommand)]
        command: Option<NodeCommand>,
        #[command(flatten)]
        flags: NodeFlags,
    },
    /// Show how the manifests of the static pods would change.
    Diff {
        /// The version that is asked for; another than that of this kedge is refused.
        #[arg(value_name = "VERSION")]
        wanted: Option<String>,
        #[command(flatten)]
        access: AccessFlags,
        /// Directory with patches to what would be written, as for `kedge upgrade apply`.
        #[arg(long, value_name = "DIR")]
        patches: Option<PathBuf>,
        /// How many lines of context to show [default: 3].
        #[arg(long, short, value_name = "LINES")]
        context_lines: Option<usize>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApplyCommand {
    /// Run one phase alone.
    Phase {
        /// The phase: preflight, control-plane, upload-config (kubeadm, kubelet), kubeconfig, kubelet-config,
        /// bootstrap-token, addon (coredns, kube-proxy, network).
        phase: String,
        /// A part of it, or `all` for all of them, and the version that is asked for.
        #[arg(value_name = "PART] [VERSION", num_args = 0..=2)]
        words: Vec<String>,
        #[command(flatten)]
        flags: Box<ApplyFlags>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Run one phase alone.
    Phase {
        /// The phase: preflight, control-plane, kubeconfig, kubelet-config, addon (coredns, kube-proxy, network).
        phase: String,
        /// A part of it, or `all` for all of them.
        part: Option<String>,
        #[command(flatten)]
        flags: Box<NodeFlags>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ApplyFlags {
    #[command(flatten)]
    shared: SharedFlags,
    #[command(flatten)]
    work: WorkFlags,
    /// Do not ask.
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Upgrade although some requirements are not met, or to an older version; do not ask.
    #[arg(long, short)]
    force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NodeFlags {
    #[command(flatten)]
    access: AccessFlags,
    #[command(flatten)]
    checks: CheckFlags,
    #[command(flatten)]
    work: WorkFlags,
}

#[derive(Debug, Args)]
pub(crate) struct AccessFlags {
    /// File with an UpgradeConfiguration of kubeadm.k8s.io/v1beta4; flags win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Who to be to the API [default: admin.conf on a control plane, kubelet.conf elsewhere, in /etc/kubernetes].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckFlags {
    /// Checks whose errors are shown as warnings; `all` for all.
    #[arg(long, value_name = "CHECKS", value_delimiter = ',')]
    ignore_preflight_errors: Vec<String>,
    /// Whether etcd is upgraded too [default: true].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    etcd_upgrade: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct SharedFlags {
    #[command(flatten)]
    access: AccessFlags,
    #[command(flatten)]
    checks: CheckFlags,
    /// Allow versions that are alpha, beta or release candidates.
    #[arg(long, visible_alias = "allow-release-candidate-upgrades")]
    allow_experimental_upgrades: bool,
    /// Show the configuration of the cluster that is used.
    #[arg(long)]
    print_config: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WorkFlags {
    /// Change nothing; show what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Whether the certificates of the components that are upgraded are renewed [default: true].
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    certificate_renewal: Option<bool>,
    /// Phases to leave out: preflight, control-plane, upload-config, kubeconfig, kubelet-config, bootstrap-token, addon; or
    /// parts of them, such as addon/coredns.
    #[arg(long, value_name = "PHASES", value_delimiter = ',')]
    skip_phases: Vec<String>,
    /// Directory with patches to what is written, as for `kedge init`.
    #[arg(long, value_name = "DIR")]
    patches: Option<PathBuf>,
}

impl ApplyFlags {
    pub(crate) fn asked(self, version: Option<String>) -> Asked {
        Asked { force: self.force, ..self.work.above(self.shared.asked(version)) }
    }
}

impl NodeFlags {
    pub(crate) fn asked(self) -> Asked {
        self.work.above(self.checks.above(self.access.asked()))
    }
}

impl SharedFlags {
    pub(crate) fn asked(self, version: Option<String>) -> Asked {
        Asked {
            version,
            allow_experimental_upgrades: self.allow_experimental_upgrades,
            print_config: self.print_config,
            ..self.checks.above(self.access.asked())
        }
    }
}

impl AccessFlags {
    pub(crate) fn asked(self) -> Asked {
        Asked { config: self.config, kubeconfig: self.kubeconfig, ..Asked::default() }
    }
}

impl CheckFlags {
    fn above(self, asked: Asked) -> Asked {
        Asked { ignore_preflight_errors: self.ignore_preflight_errors, etcd_upgrade: self.etcd_upgrade, ..asked }
    }
}

impl WorkFlags {
    fn above(self, asked: Asked) -> Asked {
        Asked {
            dry_run: self.dry_run,
            certificate_renewal: self.certificate_renewal,
            skip_phases: self.skip_phases,
            patches: self.patches,
            ..asked
        }
    }
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
