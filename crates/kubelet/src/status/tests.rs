//! Tables of statuses: what the runtime has, and what people read about it.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, ContainerState, EphemeralContainer, PodReadinessGate, PodSpec, Probe};

use super::*;
use crate::runtime_state::ContainerPhase::{Created, Exited, Running};
use crate::runtime_state::fixtures::{container, runtime, sandbox};
use crate::runtime_state::{ContainerPhase, ContainerRecord};

static PLAIN: std::sync::OnceLock<PodResources> = std::sync::OnceLock::new();
static QUIET: std::sync::OnceLock<ResizeState> = std::sync::OnceLock::new();

fn named(name: &str) -> Container {
    Container { name: name.to_owned(), image: Some("image:1".to_owned()), ..Container::default() }
}

fn pod(policy: &str, init: &[&str], apps: &[&str]) -> Pod {
    let spec = PodSpec {
        restart_policy: Some(policy.to_owned()),
        init_containers: Some(init.iter().map(|name| named(name)).collect()),
        containers: apps.iter().map(|name| named(name)).collect(),
        ..PodSpec::default()
    };
    Pod { spec: Some(spec), ..Pod::default() }
}

fn input<'a>(
    pod: &'a Pod,
    runtime: &'a PodRuntime,
    previous: &'a PodStatus,
    failures: &'a HashMap<String, StartFailure>,
    host_ips: &'a [String],
) -> StatusInput<'a> {
    StatusInput {
        pod,
        runtime,
        previous,
        verdicts: &|_| Verdicts::default(),
        failures,
        stop: None,
        terminal: false,
        actuated: PLAIN.get_or_init(PodResources::default),
        resize: QUIET.get_or_init(ResizeState::default),
        host_ips,
        recursive_read_only: false,
        now: Timestamp::from_second(100).unwrap(),
    }
}

fn plain(pod: &Pod, containers: Vec<ContainerRecord>) -> PodStatus {
    let runtime = runtime(vec![sandbox(0, true)], containers);
    generate(&input(pod, &runtime, &PodStatus::default(), &HashMap::new(), &["192.0.2.1".to_owned()]))
}

fn condition<'a>(status: &'a PodStatus, type_: &str) -> &'a k8s_openapi::api::core::v1::PodCondition {
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_).unwrap()
}

fn words(status: &PodStatus, type_: &str) -> String {
    let condition = condition(status, type_);
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{} {} {}", condition.status, text(&condition.reason), text(&condition.message)).trim_end().to_owned()
}

#[test]
fn phases() {
    let check = |policy: &str, containers: &[(&str, ContainerPhase, i32)], expected: &str| {
        let records = containers.iter().map(|(name, phase, code)| container(name, *phase, *code)).collect();
        let status = plain(&pod(policy, &["i"], &["a", "b"]), records);
        assert_eq!(status.phase.as_deref(), Some(expected), "{policy} {containers:?}");
    };
    check("Always", &[], "Pending");
    check("Always", &[("i", Running, 0)], "Pending");
    check("Always", &[("i", Exited, 1)], "Pending");
    check("Never", &[("i", Exited, 1)], "Failed");
    check("Always", &[("i", Exited, 0), ("a", Running, 0)], "Pending");
    check("Always", &[("i", Exited, 0), ("a", Running, 0), ("b", Created, 0)], "Pending");
    check("Always", &[("i", Exited, 0), ("a", Running, 0), ("b", Running, 0)], "Running");
    check("Always", &[("i", Exited, 0), ("a", Exited, 0), ("b", Exited, 0)], "Running");
    check("Never", &[("i", Exited, 0), ("a", Running, 0), ("b", Exited, 1)], "Running");
    check("Never", &[("i", Exited, 0), ("a", Exited, 0), ("b", Exited, 1)], "Failed");
    check("Never", &[("i", Exited, 0), ("a", Exited, 0), ("b", Exited, 0)], "Succeeded");
    check("OnFailure", &[("i", Exited, 0), ("a", Exited, 0), ("b", Exited, 1)], "Running");
}

