//! The components of a cluster as processes of their own, under upstream's names and with upstream's flags: the same code
//! that runs inside `kedge up`.
//!
//! Invariant: losing the API server, a lease or the store never ends the process.

mod agents;
mod apiserver;
mod client_authority;
mod configz;
mod controller_manager;
mod delegated;
mod following;
mod health;
mod in_process;
mod process_figures;
mod proxy_config;
mod scheduler;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kedge_client::{
    Client, LeaderConfig, RequestMetrics, client_from_kubeconfig, client_in_cluster, server_of_kubeconfig,
};
use kedge_lifecycle::{ProcessMark, hostname};
use kedge_meta::{Clock, StatusBoard, SystemClock};
use kedge_metrics::Text;
use kedge_zpages::Flags;

pub use agents::{DnsOptions, NetworkAgentOptions, ProxyOptions, run_dns, run_network_agent, run_proxy};
pub use apiserver::{ApiServerOptions, RequestHeaderOptions, run_apiserver};
pub use controller_manager::{ControllerManagerOptions, SigningFiles, SigningOptions, run_controller_manager};
pub use delegated::DelegationOptions;
pub use health::HealthOptions;
pub(crate) use in_process::{CONTROLLER_MANAGER, Pages, SCHEDULER};
pub use proxy_config::parse_duration;
pub(crate) use scheduler::read_scheduler_configuration;
pub use scheduler::{SchedulerOptions, run_scheduler};

use crate::error::Error;
use crate::kubelet::chain;

/// Upstream's `--leader-elect*` flags.
#[derive(Debug, Clone)]
pub struct LeaderOptions {
    /// Whether to compete at all.
    pub elect: bool,
    /// How long others wait before they take over.
    pub lease_duration: Duration,
    /// How long a leader tries to renew.
    pub renew_deadline: Duration,
    /// The pause between attempts.
    pub retry_period: Duration,
    /// Name of the Lease.
    pub resource_name: String,
    /// Its namespace.
    pub resource_namespace: String,
}

impl LeaderOptions {
    fn config(&self) -> Result<Option<LeaderConfig>, Error> {
        if !self.elect {
            return Ok(None);
        }
        let own = ProcessMark::own();
        let identity = format!("{}_{}-{}", hostname()?, own.pid, own.start_ticks);
        Ok(Some(LeaderConfig {
            namespace: self.resource_namespace.clone(),
            name: self.resource_name.clone(),
            identity,
            lease_duration: self.lease_duration,
            renew_deadline: self.renew_deadline,
            retry_period: self.retry_period,
            widest_lease_duration: kedge_client::WIDEST_LEASE,
        }))
    }
}

/// A clock, and a board on which the component reports.
fn surroundings() -> (Arc<dyn Clock>, StatusBoard) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let board = StatusBoard::new(clock.clone());
    (clock, board)
}

/// Whose pages `/flagz` and `/statusz` are.
fn component(name: &'static str, flags: Flags, clock: &Arc<dyn Clock>) -> Arc<kedge_zpages::Component> {
    Arc::new(kedge_zpages::Component { name, started: clock.now(), flags })
}

/// The API as a kubeconfig says; as the pod's own service account where there is none.
async fn client(kubeconfig: Option<&Path>) -> Result<Client, Error> {
    let wrong = |value: &Path, why| Error::Flag { flag: "--kubeconfig", value: value.display().to_string(), why };
    match kubeconfig {
        Some(path) => client_from_kubeconfig(path).await.map_err(|error| wrong(path, chain(&error))),
        None => client_in_cluster().map_err(|error| wrong(Path::new(""), chain(&error))),
    }
}

/// The same, with its requests counted.
async fn counted_client(kubeconfig: Option<&Path>, metrics: &Arc<RequestMetrics>) -> Result<Client, Error> {
    Ok(metrics.counting(client(kubeconfig).await?, &host_of(kubeconfig)))
}

/// Host and port of the server that a kubeconfig names.
fn host_of(kubeconfig: Option<&Path>) -> String {
    let server = kubeconfig.and_then(server_of_kubeconfig).unwrap_or_default();
    server.trim_start_matches("https://").trim_end_matches('/').to_owned()
}

/// What a component shows as its metrics.
fn figures(write: impl Fn(&mut Text) + Send + Sync + 'static) -> health::Figures {
    Arc::new(move || {
        let mut text = Text::default();
        write(&mut text);
        process_figures::write(&mut text);
        text.finish()
    })
}

/// The same without what is said of the process.
pub(crate) fn only(write: impl Fn(&mut Text) + Send + Sync + 'static) -> health::Figures {
    Arc::new(move || {
        let mut text = Text::default();
        write(&mut text);
        text.finish()
    })
}

fn read(flag: &'static str, path: &Path) -> Result<String, Error> {
    let wrong = |error: std::io::Error| Error::Flag { flag, value: path.display().to_string(), why: error.to_string() };
    std::fs::read_to_string(path).map_err(wrong)
}

fn read_optional(flag: &'static str, path: Option<&PathBuf>) -> Result<Option<String>, Error> {
    path.map(|path| read(flag, path)).transpose()
}

fn failed(component: &'static str, error: &dyn std::error::Error) -> Error {
    Error::Component { component, why: chain(error) }
}
