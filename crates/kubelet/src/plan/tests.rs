//! Tables of plans: what the pod should be and what there is, and the steps that follow.

use k8s_openapi::api::core::v1::{EphemeralContainer, PodSpec, Probe};

use super::*;
use crate::runtime_state::fixtures::{container, runtime, sandbox};

fn spec_container(name: &str) -> Container {
    Container { name: name.to_owned(), image: Some("image:1".to_owned()), ..Container::default() }
}

fn sidecar(name: &str) -> Container {
    Container { restart_policy: Some("Always".to_owned()), ..spec_container(name) }
}

fn pod(policy: &str, init: Vec<Container>, apps: Vec<Container>) -> Pod {
    let spec = PodSpec {
        restart_policy: Some(policy.to_owned()),
        init_containers: Some(init),
        containers: apps,
        ..PodSpec::default()
    };
    Pod { spec: Some(spec), ..Pod::default() }
}

fn apps(policy: &str, names: &[&str]) -> Pod {
    pod(policy, Vec::new(), names.iter().map(|name| spec_container(name)).collect())
}

fn start(name: &str) -> Action {
    Action::Start(name.to_owned())
}

fn init(name: &str) -> Action {
    Action::StartInit(name.to_owned())
}

fn quiet(_: &str) -> Verdicts {
    Verdicts::default()
}

use ContainerPhase::{Created, Exited, Running, Unknown};

#[test]
fn a_new_pod_gets_a_sandbox_and_its_first_containers() {
    let fresh = Action::CreateSandbox { attempt: 0, changed: false };
    let empty = runtime(vec![], vec![]);
    assert_eq!(plan_pod(&apps("Always", &["a", "b"]), &empty, &quiet), [fresh.clone(), start("a"), start("b")]);
    let with_init = pod("Always", vec![spec_container("i"), spec_container("j")], vec![spec_container("a")]);
    assert_eq!(plan_pod(&with_init, &empty, &quiet), [fresh, init("i")]);
}

#[test]
fn a_lost_sandbox_is_made_again_unless_the_pod_had_its_run() {
    let check = |policy: &str, containers: Vec<ContainerRecord>, expected: Vec<Action>| {
        let state = runtime(vec![sandbox(0, false)], containers);
        assert_eq!(plan_pod(&apps(policy, &["a"]), &state, &quiet), expected, "{policy}");
    };
    let again = Action::CreateSandbox { attempt: 1, changed: true };
    check("Always", vec![container("a", Exited, 0)], vec![Action::KillPod, again.clone(), start("a")]);
    check("OnFailure", vec![container("a", Exited, 0)], vec![Action::KillPod]);
    check("OnFailure", vec![container("a", Exited, 1)], vec![Action::KillPod, again.clone(), start("a")]);
    check("Never", vec![container("a", Exited, 1)], vec![Action::KillPod]);
    check("Never", vec![], vec![Action::KillPod, again, start("a")]);
}

#[test]
fn a_sandbox_without_an_address_or_with_another_network_is_replaced() {
    let mut no_address = sandbox(2, true);
    no_address.ips.clear();
    assert_eq!(sandbox_needed(&apps("Always", &["a"]), &runtime(vec![no_address], vec![])), Some(3));
    let mut on_host = sandbox(0, true);
    on_host.host_network = true;
    assert_eq!(sandbox_needed(&apps("Always", &["a"]), &runtime(vec![on_host], vec![])), Some(1));
    assert_eq!(sandbox_needed(&apps("Always", &["a"]), &runtime(vec![sandbox(0, true)], vec![])), None);
    let two = runtime(vec![sandbox(0, true), sandbox(1, true)], vec![]);
    assert_eq!(sandbox_needed(&apps("Always", &["a"]), &two), Some(2));
}

