//! A node that joins: the components of a node in a process of their own, against the API server of another.
//!
//! Not here: how it comes by its credentials. Two kubeconfigs are taken as given: the kubelet's (`system:node:<name>`), and
//! that of the others, whose group `system:kedge-nodes` has the role of the same name.
//! Invariant: the API server may be away at any time, also at the start; pods, rules and names stay as they were.

mod reports;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kedge_client::{Client, Informers, client_from_kubeconfig};
use kedge_lifecycle::{InstanceLock, Layout, Needs};
use kedge_meta::{Clock, StatusBoard, SystemClock};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::control_plane::Ended;
use crate::error::Error;
use crate::kubelet::chain;
use crate::memory::give_memory_back;
use crate::node::{self, Access, RuntimeChoice};
use crate::options::{NetworkOptions, Options, Plan};
use crate::progress::{Progress, step};
use crate::start::{check_machine, write_run_file};

pub(crate) use reports::read_reports;

const COMPONENTS_PATIENCE: Duration = Duration::from_secs(5);

/// What `kedge node` was asked for.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// Where the node's state is.
    pub data_dir: PathBuf,
    /// The kubelet's kubeconfig; `kubelet.conf` in the data directory where absent.
    pub kubeconfig: Option<PathBuf>,
    /// That of the other components; `agent.conf` in the data directory where absent.
    pub agent_kubeconfig: Option<PathBuf>,
    /// The node's addresses, at most one of each IP family, the primary first; found where empty.
    pub node_ips: Vec<IpAddr>,
    /// The node's name; the host's where absent.
    pub node_name: Option<String>,
    /// Range of pod addresses of the cluster, or one of each IP family with a comma between them.
    pub pod_network_cidr: String,
    /// Range of Service addresses of the cluster, or two.
    pub service_cidr: String,
    /// The length of the prefixes that nodes get out of the pods' ranges, of IPv4 and IPv6.
    pub node_cidr_masks: (u8, u8),
    /// DNS domain of the cluster.
    pub service_dns_domain: String,
    /// The pod network.
    pub network: NetworkOptions,
    /// Socket of the container runtime; found or started where absent.
    pub container_runtime_endpoint: Option<String>,
    /// Upstream's configuration file of the kubelet; the defaults where absent.
    pub kubelet_config: Option<PathBuf>,
}

/// What a node that joined says of itself.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinSummary {
    /// URL of the API server.
    pub server: String,
    /// The node's name.
    pub node_name: String,
    /// The node's address.
    pub node_ip: IpAddr,
    /// The data directory.
    pub data_dir: PathBuf,
}

/// A node whose components run in this process.
pub struct RunningNode {
    summary: JoinSummary,
    plan: Plan,
    client: Client,
    components: JoinSet<Ended>,
    shutdown: CancellationToken,
    _lock: InstanceLock,
}

/// Starts a node of a cluster whose control plane is elsewhere. `shutdown` ends it; [`RunningNode::finish`] waits for
/// that.
pub async fn join(
    options: JoinOptions,
    shutdown: CancellationToken,
    report: impl Fn(Progress) + Sync,
) -> Result<RunningNode, Error> {
    let plan = Plan::new(full_options(&options))?;
    let credentials = Credentials::read(&options, &plan.layout).await?;
    let choice = node::choose_runtime(&plan).await?.unwrap_or(RuntimeChoice::Private);
    let lock = InstanceLock::take(plan.layout.root(), &plan.layout.lock())?;
    let private_runtime = choice.is_private();
    check_machine(&Needs { api_addresses: Vec::new(), ..plan.needs(private_runtime) }, &report)?;
    write_run_file(&plan, private_runtime, None, Some(&credentials.server))?;
    let work = step(&report, "container runtime and images", node::prepare_runtime(&plan, choice, &shutdown));
    let runtime = tokio::select! {
        result = work => result?,
        () = shutdown.cancelled() => return Err(Error::Interrupted),
    };
    write_run_file(&plan, private_runtime, Some(&runtime), Some(&credentials.server))?;
    let (server, client) = (credentials.server.clone(), credentials.kubelet.clone());
    let access = credentials.access(&plan, &shutdown)?;
    let mut components = JoinSet::new();
    node::start(&plan, &access, &runtime, &mut components, &shutdown)?;
    components.spawn(reports::keep(plan.layout.components(), access.board.clone(), shutdown.clone()));
    tokio::spawn(give_memory_back(shutdown.clone()));
    let summary = JoinSummary {
        server,
        node_name: plan.node_name.clone(),
        node_ip: plan.node_ip,
        data_dir: plan.layout.root().to_owned(),
    };
    Ok(RunningNode { summary, plan, client, components, shutdown, _lock: lock })
}

