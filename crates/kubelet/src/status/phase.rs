//! The phase of a pod.
//!
//! Pure.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};

use super::containers::Lists;
use crate::restart;
use crate::spec;

/// Whether any app container has ever started.
pub(super) fn has_initialized(pod: &Pod, lists: &Lists) -> bool {
    spec::containers(pod).iter().any(|container| {
        let Some(status) = Lists::find(&lists.apps, &container.name) else { return false };
        let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
        running || status.started == Some(true) || exit_code(status).is_some() || last_exit_code(status).is_some()
    })
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    status.state.as_ref()?.terminated.as_ref().map(|terminated| terminated.exit_code)
}

fn last_exit_code(status: &ContainerStatus) -> Option<i32> {
    status.last_state.as_ref()?.terminated.as_ref().map(|terminated| terminated.exit_code)
}

#[derive(Default)]
struct Counts {
    pending_init: usize,
    pending_sidecars: usize,
    init_failed_for_good: bool,
    running: usize,
    waiting: usize,
    stopped: usize,
    stopped_for_good: usize,
    succeeded: usize,
    unknown: usize,
}

/// The phase; `terminal` means that nothing will be started any more.
pub(super) fn phase(pod: &Pod, lists: &Lists, terminal: bool, initialized: bool) -> &'static str {
    let mut counts = Counts::default();
    for container in spec::init_containers(pod) {
        let status = Lists::find(&lists.inits, &container.name);
        if spec::is_restartable_init(container) {
            count_sidecar(status, &mut counts);
        } else {
            count_init(pod, container, status, &mut counts);
        }
    }
    for container in spec::containers(pod) {
        count_app(pod, container, Lists::find(&lists.apps, &container.name), &mut counts);
    }
    if counts.init_failed_for_good {
        return "Failed";
    }
    if counts.pending_init > 0 || (counts.pending_sidecars > 0 && !initialized) || counts.waiting > 0 {
        return "Pending";
    }
    if counts.unknown > 0 {
        return "Pending";
    }
    if counts.running > 0 {
        return "Running";
    }
    if counts.stopped == 0 {
        return "Pending";
    }
    if (!terminal || spec::is_static(pod)) && counts.stopped != counts.stopped_for_good {
        return "Running";
    }
    if counts.stopped == counts.succeeded { "Succeeded" } else { "Failed" }
}

fn count_init(pod: &Pod, container: &Container, status: Option<&ContainerStatus>, counts: &mut Counts) {
    let Some(status) = status else {
        counts.pending_init += 1;
        return;
    };
    let is_waiting = status.state.as_ref().is_some_and(|state| state.waiting.is_some());
    let ended = exit_code(status).or_else(|| last_exit_code(status).filter(|_| is_waiting));
    match ended {
        Some(0) if exit_code(status).is_some() => {}
        Some(code) => {
            if code != 0 && !restart::restarts_after(pod, container, code) {
                counts.init_failed_for_good = true;
            } else {
                counts.pending_init += 1;
            }
        }
        None => counts.pending_init += 1,
    }
}

fn count_sidecar(status: Option<&ContainerStatus>, counts: &mut Counts) {
    let Some(status) = status else {
        counts.unknown += 1;
        return;
    };
    let state = status.state.clone().unwrap_or_default();
    if state.running.is_some() {
        if status.started != Some(true) {
            counts.pending_sidecars += 1;
        }
        counts.running += 1;
    } else if state.waiting.is_some() && last_exit_code(status).is_none() {
        counts.pending_sidecars += 1;
        counts.waiting += 1;
    }
}

fn count_app(pod: &Pod, container: &Container, status: Option<&ContainerStatus>, counts: &mut Counts) {
    let Some(status) = status else {
        counts.unknown += 1;
        return;
    };
    let state = status.state.clone().unwrap_or_default();
    if state.running.is_some() {
        counts.running += 1;
        return;
    }
    let waiting = state.waiting.is_some();
    let Some(code) = exit_code(status).or_else(|| last_exit_code(status).filter(|_| waiting)) else {
        if waiting {
            counts.waiting += 1
        } else {
            counts.unknown += 1
        }
        return;
    };
    counts.stopped += 1;
    if !restart::restarts_after(pod, container, code) {
        counts.stopped_for_good += 1;
    }
    if code == 0 {
        counts.succeeded += 1;
    }
}