#[test]
fn ended_containers_follow_the_restart_policy() {
    let check = |policy: &str, phase: ContainerPhase, exit_code: i32, expected: Vec<Action>| {
        let state = runtime(vec![sandbox(0, true)], vec![container("a", phase, exit_code)]);
        assert_eq!(plan_pod(&apps(policy, &["a"]), &state, &quiet), expected, "{policy} {phase:?} {exit_code}");
    };
    check("Always", Running, 0, vec![]);
    check("Always", Exited, 0, vec![start("a")]);
    check("OnFailure", Exited, 0, vec![Action::KillPod]);
    check("OnFailure", Exited, 1, vec![start("a")]);
    check("Never", Exited, 1, vec![Action::KillPod]);
    check("Never", Created, 0, vec![start("a")]);
}

#[test]
fn one_ended_container_leaves_the_others_alone() {
    let state = runtime(vec![sandbox(0, true)], vec![container("a", Exited, 1), container("b", Running, 0)]);
    assert_eq!(plan_pod(&apps("Never", &["a", "b"]), &state, &quiet), []);
    assert_eq!(plan_pod(&apps("Always", &["a", "b"]), &state, &quiet), [start("a")]);
}

#[test]
fn running_containers_are_killed_for_a_changed_image_or_failed_probes() {
    let check = |policy: &str, hash: &str, verdicts: Verdicts, message: &str, again: bool| {
        let mut record = container("a", Running, 0);
        record.notes.hash = hash.to_owned();
        let actions = plan_pod(&apps(policy, &["a"]), &runtime(vec![sandbox(0, true)], vec![record]), &|_| verdicts);
        match &actions[..] {
            [Action::Kill(kill), rest @ ..] => {
                assert_eq!(kill.message, message);
                assert_eq!(rest == [start("a")], again, "{message}");
            }
            // With nothing left to run, the pod ends.
            [Action::KillPod] => assert!(message.is_empty(), "{message}"),
            other => panic!("{other:?}"),
        }
    };
    let unchanged = labels::container_hash(&spec_container("a"));
    let dead = Verdicts { liveness: Some(false), ..Verdicts::default() };
    let stuck = Verdicts { startup: Some(false), ..Verdicts::default() };
    check("Always", "0", Verdicts::default(), "Container a definition changed, will be restarted", true);
    check("Always", &unchanged, dead, "Container a failed liveness probe, will be restarted", true);
    check("OnFailure", &unchanged, stuck, "Container a failed startup probe, will be restarted", true);
    check("Never", &unchanged, dead, "", false);
}

