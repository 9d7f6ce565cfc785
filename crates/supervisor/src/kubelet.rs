//! The kubelet as a process of its own: a kubeconfig, flags and upstream's configuration file in, the node agent out.
//!
//! The node agent is the same as in `kedge up`. Invariants: flags win over the file, the file over defaults; it waits for
//! the runtime and for the API server, whatever comes first.

mod credentials;
mod flags;
mod way;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kedge_client::{Backoff, Client, Informers, RequestMetrics, client_from_kubeconfig};
use kedge_cri::Runtime;
use kedge_kubelet::{CgroupDriver, Config, Deps, KubeletConfiguration, LaunchSettings, Starter};
use kedge_lifecycle::{InstanceLock, find_node_ip, hostname};
use kedge_meta::{Clock, StatusBoard, SystemClock};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::memory::give_memory_back;
use crate::node::RuntimeSettings;
use crate::options::node_addresses;

const DEFAULT_ENDPOINT: &str = "unix:///run/containerd/containerd.sock";

/// What the kubelet was asked for. Absent means: what the configuration file says, else the default.
#[derive(Debug, Clone)]
pub struct KubeletOptions {
    /// How to reach the API server, and as whom.
    pub kubeconfig: PathBuf,
    /// With whose token the first certificate is asked for, where the kubeconfig is not there yet.
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// A file with a `KubeletConfiguration`.
    pub config: Option<PathBuf>,
    /// The node's addresses, at most one of each IP family, the primary first; found where empty.
    pub node_ips: Vec<IpAddr>,
    /// The node's name; the host's where absent.
    pub hostname_override: Option<String>,
    /// The container runtime's socket.
    pub container_runtime_endpoint: Option<String>,
    /// Pods, volumes and checkpoints.
    pub root_dir: PathBuf,
    /// Certificates that the kubelet asks for, or makes where none is named.
    pub cert_dir: PathBuf,
    /// Static pods.
    pub pod_manifest_path: Option<PathBuf>,
    /// Whether to create the Node object.
    pub register_node: Option<bool>,
    /// Taints that the Node is registered with, as `key=value:effect,...`.
    pub register_with_taints: Option<String>,
    /// Labels that the Node is registered with, as `key=value,...`.
    pub node_labels: Option<String>,
    /// Where the balancer listens through which this node reaches the API servers; none where absent.
    pub api_balancer: Option<SocketAddr>,
    /// `host:port` by which it finds them.
    pub api_balancer_seeds: Vec<String>,
    /// Overrides of single fields of the configuration file.
    pub overrides: KubeletOverrides,
}

/// Flags that upstream keeps beside the same field of the configuration file.
#[derive(Debug, Clone, Default)]
pub struct KubeletOverrides {
    /// Name servers of pods.
    pub cluster_dns: Option<Vec<IpAddr>>,
    /// The cluster's DNS domain.
    pub cluster_domain: Option<String>,
    /// The port of the kubelet's server.
    pub port: Option<u16>,
    /// Where `/healthz` answers in plain HTTP.
    pub healthz_bind_address: Option<IpAddr>,
    /// Its port; 0 for none.
    pub healthz_port: Option<u16>,
    /// At most so many pods.
    pub max_pods: Option<u32>,
    /// Who makes the cgroups of pods.
    pub cgroup_driver: Option<CgroupDriver>,
    /// The node's resolver configuration.
    pub resolv_conf: Option<PathBuf>,
    /// The serving certificate.
    pub tls_cert_file: Option<PathBuf>,
    /// Its key.
    pub tls_private_key_file: Option<PathBuf>,
    /// Who signs the certificates of those who ask.
    pub client_ca_file: Option<PathBuf>,
    /// Whether the client certificate is renewed.
    pub rotate_certificates: Option<bool>,
    /// Whether the cluster is asked for the serving certificate.
    pub rotate_server_certificates: Option<bool>,
    /// Whether a control plane's certificates are renewed where the authority's key is.
    pub rotate_control_plane_certificates: bool,
}

