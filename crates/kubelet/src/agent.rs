//! What every part of the node agent shares: configuration, runtime, caches and the hands that write statuses and events.
//!
//! Not a place for decisions. Invariant: it holds no lock across an await.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use kedge_client::{FailureLog, Informer, RequestMetrics};
use kedge_cri::{Runtime, v1};
use kedge_devices::Devices;
use kedge_meta::Clock;
use kedge_volumes::{Objects, Volumes};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::allocation::Allocations;
use crate::cgroups::Cgroups;
use crate::config::Config;
use crate::events::Events;
use crate::eviction::Pressures;
use crate::field_ref::NodeFacts;
use crate::image_gc::ImageRecords;
use crate::images::PullHistory;
use crate::machine::Machine;
use crate::measured::MountedPaths;
use crate::metrics::Metrics;
use crate::pod_gate::PodGate;
use crate::probes::ProbeResults;
use crate::relist::RuntimeCache;
use crate::restart_backoff::BackoffTable;
use crate::spec;
use crate::status_writer::StatusWriter;
use crate::termination::Termination;
use crate::user_namespaces::UserNamespaces;
use crate::volume_use::VolumeUse;

/// Shared by all workers.
pub(crate) struct Agent {
    pub(crate) config: Config,
    pub(crate) runtime: Runtime,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: Events,
    pub(crate) objects: Arc<Objects>,
    pub(crate) volumes: Arc<Volumes>,
    pub(crate) devices: Arc<Devices>,
    /// Whether the runtime applies CDI specs itself; asked once.
    pub(crate) knows_cdi: OnceCell<bool>,
    pub(crate) services: Informer<Service>,
    pub(crate) states: RuntimeCache,
    pub(crate) statuses: StatusWriter,
    /// What is said when the API server does not answer.
    pub(crate) failures: FailureLog,
    pub(crate) probes: ProbeResults,
    pub(crate) cgroups: Cgroups,
    /// What each pod was granted, for resizes in place.
    pub(crate) allocations: Allocations,
    pub(crate) user_namespaces: UserNamespaces,
    pub(crate) machine: Machine,
    pub(crate) mounted: MountedPaths,
    pub(crate) volume_use: VolumeUse,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) requests: Arc<RequestMetrics>,
    pub(crate) pressures: Pressures,
    pub(crate) image_records: tokio::sync::Mutex<ImageRecords>,
    /// To the manager: the node ends a pod.
    pub(crate) terminations: mpsc::Sender<Termination>,
    pub(crate) pulls: Semaphore,
    pub(crate) pull_history: Mutex<PullHistory>,
    /// By pod uid, container name and container hash.
    pub(crate) restarts: Mutex<BackoffTable<(String, String, String)>>,
    /// Ends every task of the node agent; containers go on.
    pub(crate) shutdown: CancellationToken,
    /// Cancelled once it is known which pods are here.
    pub(crate) pods_known: CancellationToken,
    /// What the runtime's handlers can do.
    pub(crate) handlers: Mutex<Vec<v1::RuntimeHandler>>,
    /// What the runtime can do, whatever the handler.
    pub(crate) features: Mutex<Option<v1::RuntimeFeatures>>,
    /// `None` while the runtime's network is ready, else why it is not.
    pub(crate) network: Mutex<Option<String>>,
    /// Waited for before the containers of a new sandbox start.
    pub(crate) pod_gate: Option<PodGate>,
}

impl Agent {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether containers can have mounts that are read-only with everything below them: only if every handler can.
    pub(crate) fn recursive_read_only(&self) -> bool {
        let handlers = self.handlers.lock();
        let can = |handler: &v1::RuntimeHandler| {
            handler.features.as_ref().is_some_and(|features| features.recursive_read_only_mounts)
        };
        !handlers.is_empty() && handlers.iter().all(can)
    }

    /// Those of some pods that are not over.
    pub(crate) fn active_pods<'a>(&self, pods: impl Iterator<Item = &'a Arc<Pod>>) -> Vec<Arc<Pod>> {
        let is_over = |pod: &Pod| {
            let status = self.statuses.get(spec::uid(pod));
            let phase = status.as_ref().unwrap_or_else(|| spec::pod_status(pod)).phase.as_deref();
            spec::is_terminal_phase(phase)
        };
        pods.filter(|pod| !is_over(pod)).cloned().collect()
    }

    /// What the runtime is told of a pod's users.
    pub(crate) fn users_of(&self, pod: &Pod, handler: &str) -> Result<v1::UserNamespace, String> {
        self.user_namespaces.of(pod, handler, &self.handlers.lock())
    }

    pub(crate) fn host_ips(&self) -> Vec<String> {
        self.config.node_ips().iter().map(ToString::to_string).collect()
    }

    /// What the downward API says about this node and a pod's addresses.
    pub(crate) fn node_facts(&self, pod: &Pod, pod_ips: &[String]) -> NodeFacts {
        let host_ips = self.host_ips();
        let pod_ips = match crate::spec::host_network(pod) {
            true => host_ips.clone(),
            false => pod_ips.to_vec(),
        };
        NodeFacts {
            host_ips,
            pod_ips,
            allocatable_cpu_millis: self.machine.allocatable_cpu(&self.config),
            allocatable_memory: self.machine.allocatable_memory(&self.config),
            allocatable_ephemeral_storage: self.machine.allocatable_storage(&self.config),
        }
    }
}
