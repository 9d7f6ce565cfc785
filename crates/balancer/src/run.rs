//! The balancer at work: takes connections, watches over the servers, keeps the file.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::carry::carry;
use crate::config::Config;
use crate::memory::Memory;
use crate::pool::Pool;
use crate::probe::Probe;
use crate::track::{Health, Seen};

/// So many connections at once are enough for a node.
const MOST_CONNECTIONS: usize = 1024;
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(3);
/// After a first failure the second question comes soon.
const IN_DOUBT: Duration = Duration::from_millis(500);
const NAME_PATIENCE: Duration = Duration::from_secs(2);
const AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(100);

/// Why there is no balancer.
#[derive(Debug, thiserror::Error)]
pub enum BalancerError {
    /// Somebody else has its address.
    #[error("the API balancer cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// What all tasks of a balancer use.
pub(crate) struct Shared {
    config: Config,
    pub(crate) pool: Mutex<Pool>,
    /// Which servers there are is news.
    learned: Notify,
    /// What the file says is old.
    changed: Notify,
}

/// A node's balancer. Cheap to clone.
#[derive(Clone)]
pub struct Balancer {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Balancer {
    /// Starts to listen, with what an earlier run remembered; ends with `shutdown`.
    pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Self, BalancerError> {
        let failed = |source| BalancerError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let mut pool = Pool::new(config.own.clone());
        if let Some(memory) = Memory::read(&config.memory) {
            pool.learn(&memory.servers.iter().map(|server| server.address).collect::<Vec<_>>());
        }
        let shared = Shared { config, pool: Mutex::new(pool), learned: Notify::new(), changed: Notify::new() };
        let shared = Arc::new(shared);
        shared.changed.notify_one();
        tokio::spawn(accept(shared.clone(), listener, shutdown.clone()));
        tokio::spawn(keep_file(shared.clone(), shutdown.clone()));
        tokio::spawn(watch_over(shared.clone(), shutdown));
        Ok(Self { shared, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes in which API servers there are.
    pub fn learn(&self, servers: &[SocketAddr]) {
        if self.shared.pool.lock().learn(servers) {
            tracing::info!(?servers, "the API servers of the cluster");
            self.shared.learned.notify_one();
            self.shared.changed.notify_one();
        }
    }

    /// What it does, in Prometheus' text format.
    pub fn metrics(&self) -> String {
        metrics_text(&self.shared.pool.lock())
    }
}

impl Shared {
    pub(crate) fn observe(&self, server: SocketAddr, seen: Seen, why: &str) {
        let Some(health) = self.pool.lock().observe(server, seen, why, Timestamp::now()) else { return };
        self.changed.notify_one();
        match health {
            Health::Down => {
                tracing::warn!(%server, why, "an API server does not answer; its connections go to others");
            }
            Health::NotReady => tracing::warn!(%server, why, "an API server is not ready; new connections avoid it"),
            Health::Ready | Health::Unknown => {
                tracing::info!(%server, health = health.as_str(), "an API server answers")
            }
        }
    }

    /// The addresses of the seeds; names that nobody knows now are left out.
    pub(crate) async fn resolved_seeds(&self) -> Vec<SocketAddr> {
        let mut found = Vec::new();
        for seed in &self.config.seeds {
            if let Ok(address) = seed.parse() {
                found.push(address);
                continue;
            }
            let looked_up = tokio::time::timeout(NAME_PATIENCE, tokio::net::lookup_host(seed.as_str())).await;
            found.extend(looked_up.ok().and_then(Result::ok).into_iter().flatten());
        }
        found
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut carried = JoinSet::new();
    loop {
        // A caller without a place waits in the kernel's queue.
        let place = places.clone().acquire_owned();
        let Some(Ok(place)) = shutdown.run_until_cancelled(place).await else { return };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            Some(_) = carried.join_next(), if !carried.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((caller, _)) => {
                let shared = shared.clone();
                carried.spawn(async move {
                    carry(shared, caller).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the API balancer cannot take a connection");
                shutdown.run_until_cancelled(tokio::time::sleep(AFTER_ACCEPT_ERROR)).await;
            }
        }
    }
}

async fn keep_file(shared: Arc<Shared>, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(shared.changed.notified()).await.is_some() {
        let servers = shared.pool.lock().known();
        let memory = Memory { listen: shared.config.listen, servers, seeds: shared.config.seeds.clone() };
        let path = shared.config.memory.clone();
        let written = tokio::task::spawn_blocking(move || memory.write(&path)).await;
        if let Ok(Err(error)) = written {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%error, cause, "the API servers are not remembered");
        }
    }
}

/// Asks all servers how they are, as long as there is a choice.
async fn watch_over(shared: Arc<Shared>, shutdown: CancellationToken) {
    loop {
        let servers = shared.pool.lock().learned().to_vec();
        let mut asking = JoinSet::new();
        if servers.len() > 1 {
            for server in servers {
                asking.spawn(keep_asking(shared.clone(), server));
            }
        }
        // Dropping the set ends its tasks.
        if shutdown.run_until_cancelled(shared.learned.notified()).await.is_none() {
            return;
        }
    }
}

async fn keep_asking(shared: Arc<Shared>, server: SocketAddr) {
    let mut probe = Probe::new(server, shared.config.kubeconfigs.clone());
    loop {
        let found = probe.ask().await;
        shared.observe(server, found.seen, &found.why);
        let pause = if shared.pool.lock().is_in_doubt(server) { IN_DOUBT } else { BETWEEN_QUESTIONS };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A server that ends a connection has often ended itself; one that always does so is not asked all the time.
            () = probe.lost() => tokio::time::sleep(IN_DOUBT).await,
        }
    }
}

fn metrics_text(pool: &Pool) -> String {
    use std::fmt::Write;
    let figures = pool.figures();
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&crate::pool::Figures) -> u64| {
        // Writing to a String can't fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for each in &figures {
            let _ = writeln!(text, "{name}{{server=\"{}\"}} {}", each.server, value(each));
        }
    };
    let name = |rest: &str| format!("kedge_api_balancer_{rest}");
    family(&name("connections"), "gauge", "Open connections to an API server.", &|each| each.open as u64);
    family(&name("connections_total"), "counter", "Connections to an API server.", &|each| each.counts.connections);
    family(
        &name("failures_total"),
        "counter",
        "Connections and questions that an API server did not answer.",
        &|each| each.counts.failures,
    );
    family(&name("cut_connections_total"), "counter", "Connections ended as an API server was down.", &|each| {
        each.counts.cut
    });
    for health in [Health::Ready, Health::Unknown, Health::NotReady, Health::Down] {
        let name = name(&format!("server_{}", health.as_str().to_lowercase()));
        family(&name, "gauge", "1 where an API server is so.", &|each| u64::from(each.health == health));
    }
    text
}
