//! Stopping containers: hooks, grace periods, the order of sidecars, and the sandbox last.
//!
//! Invariant: a container gets its whole grace period unless somebody shortened it, and sidecars outlive the containers they
//! serve.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kedge_client::EventType;
use kedge_cri::CriError;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::agent::Agent;
use crate::hooks;
use crate::runtime_state::{ContainerPhase, ContainerRecord, PodRuntime};
use crate::spec;
use crate::stop_signal;

/// Upstream's least shutdown window, in seconds.
const MINIMUM_GRACE: u64 = 2;

/// Stops one container. `message` is the text of the event, where it is not the usual one.
pub(crate) async fn kill_container(
    agent: &Agent,
    pod: &Pod,
    record: &ContainerRecord,
    grace: Duration,
    message: Option<&str>,
    run_hook: bool,
) -> Result<(), CriError> {
    kill_in_turn(agent, pod, record, grace, message, run_hook, std::future::ready(())).await
}

/// The same, but the stop itself waits for its `turn`, at most as long as the grace period.
async fn kill_in_turn(
    agent: &Agent,
    pod: &Pod,
    record: &ContainerRecord,
    grace: Duration,
    message: Option<&str>,
    run_hook: bool,
    turn: impl Future<Output = ()>,
) -> Result<(), CriError> {
    let text = message.map_or_else(|| format!("Stopping container {}", record.name), str::to_owned);
    agent.events.container(pod, &record.name, EventType::Normal, "Killing", text);
    let began = Instant::now();
    if run_hook && !grace.is_zero() {
        run_pre_stop(agent, pod, record, grace).await;
    }
    // Whoever's turn does not come in time is stopped all the same.
    let _ = tokio::time::timeout(grace.saturating_sub(began.elapsed()), turn).await;
    let left = rest_of(grace, began.elapsed());
    let container = spec::find_container(pod, &record.name);
    match stop_signal::stop(agent, container.as_ref(), record, left).await {
        Err(error) if !error.is_not_found() => {
            tracing::warn!(pod = spec::format_pod(pod), container = record.name, %error, "failed to stop a container");
            Err(error)
        }
        _ => Ok(()),
    }
}

/// What is left of a grace period. The runtime counts whole seconds; one that has only begun is not taken off, as with
/// upstream.
fn rest_of(grace: Duration, used: Duration) -> Duration {
    grace.saturating_sub(Duration::from_secs(used.as_secs())).max(Duration::from_secs(MINIMUM_GRACE))
}

async fn run_pre_stop(agent: &Agent, pod: &Pod, record: &ContainerRecord, grace: Duration) {
    let container = spec::find_container(pod, &record.name);
    let Some(container) = container else { return };
    let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else { return };
    match tokio::time::timeout(grace, hooks::run(agent, pod, &container, &record.id, hook)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(pod = spec::format_pod(pod), container = record.name, error, "a preStop hook failed");
            agent.events.container(pod, &record.name, EventType::Warning, "FailedPreStopHook", "PreStopHook failed");
        }
        Err(_) => {
            tracing::info!(pod = spec::format_pod(pod), container = record.name, "a preStop hook did not end in time")
        }
    }
}

/// Stops every running container of a pod: first all but the sidecars, then the sidecars from the last to the first. The
/// hooks of all run at once.
pub(crate) async fn kill_containers(
    agent: &Agent,
    pod: &Pod,
    state: &PodRuntime,
    grace: Duration,
    run_hooks: bool,
) -> Result<(), CriError> {
    let running: Vec<&ContainerRecord> = state
        .containers
        .iter()
        .filter(|record| matches!(record.phase, ContainerPhase::Running | ContainerPhase::Unknown))
        .collect();
    // How many are left at each place in the order; a place's turn comes when nobody before it is left.
    let mut left: BTreeMap<usize, usize> = BTreeMap::new();
    for record in &running {
        *left.entry(place(pod, &record.name)).or_default() += 1;
    }
    let (left, _) = watch::channel(left);
    let kills = running.iter().map(|record| {
        let (place, mut seen, left) = (place(pod, &record.name), left.subscribe(), &left);
        async move {
            let turn = async {
                let free = |left: &BTreeMap<usize, usize>| left.range(..place).all(|(_, count)| *count == 0);
                // The sender lives as long as this function.
                let _ = seen.wait_for(free).await;
            };
            let killed = kill_in_turn(agent, pod, record, grace, None, run_hooks, turn).await;
            left.send_modify(|left| *left.entry(place).or_default() -= 1);
            killed
        }
    });
    join_all(kills).await.into_iter().find(Result::is_err).unwrap_or(Ok(()))
}

/// Zero for all but sidecars, which come from the last to the first.
fn place(pod: &Pod, name: &str) -> usize {
    let sidecars = spec::init_containers(pod).iter().filter(|container| spec::is_restartable_init(container));
    sidecars.rev().position(|sidecar| sidecar.name == name).map_or(0, |position| position + 1)
}

