//! What becomes of a pod on a simulated node: its status as the kubelet would write it, and its end.
//!
//! Pure. Invariants: a terminal phase never changes again; a condition's transition time moves only when its status does;
//! a pod that others still have to count goes only after its terminal phase is known.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::annotations::PodScript;
use crate::containers::{Rules, completed, exit_code, stopped, turn, waiting};

/// What to do for a pod now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Its status is as it should be.
    Nothing,
    /// Its status should be this.
    Write(Box<PodStatus>),
    /// Nothing of it is left.
    Remove,
}

/// A step, and when to look again where nothing changes before.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Turn {
    pub(crate) step: Step,
    pub(crate) due: Option<Timestamp>,
}

impl Turn {
    fn now(step: Step) -> Self {
        Self { step, due: None }
    }
}

/// The addresses of a pod and of its node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses<'a> {
    pub(crate) pod: &'a str,
    pub(crate) node: &'a str,
}

/// Plans the next step of a pod that is bound to a node which acts.
pub(crate) fn plan(pod: &Pod, addresses: Addresses<'_>, now: Timestamp) -> Turn {
    let (Some(spec), previous) = (&pod.spec, pod.status.clone().unwrap_or_default()) else {
        return Turn::now(Step::Nothing);
    };
    let script = PodScript::of(pod);
    if let Some(deletion) = &pod.metadata.deletion_timestamp {
        return plan_end(pod, &previous, deletion.0, &script, now);
    }
    if is_over(&previous) {
        return Turn::now(Step::Nothing);
    }
    let (status, due) = alive(pod, spec, &previous, &script, addresses, now);
    match status == previous {
        true => Turn { step: Step::Nothing, due },
        false => Turn { step: Step::Write(Box::new(status)), due },
    }
}

fn plan_end(pod: &Pod, previous: &PodStatus, deletion: Timestamp, script: &PodScript, now: Timestamp) -> Turn {
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
    let grace = Duration::from_secs(u64::try_from(grace).unwrap_or_default());
    let stopped_at = deletion - grace + script.stop_time.min(grace);
    if now < stopped_at {
        return Turn { step: Step::Nothing, due: Some(stopped_at) };
    }
    let is_counted = pod.metadata.finalizers.iter().flatten().next().is_some();
    if is_counted && !is_over(previous) {
        return Turn::now(Step::Write(Box::new(ended(previous, None, now))));
    }
    // Without grace the API server removes it by itself, once nobody holds it any more.
    Turn::now(if grace.is_zero() && is_counted { Step::Nothing } else { Step::Remove })
}

fn is_over(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// The status of a pod that nobody wants to end, and when it changes next.
fn alive(
    pod: &Pod,
    spec: &PodSpec,
    previous: &PodStatus,
    script: &PodScript,
    addresses: Addresses<'_>,
    now: Timestamp,
) -> (PodStatus, Option<Timestamp>) {
    let begun = previous.start_time.as_ref().map_or_else(|| whole_seconds(now), |time| time.0);
    let deadline = spec.active_deadline_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let deadline = deadline.map(|seconds| begun + Duration::from_secs(seconds));
    if deadline.is_some_and(|deadline| deadline <= now) {
        let why = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline");
        return (ended(previous, Some(why), now), None);
    }
    let start = begun + script.start_delay;
    let rules = Rules { restart_policy: spec.restart_policy.as_deref().unwrap_or("Always"), script, start, now };
    let known = |name: &str| {
        let mut known = previous.container_statuses.iter().flatten();
        known.find(|status| status.name == name)
    };
    let turns: Vec<_> = spec.containers.iter().map(|one| turn(one, known(&one.name), rules)).collect();
    let due = turns.iter().filter_map(|(_, due)| *due).chain(deadline).min();
    let containers: Vec<ContainerStatus> = turns.into_iter().map(|(status, _)| status).collect();
    let has_started = start <= now;
    let phase = phase(&containers, has_started);
    let host_network = spec.host_network == Some(true);
    let pod_ip = if host_network { addresses.node } else { addresses.pod };
    let pod_ip = previous.pod_ip.clone().or_else(|| has_started.then(|| pod_ip.to_owned()));
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        observed_generation: pod.metadata.generation,
        start_time: Some(Time(begun)),
        host_ip: Some(addresses.node.to_owned()),
        host_ips: Some(vec![HostIP { ip: addresses.node.to_owned() }]),
        pod_ips: pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip,
        init_container_statuses: inits(spec, start, has_started),
        container_statuses: Some(containers),
        ..previous.clone()
    };
    set_conditions(&mut status, spec, has_started, now);
    (status, due)
}

