//! Flags of `kedge join`, spelled as kubeadm spells them.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use kedge_supervisor::{BootstrapToken, JoinFlags as Asked};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = false)]
pub(crate) struct JoinFlags {
    #[command(subcommand)]
    pub(crate) command: Option<JoinCommand>,
    /// Where the API server is.
    #[arg(value_name = "HOST[:PORT]")]
    pub(crate) endpoint: Option<String>,
    #[command(flatten)]
    pub(crate) flags: JoinOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JoinCommand {
    /// Run one phase alone.
    Phase {
        /// The phase: preflight, control-plane-prepare (download-certs, certs, kubeconfig, control-plane), check-etcd,
        /// kubelet-start, etcd-join, kubelet-wait-bootstrap, control-plane-join (mark-control-plane), wait-control-plane.
        phase: String,
        /// A part of it, or `all` for all of them, and where the API server is.
        #[arg(value_name = "PART] [HOST[:PORT]", num_args = 0..=2)]
        words: Vec<String>,
        #[command(flatten)]
        flags: Box<JoinOptions>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct JoinOptions {
    /// File with a JoinConfiguration of kubeadm.k8s.io/v1beta4.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The token, for both purposes below.
    #[arg(long, value_name = "TOKEN")]
    token: Option<BootstrapToken>,
    /// The token with which the cluster's identity is checked.
    #[arg(long, value_name = "TOKEN")]
    discovery_token: Option<BootstrapToken>,
    /// The token with which the kubelet asks for its certificate.
    #[arg(long, value_name = "TOKEN")]
    tls_bootstrap_token: Option<BootstrapToken>,
    /// What the cluster's authority must be, as sha256:<digits>; may be repeated.
    #[arg(long, value_name = "HASH", value_delimiter = ',')]
    discovery_token_ca_cert_hash: Vec<String>,
    /// Trust the token's signature alone: who knows the token may pretend to be the cluster.
    #[arg(long)]
    discovery_token_unsafe_skip_ca_verification: bool,
    /// A kubeconfig that says where the cluster is and whom to trust, instead of a token.
    #[arg(long, value_name = "FILE")]
    discovery_file: Option<PathBuf>,
    /// Name of this node [default: the host's name].
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Address of this node [default: that of the interface with the default route].
    #[arg(long, value_name = "ADDRESS", visible_alias = "apiserver-advertise-address")]
    node_ip: Option<IpAddr>,
    /// Socket of the container runtime [default: a well-known one that answers].
    #[arg(long, value_name = "SOCKET")]
    cri_socket: Option<String>,
    /// Checks whose errors are shown as warnings; `all` for all.
    #[arg(long, value_name = "CHECKS", value_delimiter = ',')]
    ignore_preflight_errors: Vec<String>,
    /// Phases to leave out.
    #[arg(long, value_name = "PHASES", value_delimiter = ',')]
    skip_phases: Vec<String>,
    /// Change nothing; show what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Mend what can be mended of the machine first, and show each change with how to undo it.
    #[arg(long)]
    fix: bool,
    /// Give a machine that is a node already another certificate, where it cannot ask for one itself any more.
    #[arg(long, conflicts_with_all = ["control_plane", "dry_run", "skip_phases"])]
    renew: bool,
    /// Directory with patches to what is written, as for `kedge init`.
    #[arg(long, value_name = "DIR")]
    patches: Option<PathBuf>,
    /// Become a further control plane.
    #[arg(long)]
    control_plane: bool,
    /// The key that the uploaded certificates of the control plane are encrypted with.
    #[arg(long, value_name = "HEX", requires = "control_plane")]
    certificate_key: Option<kedge_supervisor::CertificateKey>,
    /// Port of its API server [default: 6443].
    #[arg(long, value_name = "PORT", requires = "control_plane", value_parser = clap::value_parser!(u16).range(1..))]
    apiserver_bind_port: Option<u16>,
    /// How much is logged; 5 and more shows every cause of an error. `KEDGE_LOG` wins.
    #[arg(short, long, value_name = "LEVEL", default_value_t = 0)]
    pub(crate) v: u8,
}

impl JoinOptions {
    pub(crate) fn asked(self, endpoint: Option<String>) -> Asked {
        Asked {
            config: self.config,
            endpoint,
            token: self.token,
            discovery_token: self.discovery_token,
            tls_bootstrap_token: self.tls_bootstrap_token,
            discovery_token_ca_cert_hash: self.discovery_token_ca_cert_hash,
            discovery_token_unsafe_skip_ca_verification: self.discovery_token_unsafe_skip_ca_verification,
            discovery_file: self.discovery_file,
            node_name: self.node_name,
            node_ip: self.node_ip,
            cri_socket: self.cri_socket,
            ignore_preflight_errors: self.ignore_preflight_errors,
            skip_phases: self.skip_phases,
            dry_run: self.dry_run,
            fix: self.fix,
            renew: self.renew,
            patches: self.patches,
            control_plane: self.control_plane,
            certificate_key: self.certificate_key,
            apiserver_bind_port: self.apiserver_bind_port,
        }
    }
}
