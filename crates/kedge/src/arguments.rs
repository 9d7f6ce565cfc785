//! The command line. Flags that upstream has are spelled as upstream spells them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A Kubernetes cluster in one small binary that explains and repairs its own failures.
#[derive(Debug, Parser)]
#[command(name = "kedge", version, about, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a cluster on this machine, in this process.
    Up(UpFlags),
    /// Stop the pods and remove what kedge made on this machine.
    Down(DownFlags),
    /// Show what every component does.
    Status(StatusFlags),
    /// Work with the images of the cluster's container runtime.
    Image(ImageFlags),
    /// Serve the small web application of the demo.
    DemoApp(DemoAppFlags),
    /// Print the version.
    Version,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For machines.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct DataDir {
    /// Directory of the cluster's state.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kedge", env = "KEDGE_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct UpFlags {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// Address of this node [default: that of the interface with the default route].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) node_ip: Option<IpAddr>,
    /// Name of this node [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Port of the API server.
    #[arg(long, value_name = "PORT", default_value_t = 6443, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) secure_port: u16,
    /// Range of pod addresses.
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16")]
    pub(crate) pod_network_cidr: String,
    /// Range of Service addresses.
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/12")]
    pub(crate) service_cidr: String,
    /// DNS domain of the cluster.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub(crate) service_dns_domain: String,
    /// Socket of the container runtime [default: a well-known one that answers, or a containerd of kedge's own].
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) container_runtime_endpoint: Option<String>,
    /// Run the API server, scheduler and controllers only: no root, no containers.
    #[arg(long)]
    pub(crate) control_plane_only: bool,
    /// Kubeconfig file into which the context `kedge` is merged [default: $KUBECONFIG, or ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Deploy a small web application on NodePort 30090.
    #[arg(long, conflicts_with = "control_plane_only")]
    pub(crate) demo: bool,
    /// How to report.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct DownFlags {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// Remove the data directory too: every object, certificate and log of the cluster.
    #[arg(long)]
    pub(crate) delete_data: bool,
    /// How to report.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct StatusFlags {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// How to report.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ImageFlags {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Load an image archive (`docker save`, OCI layout) into the cluster's container runtime.
    Load {
        #[command(flatten)]
        data_dir: DataDir,
        /// The archive.
        archive: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DemoAppFlags {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub(crate) listen: SocketAddr,
}
