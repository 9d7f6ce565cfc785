//! The task of one pod: it brings the runtime to what the pod should be, reports its status, and ends it in the end.
//!
//! Decisions are made in `plan.rs` and `status.rs`. Invariant: one task for each pod uid, and nothing else changes that
//! pod's sandboxes and containers.

mod end;
mod resize;
mod steps;
mod volumes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kedge_client::EventType;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::volumes::PodVolumes;
use crate::agent::Agent;
use crate::container_config::SubPaths;
use crate::device_work::{self, DeviceProblem};
use crate::kill;
use crate::plan::{self, Action, Verdicts};
use crate::probes::{PodProbes, ProbeKind};
use crate::spec;
use crate::status::{self, StartFailure, StatusInput, Stop};
use crate::termination::Termination;

/// How often a pod is looked at without a reason.
const RESYNC: Duration = Duration::from_secs(60);
const AFTER_KILL: Duration = Duration::from_secs(1);
const SANDBOX_RETRY: Duration = Duration::from_secs(5);
const NETWORK_RETRY: Duration = Duration::from_secs(1);

/// What the sources of pods say about one pod.
#[derive(Debug, Clone)]
pub(crate) struct Desired {
    pub(crate) pod: Arc<Pod>,
    /// No source has it any more.
    pub(crate) removed: bool,
    /// The node refuses it.
    pub(crate) stop: Option<Stop>,
    /// The node ends it, and how.
    pub(crate) termination: Option<Arc<Termination>>,
}

impl Desired {
    fn ends(&self) -> bool {
        self.removed || self.stop.is_some() || self.pod.metadata.deletion_timestamp.is_some()
    }
}

/// The manager's end of a worker.
pub(crate) struct WorkerHandle {
    pub(crate) desired: watch::Sender<Desired>,
    pub(crate) wake: Arc<Notify>,
}

/// Starts the worker of a pod. It ends after the pod is removed and everything of it is gone.
pub(crate) fn spawn_worker(
    agent: Arc<Agent>,
    pod: Arc<Pod>,
    stop: Option<Stop>,
    gone: impl FnOnce() + Send + 'static,
) -> WorkerHandle {
    let wake = Arc::new(Notify::new());
    let (desired, receiver) = watch::channel(Desired { pod: pod.clone(), removed: false, stop, termination: None });
    let worker = Worker {
        probes: PodProbes::new(agent.clone(), wake.clone()),
        status: spec::pod_status(&pod).clone(),
        first_seen: Instant::now(),
        agent,
        desired: receiver,
        wake: wake.clone(),
        pod,
        published: false,
        failures: HashMap::new(),
        stop: None,
        volumes: PodVolumes::new(),
        sub_paths: SubPaths::default(),
        gated: None,
        has_devices: false,
    };
    let shutdown = worker.agent.shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = worker.run() => gone(),
        }
    });
    WorkerHandle { desired, wake }
}

struct Worker {
    agent: Arc<Agent>,
    desired: watch::Receiver<Desired>,
    wake: Arc<Notify>,
    pod: Arc<Pod>,
    status: PodStatus,
    published: bool,
    first_seen: Instant,
    failures: HashMap<String, StartFailure>,
    stop: Option<Stop>,
    probes: PodProbes,
    volumes: PodVolumes,
    sub_paths: SubPaths,
    /// The sandbox whose containers may start.
    gated: Option<String>,
    /// The pod has the devices that it asks for.
    has_devices: bool,
}

impl Worker {
    async fn run(mut self) {
        self.seed_verdicts();
        while self.refresh().await.is_err() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        loop {
            if self.must_end() {
                return self.end().await;
            }
            let (first, began) = (!self.published, Instant::now());
            let mut watcher = self.desired.clone();
            let interrupted = async move { watcher.wait_for(Desired::ends).await.map(|_| ()) };
            let next = tokio::select! {
                biased;
                // Whatever goes on, such as a long pull, is dropped when the pod is to end.
                _ = interrupted => continue,
                next = self.sync() => next,
            };
            self.agent.metrics.worker_round(first, began.elapsed());
            if self.must_end() {
                continue;
            }
            tokio::select! {
                _ = self.desired.changed() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(next) => {}
            }
        }
    }