/// Stops every sandbox of a pod. One that died with the node is not ready and still has its address until it is stopped.
pub(crate) async fn stop_sandboxes(agent: &Agent, state: &PodRuntime) -> Result<(), CriError> {
    for sandbox in &state.sandboxes {
        match agent.runtime.stop_pod_sandbox(&sandbox.id).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Removes everything the runtime has of a pod that is over.
pub(crate) async fn remove_all(agent: &Agent, state: &PodRuntime) -> Result<(), CriError> {
    for container in &state.containers {
        remove_container(agent, container).await?;
    }
    for sandbox in &state.sandboxes {
        stop_and_remove(agent, &sandbox.id).await?;
    }
    Ok(())
}

async fn stop_and_remove(agent: &Agent, sandbox_id: &str) -> Result<(), CriError> {
    let ignore_gone = |result: Result<(), CriError>| match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    };
    ignore_gone(agent.runtime.stop_pod_sandbox(sandbox_id).await)?;
    ignore_gone(agent.runtime.remove_pod_sandbox(sandbox_id).await)
}

/// Removes a dead container with its log.
pub(crate) async fn remove_container(agent: &Agent, record: &ContainerRecord) -> Result<(), CriError> {
    match agent.runtime.remove_container(&record.id).await {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    crate::log_links::remove(&agent.config, record);
    Ok(())
}

/// Dead containers beyond the newest of each name, and sandboxes that nothing belongs to any more.
pub(crate) async fn collect_dead(agent: &Arc<Agent>, state: &PodRuntime) {
    for id in surplus_containers(state) {
        let Some(record) = state.containers.iter().find(|record| record.id == id) else { continue };
        if let Err(error) = remove_container(agent, record).await {
            tracing::debug!(container = record.name, %error, "failed to remove a dead container");
        }
    }
    for id in surplus_sandboxes(state) {
        if let Err(error) = stop_and_remove(agent, &id).await {
            tracing::debug!(sandbox = id, %error, "failed to remove a dead sandbox");
        }
    }
}

/// One dead container is kept for each name, for its log and its last state.
fn surplus_containers(state: &PodRuntime) -> Vec<String> {
    let mut kept: Vec<&str> = Vec::new();
    let mut surplus = Vec::new();
    for record in state.containers.iter().filter(|record| record.phase == ContainerPhase::Exited) {
        if kept.contains(&record.name.as_str()) {
            surplus.push(record.id.clone());
        } else {
            kept.push(&record.name);
        }
    }
    surplus
}

fn surplus_sandboxes(state: &PodRuntime) -> Vec<String> {
    let used = |id: &str| state.containers.iter().any(|container| container.sandbox_id == id);
    let old = state.sandboxes.iter().skip(1).filter(|sandbox| !sandbox.ready && !used(&sandbox.id));
    old.map(|sandbox| sandbox.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Container, PodSpec};

    use crate::runtime_state::fixtures::{container, runtime, sandbox};

    #[test]
    fn sidecars_are_stopped_last_in_reverse_order() {
        let named = |name: &str, policy: Option<&str>| Container {
            name: name.to_owned(),
            restart_policy: policy.map(str::to_owned),
            ..Container::default()
        };
        let spec = PodSpec {
            init_containers: Some(vec![named("a", Some("Always")), named("i", None), named("b", Some("Always"))]),
            containers: vec![named("c", None)],
            ..PodSpec::default()
        };
        let pod = Pod { spec: Some(spec), ..Pod::default() };
        assert_eq!(["c", "i", "b", "a"].map(|name| place(&pod, name)), [0, 0, 1, 2]);
    }

    #[test]
    fn a_second_that_has_only_begun_is_not_taken_off_the_grace_period() {
        let check = |grace: u64, used: u64, expected: u64| {
            assert_eq!(rest_of(Duration::from_secs(grace), Duration::from_millis(used)), Duration::from_secs(expected));
        };
        check(30, 0, 30);
        check(30, 1, 30);
        check(30, 999, 30);
        check(30, 1_000, 29);
        check(30, 27_300, 3);
        check(30, 45_000, 2);
        check(0, 0, 2);
    }

    #[test]
    fn one_dead_container_of_each_name_is_kept() {
        let dead = |id: &str, name: &str, created_at: i64| ContainerRecord {
            id: id.to_owned(),
            created_at,
            ..container(name, ContainerPhase::Exited, 1)
        };
        let mut live = container("a", ContainerPhase::Running, 0);
        live.created_at = 9;
        let state =
            runtime(vec![sandbox(0, true)], vec![live, dead("a1", "a", 1), dead("a2", "a", 2), dead("b1", "b", 1)]);
        assert_eq!(surplus_containers(&state), ["a1"]);
    }

    #[test]
    fn old_sandboxes_go_when_nothing_is_left_in_them() {
        let mut used = container("a", ContainerPhase::Exited, 1);
        used.sandbox_id = "sandbox-1".to_owned();
        let state = runtime(vec![sandbox(0, false), sandbox(1, false), sandbox(2, true)], vec![used]);
        assert_eq!(surplus_sandboxes(&state), ["sandbox-0"]);
    }
}
