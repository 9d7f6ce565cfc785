//! The life of one container: it starts, runs for as long as its pod's annotations say, exits, and is started again where
//! the restart policy has it so, after the kubelet's pauses.
//!
//! Pure. Invariant: everything follows from the last status and the time, also where several turns have passed.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::annotations::PodScript;

/// The kubelet's pauses before a restart but the first.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Exit code of a program that SIGTERM has ended.
const TERMINATED: i32 = 143;

/// Of a pod, what its containers go by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) restart_policy: &'a str,
    pub(crate) script: &'a PodScript,
    /// When the containers start for the first time.
    pub(crate) start: Timestamp,
    pub(crate) now: Timestamp,
}

/// A container's status now, and when it changes next.
pub(crate) fn turn(
    container: &Container,
    previous: Option<&ContainerStatus>,
    rules: Rules<'_>,
) -> (ContainerStatus, Option<Timestamp>) {
    let mut status = previous.cloned().unwrap_or_else(|| waiting(container, "ContainerCreating"));
    let due = loop {
        match step(&mut status, rules) {
            Some(due) if due > rules.now => break Some(due),
            Some(due) => advance(&mut status, due, rules),
            None => break None,
        }
    };
    let is_running = running_since(&status).is_some();
    if is_running && status.restart_count < rules.script.restarts {
        let ended = terminated(running_since(&status), rules.now, rules.script.exit_code);
        start(&mut status, rules.now, Some(ended), rules.script.restarts);
        return turn(container, Some(&status), rules);
    }
    status.ready = is_running && rules.script.is_ready;
    status.started = Some(is_running);
    (status, due)
}

/// An init container that has done its work.
pub(crate) fn completed(container: &Container, at: Timestamp) -> ContainerStatus {
    let mut status = waiting(container, "PodInitializing");
    status.state = Some(ContainerState { terminated: Some(terminated(Some(at), at, 0)), ..ContainerState::default() });
    status.ready = true;
    status
}

/// A container that has not started yet.
pub(crate) fn waiting(container: &Container, reason: &str) -> ContainerStatus {
    let image = container.image.clone().unwrap_or_default();
    ContainerStatus {
        name: container.name.clone(),
        image_id: format!("simulated://{image}"),
        image,
        started: Some(false),
        state: Some(pause(reason)),
        ..ContainerStatus::default()
    }
}

/// The same, ended by the kubelet.
pub(crate) fn stopped(status: &ContainerStatus, now: Timestamp) -> ContainerStatus {
    let mut status = status.clone();
    if exit_code(&status).is_none() {
        let ended = terminated(running_since(&status), now, TERMINATED);
        status.state = Some(ContainerState { terminated: Some(ended), ..ContainerState::default() });
    }
    status.ready = false;
    status.started = Some(false);
    status
}

/// The exit code of a container that has ended for good.
pub(crate) fn exit_code(status: &ContainerStatus) -> Option<i32> {
    Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
}

fn running_since(status: &ContainerStatus) -> Option<Timestamp> {
    Some(status.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0)
}

/// When the next change of state is due; none where nothing will change it.
fn step(status: &mut ContainerStatus, rules: Rules<'_>) -> Option<Timestamp> {
    if exit_code(status).is_some() {
        return None;
    }
    if let Some(since) = running_since(status) {
        return rules.script.run_time.map(|time| since + time);
    }
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    match last.and_then(|last| last.finished_at.as_ref()) {
        Some(finished) => Some(finished.0 + pause_before(status.restart_count + 1)),
        None => Some(rules.start),
    }
}

/// Makes the change that is due.
fn advance(status: &mut ContainerStatus, at: Timestamp, rules: Rules<'_>) {
    let Some(since) = running_since(status) else {
        let count = status.restart_count + i32::from(status.last_state.is_some());
        let last = status.last_state.take().and_then(|state| state.terminated);
        return start(status, at, last, count);
    };
    let ended = terminated(Some(since), at, rules.script.exit_code);
    let again = match rules.restart_policy {
        "Always" => true,
        "OnFailure" => ended.exit_code != 0,
        _ => false,
    };
    match again {
        false => status.state = Some(ContainerState { terminated: Some(ended), ..ContainerState::default() }),
        true if status.restart_count == 0 => start(status, at, Some(ended), 1),
        true => {
            status.last_state = Some(ContainerState { terminated: Some(ended), ..ContainerState::default() });
            status.state = Some(pause("CrashLoopBackOff"));
        }
    }
}

