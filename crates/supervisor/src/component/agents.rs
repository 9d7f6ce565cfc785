//! What the pods of a cluster's add-ons run: `kube-proxy`, the agent of the pod network, and cluster DNS.
//!
//! Invariant: rules, routes and CNI configuration stay when these processes end.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kedge_client::{Backoff, Client, Informers};
use kedge_lifecycle::hostname;
use kedge_meta::{ComponentReport, ComponentState};
use kedge_proxy::NodePortAddresses;
use kube::api::{Api, ListParams};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::proxy_config::{ProxyConfiguration, parse_duration};
use super::{client, failed, health, read, surroundings};
use crate::control_plane::Ended;
use crate::error::Error;
use crate::memory::give_memory_back;
use crate::options::{NetworkOptions, NetworkPlan};

/// What the proxy was asked for: upstream's flags.
#[derive(Debug, Clone, Default)]
pub struct ProxyOptions {
    /// A file with a `KubeProxyConfiguration`.
    pub config: Option<PathBuf>,
    /// How to reach the API server, and as whom.
    pub kubeconfig: Option<PathBuf>,
    /// The node's name; the host's where absent.
    pub hostname_override: Option<String>,
    /// Ranges of pods.
    pub cluster_cidrs: Vec<IpNet>,
    /// Where `/healthz` answers.
    pub healthz_bind_address: Option<SocketAddr>,
    /// Whether all traffic to ClusterIPs is masqueraded.
    pub masquerade_all: bool,
    /// Where node ports answer.
    pub node_port_addresses: Vec<String>,
    /// Where former values of kernel switches are remembered.
    pub state_dir: PathBuf,
}

/// What the agent of the pod network was asked for.
#[derive(Debug, Clone)]
pub struct NetworkAgentOptions {
    /// How to reach the API server, and as whom.
    pub kubeconfig: Option<PathBuf>,
    /// The node's name.
    pub node_name: String,
    /// The node's address.
    pub node_ip: IpAddr,
    /// Ranges of pods.
    pub cluster_cidrs: Vec<IpNet>,
    /// How packets get to other nodes.
    pub network: NetworkOptions,
    /// Where the container runtime looks for CNI configuration.
    pub cni_config_dir: PathBuf,
    /// What is remembered of the machine.
    pub state_dir: PathBuf,
    /// Where the readiness of the agent is told.
    pub health_address: Option<SocketAddr>,
}

/// What cluster DNS was asked for.
#[derive(Debug, Clone)]
pub struct DnsOptions {
    /// How to reach the API server, and as whom; as the pod's service account where absent.
    pub kubeconfig: Option<PathBuf>,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// The cluster's domain.
    pub domain: String,
    /// Ranges of pods and of Services: reverse names in them are not asked of others.
    pub cluster_cidrs: Vec<IpNet>,
    /// Where it says that it is ready.
    pub health_address: Option<SocketAddr>,
    /// For how long it goes on answering when it is to end, where no Corefile says so.
    pub lameduck: Duration,
}

