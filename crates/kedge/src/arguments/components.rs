//! Flags of `kube-controller-manager`, `kube-scheduler`, `kube-proxy`, the network's agent and cluster DNS; upstream's are
//! spelled as upstream spells them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use kedge_supervisor::{
    ControllerManagerOptions, DelegationOptions, DnsOptions, Flags, HealthOptions, LeaderOptions, NetworkAgentOptions,
    ProxyOptions, SchedulerOptions,
};

use super::NetworkFlags;
use super::autoscaler::AutoscalerFlags;
use super::signing::SigningFlags;

/// A duration as Go writes them.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    kedge_supervisor::parse_duration(text).ok_or_else(|| "a duration like 15s or 1h30m is expected".to_owned())
}

#[derive(Debug, Args)]
struct LeaderFlags {
    /// Whether to compete with other instances before working.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = true, action = ArgAction::Set)]
    leader_elect: bool,
    /// How long others wait before they take over.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    leader_elect_lease_duration: Duration,
    /// How long a leader tries to renew before it gives up.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    leader_elect_renew_deadline: Duration,
    /// The pause between attempts.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    leader_elect_retry_period: Duration,
    /// Name of the Lease [default: the component's].
    #[arg(long, value_name = "NAME")]
    leader_elect_resource_name: Option<String>,
    /// Its namespace.
    #[arg(long, value_name = "NAME", default_value = "kube-system")]
    leader_elect_resource_namespace: String,
}

impl LeaderFlags {
    fn options(self, component: &str) -> LeaderOptions {
        LeaderOptions {
            elect: self.leader_elect,
            lease_duration: self.leader_elect_lease_duration,
            renew_deadline: self.leader_elect_renew_deadline,
            retry_period: self.leader_elect_retry_period,
            resource_name: self.leader_elect_resource_name.unwrap_or_else(|| component.to_owned()),
            resource_namespace: self.leader_elect_resource_namespace,
        }
    }
}

#[derive(Debug, Args)]
struct HealthFlags {
    /// Where health and metrics are served.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// Its port; 0 for none [default: the component's].
    #[arg(long, value_name = "PORT")]
    secure_port: Option<u16>,
    /// Serving certificate [default: one of its own].
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// Where a certificate is kept where none is named [default: nowhere].
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    #[command(flatten)]
    delegation: DelegationFlags,
}

/// Who may ask, and who says so.
#[derive(Debug, Args)]
struct DelegationFlags {
    /// With what the API server is asked whose tokens are shown [default: it is not asked].
    #[arg(long, value_name = "FILE")]
    authentication_kubeconfig: Option<PathBuf>,
    /// Whether the API server is not asked whose certificates clients may show.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set)]
    authentication_skip_lookup: bool,
    /// For how long a token stays good without another question.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    authentication_token_webhook_cache_ttl: Duration,
    /// Who signs clients' certificates [default: what the API server says].
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// With what the API server is asked who may do what [default: only administrators may].
    #[arg(long, value_name = "FILE")]
    authorization_kubeconfig: Option<PathBuf>,
    /// For how long its yes is good.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    authorization_webhook_cache_authorized_ttl: Duration,
    /// For how long its no is good.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    authorization_webhook_cache_unauthorized_ttl: Duration,
    /// Paths that everybody may read; `*` at the end of one stands for anything.
    #[arg(long, value_name = "PATHS", value_delimiter = ',', default_value = "/healthz,/readyz,/livez")]
    authorization_always_allow_paths: Vec<String>,
}

impl DelegationFlags {
    fn options(self) -> DelegationOptions {
        let named = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
        DelegationOptions {
            authentication_kubeconfig: named(self.authentication_kubeconfig),
            authentication_skip_lookup: self.authentication_skip_lookup,
            token_ttl: self.authentication_token_webhook_cache_ttl,
            client_ca_file: named(self.client_ca_file),
            authorization_kubeconfig: named(self.authorization_kubeconfig),
            allowed_ttl: self.authorization_webhook_cache_authorized_ttl,
            denied_ttl: self.authorization_webhook_cache_unauthorized_ttl,
            always_allow_paths: self.authorization_always_allow_paths,
        }
    }
}

