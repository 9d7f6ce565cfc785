//! The statuses of a pod's containers.
//!
//! Pure. Invariant: the newest container of a name is `state`, the one before it `lastState`; a start that fails now shows
//! as waiting, with the end of the former run as `lastState`.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, LinuxContainerUser, Pod, VolumeMountStatus,
};

use kedge_volumes::recursive_read_only_status;

use super::resources::container_resources;
use super::{StatusInput, time_from_nanos};
use crate::restart;
use crate::runtime_state::{ContainerPhase, ContainerRecord};
use crate::spec;
use crate::stop_signal;

const RUNTIME_NAME: &str = "containerd";
const LOST: &str = "ContainerStatusUnknown";
const UNSEEN: &str = "The container could not be located when the pod was terminated";

/// The three lists of a pod status.
pub(super) struct Lists {
    pub(super) apps: Vec<ContainerStatus>,
    pub(super) inits: Vec<ContainerStatus>,
    pub(super) ephemerals: Vec<ContainerStatus>,
}

impl Lists {
    pub(super) fn find<'a>(list: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
        list.iter().find(|status| status.name == name)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    App,
    Init,
    Ephemeral,
}

/// All three lists: app containers sorted by name, the others in the order of the spec.
pub(super) fn statuses(input: &StatusInput<'_>) -> Lists {
    let pod = input.pod;
    let of = |containers: &[Container], previous: &Option<Vec<ContainerStatus>>, kind: Kind| -> Vec<ContainerStatus> {
        let previous = previous.as_deref().unwrap_or_default();
        containers.iter().map(|container| one(input, container, Lists::find(previous, &container.name), kind)).collect()
    };
    let ephemerals: Vec<Container> = spec::ephemeral_containers(pod)
        .iter()
        .filter(|ephemeral| {
            input.runtime.container(&ephemeral.name).is_some() || input.failures.contains_key(&ephemeral.name)
        })
        .map(spec::ephemeral_as_container)
        .collect();
    let mut apps = of(spec::containers(pod), &input.previous.container_statuses, Kind::App);
    apps.sort_by(|a, b| a.name.cmp(&b.name));
    let mut lists = Lists {
        apps,
        inits: of(spec::init_containers(pod), &input.previous.init_container_statuses, Kind::Init),
        ephemerals: of(&ephemerals, &input.previous.ephemeral_container_statuses, Kind::Ephemeral),
    };
    if input.terminal {
        end_unseen(pod, &mut lists);
    }
    lists
}

fn one(
    input: &StatusInput<'_>,
    container: &Container,
    previous: Option<&ContainerStatus>,
    kind: Kind,
) -> ContainerStatus {
    let mut attempts = input.runtime.attempts(&container.name);
    let newest = attempts.next();
    let mut status = match newest {
        Some(record) => found(input, container, record, previous),
        None => absent(input, container, previous),
    };
    if let Some(before) = attempts.next() {
        status.last_state = Some(state(before, None));
    }
    apply_failure(input, container, newest, &mut status, kind);
    if input.terminal {
        end_lost(&mut status, newest, previous);
    }
    set_readiness(input, container, newest, &mut status, kind);
    status
}

fn found(
    input: &StatusInput<'_>,
    container: &Container,
    record: &ContainerRecord,
    previous: Option<&ContainerStatus>,
) -> ContainerStatus {
    let restart_count = i32::try_from(record.notes.restart_count).unwrap_or(i32::MAX);
    let former = previous.filter(|previous| {
        previous.restart_count < restart_count || previous.container_id == Some(container_id(&record.id))
    });
    let last_state = former.and_then(|former| match &former.state {
        Some(ContainerState { terminated: Some(_), .. }) if former.container_id != Some(container_id(&record.id)) => {
            former.state.clone()
        }
        _ => former.last_state.clone(),
    });
    ContainerStatus {
        name: container.name.clone(),
        container_id: Some(container_id(&record.id)),
        image: record.image.clone(),
        image_id: record.image_ref.clone(),
        restart_count,
        state: Some(state(record, previous)),
        last_state: last_state.or_else(|| Some(ContainerState::default())),
        allocated_resources: container.resources.as_ref().and_then(|resources| resources.requests.clone()),
        resources: Some(container_resources(
            container,
            record,
            previous,
            input.actuated.containers.get(&container.name),
        )),
        user: user(record),
        stop_signal: stop_signal::shown(container, record),
        volume_mounts: volume_mounts(input, container),
        ..ContainerStatus::default()
    }
}

