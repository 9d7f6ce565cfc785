//! The life of the component: compete for the lease, start every selected controller for a term, stop them all when it
//! ends, compete again.
//!
//! Invariant: no controller works outside a term; the component ends only with its token.

use std::sync::Arc;
use std::time::Duration;

use kedge_client::{Fence, LeaderElector, Recorder};
use kedge_meta::ComponentState;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Deps, select_controllers};
use crate::error::Error;
use crate::runtime::{Context, Health, Starter};

const COMPONENT: &str = "kube-controller-manager";
const HEARTBEAT: Duration = Duration::from_secs(30);

/// A controller in the list of all.
struct Entry {
    /// Its name in `--controllers`.
    name: &'static str,
    is_on_by_default: bool,
    /// Its service account in `kube-system`; empty for the manager's own user.
    identity: &'static str,
    /// The source of its events.
    event_source: &'static str,
    start: fn(Starter<'_>),
}

const fn entry(
    name: &'static str,
    identity: &'static str,
    event_source: &'static str,
    start: fn(Starter<'_>),
) -> Entry {
    Entry { name, is_on_by_default: true, identity, event_source, start }
}

/// All controllers, those that others wait for first.
static CONTROLLERS: &[Entry] = &[
    // Upstream gives it the manager's own rights, as other controllers may get theirs from what it makes.
    entry(
        "serviceaccount-token-controller",
        "",
        "serviceaccount-token-controller",
        crate::service_account_token::start,
    ),
    entry(
        "serviceaccount-controller",
        "service-account-controller",
        "serviceaccount-controller",
        crate::service_account::start,
    ),
    entry(
        "root-ca-certificate-publisher-controller",
        "root-ca-cert-publisher",
        "root-ca-certificate-publisher-controller",
        crate::root_ca::start,
    ),
    entry("replicaset-controller", "replicaset-controller", "replicaset-controller", crate::replica_set::start),
    entry(
        "replicationcontroller-controller",
        "replication-controller",
        "replication-controller",
        crate::replica_set::start_replication_controller,
    ),
    entry("deployment-controller", "deployment-controller", "deployment-controller", crate::deployment::start),
    entry(
        "endpointslice-controller",
        "endpointslice-controller",
        "endpoint-slice-controller",
        crate::endpoint_slice::start,
    ),
    entry("daemonset-controller", "daemon-set-controller", "daemonset-controller", crate::daemon_set::start),
    entry("job-controller", "job-controller", "job-controller", crate::job::start),
    entry(
        "validatingadmissionpolicy-status-controller",
        "validatingadmissionpolicy-status-controller",
        "validatingadmissionpolicy-status",
        crate::admission_policy_status::start,
    ),
    entry(
        "ttl-after-finished-controller",
        "ttl-after-finished-controller",
        "ttl-after-finished-controller",
        crate::ttl_after_finished::start,
    ),
    entry("statefulset-controller", "statefulset-controller", "statefulset-controller", crate::stateful_set::start),
    entry("cronjob-controller", "cronjob-controller", "cronjob-controller", crate::cron_job::start),
    entry("endpoints-controller", "endpoint-controller", "endpoint-controller", crate::endpoints::start),
    entry("namespace-controller", "namespace-controller", "namespace-controller", crate::namespace::start),
    entry(
        "garbage-collector-controller",
        "generic-garbage-collector",
        "garbage-collector-controller",
        crate::garbage::start,
    ),
    entry("node-lifecycle-controller", "node-controller", "node-controller", crate::node_lifecycle::start),
    entry("taint-eviction-controller", "node-controller", "taint-eviction-controller", crate::taint_eviction::start),
    entry(
        "horizontal-pod-autoscaler-controller",
        "horizontal-pod-autoscaler",
        "horizontal-pod-autoscaler",
        crate::horizontal_pod_autoscaler::start,
    ),
    entry("disruption-controller", "disruption-controller", "controllermanager", crate::disruption::start),
    entry(
        "resourcequota-controller",
        "resourcequota-controller",
        "resourcequota-controller",
        crate::resource_quota::start,
    ),
    entry(
        "certificatesigningrequest-approving-controller",
        "certificate-controller",
        "certificate-controller",
        crate::csr::start_approving,
    ),
    entry(
        "certificatesigningrequest-signing-controller",
        "certificate-controller",
        "certificate-controller",
        crate::csr::start_signing,
    ),
    entry(
        "certificatesigningrequest-cleaner-controller",
        "certificate-controller",
        "certificate-controller",
        crate::csr::start_cleaning,
    ),
    entry(
        "ephemeral-volume-controller",
        "ephemeral-volume-controller",
        "ephemeral_volume",
        crate::ephemeral_volume::start,
    ),
    entry(
        "persistentvolume-binder-controller",
        "persistent-volume-binder",
        "persistentvolume-controller",
        crate::volume_binder::start,
    ),
    entry("resourceclaim-controller", "resource-claim-controller", "resource_claim", crate::resource_claim::start),
    entry(
        "device-taint-eviction-controller",
        "device-taint-eviction-controller",
        "device-taint-eviction-controller",
        crate::device_taint_eviction::start,
    ),
    entry(
        "persistentvolume-attach-detach-controller",
        "attachdetach-controller",
        "attachdetach-controller",
        crate::attach_detach::start,
    ),
    entry("persistentvolume-expander-controller", "expand-controller", "volume_expand", crate::volume_expansion::start),
    entry(
        "endpointslice-mirroring-controller",
        "endpointslicemirroring-controller",
        "endpoint-slice-mirroring-controller",
        crate::endpoint_slice_mirroring::start,
    ),
    entry(
        "service-cidr-controller",
        "service-cidrs-controller",
        "service-cidrs-controller",
        crate::service_cidr::start,
    ),
    entry("service-lb-controller", "service-controller", "service-controller", crate::load_balancer::start),
    Entry {
        is_on_by_default: false,
        ..entry("bootstrap-signer-controller", "bootstrap-signer", "bootstrap-signer", crate::bootstrap_signer::start)
    },
    Entry {
        is_on_by_default: false,
        ..entry("token-cleaner-controller", "token-cleaner", "token-cleaner", crate::token_cleaner::start)
    },
    entry(
        "legacy-serviceaccount-token-cleaner-controller",
        "legacy-service-account-token-cleaner",
        "legacy-serviceaccount-token-cleaner",
        crate::legacy_token_cleaner::start,
    ),
    entry("node-ipam-controller", "node-controller", "cidrAllocator", crate::node_ipam::start),
    entry(
        "clusterrole-aggregation-controller",
        "clusterrole-aggregation-controller",
        "clusterrole-aggregation-controller",
        crate::cluster_role_aggregation::start,
    ),
    entry(
        "persistentvolumeclaim-protection-controller",
        "pvc-protection-controller",
        "persistentvolumeclaim-protection-controller",
        crate::volume_protection::start_claims,
    ),
    entry(
        "persistentvolume-protection-controller",
        "pv-protection-controller",
        "persistentvolume-protection-controller",
        crate::volume_protection::start_volumes,
    ),
    entry(
        "volumeattributesclass-protection-controller",
        "volumeattributesclass-protection-controller",
        "volumeattributesclass-protection-controller",
        crate::attributes_class_protection::start,
    ),
    entry("ttl-controller", "ttl-controller", "ttl-controller", crate::ttl::start),
    entry(
        "pod-garbage-collector-controller",
        "pod-garbage-collector",
        "pod-garbage-collector-controller",
        crate::pod_gc::start,
    ),
];

/// The names of all controllers, as `--controllers` takes them.
pub fn controller_names() -> Vec<&'static str> {
    CONTROLLERS.iter().map(|entry| entry.name).collect()
}

/// Runs the selected controllers until `shutdown`. Losing the lease ends the term, not the component.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), Error> {
    let known: Vec<(&str, bool)> = CONTROLLERS.iter().map(|entry| (entry.name, entry.is_on_by_default)).collect();
    for name in crate::upstream::without_effect(&config.controllers) {
        tracing::warn!(component = COMPONENT, name, "a controller that --controllers names is not here");
    }
    let selected = select_controllers(&config.controllers, &known)?;
    crate::node_ipam::ranges(&config)?;
    let entries: Vec<&Entry> = CONTROLLERS.iter().filter(|entry| selected.contains(&entry.name)).collect();
    let status = deps.status.component(COMPONENT);
    let mut elector = match config.leader.clone() {
        Some(leader) => {
            let elector = LeaderElector::new(deps.client.clone(), leader)?;
            Some(elector.counted(&deps.metrics.component.leases).clocked(deps.clock.clone()))
        }
        None => None,
    };
    let fence = elector.as_ref().map(LeaderElector::fence);
    let manager = Manager { config: Arc::new(config), deps, entries, fence, health: Health::new(status.clone()) };
    while !shutdown.is_cancelled() {
        let Some(elector) = elector.as_mut() else {
            manager.term(std::future::pending::<()>(), &shutdown).await;
            break;
        };
        if !elector.acquire(&shutdown).await {
            break;
        }
        tracing::info!(component = COMPONENT, "became the leader");
        if let Some(silent_for) = manager.term(elector.hold(&shutdown), &shutdown).await.flatten() {
            let text = format!(
                "the lease could not be renewed for {:.1} s; all controllers stopped, competing again",
                silent_for.as_secs_f64()
            );
            tracing::warn!(component = COMPONENT, text);
            status.degraded("LeaseLost", text);
        }
    }
    status.set(ComponentState::Stopped, "", "");
    Ok(())
}

