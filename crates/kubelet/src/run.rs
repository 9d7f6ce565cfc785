//! The node agent as a component: what it needs, and its life from start to shutdown.
//!
//! Invariant: it never ends because the API server or the runtime is away, and its end stops no container.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kedge_client::{InformerOptions, Informers, Recorder, RequestMetrics};
use kedge_cri::Runtime;
use kedge_csi::PluginHandler;
use kedge_devices::Devices;
use kedge_meta::{Clock, ComponentState, StatusBoard};
use kedge_volumes::{Objects, VolumeDirs, Volumes};
use kube::Client;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::allocation::Allocations;
use crate::cgroups::Cgroups;
use crate::config::Config;
use crate::events::Events;
use crate::eviction::{self, Pressures};
use crate::image_gc;
use crate::images::PullHistory;
use crate::logs;
use crate::machine::Machine;
use crate::manager::{Manager, PodTable};
use crate::measured::{self, MountedPaths};
use crate::metrics::Metrics;
use crate::node::{NetworkReady, NodeReporter, renew_lease};
use crate::oom;
use crate::pod_gate::PodGate;
use crate::probes::ProbeResults;
use crate::relist::RuntimeCache;
use crate::restart_backoff::BackoffTable;
use crate::server;
use crate::status_writer::StatusWriter;
use crate::termination::Termination;
use crate::user_namespaces::UserNamespaces;
use crate::volume_use::VolumeUse;

/// Orders to end pods that wait for the manager.
const MAX_TERMINATIONS: usize = 16;
/// Where the CDI specification has vendors describe their devices.
const CDI_DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// What the node agent works with.
pub struct Deps {
    /// The API, as `system:node:<name>`.
    pub client: Client,
    /// Informers of that client.
    pub informers: Informers,
    /// The container runtime.
    pub runtime: Runtime,
    /// Where the component reports, as `kubelet`.
    pub status: StatusBoard,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Certificate and client CA of the kubelet server; without it, there is no server.
    pub server_tls: Option<Arc<rustls::ServerConfig>>,
    /// Why pods have no network, beside what the runtime says.
    pub network_ready: Option<NetworkReady>,
    /// What its client asks of the API, counted by whoever made the client.
    pub requests: Arc<RequestMetrics>,
    /// Waited for before the containers of a new sandbox start.
    pub pod_gate: Option<PodGate>,
}