fn phase(containers: &[ContainerStatus], has_started: bool) -> &'static str {
    let codes: Vec<Option<i32>> = containers.iter().map(exit_code).collect();
    match (has_started, codes.iter().all(Option::is_some)) {
        (false, _) => "Pending",
        (true, false) => "Running",
        (true, true) if codes.iter().all(|code| *code == Some(0)) => "Succeeded",
        (true, true) => "Failed",
    }
}

fn inits(spec: &PodSpec, start: Timestamp, has_started: bool) -> Option<Vec<ContainerStatus>> {
    let containers = spec.init_containers.as_deref().filter(|all| !all.is_empty())?;
    let is_sidecar = |container: &Container| container.restart_policy.as_deref() == Some("Always");
    let status = |container: &Container| match (has_started, is_sidecar(container)) {
        (false, _) => waiting(container, "PodInitializing"),
        (true, false) => completed(container, start),
        (true, true) => {
            let script = PodScript::of(&Pod::default());
            turn(container, None, Rules { restart_policy: "Always", script: &script, start, now: start }).0
        }
    };
    Some(containers.iter().map(status).collect())
}

/// The status of a pod whose containers the kubelet has ended, with why it did.
fn ended(previous: &PodStatus, why: Option<(&str, &str)>, now: Timestamp) -> PodStatus {
    let now = whole_seconds(now);
    let stop = |all: &Option<Vec<ContainerStatus>>| -> Option<Vec<ContainerStatus>> {
        all.as_ref().map(|all| all.iter().map(|status| stopped(status, now)).collect())
    };
    let mut status = PodStatus {
        phase: Some("Failed".to_owned()),
        container_statuses: stop(&previous.container_statuses),
        init_container_statuses: stop(&previous.init_container_statuses),
        reason: why.map(|(reason, _)| reason.to_owned()).or_else(|| previous.reason.clone()),
        message: why.map(|(_, message)| message.to_owned()).or_else(|| previous.message.clone()),
        ..previous.clone()
    };
    for type_ in ["ContainersReady", "Ready"] {
        set_condition(&mut status, type_, Some(("PodFailed", String::new())), now);
    }
    status
}

fn set_conditions(status: &mut PodStatus, spec: &PodSpec, has_started: bool, now: Timestamp) {
    let now = whole_seconds(now);
    let has_inits = spec.init_containers.iter().flatten().next().is_some();
    let unready: Vec<&str> =
        status.container_statuses.iter().flatten().filter(|one| !one.ready).map(|one| one.name.as_str()).collect();
    let reason = match status.phase.as_deref() {
        Some("Succeeded") => Some(("PodCompleted", String::new())),
        Some("Failed") => Some(("PodFailed", String::new())),
        _ if unready.is_empty() => None,
        _ => Some(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))),
    };
    let is_true = |type_: &str| {
        let mut all = status.conditions.iter().flatten();
        all.any(|condition| condition.type_ == type_ && condition.status == "True")
    };
    let mut gates = spec.readiness_gates.iter().flatten().map(|gate| gate.condition_type.as_str());
    let gate = gates.find(|type_| !is_true(type_));
    let gated = gate.map(|type_| {
        (
            "ReadinessGatesNotReady",
            format!("corresponding condition of pod readiness gate {type_:?} does not exist or is not True."),
        )
    });
    let sandbox = (!has_started).then_some(("", String::new()));
    let initialized = (!has_started && has_inits).then(|| ("ContainersNotInitialized", String::new()));
    set_condition(status, "PodReadyToStartContainers", sandbox, now);
    set_condition(status, "Initialized", initialized, now);
    set_condition(status, "ContainersReady", reason.clone(), now);
    set_condition(status, "Ready", reason.or(gated), now);
}

/// Sets a condition: true, or false with reason and message.
fn set_condition(status: &mut PodStatus, type_: &str, wrong: Option<(&str, String)>, now: Timestamp) {
    let value = if wrong.is_none() { "True" } else { "False" };
    let told = |text: String| (!text.is_empty()).then_some(text);
    let (reason, message) = wrong.map(|(reason, message)| (told(reason.to_owned()), told(message))).unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    let at = match conditions.iter().position(|condition| condition.type_ == type_) {
        Some(at) => at,
        None => {
            conditions.push(PodCondition { type_: type_.to_owned(), ..PodCondition::default() });
            conditions.len() - 1
        }
    };
    let condition = &mut conditions[at];
    if condition.status != value {
        value.clone_into(&mut condition.status);
        condition.last_transition_time = Some(Time(now));
    }
    (condition.reason, condition.message) = (reason, message);
}

/// Times of the API have no fractions; what is compared with them has none either.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
#[path = "pod_tests.rs"]
mod tests;
