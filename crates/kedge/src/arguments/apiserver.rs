//! Flags of `kube-apiserver`, spelled as upstream spells them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use kedge_supervisor::{ApiServerOptions, AuthorizationMode, EtcdOptions, Flags, RequestHeaderOptions};

use super::EtcdFlags;
use super::audit::AuditFlags;
use super::components::duration;

/// Where the API server keeps objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreKind {
    /// In an etcd.
    Etcd,
    /// In files of its own; for a single control plane.
    Embedded,
}

#[derive(Debug, Args)]
pub(crate) struct ApiServerFlags {
    /// The address that members of the cluster are told [default: the bind address, or the node's].
    #[arg(long, value_name = "ADDRESS")]
    advertise_address: Option<IpAddr>,
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// The port.
    #[arg(long, value_name = "PORT", default_value_t = 6443, value_parser = clap::value_parser!(u16).range(1..))]
    secure_port: u16,
    /// Serving certificate, with its chain [default: one that is made in --cert-dir].
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// Where a certificate is made where none is named.
    #[arg(long, value_name = "DIR", default_value = "/var/run/kubernetes")]
    cert_dir: PathBuf,
    /// Authority of client certificates.
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    #[command(flatten)]
    etcd: EtcdFlags,
    /// Where objects are kept.
    #[arg(long, value_enum, value_name = "STORE", default_value_t = StoreKind::Etcd)]
    store: StoreKind,
    /// Directory of the embedded store.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kedge/store")]
    store_dir: PathBuf,
    /// Client certificate for kubelets.
    #[arg(long, value_name = "FILE", requires = "kubelet_client_key")]
    kubelet_client_certificate: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "kubelet_client_certificate")]
    kubelet_client_key: Option<PathBuf>,
    /// Client certificate by which extension API servers know that the headers of a request name who asks (PEM).
    #[arg(long, value_name = "FILE", requires = "proxy_client_key_file")]
    proxy_client_cert_file: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "proxy_client_cert_file")]
    proxy_client_key_file: Option<PathBuf>,
    /// Authority of kubelets' serving certificates [default: they are believed].
    #[arg(long, value_name = "FILE")]
    kubelet_certificate_authority: Option<PathBuf>,
    /// Which of a node's addresses is asked, best first.
    #[arg(
        long,
        value_name = "TYPES",
        value_delimiter = ',',
        default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP"
    )]
    kubelet_preferred_address_types: Vec<String>,
    /// Key whose service-account tokens are good; may be repeated.
    #[arg(long, value_name = "FILE")]
    service_account_key_file: Vec<PathBuf>,
    /// Key that signs service-account tokens, on the curve P-256.
    #[arg(long, value_name = "FILE")]
    service_account_signing_key_file: PathBuf,
    /// Issuer of service-account tokens.
    #[arg(long, value_name = "URL")]
    service_account_issuer: String,
    /// For whom tokens are [default: the issuer].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// Whether tokens of pods live a year, while their use after the time that was asked for is counted and audited.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = true, action = ArgAction::Set)]
    service_account_extend_token_expiration: bool,
    /// The longest life of a token that is asked for: an hour to 2^32 seconds, or 0s for no bound.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    service_account_max_token_expiration: Duration,
    /// Authority of front proxies' certificates.
    #[arg(long, value_name = "FILE")]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Names of front proxies [default: all that the authority signed].
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "requestheader_client_ca_file")]
    requestheader_allowed_names: Vec<String>,
    /// Headers with the user's name.
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', requires = "requestheader_client_ca_file")]
    requestheader_username_headers: Vec<String>,
    /// Headers with groups.
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', requires = "requestheader_client_ca_file")]
    requestheader_group_headers: Vec<String>,
    /// What headers with further facts begin with.
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',', requires = "requestheader_client_ca_file")]
    requestheader_extra_headers_prefix: Vec<String>,
    /// Ranges of ClusterIPs, at most one of each family.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', default_value = "10.0.0.0/24")]
    service_cluster_ip_range: Vec<String>,
    /// First and last node port.
    #[arg(long, value_name = "FIRST-LAST", default_value = "30000-32767", value_parser = port_range)]
    service_node_port_range: (u16, u16),
    /// How is decided who may do what, in this order.
    #[arg(long, value_name = "MODES", value_delimiter = ',', default_value = "AlwaysAllow")]
    authorization_mode: Vec<AuthorizationMode>,
    /// Admission plugins that are on besides those that are on by default.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins that are off.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// What plugins are told: an AdmissionConfiguration of apiserver.config.k8s.io/v1 [default: none].
    #[arg(long, value_name = "FILE")]
    admission_control_config_file: Option<PathBuf>,
    /// Whether bootstrap tokens are good.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set)]
    enable_bootstrap_token_auth: bool,
    /// Whether containers may be privileged.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set)]
    allow_privileged: bool,
    /// Whether those are let in who do not say who they are.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = true, action = ArgAction::Set)]
    anonymous_auth: bool,
    /// How long events stay.
    #[arg(long, value_name = "DURATION", default_value = "1h0m0s", value_parser = duration)]
    event_ttl: Duration,
    /// Reading requests at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 400)]
    max_requests_inflight: usize,
    /// Writing requests at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 200)]
    max_mutating_requests_inflight: usize,
    #[command(flatten)]
    audit: AuditFlags,
    /// How much is logged: 2 and more is information, 4 and more is for finding faults. `KEDGE_LOG` wins.
    #[arg(short, long, value_name = "LEVEL", default_value_t = 0)]
    pub(crate) v: u8,
}