/// Why the node agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is not usable.
    #[error("invalid kubelet configuration: {0}")]
    Config(String),
    /// A directory cannot be made.
    #[error("cannot make the directory {path}")]
    Directory {
        /// The directory.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The server's port is taken.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Runs the node agent until `shutdown`. Containers go on.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), Error> {
    config.validate().map_err(Error::Config)?;
    for path in [config.root_dir.join("pods"), config.pod_logs_dir.clone()] {
        std::fs::create_dir_all(&path).map_err(|source| Error::Directory { path, source })?;
    }
    let component = deps.status.component("kubelet");
    let node_name = config.node_name.clone();
    let pods = deps.informers.select::<Pod>(InformerOptions {
        field_selector: Some(format!("spec.nodeName={node_name}")),
        ..InformerOptions::default()
    });
    let nodes = deps.informers.select::<Node>(InformerOptions {
        field_selector: Some(format!("metadata.name={node_name}")),
        ..InformerOptions::default()
    });
    let table = PodTable::default();
    let network_ready = deps.network_ready.clone();
    let tls = deps.server_tls.clone();
    let client = deps.client.clone();
    let (terminations, ordered) = mpsc::channel(MAX_TERMINATIONS);
    let agent = Arc::new(new_agent(config, deps, terminations, &shutdown));
    let collector = measured::collector(&agent, &table);
    if agent.config.enforce_node_allocatable {
        agent.cgroups.limit_all_pods(&agent.machine.limits_of_all_pods(&agent.config));
    }
    if let Some(tls) = tls {
        server::start(agent.clone(), table.clone(), collector.clone(), tls, shutdown.clone()).await?;
    }
    let reporter = NodeReporter {
        agent: agent.clone(),
        client: client.clone(),
        nodes: nodes.clone(),
        network_ready,
        component: component.clone(),
        reported: None,
        runtime_version: String::new(),
        passed_cidr: None,
        schedulable: true,
    };
    let (known, statuses) = (table.clone(), agent.clone());
    let active: kedge_devices::Pods = Arc::new(move || statuses.active_pods(known.read().values()));
    let work = async {
        tokio::join!(
            reporter.run(),
            renew_lease(agent.clone(), client.clone(), nodes.clone()),
            image_gc::run(agent.clone()),
            measured::keep_sampling(agent.clone(), collector),
            eviction::run(agent.clone(), table.clone()),
            oom::watch(agent.clone()),
            logs::rotate_all(agent.clone()),
            server::healthz::run(agent.clone()),
            agent.volumes.clone().run(),
            agent.devices.clone().run(active),
            Manager::run(agent.clone(), client.clone(), pods, nodes.clone(), table, ordered, shutdown.clone()),
        );
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
    component.set(ComponentState::Stopped, "", "");
    Ok(())
}

fn new_agent(
    config: Config,
    mut deps: Deps,
    terminations: mpsc::Sender<Termination>,
    shutdown: &CancellationToken,
) -> Agent {
    let metrics = Arc::new(Metrics::new());
    let counted = metrics.clone();
    deps.runtime = deps.runtime.with_observer(move |call, took, failed| counted.runtime_call(call, took, failed));
    let recorder = Recorder::start(deps.client.clone(), "kubelet", &config.node_name, shutdown.clone());
    let objects = Arc::new(Objects::new(deps.client.clone()));
    let devices = kedge_devices::Deps {
        client: deps.client.clone(),
        node_name: config.node_name.clone(),
        root_dir: config.root_dir.clone(),
        cdi_directories: CDI_DIRECTORIES.map(PathBuf::from).into(),
    };
    let devices = Arc::new(Devices::new(devices, shutdown.clone()));
    let handler: Arc<dyn PluginHandler> = devices.clone();
    let volumes = kedge_volumes::Deps {
        client: deps.client.clone(),
        objects: objects.clone(),
        clock: deps.clock.clone(),
        dirs: VolumeDirs::new(&config.root_dir),
        node_name: config.node_name.clone(),
        plugin_handlers: vec![handler],
    };
    let volumes = Volumes::new(volumes, shutdown.clone());
    Agent {
        events: Events::new(recorder, &config.node_name),
        objects,
        volumes: Arc::new(volumes),
        devices,
        knows_cdi: OnceCell::new(),
        services: deps.informers.all::<Service>(),
        states: RuntimeCache::new(deps.runtime.clone(), config.node_ip.is_ipv6()),
        statuses: StatusWriter::start(deps.client, deps.informers.failures().clone(), shutdown),
        failures: deps.informers.failures().clone(),
        probes: ProbeResults::default(),
        cgroups: Cgroups::detect(config.cgroup_driver, config.pod_pids_limit),
        allocations: Allocations::new(config.root_dir.join("pods")),
        user_namespaces: UserNamespaces::load(config.root_dir.join("pods"), config.max_pods),
        pressures: Pressures::default(),
        image_records: tokio::sync::Mutex::default(),
        terminations,
        machine: Machine::read(&config),
        mounted: MountedPaths::default(),
        volume_use: VolumeUse::default(),
        metrics,
        requests: deps.requests,
        pulls: Semaphore::new(config.max_parallel_image_pulls.max(1)),
        pull_history: Mutex::new(PullHistory::new()),
        restarts: Mutex::new(BackoffTable::new()),
        network: Mutex::new(None),
        pod_gate: deps.pod_gate,
        handlers: Mutex::default(),
        features: Mutex::default(),
        shutdown: shutdown.clone(),
        pods_known: CancellationToken::new(),
        clock: deps.clock,
        runtime: deps.runtime,
        config,
    }
}