impl HealthFlags {
    fn options(self, port: u16) -> HealthOptions {
        HealthOptions {
            bind_address: self.bind_address,
            secure_port: self.secure_port.unwrap_or(port),
            tls_cert_file: self.tls_cert_file,
            tls_private_key_file: self.tls_private_key_file,
            cert_dir: self.cert_dir,
            delegation: self.delegation.options(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ControllerManagerFlags {
    /// How to reach the API server, and as whom.
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Which controllers run: `*` for all that are on by default, a name to add one, `-` before it to leave it out.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "*")]
    controllers: Vec<String>,
    /// Whether each controller has its own service account.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set)]
    use_service_account_credentials: bool,
    /// Whether nodes get ranges of pod addresses.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set)]
    allocate_node_cidrs: bool,
    /// Ranges of pods, at most one of each family.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    cluster_cidr: Vec<String>,
    /// How long a node's range is, where there is one family [default: 24].
    #[arg(long, value_name = "BITS")]
    node_cidr_mask_size: Option<u8>,
    /// How long a node's IPv4 range is [default: 24].
    #[arg(long, value_name = "BITS")]
    node_cidr_mask_size_ipv4: Option<u8>,
    /// How long a node's IPv6 range is [default: 64].
    #[arg(long, value_name = "BITS")]
    node_cidr_mask_size_ipv6: Option<u8>,
    /// What the ConfigMap kube-root-ca.crt of every namespace says.
    #[arg(long, value_name = "FILE")]
    root_ca_file: Option<PathBuf>,
    #[command(flatten)]
    signing: SigningFlags,
    /// For how long certificates are good at most.
    #[arg(long, value_name = "DURATION", default_value = "8760h0m0s", value_parser = duration)]
    cluster_signing_duration: Duration,
    /// Key with which the tokens in Secrets are signed; without one there are none.
    #[arg(long, value_name = "FILE")]
    service_account_private_key_file: Option<PathBuf>,
    /// For how long a token in a Secret that was made with its account may go unused before it is marked, and marked
    /// before it is deleted.
    #[arg(long, value_name = "DURATION", default_value = "8760h0m0s", value_parser = duration)]
    legacy_service_account_token_clean_up_period: Duration,
    /// For how long a node may be silent before it counts as gone.
    #[arg(long, value_name = "DURATION", default_value = "50s", value_parser = duration)]
    node_monitor_grace_period: Duration,
    #[command(flatten)]
    autoscaler: AutoscalerFlags,
    #[command(flatten)]
    leader: LeaderFlags,
    #[command(flatten)]
    health: HealthFlags,
    /// How much is logged: 2 and more is information, 4 and more is for finding faults. `KEDGE_LOG` wins.
    #[arg(short, long, value_name = "LEVEL", default_value_t = 0)]
    pub(crate) v: u8,
}

impl ControllerManagerFlags {
    pub(crate) fn options(self, shown: Flags) -> ControllerManagerOptions {
        let named = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
        ControllerManagerOptions {
            kubeconfig: self.kubeconfig,
            controllers: self.controllers,
            use_service_account_credentials: self.use_service_account_credentials,
            allocate_node_cidrs: self.allocate_node_cidrs,
            cluster_cidrs: self.cluster_cidr.into_iter().filter(|range| !range.is_empty()).collect(),
            node_cidr_mask_ipv4: self.node_cidr_mask_size_ipv4.or(self.node_cidr_mask_size),
            node_cidr_mask_ipv6: self.node_cidr_mask_size_ipv6.or(self.node_cidr_mask_size),
            root_ca_file: named(self.root_ca_file),
            cluster_signing: self.signing.options(),
            cluster_signing_duration: self.cluster_signing_duration,
            service_account_private_key_file: named(self.service_account_private_key_file),
            legacy_token_clean_up_period: self.legacy_service_account_token_clean_up_period,
            node_monitor_grace_period: self.node_monitor_grace_period,
            autoscaler: self.autoscaler.config(),
            leader: self.leader.options("kube-controller-manager"),
            health: self.health.options(10257),
            flags: shown,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct SchedulerFlags {
    /// File with a KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to reach the API server, and as whom [default: the pod's service account].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    leader: LeaderFlags,
    #[command(flatten)]
    health: HealthFlags,
    /// How much is logged: 2 and more is information, 4 and more is for finding faults. `KEDGE_LOG` wins.
    #[arg(short, long, value_name = "LEVEL", default_value_t = 0)]
    pub(crate) v: u8,
}

impl SchedulerFlags {
    pub(crate) fn options(self, shown: Flags) -> SchedulerOptions {
        SchedulerOptions {
            config: self.config,
            kubeconfig: self.kubeconfig,
            leader: self.leader.options("kube-scheduler"),
            health: self.health.options(10259),
            flags: shown,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ProxyFlags {
    /// File with a KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to reach the API server, and as whom [default: what the file says, else the pod's service account].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Name of this node [default: the host's name].
    #[arg(long, value_name = "NAME")]
    hostname_override: Option<String>,
    /// Ranges of pods.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    cluster_cidr: Vec<String>,
    /// Where /healthz answers [default: 0.0.0.0:10256].
    #[arg(long, value_name = "ADDRESS")]
    healthz_bind_address: Option<SocketAddr>,
    /// Whether all traffic to ClusterIPs is masqueraded.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set)]
    masquerade_all: bool,
    /// Where node ports answer: `primary`, or ranges.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    nodeport_addresses: Vec<String>,
    /// Directory in which former values of kernel switches are remembered.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kedge/proxy")]
    state_dir: PathBuf,
    /// How much is logged: 2 and more is information, 4 and more is for finding faults. `KEDGE_LOG` wins.
    #[arg(short, long, value_name = "LEVEL", default_value_t = 0)]
    pub(crate) v: u8,
}

impl ProxyFlags {
    pub(crate) fn options(self) -> anyhow::Result<ProxyOptions> {
        Ok(ProxyOptions {
            config: self.config,
            kubeconfig: self.kubeconfig,
            hostname_override: self.hostname_override,
            cluster_cidrs: ranges(&self.cluster_cidr)?,
            healthz_bind_address: self.healthz_bind_address,
            masquerade_all: self.masquerade_all,
            node_port_addresses: self.nodeport_addresses,
            state_dir: self.state_dir,
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct NetworkAgentFlags {
    /// How to reach the API server, and as whom [default: the pod's service account].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Name of this node.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node_name: String,
    /// Address of this node.
    #[arg(long, value_name = "ADDRESS", env = "NODE_IP")]
    node_ip: IpAddr,
    /// Ranges of pods of the cluster.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', required = true)]
    pod_network_cidr: Vec<String>,
    #[command(flatten)]
    network: NetworkFlags,
    /// Where the container runtime looks for CNI configuration.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    cni_config_dir: PathBuf,
    /// Directory in which is remembered what was made.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kedge/network")]
    state_dir: PathBuf,
    /// Where is said over plain HTTP whether everything is well.
    #[arg(long, value_name = "ADDRESS")]
    health_address: Option<SocketAddr>,
    /// How much is logged: 2 and more is information, 4 and more is for finding faults. `KEDGE_LOG` wins.
    #[arg(short, long, value_name = "LEVEL", default_value_t = 0)]
    pub(crate) v: u8,
}

impl NetworkAgentFlags {
    pub(crate) fn options(self) -> anyhow::Result<NetworkAgentOptions> {
        Ok(NetworkAgentOptions {
            kubeconfig: self.kubeconfig,
            node_name: self.node_name,
            node_ip: self.node_ip,
            cluster_cidrs: ranges(&self.pod_network_cidr)?,
            network: self.network.options(),
            cni_config_dir: self.cni_config_dir,
            state_dir: self.state_dir,
            health_address: self.health_address,
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct DnsFlags {
    /// How to reach the API server, and as whom [default: the pod's service account].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Where to answer, over UDP and TCP; may be repeated. Not the unspecified address.
    #[arg(long, value_name = "ADDRESS:PORT", required = true)]
    listen: Vec<SocketAddr>,
    /// DNS domain of the cluster.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// Ranges of pods and Services: reverse names in them are not asked of others.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    cluster_cidr: Vec<String>,
    /// Where is said over plain HTTP whether names are known.
    #[arg(long, value_name = "ADDRESS")]
    health_address: Option<SocketAddr>,
    /// For how long it goes on answering after SIGTERM, and is not ready; `health { lameduck 5s }` in a Corefile wins.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    lameduck: Duration,
    /// How much is logged: 2 and more is information, 4 and more is for finding faults. `KEDGE_LOG` wins.
    #[arg(short, long, value_name = "LEVEL", default_value_t = 0)]
    pub(crate) v: u8,
}

impl DnsFlags {
    pub(crate) fn options(self) -> anyhow::Result<DnsOptions> {
        Ok(DnsOptions {
            kubeconfig: self.kubeconfig,
            listen: self.listen,
            domain: self.cluster_domain,
            cluster_cidrs: ranges(&self.cluster_cidr)?,
            health_address: self.health_address,
            lameduck: self.lameduck,
        })
    }
}

fn ranges<T: std::str::FromStr>(texts: &[String]) -> anyhow::Result<Vec<T>> {
    let texts = texts.iter().filter(|text| !text.is_empty());
    texts.map(|text| text.parse().map_err(|_| anyhow::anyhow!("{text:?} is no range like 10.244.0.0/16"))).collect()
}
