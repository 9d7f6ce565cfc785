//! Flags of `kedge doctor`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::arguments::{DataDir, Output};

#[derive(Debug, Args)]
pub(crate) struct DoctorFlags {
    #[command(subcommand)]
    pub(crate) place: Option<DoctorPlace>,
    /// How to reach the cluster [default: $KUBECONFIG, or ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// How to report.
    #[arg(long, value_enum, default_value_t = Output::Text, global = true)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DoctorPlace {
    /// Look at this machine, which needs no API server: static pods, containers, certificates, kernel settings, disks.
    Node(DoctorNodeFlags),
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
