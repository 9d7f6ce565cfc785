//! The task of one pod: it brings the runtime to what the pod should be, reports its status, and ends it in the end.
//!
//! Decisions are made in `plan.rs` and `status.rs`. Invariant: one task for each pod uid, and nothing else changes that
//! pod's sandboxes and containers.

mod end;
mod resize;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus, Secret};
use kedge_client::EventType;
use kedge_volumes::{MountedVolumes, VolumeError};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::agent::Agent;
use crate::container_config::SubPaths;
use crate::device_work::{self, DeviceProblem};
use crate::field_ref::Fields;
use crate::kill;
use crate::outside::Outside;
use crate::plan::{self, Action, Kill, KillReason, Verdicts};
use crate::pod_gate;
use crate::probes::{PodProbes, ProbeKind};
use crate::runtime_state::PodRuntime;
use crate::sandbox::sandbox_config;
use crate::spec;
use crate::start::{self, StartInput};
use crate::status::{self, StartFailure, StatusInput, Stop};
use crate::termination::Termination;

/// How often a pod is looked at without a reason.
const RESYNC: Duration = Duration::from_secs(60);
/// How old ConfigMaps and Secrets in volumes may become.
const VOLUME_AGE: Duration = Duration::from_secs(45);
/// After this time without its volumes, upstream says so about the pod as a whole.
const VOLUMES_IN_TIME: Duration = Duration::from_secs(123);
const SHARED_AGE: Duration = Duration::from_secs(5);
const AFTER_KILL: Duration = Duration::from_secs(1);
const SANDBOX_RETRY: Duration = Duration::from_secs(5);
const NETWORK_RETRY: Duration = Duration::from_secs(1);
/// Upstream's `podAttachAndMountTimeout`.
const VOLUME_PATIENCE: Duration = Duration::from_secs(123);
const LONGEST_VOLUME_RETRY: Duration = Duration::from_secs(122);

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
        volumes: None,
        volumes_set_up: Instant::now(),
        volumes_stale: false,
        volume_retry: Duration::from_millis(500),
        volume_work: Outside::default(),
        volumes_wanted: Instant::now(),
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
    volumes: Option<MountedVolumes>,
    volumes_set_up: Instant,
    volumes_stale: bool,
    volume_retry: Duration,
    volume_work: Outside<Result<MountedVolumes, VolumeProblem>>,
    volumes_wanted: Instant,
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
        self.volumes_stale |= before.labels != after.labels || before.annotations != after.annotations;
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
        if self.volumes.as_ref().is_some_and(|volumes| volumes.live) {
            next = next.min(VOLUME_AGE.saturating_sub(self.volumes_set_up.elapsed()));
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

    /// Makes the volumes, or refreshes them from time to time. How long to wait where that failed.
    async fn set_up_volumes(&mut self) -> Option<Duration> {
        let due = self.volumes_stale || self.volumes_set_up.elapsed() >= VOLUME_AGE;
        if self.volumes.as_ref().is_some_and(|volumes| !(volumes.live && due)) {
            return None;
        }
        // Several volumes of one object need one request.
        let age = if self.volumes.is_some() { SHARED_AGE } else { Duration::ZERO };
        // What hangs may have begun before the pod changed.
        self.volumes_stale = self.volume_work.is_pending();
        let (agent, pod, ips) = (self.agent.clone(), self.pod.clone(), self.pod_ips());
        let work = move || async move {
            let fields = Fields { pod: &pod, node: agent.node_facts(&pod, &ips) };
            agent.volumes.set_up(&pod, &fields, age).await.map_err(VolumeProblem::from)
        };
        let result = self.volume_work.run(VOLUME_PATIENCE, work).await;
        match result.unwrap_or_else(|| Err(hanging_volumes(&self.pod))) {
            Ok(mut mounted) => {
                for news in mounted.news.drain(..) {
                    let event_type = if news.warning { EventType::Warning } else { EventType::Normal };
                    self.agent.events.pod(&self.pod, event_type, news.reason, news.message);
                }
                self.agent.mounted.set(self.uid(), &mounted.paths);
                self.volumes = Some(mounted);
                self.volumes_set_up = Instant::now();
                self.volume_retry = Duration::from_millis(500);
                None
            }
            Err(error) => {
                self.agent.events.pod(&self.pod, EventType::Warning, error.reason, error.message);
                if self.volumes.is_none() && self.volumes_wanted.elapsed() >= VOLUMES_IN_TIME {
                    self.agent.events.pod(&self.pod, EventType::Warning, "FailedMount", error.timed_out);
                    self.volumes_wanted = Instant::now();
                }
                self.volumes_set_up = Instant::now();
                let wait = self.volume_retry;
                self.volume_retry = (wait * 2).min(LONGEST_VOLUME_RETRY);
                // Volumes that were there once are good enough to go on with.
                self.volumes.is_none().then_some(wait)
            }
        }
    }

    fn pod_ips(&self) -> Vec<String> {
        let state = self.agent.states.get(self.uid());
        state.ready_sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default()
    }

    /// Carries out the steps; how long until a failed one is to be tried again, if one failed.
    async fn execute(&mut self, actions: Vec<Action>) -> Option<Duration> {
        let mut retry: Option<Duration> = None;
        let sooner = |retry: Option<Duration>, wait: Duration| Some(retry.map_or(wait, |retry| retry.min(wait)));
        if actions.iter().any(|action| matches!(action, Action::CreateSandbox { changed: true, .. })) {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.agent.events.pod(&self.pod, EventType::Normal, "SandboxChanged", message);
        }
        let secrets = match actions
            .iter()
            .any(|action| matches!(action, Action::Start(_) | Action::StartInit(_) | Action::StartEphemeral(_)))
        {
            true => self.pull_secrets().await,
            false => Vec::new(),
        };
        let before = self.agent.states.get(self.uid());
        let count = actions.len();
        for (index, action) in actions.into_iter().enumerate() {
            let result = match action {
                Action::KillPod => self.kill_pod().await,
                Action::Kill(kill) => self.kill(&kill).await,
                Action::Resize => match self.resize().await {
                    Ok(()) => Ok(()),
                    // What is to be started does not wait for what is to be changed.
                    Err(wait) => {
                        retry = sooner(retry, wait);
                        continue;
                    }
                },
                Action::CreateSandbox { attempt, .. } => self.create_sandbox(attempt).await,
                Action::StartEphemeral(name) => match self.start(&name, &secrets, &before, true).await {
                    Ok(()) => Ok(()),
                    Err(wait) => {
                        retry = sooner(retry, wait);
                        continue;
                    }
                },
                Action::StartInit(name) => self.start(&name, &secrets, &before, false).await,
                Action::Start(name) => match self.start(&name, &secrets, &before, false).await {
                    Ok(()) => Ok(()),
                    // The other containers do not wait for this one.
                    Err(wait) => {
                        retry = sooner(retry, wait);
                        continue;
                    }
                },
            };
            if let Err(wait) = result {
                return sooner(retry, wait);
            }
            if index + 1 < count {
                self.progress().await;
            }
        }
        retry
    }

    /// Shows what was done so far before the next step, which may take long.
    async fn progress(&mut self) {
        if self.refresh().await.is_ok() {
            self.publish(false);
        }
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(u64::try_from(spec::termination_grace_seconds(&self.pod)).unwrap_or(0))
    }

    async fn kill_pod(&mut self) -> Result<(), Duration> {
        let state = self.agent.states.get(self.uid());
        let killed = kill::kill_containers(&self.agent, &self.pod, &state, self.grace(), true).await;
        let result = match killed {
            Ok(()) => kill::stop_sandboxes(&self.agent, &state).await,
            Err(error) => Err(error),
        };
        result.map_err(|error| {
            self.agent.events.pod(
                &self.pod,
                EventType::Warning,
                "FailedKillPod",
                format!("error killing pod: {error}"),
            );
            SANDBOX_RETRY
        })
    }

    async fn kill(&mut self, wanted: &Kill) -> Result<(), Duration> {
        let state = self.agent.states.get(self.uid());
        let Some(record) = state.containers.iter().find(|record| record.id == wanted.container_id) else {
            return Ok(());
        };
        let probe = spec::find_container(&self.pod, &wanted.name).and_then(|container| match wanted.reason {
            KillReason::Liveness => container.liveness_probe,
            KillReason::Startup => container.startup_probe,
            KillReason::DefinitionChanged | KillReason::Unknown | KillReason::Resize => None,
        });
        let own = probe.and_then(|probe| probe.termination_grace_period_seconds);
        let grace = own.map_or(self.grace(), |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        let killed = kill::kill_container(&self.agent, &self.pod, record, grace, Some(&wanted.message), true).await;
        killed.map_err(|_| SANDBOX_RETRY)
    }

    async fn create_sandbox(&mut self, attempt: u32) -> Result<(), Duration> {
        let fails = |worker: &Self, message: String| {
            let message = format!("Failed to create pod sandbox: {message}");
            worker.agent.events.pod(&worker.pod, EventType::Warning, "FailedCreatePodSandBox", message);
            SANDBOX_RETRY
        };
        let handler = self.runtime_handler().await.map_err(|error| fails(self, error))?;
        let config = sandbox_config(&self.agent, &self.pod, attempt, &handler).map_err(|error| fails(self, error))?;
        match self.agent.runtime.run_pod_sandbox(config, &handler).await {
            Ok(_) => Ok(()),
            Err(error) => Err(fails(self, error.to_string())),
        }
    }

    /// The handler that a RuntimeClass names.
    async fn runtime_handler(&self) -> Result<String, String> {
        let class = spec::pod_spec(&self.pod).runtime_class_name.as_deref().filter(|class| !class.is_empty());
        let Some(class) = class else { return Ok(String::new()) };
        let client = self.agent.objects.client().clone();
        let classes = kube::Api::<k8s_openapi::api::node::v1::RuntimeClass>::all(client);
        match classes.get_opt(class).await {
            Ok(Some(found)) => Ok(found.handler),
            Ok(None) => Err(format!("failed to get sandbox runtime: RuntimeClass {class:?} not found")),
            Err(error) => Err(format!("failed to get sandbox runtime: {error}")),
        }
    }

    async fn start(
        &mut self,
        name: &str,
        secrets: &[Secret],
        before: &PodRuntime,
        ephemeral: bool,
    ) -> Result<(), Duration> {
        let state = self.agent.states.get(self.uid());
        let Some(sandbox) = state.ready_sandbox() else { return Err(Duration::from_secs(1)) };
        let Some(container) = spec::find_container(&self.pod, name) else { return Ok(()) };
        let config = match sandbox_config(&self.agent, &self.pod, sandbox.attempt, "") {
            Ok(config) => config,
            Err(error) => {
                tracing::error!(pod = spec::format_pod(&self.pod), error, "failed to make the sandbox's configuration");
                return Err(SANDBOX_RETRY);
            }
        };
        if self.gated.as_ref() != Some(&sandbox.id) {
            pod_gate::pass(&self.agent, &self.pod, &sandbox.ips).await;
            self.gated = Some(sandbox.id.clone());
        }
        let volumes = self.volumes.clone().unwrap_or_default();
        let input = StartInput {
            pod: &self.pod,
            container: &container,
            state: &state,
            before,
            sandbox_id: &sandbox.id,
            sandbox: &config,
            volumes: &volumes,
            secrets,
            pod_ips: &sandbox.ips,
            ephemeral,
            sub_paths: &self.sub_paths,
        };
        match start::start_container(&self.agent, &input).await {
            Ok(()) => {
                self.failures.remove(name);
                Ok(())
            }
            Err(error) => {
                // A pod that waits is looked at now and then; that it still waits is no news.
                if self.failures.get(name) != Some(&error.failure) {
                    tracing::info!(
                        pod = spec::format_pod(&self.pod),
                        container = name,
                        reason = error.failure.reason,
                        message = error.failure.message,
                        "a container was not started"
                    );
                }
                self.failures.insert(name.to_owned(), error.failure);
                Err(error.retry_after)
            }
        }
    }

    async fn pull_secrets(&self) -> Vec<Secret> {
        let mut secrets = Vec::new();
        for reference in spec::pod_spec(&self.pod).image_pull_secrets.as_deref().unwrap_or_default() {
            let found = self.agent.objects.secret(spec::namespace(&self.pod), &reference.name, VOLUME_AGE).await;
            match found {
                Ok(secret) => secrets.push(secret.as_ref().clone()),
                Err(error) => {
                    let message = format!(
                        "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                        reference.name
                    );
                    tracing::debug!(%error, secret = reference.name, "no image pull secret");
                    self.agent.events.pod(&self.pod, EventType::Warning, "FailedToRetrieveImagePullSecret", message);
                }
            }
        }
        secrets
    }
}

/// What is said about volumes that take too long.
// DIVERGES: upstream records no event for a timeout, and the pod waits without a word.
fn hanging_volumes(pod: &Pod) -> VolumeProblem {
    let mut names: Vec<&str> =
        spec::pod_spec(pod).volumes.iter().flatten().map(|volume| volume.name.as_str()).collect();
    names.sort_unstable();
    let message = format!(
        "Unable to attach or mount volumes: unmounted volumes=[{}], unattached volumes=[], failed to process volumes=[]: \
         context deadline exceeded",
        names.join(" ")
    );
    VolumeProblem { reason: "FailedMount", timed_out: message.clone(), message }
}

/// What is said about a volume that is not there.
struct VolumeProblem {
    reason: &'static str,
    message: String,
    /// After two minutes without it.
    timed_out: String,
}

impl From<VolumeError> for VolumeProblem {
    fn from(error: VolumeError) -> Self {
        Self { reason: error.reason(), message: error.to_string(), timed_out: error.timed_out() }
    }
}