struct Manager {
    config: Arc<Config>,
    deps: Deps,
    entries: Vec<&'static Entry>,
    /// Lets nothing be changed where another instance leads.
    fence: Option<Fence>,
    health: Health,
}

impl Manager {
    /// Runs all controllers until `end` is over or `shutdown` comes; `None` for the latter.
    async fn term<T>(&self, end: impl Future<Output = T>, shutdown: &CancellationToken) -> Option<T> {
        let token = shutdown.child_token();
        let mut tasks = JoinSet::new();
        for entry in &self.entries {
            self.start(entry, &mut tasks, &token);
        }
        let beat = async {
            loop {
                tokio::time::sleep(HEARTBEAT).await;
                self.deps.status.component(COMPONENT).heartbeat(None);
            }
        };
        // The lease is given back by `end` itself, so it is first to see the shutdown.
        let ended = tokio::select! {
            biased;
            ended = end => Some(ended),
            () = shutdown.cancelled(), if self.config.leader.is_none() => None,
            () = beat => None,
        };
        token.cancel();
        while tasks.join_next().await.is_some() {}
        self.health.clear();
        self.deps.metrics.forget_figures();
        ended
    }

    fn start(&self, entry: &Entry, tasks: &mut JoinSet<()>, token: &CancellationToken) {
        let client = match entry.identity {
            "" => self.deps.client.clone(),
            account => (self.deps.client_for)(account),
        };
        let client = match &self.fence {
            Some(fence) => fence.guard(client),
            None => client,
        };
        let recorder = Recorder::start(client.clone(), entry.event_source, "", token.clone());
        let context = Context {
            client,
            informers: self.deps.informers.clone(),
            recorder,
            clock: self.deps.clock.clone(),
            config: self.config.clone(),
            signer: self.deps.signer.clone(),
            token_keys: self.deps.token_keys.clone(),
            metrics: self.deps.metrics.clone(),
            shutdown: token.clone(),
        };
        let health = self.health.clone();
        (entry.start)(Starter { name: entry.name, context, tasks, health, synced: Vec::new() });
    }
}
