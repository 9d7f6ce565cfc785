//! What to do with a pod now: a pure function from what the pod should be and what the runtime has.
//!
//! It touches nothing and knows no clock; back-off is applied when a start is carried out. Invariant: a running container
//! whose name and image are unchanged and whose probes do not fail is never part of a plan.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::labels;
use crate::restart;
use crate::runtime_state::{ContainerPhase, ContainerRecord, PodRuntime};
use crate::spec;

/// Why a running container is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillReason {
    /// Its name or image in the spec is another one.
    DefinitionChanged,
    /// Its liveness probe failed too often.
    Liveness,
    /// Its startup probe failed too often.
    Startup,
    /// The runtime lost track of it.
    Unknown,
    /// It takes its new resources only by a restart.
    Resize,
}

/// A container to kill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) container_id: String,
    pub(crate) name: String,
    pub(crate) reason: KillReason,
    pub(crate) message: String,
}

/// One step towards the desired state; steps are carried out in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Stop every container and sandbox of the pod.
    KillPod,
    /// Kill one container.
    Kill(Kill),
    /// Give the pod and its running containers the resources that were granted.
    Resize,
    /// Make a sandbox, with this attempt number.
    CreateSandbox {
        /// Counts the sandboxes that this pod has had.
        attempt: u32,
        /// An earlier sandbox was lost.
        changed: bool,
    },
    /// Start an ephemeral container, by name.
    StartEphemeral(String),
    /// Start an init container, by name; what follows waits for it.
    StartInit(String),
    /// Start an app container, by name.
    Start(String),
}

/// What the probes say about one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Verdicts {
    /// `None`: not known yet.
    pub(crate) liveness: Option<bool>,
    pub(crate) readiness: Option<bool>,
    pub(crate) startup: Option<bool>,
    /// Not a probe's: its resize policy wants a restart for what was granted.
    pub(crate) resize_restart: bool,
}

/// The plan for one pod. `verdicts` answers by container id.
pub(crate) fn plan_pod(pod: &Pod, runtime: &PodRuntime, verdicts: &dyn Fn(&str) -> Verdicts) -> Vec<Action> {
    match sandbox_needed(pod, runtime) {
        Some(attempt) => plan_new_sandbox(pod, runtime, attempt),
        None => plan_containers(pod, runtime, verdicts),
    }
}

/// The attempt number of the sandbox that has to be made; `None` where the present one serves.
pub(crate) fn sandbox_needed(pod: &Pod, runtime: &PodRuntime) -> Option<u32> {
    let Some(newest) = runtime.sandboxes.first() else { return Some(0) };
    let ready = runtime.sandboxes.iter().filter(|sandbox| sandbox.ready).count();
    if ready > 1 || !newest.ready {
        return Some(newest.attempt + 1);
    }
    if newest.host_network != spec::host_network(pod) {
        return Some(newest.attempt + 1);
    }
    if !spec::host_network(pod) && newest.ips.is_empty() {
        return Some(newest.attempt + 1);
    }
    None
}

fn plan_new_sandbox(pod: &Pod, runtime: &PodRuntime, attempt: u32) -> Vec<Action> {
    let mut actions = Vec::new();
    if !runtime.sandboxes.is_empty() || !runtime.containers.is_empty() {
        actions.push(Action::KillPod);
    }
    if !restart::restarts_on_failure(pod) && attempt != 0 && !runtime.containers.is_empty() {
        // The pod has had its one run.
        return actions;
    }
    let starts: Vec<&Container> = spec::containers(pod)
        .iter()
        .filter(|container| {
            let record = runtime.container(&container.name);
            !(record.is_some_and(ContainerRecord::succeeded)
                && restart::effective_policy(pod, container) == "OnFailure")
        })
        .collect();
    let ran = spec::containers(pod).iter().any(|container| runtime.container(&container.name).is_some());
    if starts.is_empty() && ran {
        return actions;
    }
    actions.push(Action::CreateSandbox { attempt, changed: !runtime.sandboxes.is_empty() });
    match spec::init_containers(pod).first() {
        Some(first) => actions.push(Action::StartInit(first.name.clone())),
        None => actions.extend(starts.iter().map(|container| Action::Start(container.name.clone()))),
    }
    actions
}