impl RunningNode {
    /// What the node says of itself.
    pub fn summary(&self) -> &JoinSummary {
        &self.summary
    }

    /// Waits until the Node is ready; for how long that took.
    pub fn ready(&self) -> impl Future<Output = Result<Duration, Error>> + Send + use<> {
        let (plan, client, shutdown) = (self.plan.clone(), self.client.clone(), self.shutdown.clone());
        async move {
            let began = Instant::now();
            tokio::select! {
                result = node::wait_ready(&plan, &client) => result.map(|()| began.elapsed()),
                () = shutdown.cancelled() => Err(Error::Interrupted),
            }
        }
    }

    /// Waits until `shutdown`, then for the end of everything. Pods keep running. A component that ends before its time
    /// ends the whole process, so that nothing runs half.
    pub async fn finish(mut self) -> Result<(), Error> {
        let early = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            Some(ended) = self.components.join_next() => Some(ended),
        };
        self.shutdown.cancel();
        let drained =
            tokio::time::timeout(COMPONENTS_PATIENCE, async { while self.components.join_next().await.is_some() {} });
        if drained.await.is_err() {
            tracing::warn!("some components did not end in time and are cut off");
        }
        match early {
            None => Ok(()),
            Some(Ok((component, result))) => Err(Error::Component {
                component,
                why: result.err().unwrap_or_else(|| "it was not told to".to_owned()),
            }),
            Some(Err(error)) => Err(Error::Component { component: "a component", why: error.to_string() }),
        }
    }
}

/// A node that joins has no API server, no kubeconfig for people and no demo of its own.
fn full_options(options: &JoinOptions) -> Options {
    let options = options.clone();
    Options {
        data_dir: options.data_dir,
        node_ips: options.node_ips,
        node_name: options.node_name,
        secure_port: 0,
        controller_manager_port: Some(0),
        scheduler_port: Some(0),
        pod_network_cidr: options.pod_network_cidr,
        service_cidr: options.service_cidr,
        node_cidr_masks: options.node_cidr_masks,
        node_monitor_grace_period: Duration::ZERO,
        load_balancer_pool: String::new(),
        service_dns_domain: options.service_dns_domain,
        etcd: None,
        network: options.network,
        container_runtime_endpoint: options.container_runtime_endpoint,
        kubelet_config: options.kubelet_config,
        scheduler_config: None,
        control_plane_only: false,
        simulate: None,
        audit: kedge_audit::AuditOptions::default(),
        kubeconfig: PathBuf::new(),
        demo: false,
        flags: Default::default(),
    }
}

/// As whom the node speaks, and by which certificate it is spoken to.
struct Credentials {
    server: String,
    kubelet: Client,
    agents: Client,
    pki: PathBuf,
}

impl Credentials {
    async fn read(options: &JoinOptions, layout: &Layout) -> Result<Self, Error> {
        let kubeconfig = options.kubeconfig.clone().unwrap_or_else(|| layout.kubelet_kubeconfig());
        let agents = options.agent_kubeconfig.clone().unwrap_or_else(|| layout.agent_kubeconfig());
        let pki = layout.pki();
        for needed in ["kubelet.crt", "kubelet.key", "ca.crt"] {
            readable(&pki.join(needed))?;
        }
        let kubelet = client("--kubeconfig", &kubeconfig).await?;
        Ok(Self {
            server: kedge_pki::kubeconfig_server(&kubeconfig)?,
            kubelet,
            agents: client("--agent-kubeconfig", &agents).await?,
            pki,
        })
    }

    fn access(self, plan: &Plan, shutdown: &CancellationToken) -> Result<Access, Error> {
        tracing::debug!(node = plan.node_name, server = self.server, "joining");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Ok(Access {
            kubelet: self.kubelet,
            api_host: self.server.trim_start_matches("https://").trim_end_matches('/').to_owned(),
            provisioner: self.agents.clone(),
            informers: Informers::new(self.agents, shutdown.clone()),
            board: StatusBoard::new(clock.clone()),
            clock,
            kubelet_tls: node::kubelet_tls(&self.pki)?,
        })
    }
}

async fn client(flag: &'static str, kubeconfig: &Path) -> Result<Client, Error> {
    client_from_kubeconfig(kubeconfig).await.map_err(|error| Error::Flag {
        flag,
        value: kubeconfig.display().to_string(),
        why: chain(&error),
    })
}

fn readable(path: &Path) -> Result<(), Error> {
    std::fs::File::open(path).map(|_| ()).map_err(|error| Error::Flag {
        flag: "--data-dir",
        value: path.display().to_string(),
        why: format!("a node that joins needs this file: {error}"),
    })
}