#[test]
fn conditions_have_upstreams_order_and_words() {
    let status = plain(&pod("Always", &[], &["a", "b"]), vec![container("a", Running, 0)]);
    let types: Vec<&str> = status.conditions.iter().flatten().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(types, ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]);
    assert_eq!(words(&status, "PodReadyToStartContainers"), "True");
    assert_eq!(words(&status, "Initialized"), "True");
    assert_eq!(words(&status, "Ready"), "False ContainersNotReady containers with unready status: [b]");
    let status = plain(&pod("Always", &["i"], &["a"]), vec![container("i", Running, 0)]);
    assert_eq!(words(&status, "Initialized"), "False ContainersNotInitialized containers with incomplete status: [i]");
    let status = plain(&pod("Never", &[], &["a"]), vec![container("a", Exited, 0)]);
    assert_eq!(words(&status, "Ready"), "False PodCompleted");
    assert_eq!(words(&status, "Initialized"), "True PodCompleted");
    let status = plain(&pod("Never", &[], &["a"]), vec![container("a", Exited, 3)]);
    assert_eq!(words(&status, "ContainersReady"), "False PodFailed");
}

#[test]
fn readiness_gates_hold_a_pod_back() {
    let mut gated = pod("Always", &[], &["a"]);
    let gate = PodReadinessGate { condition_type: "example.org/g".to_owned() };
    gated.spec.as_mut().unwrap().readiness_gates = Some(vec![gate]);
    let status = plain(&gated, vec![container("a", Running, 0)]);
    assert_eq!(words(&status, "ContainersReady"), "True");
    let expected =
        "False ReadinessGatesNotReady corresponding condition of pod readiness gate \"example.org/g\" does not exist.";
    assert_eq!(words(&status, "Ready"), expected);
}

#[test]
fn transition_times_move_only_with_the_status() {
    let pod = pod("Always", &[], &["a"]);
    let first = plain(&pod, vec![container("a", Running, 0)]);
    let runtime = runtime(vec![sandbox(0, true)], vec![container("a", Exited, 1)]);
    let failures = HashMap::new();
    let mut later = input(&pod, &runtime, &first, &failures, &[]);
    later.now = Timestamp::from_second(200).unwrap();
    let second = generate(&later);
    let at =
        |status: &PodStatus, type_: &str| condition(status, type_).last_transition_time.clone().unwrap().0.as_second();
    assert_eq!((at(&second, "Ready"), at(&second, "Initialized")), (200, 100));
    assert_eq!(second.start_time, first.start_time);
}

#[test]
fn a_container_in_back_off_waits_and_shows_its_last_end() {
    let pod = pod("Always", &[], &["a"]);
    let mut ended = container("a", Exited, 1);
    ended.notes.restart_count = 3;
    let runtime = runtime(vec![sandbox(0, true)], vec![ended]);
    let message = "back-off 10s restarting failed container=a pod=p_ns(u)".to_owned();
    let failure = StartFailure { reason: "CrashLoopBackOff".to_owned(), message: message.clone() };
    let failures = HashMap::from([("a".to_owned(), failure)]);
    let status = generate(&input(&pod, &runtime, &PodStatus::default(), &failures, &[]));
    let own = &status.container_statuses.as_ref().unwrap()[0];
    let waiting = own.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!((waiting.reason.as_deref(), waiting.message.as_ref()), (Some("CrashLoopBackOff"), Some(&message)));
    assert_eq!(own.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 1);
    assert_eq!((own.restart_count, own.ready, own.started), (3, false, Some(false)));
    assert_eq!(status.phase.as_deref(), Some("Running"));
}

#[test]
fn what_upstream_leaves_out_is_left_out() {
    let mut pod = pod("Always", &[], &["a"]);
    let debugger = EphemeralContainer { name: "d".to_owned(), ..EphemeralContainer::default() };
    pod.spec.as_mut().unwrap().ephemeral_containers = Some(vec![debugger]);
    let runtime = runtime(vec![sandbox(0, true)], vec![container("d", Running, 0)]);
    let status = generate(&input(&pod, &runtime, &PodStatus::default(), &HashMap::new(), &[]));
    let waiting = &status.container_statuses.as_ref().unwrap()[0];
    assert!(waiting.resources.is_none() && waiting.allocated_resources.is_none(), "{waiting:?}");
    assert_eq!((waiting.ready, waiting.started), (false, Some(false)));
    let debugger = &status.ephemeral_container_statuses.as_ref().unwrap()[0];
    assert!(debugger.state.as_ref().unwrap().running.is_some());
    assert_eq!((debugger.ready, debugger.started), (false, None));
}