    /// Takes what the sources say; whether the pod has to end.
    fn must_end(&mut self) -> bool {
        let desired = self.desired.borrow_and_update().clone();
        let (before, after) = (&self.pod.metadata, &desired.pod.metadata);
        // The downward API shows them in files.
        self.volumes.stale |= before.labels != after.labels || before.annotations != after.annotations;
        self.pod = self.agent.allocations.granted(&desired.pod);
        if self.stop.is_none() {
            self.stop.clone_from(&desired.stop);
        }
        desired.ends() || self.stop.is_some() || spec::is_terminal_phase(self.status.phase.as_deref())
    }

    fn uid(&self) -> &str {
        spec::uid(&self.pod)
    }

    /// After a restart of the kubelet, a container that was ready stays ready until a probe says otherwise.
    fn seed_verdicts(&self) {
        let all = [&self.status.container_statuses, &self.status.init_container_statuses];
        for known in all.into_iter().flatten().flatten() {
            let id = known.container_id.as_deref().and_then(|id| id.split_once("://")).map(|(_, id)| id);
            let Some(id) = id else { continue };
            if known.ready {
                self.agent.probes.set(id, ProbeKind::Readiness, Some(true));
            }
            if known.started == Some(true) {
                self.agent.probes.set(id, ProbeKind::Startup, Some(true));
            }
        }
    }

    async fn refresh(&self) -> Result<(), kedge_cri::CriError> {
        self.agent.states.refresh(self.uid()).await.map(|_| ())
    }

    /// Computes the status and hands it on where it changed.
    fn publish(&mut self, terminal: bool) {
        let terminal = terminal || spec::is_terminal_phase(self.status.phase.as_deref());
        let runtime = self.agent.states.get(self.uid());
        let probes = &self.agent.probes;
        let verdicts = |id: &str| probes.get(id);
        let mut generated = status::generate(&StatusInput {
            pod: &self.pod,
            runtime: &runtime,
            previous: &self.status,
            verdicts: &verdicts,
            failures: &self.failures,
            stop: self.stop.as_ref(),
            terminal,
            actuated: &self.agent.allocations.actuated(self.uid()),
            resize: &self.agent.allocations.state(self.uid()),
            host_ips: &self.agent.host_ips(),
            recursive_read_only: self.agent.recursive_read_only(),
            now: self.agent.now(),
        });
        if generated.phase.as_deref() == Some("Running") && self.status.phase.as_deref() != Some("Running") {
            self.agent.metrics.pod_started(self.first_seen.elapsed());
        }
        if let Some(termination) = &self.desired.borrow().termination {
            termination.mark(&mut generated, self.pod.metadata.generation);
        }
        if generated != self.status || !self.published {
            self.status = generated;
            self.published = true;
            self.agent.statuses.set(self.pod.clone(), self.status.clone());
        }
    }

    /// One round: status, volumes, plan, steps. How long until the next one is needed.
    async fn sync(&mut self) -> Duration {
        self.note_resize();
        self.publish(false);
        let mut next = RESYNC;
        match self.deadline() {
            Some(rest) if rest.is_zero() => {
                let message = "Pod was active on the node longer than the specified deadline";
                self.agent.events.pod(&self.pod, EventType::Normal, "DeadlineExceeded", message);
                let (reason, message) = ("DeadlineExceeded".to_owned(), message.to_owned());
                self.stop = Some(Stop { reason, message, rejected: false });
                return Duration::ZERO;
            }
            Some(rest) => next = next.min(rest),
            None => {}
        }
        if spec::is_terminal_phase(self.status.phase.as_deref()) {
            return Duration::ZERO;
        }
        if let Some(wait) = self.wait_for_network() {
            return wait.min(next);
        }
        if let Err(error) = self.make_directories() {
            tracing::error!(pod = spec::format_pod(&self.pod), %error, "failed to make the pod's directories");
            return SANDBOX_RETRY;
        }
        self.ensure_cgroup();
        if let Some(wait) = self.set_up_volumes().await {
            return wait.min(next);
        }
        if let Some(age) = self.volumes.next_refresh() {
            next = next.min(age);
        }
        let actions = self.plan();
        // What was just started may let others start; a pod that was only stopped shows so in its status.
        let again = match actions.as_slice() {
            [] => next,
            [Action::KillPod] => AFTER_KILL,
            _ => Duration::ZERO,
        };
        if let Some(wait) = self.get_devices(&actions).await {
            return wait;
        }
        let changes = !actions.is_empty();
        let retry = self.execute(actions).await;
        if changes {
            self.settle().await;
        }
        self.probes.ensure(&self.pod);
        match retry {
            None => next.min(again),
            Some(retry) => next.min(retry),
        }
    }