impl ApiServerFlags {
    pub(crate) fn options(self, shown: Flags) -> anyhow::Result<ApiServerOptions> {
        let etcd = match (self.store, self.etcd.etcd_servers.is_empty()) {
            (StoreKind::Embedded, true) => None,
            (StoreKind::Etcd, false) => Some(EtcdOptions {
                servers: self.etcd.etcd_servers,
                ca_file: self.etcd.etcd_cafile,
                cert_file: self.etcd.etcd_certfile,
                key_file: self.etcd.etcd_keyfile,
                prefix: self.etcd.etcd_prefix,
            }),
            (StoreKind::Etcd, true) => anyhow::bail!("--etcd-servers must be specified (or --store=embedded)"),
            (StoreKind::Embedded, false) => anyhow::bail!("--etcd-servers and --store=embedded exclude each other"),
        };
        let request_header = self.requestheader_client_ca_file.map(|client_ca_file| RequestHeaderOptions {
            client_ca_file,
            allowed_names: self.requestheader_allowed_names,
            username_headers: self.requestheader_username_headers,
            group_headers: self.requestheader_group_headers,
            extra_headers_prefix: self.requestheader_extra_headers_prefix,
        });
        Ok(ApiServerOptions {
            advertise_address: self.advertise_address,
            bind_address: self.bind_address,
            secure_port: self.secure_port,
            tls_cert_file: self.tls_cert_file,
            tls_private_key_file: self.tls_private_key_file,
            cert_dir: self.cert_dir,
            client_ca_file: self.client_ca_file,
            etcd,
            store_dir: self.store_dir,
            kubelet_client_certificate: self.kubelet_client_certificate,
            kubelet_client_key: self.kubelet_client_key,
            proxy_client_cert_file: self.proxy_client_cert_file,
            proxy_client_key_file: self.proxy_client_key_file,
            kubelet_certificate_authority: self.kubelet_certificate_authority,
            kubelet_preferred_address_types: self.kubelet_preferred_address_types,
            service_account_key_files: self.service_account_key_file,
            service_account_signing_key_file: self.service_account_signing_key_file,
            service_account_issuer: self.service_account_issuer,
            api_audiences: self.api_audiences,
            service_account_extend_token_expiration: self.service_account_extend_token_expiration,
            service_account_max_token_expiration: self.service_account_max_token_expiration,
            request_header,
            service_cluster_ip_ranges: self.service_cluster_ip_range,
            service_node_port_range: self.service_node_port_range,
            authorization_modes: self.authorization_mode,
            enable_admission_plugins: self.enable_admission_plugins,
            disable_admission_plugins: self.disable_admission_plugins,
            admission_control_config_file: self.admission_control_config_file,
            enable_bootstrap_token_auth: self.enable_bootstrap_token_auth,
            allow_privileged: self.allow_privileged,
            anonymous_auth: self.anonymous_auth,
            event_ttl: self.event_ttl,
            max_requests_inflight: self.max_requests_inflight,
            max_mutating_requests_inflight: self.max_mutating_requests_inflight,
            audit: self.audit.options(),
            flags: shown,
        })
    }
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let parsed = text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    parsed.filter(|(first, last)| first <= last).ok_or_else(|| "a range like 30000-32767 is expected".to_owned())
}