/// A pod that is deleted before it began: a Job waits for its phase.
#[test]
fn regress_a_pod_that_never_began_fails_with_its_end() {
    let check = |inits: &[&str], records: Vec<ContainerRecord>, expected: &str| {
        let pod = pod("Never", inits, &["a"]);
        let runtime = runtime(Vec::new(), records);
        let (previous, failures) = (PodStatus::default(), HashMap::new());
        let status = generate(&StatusInput { terminal: true, ..input(&pod, &runtime, &previous, &failures, &[]) });
        assert_eq!(status.phase.as_deref(), Some("Failed"));
        let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
        let words: Vec<String> = all
            .map(|status| match status.state.as_ref().unwrap() {
                ContainerState { terminated: Some(ended), .. } => {
                    format!("{} {} {}", status.name, ended.exit_code, ended.reason.as_deref().unwrap_or_default())
                }
                ContainerState { waiting: Some(_), .. } => format!("{} waits", status.name),
                _ => format!("{} runs", status.name),
            })
            .collect();
        assert_eq!(words.join(", "), expected);
    };
    check(&[], Vec::new(), "a 137 ContainerStatusUnknown");
    check(&["i", "j"], Vec::new(), "i 137 ContainerStatusUnknown, j waits, a waits");
    check(&["i", "j"], vec![container("j", Exited, 1)], "i 137 ContainerStatusUnknown, j 1 Error, a waits");
    check(&["i"], vec![container("i", Exited, 0)], "i 0 Completed, a 137 ContainerStatusUnknown");
}

#[test]
fn probes_decide_readiness_and_start() {
    let mut probed = named("a");
    probed.readiness_probe = Some(Probe::default());
    probed.startup_probe = Some(Probe::default());
    let mut pod = pod("Always", &[], &[]);
    pod.spec.as_mut().unwrap().containers = vec![probed];
    let runtime = runtime(vec![sandbox(0, true)], vec![container("a", Running, 0)]);
    let previous = PodStatus::default();
    let failures = HashMap::new();
    let check = |startup: Option<bool>, readiness: Option<bool>, started: bool, ready: bool| {
        let verdicts = |_: &str| Verdicts { startup, readiness, ..Verdicts::default() };
        let status = generate(&StatusInput { verdicts: &verdicts, ..input(&pod, &runtime, &previous, &failures, &[]) });
        let own = &status.container_statuses.unwrap()[0];
        assert_eq!((own.started, own.ready), (Some(started), ready), "{startup:?} {readiness:?}");
    };
    check(None, None, false, false);
    check(Some(true), None, true, false);
    check(Some(true), Some(true), true, true);
    check(Some(false), Some(true), false, false);
}

#[test]
fn of_a_rejected_pod_only_the_reason_is_told() {
    let pod = pod("Always", &[], &["a"]);
    let scheduled =
        serde_json::json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "True" }] });
    let previous: PodStatus = serde_json::from_value(scheduled).unwrap();
    let (runtime, failures) = (PodRuntime::default(), HashMap::new());
    let stop = Stop { reason: "OutOfcpu".to_owned(), message: "Pod was rejected: no".to_owned(), rejected: true };
    let status = generate(&StatusInput { stop: Some(&stop), ..input(&pod, &runtime, &previous, &failures, &[]) });
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("OutOfcpu")));
    assert_eq!(status.container_statuses, None);
    assert_eq!(status.conditions, previous.conditions);
    assert_eq!(generate(&input(&pod, &runtime, &status, &failures, &[])), status, "also after a restart");
}

#[test]
fn a_stopped_pod_fails_with_the_reason_and_stays_so() {
    let pod = pod("Always", &[], &["a"]);
    let runtime = runtime(vec![sandbox(0, false)], vec![container("a", Exited, 0)]);
    let failures = HashMap::new();
    let stop = Stop { reason: "DeadlineExceeded".to_owned(), message: "too long".to_owned(), rejected: false };
    let previous = PodStatus::default();
    let stopped = StatusInput { stop: Some(&stop), terminal: true, ..input(&pod, &runtime, &previous, &failures, &[]) };
    let status = generate(&stopped);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
    let again = generate(&input(&pod, &runtime, &status, &failures, &[]));
    assert_eq!((again.phase.as_deref(), again.message.as_deref()), (Some("Failed"), Some("too long")));
}

#[test]
fn a_deleted_pod_whose_containers_ended_well_has_succeeded() {
    let pod = pod("Always", &[], &["a"]);
    let failures = HashMap::new();
    let previous = PodStatus::default();
    for (code, expected) in [(0, "Succeeded"), (137, "Failed")] {
        let runtime = runtime(vec![sandbox(0, false)], vec![container("a", Exited, code)]);
        let ended = StatusInput { terminal: true, ..input(&pod, &runtime, &previous, &failures, &[]) };
        assert_eq!(generate(&ended).phase.as_deref(), Some(expected));
    }
}
