//! The status of a pod, computed from its spec, the runtime's state and what probes and failed starts say.
//!
//! Pure: no clock, no I/O. Invariant: a terminal phase never changes again, and a condition's transition time moves only
//! when its status does.

mod conditions;
mod containers;
mod patch;
mod phase;
mod resources;

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, Pod, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub(crate) use patch::status_patch;

use crate::allocation::{PodResources, ResizeState};
use crate::plan::Verdicts;
use crate::resources::qos_class;
use crate::runtime_state::PodRuntime;
use crate::spec;

/// Why a container waits: a reason such as `ImagePullBackOff`, and a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartFailure {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// A decision of the node to end a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) reason: String,
    pub(crate) message: String,
    /// The node never took the pod.
    pub(crate) rejected: bool,
}

/// Everything that a status is computed from.
pub(crate) struct StatusInput<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) runtime: &'a PodRuntime,
    pub(crate) previous: &'a PodStatus,
    pub(crate) verdicts: &'a dyn Fn(&str) -> Verdicts,
    /// By container name.
    pub(crate) failures: &'a HashMap<String, StartFailure>,
    pub(crate) stop: Option<&'a Stop>,
    /// Nothing of the pod runs any more, and nothing will be started.
    pub(crate) terminal: bool,
    /// The resources that are in force.
    pub(crate) actuated: &'a PodResources,
    pub(crate) resize: &'a ResizeState,
    pub(crate) host_ips: &'a [String],
    /// The runtime can make mounts read-only with everything below them.
    pub(crate) recursive_read_only: bool,
    pub(crate) now: Timestamp,
}

/// The status.
pub(crate) fn generate(input: &StatusInput<'_>) -> PodStatus {
    let pod = input.pod;
    if let Some(stop) = input.stop.filter(|stop| stop.rejected && input.runtime.containers.is_empty()) {
        return rejected(input, stop);
    }
    if was_rejected(input) {
        return PodStatus { observed_generation: pod.metadata.generation, ..input.previous.clone() };
    }
    let lists = containers::statuses(input);
    let initialized = phase::has_initialized(pod, &lists);
    let mut phase = phase::phase(pod, &lists, input.terminal, initialized);
    let mut reason = None;
    let mut message = None;
    // The phase becomes terminal only once nothing runs any more, so that nobody takes the pod's place too early.
    if let Some(stop) = input.stop.filter(|_| input.terminal || !input.runtime.any_running()) {
        phase = "Failed";
        reason = Some(stop.reason.clone());
        message = Some(stop.message.clone());
    }
    if let Some(ended) = ended_phase(input) {
        phase = ended;
        reason = reason.or_else(|| input.previous.reason.clone());
        message = message.or_else(|| input.previous.message.clone());
    }
    if input.terminal && !spec::is_static(pod) && !spec::is_terminal_phase(Some(phase)) {
        phase = "Failed";
    }
    let ips = pod_ips(input);
    let (allocated, in_force) = resources::pod_resources(pod, input.actuated);
    let mut status = PodStatus {
        allocated_resources: allocated,
        resources: Some(in_force),
        phase: Some(phase.to_owned()),
        reason,
        message,
        qos_class: Some(qos_class(pod).as_str().to_owned()),
        start_time: input.previous.start_time.clone().or_else(|| Some(time(input.now))),
        observed_generation: pod.metadata.generation,
        host_ip: input.host_ips.first().cloned(),
        host_ips: non_empty(input.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: ips.first().cloned(),
        pod_ips: non_empty(ips.into_iter().map(|ip| PodIP { ip }).collect()),
        container_statuses: non_empty(lists.apps),
        init_container_statuses: non_empty(lists.inits),
        ephemeral_container_statuses: non_empty(lists.ephemerals),
        ..PodStatus::default()
    };
    status.conditions = Some(conditions::conditions(input, &status, initialized));
    status
}

/// Nothing is said about containers that nobody ever meant to start.
fn rejected(input: &StatusInput<'_>, stop: &Stop) -> PodStatus {
    PodStatus {
        phase: Some("Failed".to_owned()),
        reason: Some(stop.reason.clone()),
        message: Some(stop.message.clone()),
        qos_class: Some(qos_class(input.pod).as_str().to_owned()),
        start_time: input.previous.start_time.clone().or_else(|| Some(time(input.now))),
        observed_generation: input.pod.metadata.generation,
        conditions: input.previous.conditions.clone(),
        ..PodStatus::default()
    }
}

/// As known after a restart.
fn was_rejected(input: &StatusInput<'_>) -> bool {
    let previous = input.previous;
    let untold = previous.container_statuses.is_none() && previous.init_container_statuses.is_none();
    previous.phase.as_deref() == Some("Failed") && untold && input.runtime.containers.is_empty()
}

fn ended_phase(input: &StatusInput<'_>) -> Option<&'static str> {
    match input.previous.phase.as_deref() {
        Some("Failed") => Some("Failed"),
        Some("Succeeded") => Some("Succeeded"),
        _ => None,
    }
}

fn pod_ips(input: &StatusInput<'_>) -> Vec<String> {
    if spec::host_network(input.pod) {
        return input.host_ips.to_vec();
    }
    if let Some(sandbox) = input.runtime.ready_sandbox().filter(|sandbox| !sandbox.ips.is_empty()) {
        return sandbox.ips.clone();
    }
    let known = input.previous.pod_ips.iter().flatten().map(|ip| ip.ip.clone());
    known.collect()
}

fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// API times have whole seconds.
pub(crate) fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// The API time of CRI nanoseconds; absent for zero.
pub(crate) fn time_from_nanos(nanos: i64) -> Option<Time> {
    (nanos > 0).then(|| Timestamp::from_nanosecond(i128::from(nanos)).ok()).flatten().map(time)
}

#[cfg(test)]
mod tests;