/// Keeps Services' rules until `shutdown`.
pub async fn run_proxy(options: ProxyOptions, shutdown: CancellationToken) -> Result<(), Error> {
    const NAME: &str = "kube-proxy";
    let file = proxy_file(&options)?;
    let kubeconfig = options.kubeconfig.clone().or_else(|| path(&file.client_connection.kubeconfig));
    let client = client(kubeconfig.as_deref()).await?;
    let node_name = match options.hostname_override.clone().or_else(|| text(&file.hostname_override)) {
        Some(name) => name,
        None => hostname()?,
    };
    let Some((node_ips, service_cidrs)) = ask_cluster(&client, &node_name, &shutdown).await else { return Ok(()) };
    let mut config = kedge_proxy::Config::new(node_name.clone(), node_ips, options.state_dir.clone());
    config.service_cidrs = service_cidrs;
    configure_proxy(&mut config, &options, &file)?;
    let (clock, board) = surroundings();
    let informers = Informers::new(client, shutdown.clone());
    let deps = kedge_proxy::Deps::new(&informers, &node_name, board.component(NAME), clock);
    tokio::spawn(give_memory_back(shutdown.clone()));
    kedge_proxy::run(config, deps, shutdown).await.map_err(|error| failed(NAME, &error))
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn path(value: &str) -> Option<PathBuf> {
    text(value).map(PathBuf::from)
}

fn proxy_file(options: &ProxyOptions) -> Result<ProxyConfiguration, Error> {
    let Some(file) = &options.config else { return Ok(ProxyConfiguration::default()) };
    let wrong = |why| Error::Flag { flag: "--config", value: file.display().to_string(), why };
    let (configuration, ignored) = ProxyConfiguration::read(&read("--config", file)?).map_err(wrong)?;
    for field in ignored {
        tracing::warn!(field, "a field of the proxy's configuration has no effect");
    }
    Ok(configuration)
}

fn configure_proxy(
    config: &mut kedge_proxy::Config,
    options: &ProxyOptions,
    file: &ProxyConfiguration,
) -> Result<(), Error> {
    let wrong = |value: &str, why: &str| Error::Flag { flag: "--config", value: value.to_owned(), why: why.to_owned() };
    config.cluster_cidrs.clone_from(&options.cluster_cidrs);
    if config.cluster_cidrs.is_empty() {
        let ranges = file.cluster_cidr.split(',').filter(|range| !range.is_empty());
        let parse = |range: &str| range.trim().parse().map_err(|_| wrong(range, "clusterCIDR is no range"));
        config.cluster_cidrs = ranges.map(parse).collect::<Result<_, _>>()?;
    }
    let healthz = match file.healthz_bind_address.as_str() {
        "" => SocketAddr::from(([0, 0, 0, 0], 10256)),
        address => address.parse().map_err(|_| wrong(address, "healthzBindAddress is no address with a port"))?,
    };
    config.healthz_bind_address = Some(options.healthz_bind_address.unwrap_or(healthz));
    config.masquerade_all = options.masquerade_all || file.nftables.masquerade_all;
    config.localhost_node_ports = file.iptables.localhost_node_ports.unwrap_or(config.localhost_node_ports);
    let named = match options.node_port_addresses.is_empty() {
        true => file.node_port_addresses.clone().unwrap_or_default(),
        false => options.node_port_addresses.clone(),
    };
    config.node_port_addresses = match &named[..] {
        [] => NodePortAddresses::default(),
        [one] if one == "primary" => NodePortAddresses::Primary,
        ranges => {
            let parse = |range: &String| range.parse().map_err(|_| wrong(range, "nodePortAddresses has no range"));
            NodePortAddresses::Ranges(ranges.iter().map(parse).collect::<Result<_, _>>()?)
        }
    };
    let period = |text: &Option<String>| text.as_deref().and_then(parse_duration).filter(|period| !period.is_zero());
    config.min_sync_period = period(&file.nftables.min_sync_period).unwrap_or(config.min_sync_period);
    config.sync_period = period(&file.nftables.sync_period).unwrap_or(config.sync_period);
    Ok(())
}

/// The node's addresses and the ranges of Services, once the API tells; `None` where `shutdown` came first.
async fn ask_cluster(
    client: &Client,
    node_name: &str,
    shutdown: &CancellationToken,
) -> Option<(Vec<IpAddr>, Vec<IpNet>)> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut told = false;
    loop {
        match shutdown.run_until_cancelled(try_ask_cluster(client, node_name)).await? {
            Ok(Some(facts)) => return Some(facts),
            Ok(None) if !told => tracing::warn!(node_name, "waiting for the Node to be registered with an address"),
            Err(error) if !told => tracing::warn!(%error, "waiting for the API server"),
            _ => {}
        }
        told = true;
        shutdown.run_until_cancelled(tokio::time::sleep(backoff.next_delay())).await?;
    }
}

async fn try_ask_cluster(client: &Client, node_name: &str) -> Result<Option<(Vec<IpAddr>, Vec<IpNet>)>, kube::Error> {
    let ranges = Api::<ServiceCIDR>::all(client.clone()).list(&ListParams::default()).await?;
    let ranges = ranges.items.into_iter().filter_map(|range| range.spec?.cidrs).flatten();
    let ranges = ranges.filter_map(|range| range.parse().ok()).collect();
    let Some(node) = Api::<Node>::all(client.clone()).get_opt(node_name).await? else { return Ok(None) };
    let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
    let own = addresses.into_iter().filter(|address| address.type_ == "InternalIP");
    let own: Vec<IpAddr> = own.filter_map(|address| address.address.parse().ok()).collect();
    Ok((!own.is_empty()).then_some((own, ranges)))
}

/// Keeps the node's pod network, its routes and its policies until `shutdown`.
pub async fn run_network_agent(options: NetworkAgentOptions, shutdown: CancellationToken) -> Result<(), Error> {
    let plan = NetworkPlan::new(&options.network, &[options.node_ip])?;
    let client = client(options.kubeconfig.as_deref()).await?;
    let Some((_, service_cidrs)) = ask_cluster(&client, &options.node_name, &shutdown).await else { return Ok(()) };
    let (_, board) = surroundings();
    if let Some(address) = options.health_address {
        let (board, state_dir) = (board.clone(), options.state_dir.clone());
        let complaint = move || {
            let reports = board.reports();
            let peers = kedge_network::Reachability::read(&state_dir).unwrap_or_default();
            complaint(&reports, &peers.not_established().collect::<Vec<_>>())
        };
        health::serve_plain(address, complaint, shutdown.clone()).await?;
    }
    let informers = Informers::new(client, shutdown.clone());
    let mut components: JoinSet<Ended> = JoinSet::new();
    let agreement = kedge_network::Agreement::default();
    let name = &options.node_name;
    let mut config = kedge_network::Config::new(name.clone(), vec![options.node_ip], options.state_dir.clone());
    config.cluster_cidrs.clone_from(&options.cluster_cidrs);
    config.service_cidrs = service_cidrs;
    config.cni_config_dir.clone_from(&options.cni_config_dir);
    plan.apply_to_node(&mut config);
    let mut deps = kedge_network::Deps::new(&informers, name, board.component("kedge-network"));
    deps.agreement = agreement.clone();
    let run = kedge_network::run(config, deps, shutdown.clone());
    components.spawn(async move { ("kedge-network", run.await.map_err(|error| error.to_string())) });
    let mut config = kedge_network::MeshConfig::new(name.clone(), options.node_ip, options.cluster_cidrs.clone());
    config.state_dir = Some(options.state_dir.clone());
    plan.apply_to_mesh(&mut config);
    let mut deps = kedge_network::MeshDeps::new(&informers, board.component("kedge-bgp"));
    deps.agreement = agreement;
    let run = kedge_network::run_mesh(config, deps, shutdown.clone());
    components.spawn(async move { ("kedge-bgp", run.await.map_err(|error| error.to_string())) });
    let config = kedge_policy::Config::new(name.clone(), &options.cluster_cidrs);
    let deps = kedge_policy::Deps::new(&informers, board.component("kedge-policy"));
    let run = kedge_policy::run(config, deps, shutdown.clone());
    components.spawn(async move { ("kedge-policy", run.await.map_err(|error| error.to_string())) });
    tokio::spawn(give_memory_back(shutdown.clone()));
    finish(components, &shutdown).await
}

