//! Flags of `kedge init` and `kedge reset`, spelled as kubeadm spells them.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use kedge_supervisor::InitFlags as Asked;

use super::apiserver::StoreKind;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = false)]
pub(crate) struct InitFlags {
    #[command(subcommand)]
    pub(crate) command: Option<InitCommand>,
    #[command(flatten)]
    pub(crate) flags: InitOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InitCommand {
    /// Run one phase alone.
    Phase {
        /// The phase: preflight, certs, kubeconfig, etcd, control-plane, kubelet-start, wait-control-plane, upload-config,
        /// upload-certs, mark-control-plane, bootstrap-token, kubelet-finalize, addon, show-join-command.
        phase: String,
        /// A part of it: a certificate, a kubeconfig, a component, an add-on; `all` for all of them.
        part: Option<String>,
        #[command(flatten)]
        flags: Box<InitOptions>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct InitOptions {
    /// File with InitConfiguration and ClusterConfiguration of kubeadm.k8s.io/v1beta4.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address or name under which all control planes are reached, with or without a port.
    #[arg(long, value_name = "HOST[:PORT]")]
    control_plane_endpoint: Option<String>,
    /// Upload the certificates of the control plane for two hours, encrypted, for those who join.
    #[arg(long)]
    upload_certs: bool,
    /// The key that they are encrypted with [default: a new one].
    #[arg(long, value_name = "HEX")]
    certificate_key: Option<kedge_supervisor::CertificateKey>,
    /// Range of pod addresses; every node gets a part of it.
    #[arg(long, value_name = "CIDR")]
    pod_network_cidr: Option<String>,
    /// Range of Service addresses [default: 10.96.0.0/12].
    #[arg(long, value_name = "CIDR")]
    service_cidr: Option<String>,
    /// DNS domain of Services [default: cluster.local].
    #[arg(long, value_name = "DOMAIN")]
    service_dns_domain: Option<String>,
    /// Address of this API server [default: that of the interface with the default route].
    #[arg(long, value_name = "ADDRESS")]
    apiserver_advertise_address: Option<IpAddr>,
    /// Its port [default: 6443].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    apiserver_bind_port: Option<u16>,
    /// Further names and addresses of the API server's certificate.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    apiserver_cert_extra_sans: Vec<String>,
    /// Directory of certificates [default: /etc/kubernetes/pki].
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<String>,
    /// Socket of the container runtime [default: a well-known one that answers].
    #[arg(long, value_name = "SOCKET")]
    cri_socket: Option<String>,
    /// Name of this node [default: the host's name].
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// The version that is expected; another minor one than this binary's is refused.
    #[arg(long, value_name = "VERSION")]
    kubernetes_version: Option<String>,
    /// Checks whose errors are shown as warnings; `all` for all.
    #[arg(long, value_name = "CHECKS", value_delimiter = ',')]
    ignore_preflight_errors: Vec<String>,
    /// Phases to leave out.
    #[arg(long, value_name = "PHASES", value_delimiter = ',')]
    skip_phases: Vec<String>,
    /// The token for joining nodes [default: a new one].
    #[arg(long, value_name = "TOKEN")]
    token: Option<kedge_supervisor::BootstrapToken>,
    /// How long it is good; 0 for ever [default: 24h0m0s].
    #[arg(long, value_name = "DURATION")]
    token_ttl: Option<String>,
    /// Do not print the token.
    #[arg(long)]
    skip_token_print: bool,
    /// Do not print the certificate key.
    #[arg(long)]
    skip_certificate_key_print: bool,
    /// Change nothing; show what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Mend what can be mended of the machine first, and show each change with how to undo it.
    #[arg(long)]
    fix: bool,
    /// Where objects are kept: in an etcd on the control planes, or by a single API server itself.
    #[arg(long, value_enum, value_name = "STORE", default_value_t = StoreKind::Etcd)]
    store: StoreKind,
    /// Apply kedge's own pod network too.
    #[arg(long)]
    with_network: bool,
    /// A flag for the agent of the pod network, such as `--network-mode=vxlan`; may be repeated.
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    network_flag: Vec<String>,
    /// Where each node carries connections of its programs to an API server that is well; `none` for no such balancer.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6444")]
    api_balancer: String,
    /// Kubeconfig of the administrator, for phases that talk to the cluster [default: /etc/kubernetes/admin.conf].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Directory with patches to what is written, in files `target[suffix][+patchtype].extension`: targets are etcd,
    /// kube-apiserver, kube-controller-manager, kube-scheduler, kubeletconfiguration and corednsdeployment; patch types
    /// strategic, merge and json; extensions json and yaml.
    #[arg(long, value_name = "DIR")]
    patches: Option<PathBuf>,
    /// How much is logged; 5 and more shows every cause of an error. `KEDGE_LOG` wins.
    #[arg(short, long, value_name = "LEVEL", default_value_t = 0)]
    pub(crate) v: u8,
}

impl InitOptions {
    pub(crate) fn asked(self) -> Asked {
        Asked {
            config: self.config,
            control_plane_endpoint: self.control_plane_endpoint,
            upload_certs: self.upload_certs,
            certificate_key: self.certificate_key,
            pod_network_cidr: self.pod_network_cidr,
            service_cidr: self.service_cidr,
            service_dns_domain: self.service_dns_domain,
            apiserver_advertise_address: self.apiserver_advertise_address,
            apiserver_bind_port: self.apiserver_bind_port,
            apiserver_cert_extra_sans: self.apiserver_cert_extra_sans,
            cert_dir: self.cert_dir,
            cri_socket: self.cri_socket,
            node_name: self.node_name,
            kubernetes_version: self.kubernetes_version,
            ignore_preflight_errors: self.ignore_preflight_errors,
            skip_phases: self.skip_phases,
            token: self.token,
            token_ttl: self.token_ttl,
            skip_token_print: self.skip_token_print,
            skip_certificate_key_print: self.skip_certificate_key_print,
            dry_run: self.dry_run,
            fix: self.fix,
            embedded_store: self.store == StoreKind::Embedded,
            with_network: self.with_network,
            network_flags: self.network_flag,
            api_balancer: Some(self.api_balancer),
            kubeconfig: self.kubeconfig,
            patches: self.patches,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ResetFlags {
    /// Do not ask.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Change nothing; show what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Directory of certificates, which is emptied [default: /etc/kubernetes/pki].
    #[arg(long, value_name = "DIR")]
    pub(crate) cert_dir: Option<PathBuf>,
    /// Delete the backups that upgrades keep in /etc/kubernetes/tmp, too.
    #[arg(long)]
    pub(crate) cleanup_tmp_dir: bool,
    /// File with a ResetConfiguration of kubeadm.k8s.io/v1beta4.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Socket of the container runtime [default: the kubelet's, or a well-known one that answers].
    #[arg(long, value_name = "SOCKET")]
    pub(crate) cri_socket: Option<String>,
}

/// What an init script asks of who keeps the kubelet running.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum KeeperAction {
    /// Keep it running, in the background.
    Start,
    /// End it.
    Stop,
    /// Say whether it runs; the exit code is 3 where it does not.
    Status,
}
