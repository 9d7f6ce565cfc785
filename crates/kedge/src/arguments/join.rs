//! Flags of `kedge join`, spelled as kubeadm spells them.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use kedge_supervisor::{BootstrapToken, JoinFlags as Asked};

#[derive(Debug, Args)]
pub(crate) struct JoinFlags {
    /// Where the API server is.
    #[arg(value_name = "HOST[:PORT]")]
    endpoint: Option<String>,
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
    /// Mend what can be mended of the machine first, and show each change with how to undo it.
    #[arg(long)]
    fix: bool,
    /// Become a further control plane.
    #[arg(long)]
    control_plane: bool,
    /// The key that the uploaded certificates of the control plane are encrypted with.
    #[arg(long, value_name = "HEX", requires = "control_plane")]
    certificate_key: Option<kedge_supervisor::CertificateKey>,
    /// Port of its API server [default: 6443].
    #[arg(long, value_name = "PORT", requires = "control_plane", value_parser = clap::value_parser!(u16).range(1..))]
    apiserver_bind_port: Option<u16>,
}

impl JoinFlags {
    pub(crate) fn asked(self) -> Asked {
        Asked {
            endpoint: self.endpoint,
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
            fix: self.fix,
            control_plane: self.control_plane,
            certificate_key: self.certificate_key,
            apiserver_bind_port: self.apiserver_bind_port,
        }
    }
}
