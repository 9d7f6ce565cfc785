//! Starting one container: back-off, image, creation, start and postStart hook, with upstream's events and reasons.
//!
//! Invariant: a failure leaves a reason that the pod's status shows, and a time after which the start is tried again.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use kedge_client::EventType;
use kedge_cri::v1;
use kedge_volumes::MountedVolumes;

use crate::agent::Agent;
use crate::container_config::{ContainerInput, SubPaths, container_config};
use crate::hooks;
use crate::image_volumes;
use crate::images::{self, ImageFailure, ImageRequest, go_duration};
use crate::kill;
use crate::labels;
use crate::runtime_state::{ContainerPhase, PodRuntime};
use crate::spec;
use crate::status::StartFailure;

/// How long until a failed start is tried again, where no back-off governs it.
const RETRY: Duration = Duration::from_secs(10);

/// A start that did not happen.
#[derive(Debug)]
pub(crate) struct StartError {
    pub(crate) failure: StartFailure,
    pub(crate) retry_after: Duration,
}

impl StartError {
    fn new(reason: &str, message: String, retry_after: Duration) -> Self {
        Self { failure: StartFailure { reason: reason.to_owned(), message }, retry_after }
    }
}

/// Where a container is started.
pub(crate) struct StartInput<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) state: &'a PodRuntime,
    /// The state before this round: a container that the node itself has just killed does not wait for that.
    pub(crate) before: &'a PodRuntime,
    pub(crate) sandbox_id: &'a str,
    pub(crate) sandbox: &'a v1::PodSandboxConfig,
    pub(crate) volumes: &'a MountedVolumes,
    pub(crate) secrets: &'a [Secret],
    pub(crate) pod_ips: &'a [String],
    /// Ephemeral containers are never restarted.
    pub(crate) ephemeral: bool,
    /// What is under way in volumes.
    pub(crate) sub_paths: &'a SubPaths,
}

/// Starts the container, or says why not.
pub(crate) async fn start_container(agent: &Agent, input: &StartInput<'_>) -> Result<(), StartError> {
    if !input.ephemeral {
        check_back_off(agent, input)?;
    }
    let kind = match spec::init_containers(input.pod).iter().any(|init| init.name == input.container.name) {
        _ if input.ephemeral => "ephemeral_container",
        true => "init_container",
        false => "container",
    };
    agent.metrics.started_containers.count(&[kind]);
    let started = start_now(agent, input).await;
    if let Err(error) = &started {
        agent.metrics.started_container_errors.count(&[kind, &error.failure.reason]);
    }
    started
}

async fn start_now(agent: &Agent, input: &StartInput<'_>) -> Result<(), StartError> {
    let (pod, container) = (input.pod, input.container);
    let event = |event_type: EventType, reason: &str, message: String| {
        agent.events.container(pod, &container.name, event_type, reason, message);
    };
    let failed = |failed: ImageFailure| {
        event(EventType::Warning, "Failed", format!("Error: {}", failed.told()));
        StartError { failure: failed.failure, retry_after: failed.retry_after }
    };
    let image_volumes = image_volumes::sources(agent, input).await.map_err(failed)?;
    let request = ImageRequest {
        pod,
        image: container.image.as_deref().unwrap_or_default(),
        policy: spec::image_pull_policy(container),
        container: Some(&container.name),
        secrets: input.secrets,
        sandbox: input.sandbox,
    };
    let image = images::ensure_image(agent, &request).await.map_err(failed)?;
    let restart_count = match input.state.container(&container.name) {
        Some(record) => record.notes.restart_count + 1,
        None => restart_count_from_logs(agent, pod, container),
    };
    let target = ephemeral_target(input);
    let wanted = ContainerInput {
        pod,
        container,
        restart_count,
        image: &image,
        volumes: input.volumes,
        image_volumes: &image_volumes,
        pod_ips: input.pod_ips,
        target,
        sub_paths: input.sub_paths,
    };
    let config = container_config(agent, &wanted).await.map_err(|error| {
        event(EventType::Warning, "Failed", format!("Error: {error}"));
        StartError::new("CreateContainerConfigError", error, RETRY)
    })?;
    let log = PathBuf::from(&input.sandbox.log_directory).join(&config.log_path);
    let created = agent.runtime.create_container(input.sandbox_id, config, input.sandbox.clone()).await;
    let id = created.map_err(|error| {
        event(EventType::Warning, "Failed", format!("Error: {}", error.message()));
        StartError::new("CreateContainerError", error.message().to_owned(), RETRY)
    })?;
    agent.allocations.set_actuated(pod, container);
    event(EventType::Normal, "Created", "Container created".to_owned());
    if let Err(error) = agent.runtime.start_container(&id).await {
        event(EventType::Warning, "Failed", format!("Error: {}", error.message()));
        return Err(StartError::new("RunContainerError", error.message().to_owned(), Duration::from_secs(1)));
    }
    event(EventType::Normal, "Started", "Container started".to_owned());
    crate::log_links::make(&agent.config, pod, &container.name, &id, &log);
    post_start(agent, input, &id).await
}