fn start(status: &mut ContainerStatus, at: Timestamp, last: Option<ContainerStateTerminated>, restarts: i32) {
    let running = ContainerStateRunning { started_at: Some(Time(at)) };
    status.state = Some(ContainerState { running: Some(running), ..ContainerState::default() });
    status.last_state = last.map(|last| ContainerState { terminated: Some(last), ..ContainerState::default() });
    status.restart_count = restarts;
    status.container_id = Some(format!("simulated://{}-{restarts}", status.name));
}

fn terminated(since: Option<Timestamp>, at: Timestamp, exit_code: i32) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code,
        reason: Some(if exit_code == 0 { "Completed" } else { "Error" }.to_owned()),
        started_at: since.map(Time),
        finished_at: Some(Time(at)),
        ..ContainerStateTerminated::default()
    }
}

fn pause(reason: &str) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message: None };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

/// The pause before the so-manieth restart; the first one is immediate.
fn pause_before(restart: i32) -> Duration {
    let doublings = u32::try_from(restart - 2).unwrap_or_default().min(10);
    (FIRST_PAUSE * 2u32.pow(doublings)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1000 + second).unwrap()
    }

    fn script(run_time: Option<u64>, exit_code: i32, restarts: i32) -> PodScript {
        let pod = k8s_openapi::api::core::v1::Pod::default();
        let run_time = run_time.map(Duration::from_secs);
        PodScript { run_time, exit_code, restarts, ..PodScript::of(&pod) }
    }

    /// State, restarts and when the next change is due, seconds after the start.
    fn shown(
        policy: &str,
        script: &PodScript,
        previous: Option<&ContainerStatus>,
        now: i64,
    ) -> (String, ContainerStatus) {
        let rules = Rules { restart_policy: policy, script, start: at(0), now: at(now) };
        let container = Container { name: "main".to_owned(), ..Container::default() };
        let (status, due) = turn(&container, previous, rules);
        let state = status.state.clone().unwrap();
        let state = match (state.waiting, state.running, state.terminated) {
            (Some(waiting), ..) => waiting.reason.unwrap(),
            (_, Some(running), _) => format!("running since {}", running.started_at.unwrap().0.as_second() - 1000),
            (.., Some(ended)) => format!("exit {}", ended.exit_code),
            _ => "nothing".to_owned(),
        };
        let due = due.map_or("never".to_owned(), |due| (due.as_second() - 1000).to_string());
        (format!("{state}, {} restarts, due {due}", status.restart_count), status)
    }

    #[test]
    fn it_goes_by_the_restart_policy() {
        let check = |policy: &str, run_time, exit_code, now, expected: &str| {
            assert_eq!(shown(policy, &script(run_time, exit_code, 0), None, now).0, expected, "{policy} at {now}");
        };
        check("Always", None, 0, -5, "ContainerCreating, 0 restarts, due 0");
        check("Always", None, 0, 900, "running since 0, 0 restarts, due never");
        check("Never", Some(5), 3, 4, "running since 0, 0 restarts, due 5");
        check("Never", Some(5), 3, 5, "exit 3, 0 restarts, due never");
        check("OnFailure", Some(5), 0, 5, "exit 0, 0 restarts, due never");
        check("OnFailure", Some(5), 1, 5, "running since 5, 1 restarts, due 10");
        check("Always", Some(5), 0, 10, "CrashLoopBackOff, 1 restarts, due 20");
        check("Always", Some(5), 0, 20, "running since 20, 2 restarts, due 25");
        check("Always", Some(5), 0, 30, "CrashLoopBackOff, 2 restarts, due 45");
    }

    #[test]
    fn many_turns_at_once_end_where_single_ones_do() {
        let script = script(Some(3), 1, 0);
        let mut status = None;
        for now in 0..400 {
            status = Some(shown("Always", &script, status.as_ref(), now).1);
        }
        assert_eq!(status, Some(shown("Always", &script, None, 399).1));
    }

    #[test]
    fn restarts_can_be_asked_for() {
        let (_, running) = shown("Always", &script(None, 0, 0), None, 10);
        let asked = script(None, 137, 3);
        let (text, restarted) = shown("Always", &asked, Some(&running), 20);
        assert_eq!(text, "running since 20, 3 restarts, due never");
        let last = restarted.last_state.clone().unwrap().terminated.unwrap();
        assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("Error")));
        assert_eq!(shown("Always", &asked, Some(&restarted), 30).1, restarted, "they happen once");
    }

    #[test]
    fn what_is_stopped_has_the_code_of_the_signal() {
        let (_, running) = shown("Always", &script(None, 0, 0), None, 10);
        assert_eq!(exit_code(&stopped(&running, at(20))), Some(143));
        let (_, ended) = shown("Never", &script(Some(1), 0, 0), None, 10);
        assert_eq!(exit_code(&stopped(&ended, at(20))), Some(0));
    }
}
