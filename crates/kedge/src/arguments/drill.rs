//! The command line of `kedge drill`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::arguments::{ClustersDir, Output};

#[derive(Debug, Args)]
pub(crate) struct DrillFlags {
    #[command(subcommand)]
    pub(crate) command: DrillCommand,
    /// Where the drill that is going on, and the history, are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kedge/drills", env = "KEDGE_DRILLS_DIR", global = true)]
    pub(crate) state_dir: PathBuf,
    /// Scenarios of your own: a file, or a directory of .yaml files.
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) scenarios: Option<PathBuf>,
    /// How to report.
    #[arg(long, value_enum, default_value_t = Output::Text, global = true)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct DrillTarget {
    #[command(flatten)]
    pub(crate) clusters: ClustersDir,
    /// The cluster of test hosts, as `kedge cluster` made it [default: the only one].
    #[arg(long, value_name = "NAME", conflicts_with = "this_machine")]
    pub(crate) cluster: Option<String>,
    /// Break the cluster that this machine is a control plane of, whatever it is used for.
    #[arg(long)]
    pub(crate) this_machine: bool,
    /// The administrator's kubeconfig of that cluster.
    #[arg(long, value_name = "FILE", default_value = "/etc/kubernetes/admin.conf", requires = "this_machine")]
    pub(crate) kubeconfig: PathBuf,
    /// Name of this machine's Node [default: the host's name].
    #[arg(long, value_name = "NAME", requires = "this_machine")]
    pub(crate) node_name: Option<String>,
    /// Image with a shell that is on every node, for the pods of drills [default: one that is there].
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// Do not ask before a cluster is broken that is not one of test hosts.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DrillCommand {
    /// Show the scenarios.
    List,
    /// Show what a person meets in a scenario, without its cause.
    Show {
        /// The scenario.
        id: String,
        /// With its cause, its steps and its repair.
        #[arg(long)]
        spoil: bool,
    },
    /// Break a cluster, and wait until it shows.
    Start {
        /// The scenario, or several at once as ONE+OTHER.
        id: String,
        #[command(flatten)]
        target: DrillTarget,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Show the drill that is going on.
    Status,
    /// Give a hint, which costs points.
    Hint,
    /// Look whether the cluster is mended; judge a cause.
    Check {
        /// What you think it is: an id of the doctor, such as A5.
        #[arg(long, value_name = "ID")]
        cause: Option<String>,
    },
    /// Bring the cluster back, also after a crash, and tell the score.
    Stop,
    /// Show the drills that are over.
    History,
    /// Do drills without a person: break, ask the doctor, let it repair or do so as documented, bring back.
    Verify {
        /// The scenarios, or several at once as ONE+OTHER.
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        target: DrillTarget,
    },
    /// Print the page of what `verify --output json` said.
    #[command(hide = true)]
    Matrix {
        /// A file with its lines.
        file: PathBuf,
    },
    /// Print the JSON schema of scenario files.
    Schema,
}