#[test]
fn a_container_in_unknown_state_is_killed_before_it_is_started_again() {
    let state = runtime(vec![sandbox(0, true)], vec![container("a", Unknown, 0)]);
    let actions = plan_pod(&apps("Always", &["a"]), &state, &quiet);
    let [Action::Kill(kill), Action::Start(name)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((kill.reason, name.as_str()), (KillReason::Unknown, "a"));
}

#[test]
fn init_containers_run_one_after_the_other() {
    let wanted = |policy: &str| pod(policy, vec![spec_container("i"), spec_container("j")], vec![spec_container("a")]);
    let check = |policy: &str, containers: Vec<ContainerRecord>, expected: Vec<Action>| {
        let state = runtime(vec![sandbox(0, true)], containers);
        assert_eq!(plan_pod(&wanted(policy), &state, &quiet), expected, "{policy}");
    };
    check("Always", vec![], vec![init("i")]);
    check("Always", vec![container("i", Running, 0)], vec![]);
    check("Always", vec![container("i", Exited, 0)], vec![init("j")]);
    check("Always", vec![container("i", Exited, 1)], vec![init("i")]);
    check("Never", vec![container("i", Exited, 1)], vec![Action::KillPod]);
    check("Always", vec![container("i", Exited, 0), container("j", Exited, 0)], vec![start("a")]);
    // The record of the first one is gone; the second one tells that it ran.
    check("Always", vec![container("j", Exited, 0)], vec![start("a")]);
    // Once an app container was there, init containers do not run again.
    check("Always", vec![container("a", Exited, 1)], vec![start("a")]);
}

#[test]
fn sidecars_start_in_order_and_are_kept_alive() {
    let mut probed = sidecar("s");
    probed.startup_probe = Some(Probe::default());
    let wanted = pod("Always", vec![probed, spec_container("i")], vec![spec_container("a")]);
    let check = |containers: Vec<ContainerRecord>, startup: Option<bool>, expected: Vec<Action>| {
        let state = runtime(vec![sandbox(0, true)], containers);
        let verdicts = |_: &str| Verdicts { startup, ..Verdicts::default() };
        assert_eq!(plan_pod(&wanted, &state, &verdicts), expected);
    };
    check(vec![container("s", Running, 0)], None, vec![]);
    check(vec![container("s", Running, 0)], Some(true), vec![init("i")]);
    check(vec![container("s", Running, 0), container("i", Exited, 0)], Some(true), vec![start("a")]);
    check(vec![container("s", Exited, 0), container("i", Running, 0)], Some(true), vec![init("s")]);
    check(vec![container("s", Exited, 0), container("a", Running, 0)], Some(true), vec![init("s")]);
    check(vec![container("a", Running, 0)], Some(true), vec![init("s")]);
}

#[test]
fn sidecars_do_not_keep_a_finished_pod_alive() {
    let wanted = pod("Never", vec![sidecar("s")], vec![spec_container("a")]);
    let state = runtime(vec![sandbox(0, true)], vec![container("s", Running, 0), container("a", Exited, 0)]);
    assert_eq!(plan_pod(&wanted, &state, &quiet), [Action::KillPod]);
}

#[test]
fn ephemeral_containers_start_once() {
    let mut wanted = apps("Always", &["a"]);
    let debug = EphemeralContainer { name: "debug".to_owned(), ..EphemeralContainer::default() };
    wanted.spec.as_mut().unwrap().ephemeral_containers = Some(vec![debug]);
    let running = container("a", Running, 0);
    let state = runtime(vec![sandbox(0, true)], vec![running.clone()]);
    assert_eq!(plan_pod(&wanted, &state, &quiet), [Action::StartEphemeral("debug".to_owned())]);
    let ended = runtime(vec![sandbox(0, true)], vec![running, container("debug", Exited, 1)]);
    assert_eq!(plan_pod(&wanted, &ended, &quiet), []);
}

#[test]
fn a_resize_comes_between_kills_and_starts() {
    let record = container("a", ContainerPhase::Running, 0);
    let state = runtime(vec![sandbox(0, true)], vec![record, container("b", ContainerPhase::Exited, 1)]);
    let restart = |id: &str| Verdicts { resize_restart: id == "a-id", ..Verdicts::default() };
    let actions = with_resize(plan_pod(&apps("Never", &["a"]), &state, &restart));
    let message = "Container a resize requires restart".to_owned();
    let kill = Kill { container_id: "a-id".to_owned(), name: "a".to_owned(), reason: KillReason::Resize, message };
    assert_eq!(actions, [Action::Kill(kill), Action::Resize, start("a")]);
    assert_eq!(with_resize(vec![]), [Action::Resize]);
    assert_eq!(with_resize(vec![Action::KillPod]), [Action::KillPod]);
}

#[test]
fn what_is_killed_and_started_is_a_restart() {
    let changed = |name: &str| {
        let mut record = container(name, Running, 0);
        record.notes.hash = "0".to_owned();
        record
    };
    let restarted_in = |policy: &str, containers: Vec<ContainerRecord>, verdicts: Verdicts| {
        let state = runtime(vec![sandbox(0, true)], containers);
        restarted(&plan_pod(&apps(policy, &["a", "b", "c"]), &state, &|_: &str| verdicts))
    };
    let all = |third| vec![changed("a"), changed("b"), third];
    assert_eq!(restarted_in("Always", all(container("c", Exited, 1)), Verdicts::default()), ["a", "b"]);
    let failed = Verdicts { liveness: Some(false), ..Verdicts::default() };
    assert_eq!(restarted_in("Never", all(container("c", Running, 0)), failed), ["a", "b"]);
    let unchanged = ["a", "b", "c"].map(|name| container(name, Running, 0)).to_vec();
    assert!(restarted_in("Always", unchanged, Verdicts::default()).is_empty());
}