fn user(record: &ContainerRecord) -> Option<ContainerUser> {
    let linux = record.user.as_ref()?;
    Some(ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: linux.uid,
            gid: linux.gid,
            supplemental_groups: Some(linux.supplemental_groups.clone()).filter(|groups| !groups.is_empty()),
        }),
    })
}

fn absent(input: &StatusInput<'_>, container: &Container, previous: Option<&ContainerStatus>) -> ContainerStatus {
    let reason = match spec::init_containers(input.pod).is_empty() {
        true => "ContainerCreating",
        false => "PodInitializing",
    };
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(waiting(reason, None)),
        last_state: Some(ContainerState::default()),
        volume_mounts: volume_mounts(input, container),
        ..ContainerStatus::default()
    };
    let Some(previous) = previous else { return status };
    status.restart_count = previous.restart_count;
    let former = previous.state.clone().unwrap_or_default();
    if former.terminated.is_some() {
        // The record was collected: the container stays what it was known to be.
        let ended = former.terminated.as_ref().map_or(0, |terminated| terminated.exit_code);
        if !restart::restarts_after(input.pod, container, ended) || input.terminal {
            return previous.clone();
        }
        status.last_state = Some(former);
    } else if former.running.is_some() {
        let message = "The container could not be located when the pod was deleted.  The container used to be Running";
        status.last_state = Some(lost(message));
        if input.pod.metadata.deletion_timestamp.is_none() {
            status.restart_count += 1;
        }
    } else {
        status.last_state = previous.last_state.clone().or(status.last_state);
    }
    status
}

fn volume_mounts(input: &StatusInput<'_>, container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let known = spec::pod_spec(input.pod).volumes.as_deref().unwrap_or_default();
    let mounts: Vec<VolumeMountStatus> = container
        .volume_mounts
        .iter()
        .flatten()
        .filter(|mount| known.iter().any(|volume| volume.name == mount.name))
        .map(|mount| {
            let read_only = mount.read_only.filter(|read_only| *read_only);
            VolumeMountStatus {
                name: mount.name.clone(),
                mount_path: mount.mount_path.clone(),
                read_only,
                recursive_read_only: recursive_read_only_status(mount, input.recursive_read_only).map(str::to_owned),
                ..VolumeMountStatus::default()
            }
        })
        .collect();
    (!mounts.is_empty()).then_some(mounts)
}

/// `containerd://id`.
pub(super) fn container_id(id: &str) -> String {
    format!("{RUNTIME_NAME}://{id}")
}

fn state(record: &ContainerRecord, previous: Option<&ContainerStatus>) -> ContainerState {
    match record.phase {
        ContainerPhase::Running => ContainerState {
            running: Some(ContainerStateRunning { started_at: time_from_nanos(record.started_at) }),
            ..ContainerState::default()
        },
        ContainerPhase::Exited => ContainerState { terminated: Some(terminated(record)), ..ContainerState::default() },
        ContainerPhase::Created => waiting("", None),
        ContainerPhase::Unknown => {
            let was_running =
                previous.and_then(|previous| previous.state.as_ref()).is_some_and(|state| state.running.is_some());
            if !was_running {
                return waiting("", None);
            }
            lost(UNSEEN)
        }
    }
}

fn terminated(record: &ContainerRecord) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: Some(container_id(&record.id)),
        exit_code: record.exit_code,
        reason: Some(record.reason.clone()).filter(|reason| !reason.is_empty()),
        message: Some(record.message.clone()).filter(|message| !message.is_empty()),
        // A container that never started has the zero time here, as upstream prints it.
        started_at: time_from_nanos(record.started_at).or_else(|| Some(super::time(jiff::Timestamp::UNIX_EPOCH))),
        finished_at: time_from_nanos(record.finished_at),
        signal: None,
    }
}

