//! Flags of `kedge doctor`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use jiff::SignedDuration;

use crate::arguments::DataDir;

#[derive(Debug, Args)]
pub(crate) struct DoctorFlags {
    #[command(subcommand)]
    pub(crate) place: Option<DoctorPlace>,
    /// How to reach the cluster [default: $KUBECONFIG, or ~/.kube/config].
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// How to report.
    #[arg(long, short, value_enum, default_value_t = DoctorForm::Text, global = true)]
    pub(crate) output: DoctorForm,
    /// Look again and again, and report when something changes, until Ctrl-C.
    #[arg(long, global = true, conflicts_with = "fix")]
    pub(crate) watch: bool,
    /// Pass over events and lines of logs that are older, as in `30m` or `2h`.
    #[arg(long, value_name = "DURATION", global = true)]
    pub(crate) since: Option<SignedDuration>,
    /// Show only what concerns this namespace, and the whole cluster.
    #[arg(long, short, value_name = "NAME", global = true)]
    pub(crate) namespace: Option<String>,
    /// Show only these causes, as in `A5,D1`.
    #[arg(long, value_name = "ID", value_delimiter = ',', global = true)]
    pub(crate) id: Vec<String>,
    /// Show failures, and no warnings.
    #[arg(long, global = true)]
    pub(crate) failures_only: bool,
    /// Mend what can be mended through the API, or on this machine with `node`: each change is shown, asked about, written
    /// down and checked.
    #[arg(long, global = true)]
    pub(crate) fix: bool,
    /// Change, or take back, without asking.
    #[arg(long, short, global = true)]
    pub(crate) yes: bool,
    /// Show what would be mended, and change nothing.
    #[arg(long, global = true, requires = "fix")]
    pub(crate) dry_run: bool,
    /// In which language [default: that of $LC_ALL, $LC_MESSAGES or $LANG].
    #[arg(long, value_enum, value_name = "LANGUAGE", global = true)]
    pub(crate) lang: Option<DoctorLanguage>,
}

/// Forms of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DoctorForm {
    /// For people.
    Text,
    /// For machines.
    Json,
    /// The same as YAML.
    Yaml,
    /// For issues and chats.
    Markdown,
    /// For dashboards of code hosts.
    Sarif,
    /// For CI systems.
    Junit,
    /// One file for a browser.
    Html,
}

/// Languages of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DoctorLanguage {
    /// English.
    En,
    /// Korean.
    Ko,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DoctorPlace {
    /// Look at this machine, which needs no API server: static pods, containers, certificates, kernel settings, disks.
    Node(DoctorNodeFlags),
    /// Look at files: a bundle of Kedge's, of troubleshoot.sh, of must-gather, what `kubectl cluster-info dump` wrote, a tree
    /// like sosreport's, or pasted output.
    Bundle(DoctorBundleFlags),
    /// Write what can be seen of the cluster and of this machine as a bundle, without secrets, to look at elsewhere.
    Collect(DoctorCollectFlags),
    /// Take back the last repair that `--fix` made.
    Undo(DoctorUndoFlags),
    /// Look after a cluster until SIGINT or SIGTERM: findings become objects (`kubectl get findings`), events and metrics.
    WatchCluster(DoctorWatchFlags),
    /// Print what `watch-cluster` needs in a cluster, with the pod that runs it: for `kubectl apply -f -`.
    Manifests(DoctorManifestsFlags),
    /// Print the JSON schema of `--output json`.
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorWatchFlags {
    /// Where metrics and health are served, over HTTP; nowhere by default.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics_bind_address: Option<SocketAddr>,
    /// Look without asking whether another instance does.
    #[arg(long)]
    pub(crate) no_leader_elect: bool,
    /// Namespace of the Lease and of the history.
    #[arg(long, value_name = "NAME", default_value = kedge_lifecycle::DOCTOR_NAMESPACE)]
    pub(crate) lease_namespace: String,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorManifestsFlags {
    /// The image that the pod runs [default: the one that `kedge init` makes].
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// How many pods; one of them looks at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(crate) replicas: u16,
    /// Without the pod: the kind of findings and the rights alone.
    #[arg(long, conflicts_with_all = ["image", "replicas"])]
    pub(crate) rights_only: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorUndoFlags {
    /// List all repairs of this machine instead.
    #[arg(long)]
    pub(crate) list: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorBundleFlags {
    /// A directory, an archive (.tar, .tar.gz), a file, or `-` for standard input.
    #[arg(value_name = "FILE|DIR|-")]
    pub(crate) path: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorCollectFlags {
    /// The bundle to write [default: kedge-bundle-TIME.tar.gz].
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The most that it holds before it is packed, in MiB: older lines of logs are left out first.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub(crate) max_size: usize,
    #[command(flatten)]
    pub(crate) node: DoctorNodeFlags,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorNodeFlags {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// Name of this node [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Socket of the container runtime [default: a well-known one that answers].
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) container_runtime_endpoint: Option<String>,
    /// Directory of static pods, beside /etc/kubernetes/manifests and that of the data directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) pod_manifest_path: Option<PathBuf>,
    /// Address of an API server that should listen on this machine, such as 127.0.0.1:6443.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) api_server: Option<SocketAddr>,
}