fn plan_containers(pod: &Pod, runtime: &PodRuntime, verdicts: &dyn Fn(&str) -> Verdicts) -> Vec<Action> {
    let mut plan = Draft::default();
    for ephemeral in spec::ephemeral_containers(pod) {
        if runtime.container(&ephemeral.name).is_none() {
            plan.ephemeral.push(ephemeral.name.clone());
        }
    }
    let initialized = plan_init_containers(pod, runtime, verdicts, &mut plan);
    if plan.kill_pod || !initialized {
        return plan.actions();
    }
    let mut kept = 0;
    for container in spec::containers(pod) {
        match runtime.container(&container.name) {
            Some(record) if record.running() => match must_kill(container, record, verdicts) {
                None => kept += 1,
                Some(reason) => {
                    let always = matches!(reason, KillReason::DefinitionChanged | KillReason::Resize);
                    let again = always || restarts_if_killed(pod, container);
                    plan.kills.push(kill("Container", record, reason, again));
                    if again {
                        plan.starts.push(container.name.clone());
                    }
                }
            },
            record => {
                if restart::should_start(pod, container, record) {
                    if let Some(lost) = record.filter(|record| record.phase == ContainerPhase::Unknown) {
                        plan.kills.push(kill("Container", lost, KillReason::Unknown, true));
                    }
                    plan.starts.push(container.name.clone());
                }
            }
        }
    }
    if kept == 0 && plan.starts.is_empty() {
        plan.kill_pod = true;
        plan.inits.clear();
    }
    plan.actions()
}

#[derive(Default)]
struct Draft {
    kill_pod: bool,
    kills: Vec<Kill>,
    ephemeral: Vec<String>,
    inits: Vec<String>,
    starts: Vec<String>,
}

impl Draft {
    fn actions(self) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.kill_pod {
            actions.push(Action::KillPod);
            return actions;
        }
        actions.extend(self.kills.into_iter().map(Action::Kill));
        actions.extend(self.ephemeral.into_iter().map(Action::StartEphemeral));
        actions.extend(self.inits.into_iter().map(Action::StartInit));
        actions.extend(self.starts.into_iter().map(Action::Start));
        actions
    }
}

/// A container that a probe failed ends with a failure.
fn restarts_if_killed(pod: &Pod, container: &Container) -> bool {
    restart::effective_policy(pod, container) != "Never"
}

fn must_kill(
    container: &Container,
    record: &ContainerRecord,
    verdicts: &dyn Fn(&str) -> Verdicts,
) -> Option<KillReason> {
    if !record.notes.hash.is_empty() && record.notes.hash != labels::container_hash(container) {
        return Some(KillReason::DefinitionChanged);
    }
    let verdicts = verdicts(&record.id);
    if verdicts.liveness == Some(false) {
        return Some(KillReason::Liveness);
    }
    if verdicts.startup == Some(false) {
        return Some(KillReason::Startup);
    }
    verdicts.resize_restart.then_some(KillReason::Resize)
}

/// Puts a resize after what is killed and before what is started; a pod that gets a new sandbox needs none.
pub(crate) fn with_resize(mut actions: Vec<Action>) -> Vec<Action> {
    let whole = |action: &Action| matches!(action, Action::KillPod | Action::CreateSandbox { .. });
    if !actions.iter().any(whole) {
        let kills = actions.iter().take_while(|action| matches!(action, Action::Kill(_))).count();
        actions.insert(kills, Action::Resize);
    }
    actions
}

/// The containers that a plan ends and starts again.
pub(crate) fn restarted(actions: &[Action]) -> Vec<String> {
    let ends = |name: &str| actions.iter().any(|action| matches!(action, Action::Kill(kill) if kill.name == name));
    let starts = actions.iter().filter_map(|action| match action {
        Action::Start(name) | Action::StartInit(name) => Some(name),
        _ => None,
    });
    starts.filter(|name| ends(name)).cloned().collect()
}

fn kill(what: &str, record: &ContainerRecord, reason: KillReason, again: bool) -> Kill {
    let name = &record.name;
    let cause = match reason {
        KillReason::DefinitionChanged => format!("{what} {name} definition changed"),
        KillReason::Liveness => format!("{what} {name} failed liveness probe"),
        KillReason::Startup => format!("{what} {name} failed startup probe"),
        KillReason::Unknown => format!("{what} is in \"Unknown\" state, try killing it before restart"),
        KillReason::Resize => format!("Container {name} resize requires restart"),
    };
    let explains_itself = matches!(reason, KillReason::Unknown | KillReason::Resize);
    let message = if again && !explains_itself { format!("{cause}, will be restarted") } else { cause };
    Kill { container_id: record.id.clone(), name: name.clone(), reason, message }
}