fn lost(message: &str) -> ContainerState {
    let terminated = ContainerStateTerminated {
        exit_code: 137,
        reason: Some(LOST.to_owned()),
        message: Some(message.to_owned()),
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

fn waiting(reason: &str, message: Option<&str>) -> ContainerState {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let waiting = ContainerStateWaiting { reason: text(reason), message: message.and_then(text) };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

/// A start that failed, or that waits for its back-off, shows as waiting.
fn apply_failure(
    input: &StatusInput<'_>,
    container: &Container,
    newest: Option<&ContainerRecord>,
    status: &mut ContainerStatus,
    kind: Kind,
) {
    let Some(failure) = input.failures.get(&container.name) else { return };
    let may_start = match kind {
        Kind::Ephemeral => newest.is_none(),
        Kind::App | Kind::Init => restart::should_start(input.pod, container, newest),
    };
    if !may_start || input.terminal {
        return;
    }
    if let Some(former) = status.state.take().filter(|state| state.terminated.is_some()) {
        status.last_state = Some(former);
    }
    status.state = Some(waiting(&failure.reason, Some(&failure.message)));
}

/// In a pod that has ended, whatever was to be started and has no end has failed: who waits for an end would wait for ever.
/// Containers behind init containers that did not get so far are left waiting.
fn end_unseen(pod: &Pod, lists: &mut Lists) {
    let waits = |status: &ContainerStatus| status.state.as_ref().is_none_or(|state| state.waiting.is_some());
    let ended_before =
        |status: &ContainerStatus| status.last_state.as_ref().is_some_and(|state| state.terminated.is_some());
    let began = |status: &ContainerStatus| !waits(status) || ended_before(status);
    if inits_are_done(pod, lists) || lists.apps.iter().any(began) {
        lists.apps.iter_mut().filter(|status| waits(status)).for_each(|status| status.state = Some(lost(UNSEEN)));
    }
    let reached = lists.inits.iter().rposition(began).map_or(1, |last| last + 1);
    lists
        .inits
        .iter_mut()
        .take(reached)
        .filter(|status| waits(status))
        .for_each(|status| status.state = Some(lost(UNSEEN)));
}

fn inits_are_done(pod: &Pod, lists: &Lists) -> bool {
    let Some(last) = spec::init_containers(pod).last() else { return true };
    let Some(status) = Lists::find(&lists.inits, &last.name) else { return false };
    let ended_well = |state: &Option<ContainerState>| {
        state.as_ref().and_then(|state| state.terminated.as_ref()).is_some_and(|ended| ended.exit_code == 0)
    };
    match spec::is_restartable_init(last) {
        true => status.started == Some(true),
        false => ended_well(&status.state) || ended_well(&status.last_state),
    }
}

/// In a pod that has ended, a container that ran and was lost has failed.
fn end_lost(status: &mut ContainerStatus, newest: Option<&ContainerRecord>, previous: Option<&ContainerStatus>) {
    let ended = status.state.as_ref().is_some_and(|state| state.terminated.is_some());
    let ran = newest.is_some()
        || previous.and_then(|previous| previous.state.as_ref()).is_some_and(|state| state.running.is_some());
    if !ended && ran && newest.is_none_or(|record| record.phase != ContainerPhase::Running) {
        status.state = Some(lost(UNSEEN));
    }
}

fn set_readiness(
    input: &StatusInput<'_>,
    container: &Container,
    newest: Option<&ContainerRecord>,
    status: &mut ContainerStatus,
    kind: Kind,
) {
    let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
    let verdicts = newest.map(|record| (input.verdicts)(&record.id)).unwrap_or_default();
    let started = running && (container.startup_probe.is_none() || verdicts.startup == Some(true));
    // Nobody probes ephemeral containers, and their status does not say.
    status.started = (kind != Kind::Ephemeral).then_some(started);
    status.ready = match kind {
        Kind::Ephemeral => false,
        Kind::Init if !spec::is_restartable_init(container) => {
            status.state.as_ref().and_then(|state| state.terminated.as_ref()).is_some_and(|ended| ended.exit_code == 0)
        }
        Kind::App | Kind::Init => started && (container.readiness_probe.is_none() || verdicts.readiness == Some(true)),
    };
}