    /// A pod whose containers are to start gets its devices first. How long to wait where it has not got them.
    async fn get_devices(&mut self, actions: &[Action]) -> Option<Duration> {
        let starts = |action: &Action| !matches!(action, Action::KillPod | Action::Kill(_) | Action::Resize);
        if self.has_devices || !actions.iter().any(starts) {
            return None;
        }
        match device_work::get(&self.agent, &self.pod).await {
            Ok(()) => {
                self.has_devices = true;
                None
            }
            Err(DeviceProblem::Wait(wait)) => Some(wait),
            Err(DeviceProblem::Refuse(stop)) => {
                self.stop = Some(stop);
                Some(Duration::ZERO)
            }
        }
    }

    fn plan(&mut self) -> Vec<Action> {
        let runtime = self.agent.states.get(self.uid());
        let probes = &self.agent.probes;
        let resize = self.resize_plan(&runtime);
        let verdicts =
            |id: &str| Verdicts { resize_restart: resize.restarts.iter().any(|known| known == id), ..probes.get(id) };
        let mut actions = plan::plan_pod(&self.pod, &runtime, &verdicts);
        if !resize.is_empty() {
            actions = plan::with_resize(actions);
        }
        // A container that runs has nothing to complain about any more.
        self.failures.retain(|name, _| runtime.container(name).is_none_or(|record| !record.running()));
        actions
    }

    /// After own steps: the runtime's new state, at once in the status.
    async fn settle(&mut self) {
        if let Err(error) = self.refresh().await {
            tracing::warn!(pod = spec::format_pod(&self.pod), %error, "failed to read the pod's state");
        }
        self.note_resize();
        self.publish(false);
        let state = self.agent.states.get(self.uid());
        kill::collect_dead(&self.agent, &state).await;
    }

    /// The rest of `activeDeadlineSeconds`.
    fn deadline(&self) -> Option<Duration> {
        let seconds = spec::pod_spec(&self.pod).active_deadline_seconds?;
        let start = self.status.start_time.as_ref()?.0;
        let age = self.agent.now().as_second() - start.as_second();
        Some(Duration::from_secs(u64::try_from(seconds - age).unwrap_or(0)))
    }

    /// A pod that needs a sandbox waits for the network, unless it uses the host's.
    fn wait_for_network(&self) -> Option<Duration> {
        if spec::host_network(&self.pod) {
            return None;
        }
        let problem = self.agent.network.lock().clone()?;
        plan::sandbox_needed(&self.pod, &self.agent.states.get(self.uid()))?;
        let message = format!("network is not ready: {problem}");
        self.agent.events.pod(&self.pod, EventType::Warning, "NetworkNotReady", message);
        Some(NETWORK_RETRY)
    }

    /// A pod's cgroup gets its limits before its sandbox; later only a resize changes them, in an order of its own.
    fn ensure_cgroup(&self) {
        if plan::sandbox_needed(&self.pod, &self.agent.states.get(self.uid())).is_some() {
            self.agent.cgroups.ensure(&self.pod);
            self.agent.allocations.set_pod_actuated(&self.pod);
        }
    }

    fn make_directories(&self) -> std::io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let pod_dir = self.agent.config.pod_dir(self.uid());
        std::fs::DirBuilder::new().recursive(true).mode(0o750).create(&pod_dir)?;
        for part in ["volumes", "plugins"] {
            std::fs::DirBuilder::new().recursive(true).mode(0o750).create(pod_dir.join(part))?;
        }
        let logs = self.agent.config.pod_log_dir(spec::namespace(&self.pod), spec::name(&self.pod), self.uid());
        std::fs::create_dir_all(logs)
    }

    fn pod_ips(&self) -> Vec<String> {
        let state = self.agent.states.get(self.uid());
        state.ready_sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default()
    }
}