/// Plans init containers; whether the app containers may run.
///
/// Init containers are looked at from the last to the first, because the records of those that completed may be gone:
/// the last one that has a record tells how far initialization came.
fn plan_init_containers(
    pod: &Pod,
    runtime: &PodRuntime,
    verdicts: &dyn Fn(&str) -> Verdicts,
    plan: &mut Draft,
) -> bool {
    let containers = spec::init_containers(pod);
    if containers.is_empty() {
        return true;
    }
    let initialized_before = restart::was_initialized(pod, runtime);
    let mut initialized = initialized_before;
    let mut seen = false;
    for (index, container) in containers.iter().enumerate().rev() {
        let sidecar = spec::is_restartable_init(container);
        if initialized_before && !sidecar {
            continue;
        }
        let Some(record) = runtime.container_in_sandbox(&container.name) else {
            if initialized_before {
                plan.inits.push(container.name.clone());
            }
            continue;
        };
        seen = true;
        let next = containers.get(index + 1);
        let step = if sidecar {
            plan_sidecar(container, record, verdicts, plan)
        } else {
            plan_init_container(pod, container, record, plan)
        };
        if plan.kill_pod {
            return false;
        }
        if step == InitStep::Done && !initialized_before {
            match next {
                None => initialized = true,
                Some(next) => plan.inits.push(next.name.clone()),
            }
        }
        if !initialized_before {
            // The newest of the init containers is settled; the sidecars before it still have to be kept alive.
            keep_earlier_sidecars(&containers[..index], runtime, verdicts, plan);
            break;
        }
    }
    if !seen && !initialized_before && plan.inits.is_empty() {
        plan.inits.push(containers[0].name.clone());
    }
    plan.inits.reverse();
    initialized
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum InitStep {
    Done,
    Waiting,
}

fn keep_earlier_sidecars(
    earlier: &[Container],
    runtime: &PodRuntime,
    verdicts: &dyn Fn(&str) -> Verdicts,
    plan: &mut Draft,
) {
    for container in earlier.iter().rev().filter(|container| spec::is_restartable_init(container)) {
        match runtime.container_in_sandbox(&container.name) {
            Some(record) => {
                plan_sidecar(container, record, verdicts, plan);
            }
            None => plan.inits.push(container.name.clone()),
        }
    }
}

fn plan_sidecar(
    container: &Container,
    record: &ContainerRecord,
    verdicts: &dyn Fn(&str) -> Verdicts,
    plan: &mut Draft,
) -> InitStep {
    match record.phase {
        ContainerPhase::Created => InitStep::Waiting,
        ContainerPhase::Exited => {
            plan.inits.push(container.name.clone());
            InitStep::Waiting
        }
        ContainerPhase::Unknown => {
            plan.kills.push(kill("Init container", record, KillReason::Unknown, true));
            plan.inits.push(container.name.clone());
            InitStep::Waiting
        }
        ContainerPhase::Running => {
            if let Some(reason) = must_kill(container, record, verdicts) {
                plan.kills.push(kill("Init container", record, reason, true));
                plan.inits.push(container.name.clone());
                return InitStep::Waiting;
            }
            let started = container.startup_probe.is_none() || verdicts(&record.id).startup == Some(true);
            if started { InitStep::Done } else { InitStep::Waiting }
        }
    }
}

fn plan_init_container(pod: &Pod, container: &Container, record: &ContainerRecord, plan: &mut Draft) -> InitStep {
    match record.phase {
        ContainerPhase::Created | ContainerPhase::Running => InitStep::Waiting,
        ContainerPhase::Exited if record.exit_code == 0 => InitStep::Done,
        ContainerPhase::Exited | ContainerPhase::Unknown => {
            let exit_code = if record.exit_code == 0 { 1 } else { record.exit_code };
            if !restart_init(pod, container, exit_code) {
                plan.kill_pod = true;
                return InitStep::Waiting;
            }
            if record.phase == ContainerPhase::Unknown {
                plan.kills.push(kill("Init container", record, KillReason::Unknown, true));
            }
            plan.inits.push(container.name.clone());
            InitStep::Waiting
        }
    }
}

/// Init containers of a pod with policy `Always` are restarted on failure only.
fn restart_init(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    restart::restarts_after(pod, container, exit_code)
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