/// Why the pod network is not ready, where it is not; with the peers that no routes come from.
fn complaint(reports: &[ComponentReport], not_established: &[IpAddr]) -> Option<String> {
    let bad = reports.iter().filter(|report| report.state != ComponentState::Running);
    let said: Vec<String> = bad
        .map(|report| match (report.reason.as_str(), not_established) {
            ("BGPPeersNotEstablished", [_, ..]) => {
                let peers: Vec<String> = not_established.iter().map(ToString::to_string).collect();
                format!("BGP not established with {}: {}", peers.join(","), report.message)
            }
            _ => format!("{}: {} {}", report.component, report.reason, report.message),
        })
        .collect();
    (!said.is_empty()).then(|| format!("kedge-network is not ready: {}", said.join("; ")))
}

/// Waits for `shutdown`; what ends before ends the process, so that nothing runs half.
async fn finish(mut components: JoinSet<Ended>, shutdown: &CancellationToken) -> Result<(), Error> {
    let early = tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        Some(ended) = components.join_next() => Some(ended),
    };
    shutdown.cancel();
    while components.join_next().await.is_some() {}
    match early {
        None => Ok(()),
        Some(Ok((component, result))) => {
            Err(Error::Component { component, why: result.err().unwrap_or_else(|| "it was not told to".to_owned()) })
        }
        Some(Err(error)) => Err(Error::Component { component: "a component", why: error.to_string() }),
    }
}

/// Answers names until `shutdown`, and as a lame duck from then on.
pub async fn run_dns(options: DnsOptions, shutdown: CancellationToken) -> Result<(), Error> {
    const NAME: &str = "kedge-dns";
    let client = client(options.kubeconfig.as_deref()).await?;
    let (_, board) = surroundings();
    // As long as it answers, it says how it is and hears of changes.
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    if let Some(address) = options.health_address {
        let (board, shutdown) = (Arc::new(board.clone()), shutdown.clone());
        let is_lost = move || board.reports().iter().any(|report| report.reason == "NotSynced");
        let complaint = move || match shutdown.is_cancelled() {
            true => Some("it is shutting down".to_owned()),
            false => is_lost().then(|| "the names of the cluster are not known yet".to_owned()),
        };
        health::serve_plain(address, complaint, end.clone()).await?;
    }
    let config = kedge_dns::Config {
        listen: options.listen,
        domain: options.domain,
        cluster_cidrs: options.cluster_cidrs,
        service_cidrs: Vec::new(),
        allowed_clients: Vec::new(),
        resolv_conf: "/etc/resolv.conf".into(),
        upstreams: Vec::new(),
        introspection: Vec::new(),
        lameduck: options.lameduck,
        publish: None,
    };
    let informers = Informers::new(client, end.clone());
    let deps = kedge_dns::Deps::new(&informers, board.component(NAME));
    tokio::spawn(give_memory_back(end.clone()));
    kedge_dns::run(config, deps, shutdown).await.map_err(|error| failed(NAME, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_not_ready_names_the_peers() {
        let (_, board) = surroundings();
        let bgp = board.component("kedge-bgp");
        bgp.running();
        assert_eq!(complaint(&board.reports(), &[]), None);
        bgp.degraded("BGPPeersNotEstablished", "0 of 2 BGP peers are established");
        let peers = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])];
        assert_eq!(
            complaint(&board.reports(), &peers).as_deref(),
            Some(
                "kedge-network is not ready: BGP not established with 192.0.2.1,192.0.2.2: 0 of 2 BGP peers are established"
            )
        );
        bgp.degraded("NetworkPluginNotReady", "no range");
        assert_eq!(
            complaint(&board.reports(), &peers).as_deref(),
            Some("kedge-network is not ready: kedge-bgp: NetworkPluginNotReady no range")
        );
    }
}