/// Runs the kubelet until `shutdown`. Containers go on after its end.
pub async fn run_kubelet(options: KubeletOptions, shutdown: CancellationToken) -> Result<(), Error> {
    let file = options.config.as_deref().map(|path| read_configuration("--config", path, Starter::Kubelet));
    let file = file.transpose()?.unwrap_or_default();
    let lock_file = options.root_dir.join("kubelet.lock");
    let _lock = InstanceLock::take(&options.root_dir, &lock_file)?;
    let mut config = config(&options, &file)?;
    let credentials = credentials::Credentials::new(&options, file.launch(), &config);
    let tls = credentials.server_tls()?;
    // Also the first certificate is asked for through it.
    let balancer = way::start_balancer(&options, &config, &shutdown).await?;
    if !credentials.ensure(&shutdown).await? {
        return Ok(());
    }
    let requests = Arc::<RequestMetrics>::default();
    let client = requests.counting(client(&options.kubeconfig).await?, &server_host(&options.kubeconfig));
    credentials.spawn_rotation(&client, &shutdown);
    if let Some(balancer) = balancer {
        way::follow(balancer, &client, &requests, &shutdown);
    }
    let endpoint = options.container_runtime_endpoint.clone().or(file.launch().container_runtime_endpoint.clone());
    let endpoint = endpoint.filter(|endpoint| !endpoint.is_empty()).unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
    let runtime = Runtime::connect_lazy(&endpoint)?;
    let asked = options.overrides.cgroup_driver.or(file.launch().cgroup_driver);
    let Some(driver) = cgroup_driver(&runtime, asked, &shutdown).await else { return Ok(()) };
    config.cgroup_driver = driver;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let deps = Deps {
        informers: Informers::new(client.clone(), shutdown.clone()),
        client,
        runtime,
        status: StatusBoard::new(clock.clone()),
        clock,
        server_tls: Some(Arc::new(tls)),
        network_ready: None,
        requests,
        pod_gate: None,
    };
    tokio::spawn(give_memory_back(shutdown.clone()));
    let run = kedge_kubelet::run(config, deps, shutdown).await;
    run.map_err(|error| Error::Component { component: "kubelet", why: chain(&error) })
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Reads a configuration file; what in it has no effect goes to the log.
pub(crate) fn read_configuration(
    flag: &'static str,
    path: &Path,
    starter: Starter,
) -> Result<KubeletConfiguration, Error> {
    let wrong = |why: String| Error::Flag { flag, value: path.display().to_string(), why };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let file = KubeletConfiguration::read(&text, starter).map_err(|error| wrong(chain(&error)))?;
    for warning in file.warnings() {
        tracing::warn!(file = %path.display(), warning, "a part of the kubelet's configuration has no effect");
    }
    Ok(file)
}

async fn client(kubeconfig: &Path) -> Result<Client, Error> {
    client_from_kubeconfig(kubeconfig).await.map_err(|error| Error::Flag {
        flag: "--kubeconfig",
        value: kubeconfig.display().to_string(),
        why: chain(&error),
    })
}

/// The API server's host and port, as metrics name it.
fn server_host(kubeconfig: &Path) -> String {
    let server = kedge_client::server_of_kubeconfig(kubeconfig).unwrap_or_default();
    server.split_once("://").map_or(server.as_str(), |(_, rest)| rest).trim_end_matches('/').to_owned()
}

/// What the runtime uses, where nobody said; it is waited for. `None` where `shutdown` came first.
async fn cgroup_driver(
    runtime: &Runtime,
    asked: Option<CgroupDriver>,
    shutdown: &CancellationToken,
) -> Option<CgroupDriver> {
    if let Some(driver) = asked {
        return Some(driver);
    }
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut told = false;
    loop {
        match RuntimeSettings::ask(runtime).await {
            Ok(settings) => return Some(settings.cgroup_driver),
            Err(error) if !told => tracing::warn!(error = chain(&error), "waiting for the container runtime"),
            Err(_) => {}
        }
        told = true;
        shutdown.run_until_cancelled(tokio::time::sleep(backoff.next_delay())).await?;
    }
}

fn config(options: &KubeletOptions, file: &KubeletConfiguration) -> Result<Config, Error> {
    let node_name = match &options.hostname_override {
        Some(name) => name.clone(),
        None => hostname()?,
    };
    if !kedge_meta::is_dns1123_subdomain(&node_name) {
        let why = "a node name has lower-case letters, digits, `-` and `.` only".to_owned();
        return Err(Error::Flag { flag: "--hostname-override", value: node_name, why });
    }
    let node_ips = node_addresses(&options.node_ips, find_node_ip)?;
    let launch = file.launch().clone();
    let default = Config::default();
    let mut config = Config {
        node_name,
        node_ip: node_ips[0],
        second_node_ip: node_ips.get(1).copied(),
        root_dir: options.root_dir.clone(),
        container_logs_dir: container_logs(&launch).or(default.container_logs_dir),
        pod_logs_dir: launch.pod_logs_dir.unwrap_or(default.pod_logs_dir),
        // No static pods unless a directory is named: upstream's own default.
        static_pod_path: None,
        port: launch.port.unwrap_or(default.port),
        pod_cidr: launch.pod_cidr,
        anonymous_auth: launch.anonymous_auth.unwrap_or(default.anonymous_auth),
        ..Config::default()
    };
    file.apply(&mut config).map_err(|error| Error::Component { component: "kubelet", why: chain(&error) })?;
    override_fields(&mut config, options)?;
    Ok(config)
}

/// Flags win over the file.
fn override_fields(config: &mut Config, options: &KubeletOptions) -> Result<(), Error> {
    let flags = options.overrides.clone();
    let wrong = |flag, value: &str, why| Error::Flag { flag, value: value.to_owned(), why };
    let labels = options.node_labels.as_deref().unwrap_or_default();
    config.node_labels = flags::labels(labels).map_err(|why| wrong("--node-labels", labels, why))?;
    if let Some(text) = options.register_with_taints.as_deref() {
        config.taints = flags::taints(text).map_err(|why| wrong("--register-with-taints", text, why))?;
    }
    config.static_pod_path = options.pod_manifest_path.clone().or(config.static_pod_path.take());
    config.register_node = options.register_node.unwrap_or(config.register_node);
    config.cluster_dns = flags.cluster_dns.unwrap_or(std::mem::take(&mut config.cluster_dns));
    config.cluster_domain = flags.cluster_domain.unwrap_or(std::mem::take(&mut config.cluster_domain));
    config.port = flags.port.unwrap_or(config.port);
    config.healthz_bind_address = flags.healthz_bind_address.unwrap_or(config.healthz_bind_address);
    config.healthz_port = flags.healthz_port.unwrap_or(config.healthz_port);
    config.max_pods = flags.max_pods.unwrap_or(config.max_pods);
    config.resolv_conf = flags.resolv_conf.or(config.resolv_conf.take());
    Ok(())
}

/// Beside the logs of pods, where those are not at their usual place.
// DIVERGES: upstream's links are always in /var/log/containers.
fn container_logs(launch: &LaunchSettings) -> Option<PathBuf> {
    Some(launch.pod_logs_dir.as_ref()?.parent()?.join("containers"))
}
