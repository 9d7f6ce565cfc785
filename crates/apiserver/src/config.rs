//! What an API server is told at start, and what it is given to work with.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kedge_audit::Audit;
use kedge_auth::{AuthorizationMode, TokenKeys};
use kedge_meta::{Clock, ComponentStatus, StatusBoard};
use kedge_store::Store;
use kedge_zpages::Flags;
use serde::{Deserialize, Serialize};

use crate::admission::WebhookCredentials;
use crate::cidr::Cidr;
use crate::front_proxy::FrontProxy;

/// Settings, named as upstream's flags.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// The address under which members of the cluster reach this server; stands in the `kubernetes` Service's endpoints.
    pub advertise_address: IpAddr,
    /// The port that goes with it.
    pub secure_port: u16,
    /// Where ClusterIPs come from: one range, or one for each IP family.
    pub service_cluster_ip_ranges: Vec<Cidr>,
    /// Where node ports come from: first and last.
    pub service_node_port_range: (u16, u16),
    /// Issuer of service-account tokens.
    pub service_account_issuer: String,
    /// Audiences that tokens are for; the issuer where there is none.
    pub api_audiences: Vec<String>,
    /// Whether tokens of pods live a year, so that programs that never read theirs again go on, and are told of.
    pub service_account_extend_token_expiration: bool,
    /// Tokens that are asked for live no longer than this; zero for as long as is asked.
    #[serde(with = "seconds")]
    pub service_account_max_token_expiration: Duration,
    /// Whether requests without credentials go on as `system:anonymous`.
    pub anonymous_auth: bool,
    /// How is decided who may do what.
    pub authorization_modes: Vec<AuthorizationMode>,
    /// Admission plugins that are on besides those that are on by default.
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins that are off.
    pub disable_admission_plugins: Vec<String>,
    /// Which pods are let in where no namespace says it, and whom nothing concerns.
    pub pod_security: kedge_pod_security::Configuration,
    /// Whether bootstrap tokens say who somebody is.
    pub enable_bootstrap_token_auth: bool,
    /// Whether containers may be privileged.
    pub allow_privileged: bool,
    /// Which of a node's addresses its kubelet is asked at, best first.
    pub kubelet_preferred_address_types: Vec<String>,
    /// Larger bodies are refused.
    pub max_request_body_bytes: usize,
    /// Reading requests at once.
    pub max_requests_inflight: usize,
    /// Writing requests at once.
    pub max_mutating_requests_inflight: usize,
    /// How long events stay.
    #[serde(with = "seconds")]
    pub event_ttl: Duration,
    /// Watches without a timeout of their own end after this to twice this.
    #[serde(with = "seconds")]
    pub min_request_timeout: Duration,
    /// All other requests end after this.
    #[serde(with = "seconds")]
    pub request_timeout: Duration,
    /// The flags of the command line, for `/flagz`; those above were made of them.
    pub flags: Flags,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            advertise_address: IpAddr::from([127, 0, 0, 1]),
            secure_port: 6443,
            service_cluster_ip_ranges: vec!["10.96.0.0/12".parse().expect("it is a range")],
            service_node_port_range: (30000, 32767),
            service_account_issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            api_audiences: Vec::new(),
            service_account_extend_token_expiration: true,
            service_account_max_token_expiration: Duration::ZERO,
            anonymous_auth: true,
            authorization_modes: AuthorizationMode::USUAL.to_vec(),
            enable_admission_plugins: vec!["NodeRestriction".to_owned()],
            disable_admission_plugins: Vec::new(),
            pod_security: kedge_pod_security::Configuration::default(),
            enable_bootstrap_token_auth: true,
            allow_privileged: true,
            kubelet_preferred_address_types: ["InternalIP", "Hostname", "InternalDNS", "ExternalIP", "ExternalDNS"]
                .map(str::to_owned)
                .to_vec(),
            max_request_body_bytes: 3 << 20,
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            event_ttl: Duration::from_secs(3600),
            min_request_timeout: Duration::from_secs(1800),
            request_timeout: Duration::from_secs(60),
            flags: Flags::new(),
        }
    }
}

impl Config {
    /// The audiences that tokens must be for.
    pub(crate) fn audiences(&self) -> Vec<String> {
        match self.api_audiences.is_empty() {
            true => vec![self.service_account_issuer.clone()],
            false => self.api_audiences.clone(),
        }
    }
}

/// What an API server works with.
pub struct Deps {
    /// Where objects are.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where it reports its state.
    pub status: ComponentStatus,
    /// Every component's state, shown under `/kedge/v1/status`.
    pub board: StatusBoard,
    /// What signs and verifies service-account tokens.
    pub token_keys: TokenKeys,
    /// The certificate authority of client certificates, PEM; shown to extension servers. TLS itself verifies.
    pub client_ca: Option<String>,
    /// Who may say on whose behalf it asks, by headers; nobody where absent.
    pub front_proxy: Option<FrontProxy>,
    /// How to reach kubelets (logs, exec, proxies).
    pub kubelet_tls: Option<Arc<rustls::ClientConfig>>,
    /// The certificate by which extension API servers know that headers name who asks (`--proxy-client-cert-file`).
    pub proxy_identity: Option<Arc<dyn rustls::client::ResolvesClientCert>>,
    /// How webhooks are shown who asks.
    pub webhook_credentials: WebhookCredentials,
    /// Records requests; none where absent.
    pub audit: Option<Arc<Audit>>,
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(duration.as_secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }
}
