//! The conditions of a pod that the node owns.
//!
//! Pure. Invariant: they come in upstream's order, and conditions of others are kept.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};

use super::{StatusInput, time};
use crate::allocation::ResizeNote;
use crate::plan;
use crate::spec;

const OWNED: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
/// Conditions of the node that come and go.
pub(super) const PASSING: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// A verdict before it becomes a condition.
struct Draft {
    status: bool,
    reason: &'static str,
    message: String,
}

impl Draft {
    fn yes() -> Self {
        Self { status: true, reason: "", message: String::new() }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Self { status: false, reason, message }
    }
}

/// All conditions of the new status.
pub(super) fn conditions(input: &StatusInput<'_>, status: &PodStatus, initialized: bool) -> Vec<PodCondition> {
    let pod = input.pod;
    let api = spec::pod_status(pod).conditions.as_deref().unwrap_or_default();
    let previous = input.previous.conditions.as_deref().unwrap_or_default();
    let mut all: Vec<PodCondition> = api.iter().filter(|condition| !is_owned(&condition.type_)).cloned().collect();
    let containers_ready = containers_ready(pod, status);
    let ready = pod_ready(pod, &containers_ready, &all);
    let sandbox = match plan::sandbox_needed(pod, input.runtime).is_none() && !input.terminal {
        true => Draft::yes(),
        false => Draft::no("", String::new()),
    };
    let drafts = [
        (OWNED[0], sandbox),
        (OWNED[1], pod_initialized(pod, status, initialized)),
        (OWNED[2], ready),
        (OWNED[3], containers_ready),
        (OWNED[4], Draft::yes()),
    ];
    let known = |type_: &str| {
        [previous, api].into_iter().find_map(|list| list.iter().find(|condition| condition.type_ == type_))
    };
    for (type_, note) in PASSING.into_iter().zip([&input.resize.pending, &input.resize.in_progress]) {
        all.extend(
            note.as_ref().filter(|_| !input.terminal).map(|note| resize_condition(input, type_, note, known(type_))),
        );
    }
    for (type_, draft) in drafts {
        all.push(condition(input, type_, draft, known(type_)));
    }
    all
}

fn is_owned(type_: &str) -> bool {
    OWNED.contains(&type_) || PASSING.contains(&type_)
}

fn resize_condition(
    input: &StatusInput<'_>,
    type_: &str,
    note: &ResizeNote,
    known: Option<&PodCondition>,
) -> PodCondition {
    PodCondition {
        reason: Some(note.reason.clone()).filter(|reason| !reason.is_empty()),
        message: Some(note.message.clone()).filter(|message| !message.is_empty()),
        observed_generation: note.generation,
        ..condition(input, type_, Draft::yes(), known)
    }
}

fn condition(input: &StatusInput<'_>, type_: &str, draft: Draft, known: Option<&PodCondition>) -> PodCondition {
    let status = if draft.status { "True" } else { "False" };
    let same = known.filter(|known| known.status == status);
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(draft.reason.to_owned()).filter(|reason| !reason.is_empty()),
        message: Some(draft.message).filter(|message| !message.is_empty()),
        last_probe_time: None,
        last_transition_time: same.and_then(|same| same.last_transition_time.clone()).or_else(|| Some(time(input.now))),
        observed_generation: input.pod.metadata.generation,
    }
}

fn find<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let apps = status.container_statuses.iter().flatten();
    apps.chain(status.init_container_statuses.iter().flatten()).find(|status| status.name == name)
}

/// Go's print of a list of strings.
fn list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn containers_ready(pod: &Pod, status: &PodStatus) -> Draft {
    let sidecars = spec::init_containers(pod).iter().filter(|container| spec::is_restartable_init(container));
    let mut unknown = Vec::new();
    let mut unready = Vec::new();
    for container in sidecars.chain(spec::containers(pod)) {
        match find(status, &container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) if !status.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    match status.phase.as_deref() {
        Some("Succeeded") if unknown.is_empty() => return Draft::no("PodCompleted", String::new()),
        Some("Failed") => return Draft::no("PodFailed", String::new()),
        _ => {}
    }
    let mut messages = Vec::new();
    if !unknown.is_empty() {
        messages.push(format!("containers with unknown status: {}", list(&unknown)));
    }
    if !unready.is_empty() {
        messages.push(format!("containers with unready status: {}", list(&unready)));
    }
    if messages.is_empty() { Draft::yes() } else { Draft::no("ContainersNotReady", messages.join(", ")) }
}

fn pod_ready(pod: &Pod, containers: &Draft, others: &[PodCondition]) -> Draft {
    if !containers.status {
        return Draft::no(containers.reason, containers.message.clone());
    }
    let mut messages = Vec::new();
    for gate in spec::pod_spec(pod).readiness_gates.as_deref().unwrap_or_default() {
        let type_ = &gate.condition_type;
        match others.iter().find(|condition| condition.type_ == *type_) {
            None => messages.push(format!("corresponding condition of pod readiness gate {type_:?} does not exist.")),
            Some(condition) if condition.status != "True" => messages
                .push(format!("the status of pod readiness gate {type_:?} is not \"True\", but {}", condition.status)),
            Some(_) => {}
        }
    }
    if messages.is_empty() { Draft::yes() } else { Draft::no("ReadinessGatesNotReady", messages.join(", ")) }
}

fn pod_initialized(pod: &Pod, status: &PodStatus, initialized: bool) -> Draft {
    let mut unknown = Vec::new();
    let mut incomplete = Vec::new();
    for container in spec::init_containers(pod) {
        match find(status, &container.name) {
            None => unknown.push(container.name.as_str()),
            Some(own) => {
                let done = if spec::is_restartable_init(container) { own.started == Some(true) } else { own.ready };
                if !done {
                    incomplete.push(container.name.as_str());
                }
            }
        }
    }
    if status.phase.as_deref() == Some("Succeeded") && unknown.is_empty() {
        return Draft { status: true, reason: "PodCompleted", message: String::new() };
    }
    if initialized {
        return Draft::yes();
    }
    let mut messages = Vec::new();
    if !unknown.is_empty() {
        messages.push(format!("containers with unknown status: {}", list(&unknown)));
    }
    if !incomplete.is_empty() {
        messages.push(format!("containers with incomplete status: {}", list(&incomplete)));
    }
    if messages.is_empty() { Draft::yes() } else { Draft::no("ContainersNotInitialized", messages.join(", ")) }
}