async fn post_start(agent: &Agent, input: &StartInput<'_>, id: &str) -> Result<(), StartError> {
    let (pod, container) = (input.pod, input.container);
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
    let Some(hook) = hook else { return Ok(()) };
    let Err(error) = hooks::run(agent, pod, container, id, hook).await else { return Ok(()) };
    tracing::warn!(pod = spec::format_pod(pod), container = container.name, error, "a postStart hook failed");
    agent.events.container(pod, &container.name, EventType::Warning, "FailedPostStartHook", "PostStartHook failed");
    let state = agent.states.refresh(spec::uid(pod)).await;
    if let Some(record) = state.ok().and_then(|state| state.containers.iter().find(|record| record.id == id).cloned()) {
        let grace = Duration::from_secs(u64::try_from(spec::termination_grace_seconds(pod)).unwrap_or(0));
        // A failure was logged; the next relist shows whether the container is still there.
        let _ = kill::kill_container(agent, pod, &record, grace, Some("FailedPostStartHook"), true).await;
    }
    Err(StartError::new("PostStartHookError", error, Duration::from_secs(1)))
}

/// The container whose processes an ephemeral container is to see.
fn ephemeral_target(input: &StartInput<'_>) -> Option<String> {
    let own = spec::ephemeral_containers(input.pod).iter().find(|ephemeral| ephemeral.name == input.container.name)?;
    let target = own.target_container_name.as_deref().filter(|target| !target.is_empty())?;
    input.state.container(target).map(|record| record.id.clone())
}

fn check_back_off(agent: &Agent, input: &StartInput<'_>) -> Result<(), StartError> {
    let (pod, container) = (input.pod, input.container);
    let ended = input.before.attempts(&container.name).find(|record| record.phase == ContainerPhase::Exited);
    let Some(ended) = ended else { return Ok(()) };
    let now = agent.now();
    let since = Timestamp::from_nanosecond(i128::from(ended.finished_at)).unwrap_or(now);
    let key = (spec::uid(pod).to_owned(), container.name.clone(), labels::container_hash(container));
    let mut restarts = agent.restarts.lock();
    let Some(rest) = restarts.remaining(&key, since, now) else {
        restarts.next(key, since, now);
        return Ok(());
    };
    let delay = restarts.delay(&key);
    drop(restarts);
    let whom = spec::format_pod(pod);
    let message = format!("Back-off restarting failed container {} in pod {whom}", container.name);
    agent.events.container(pod, &container.name, EventType::Warning, "BackOff", message);
    let message = format!("back-off {} restarting failed container={} pod={whom}", go_duration(delay), container.name);
    Err(StartError::new("CrashLoopBackOff", message, rest))
}

/// A runtime that lost its records still has the logs, whose names count the restarts.
fn restart_count_from_logs(agent: &Agent, pod: &Pod, container: &Container) -> u32 {
    let directory =
        agent.config.pod_log_dir(spec::namespace(pod), spec::name(pod), spec::uid(pod)).join(&container.name);
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.split_once(".log").and_then(|(number, _)| number.parse::<u32>().ok())
    });
    numbers.max().map_or(0, |newest| newest + 1)
}
