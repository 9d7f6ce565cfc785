//! What becomes of pods, step by step.

use super::*;
use crate::annotations::{READY, RUN_TIME, START_DELAY, STOP_TIME};
use serde_json::{Value, json};

const ADDRESSES: Addresses<'_> = Addresses { pod: "100.64.0.9", node: "198.18.0.1" };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1000 + second).unwrap()
}

fn pod(annotations: Value, spec: Value) -> Pod {
    let mut value = json!({"metadata": {"name": "p", "uid": "u", "annotations": annotations}, "spec": spec});
    value["spec"]["containers"] = json!([{"name": "main", "image": "i"}]);
    serde_json::from_value(value).unwrap()
}

/// The pod after what was planned for it was written, as the API keeps it; and when the next step is due.
fn step(mut pod: Pod, second: i64) -> (Pod, Option<i64>) {
    let turn = plan(&pod, ADDRESSES, at(second));
    if let Step::Write(status) = turn.step {
        pod.status = Some(serde_json::from_value(serde_json::to_value(&*status).unwrap()).unwrap());
    }
    assert_eq!(plan(&pod, ADDRESSES, at(second)).step, Step::Nothing, "a step is taken once");
    (pod, turn.due.map(|due| due.as_second() - 1000))
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().unwrap().phase.as_deref().unwrap()
}

/// A condition as `True` or `False Reason`, with the second of its last transition.
fn condition(pod: &Pod, type_: &str) -> (String, i64) {
    let all = pod.status.as_ref().unwrap().conditions.as_deref().unwrap();
    let one = all.iter().find(|condition| condition.type_ == type_).unwrap();
    let text = format!("{} {}", one.status, one.reason.as_deref().unwrap_or_default());
    (text.trim().to_owned(), one.last_transition_time.as_ref().unwrap().0.as_second() - 1000)
}

fn deleted(mut pod: Pod, second: i64, grace: i64) -> Pod {
    pod.metadata.deletion_timestamp = Some(Time(at(second + grace)));
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    pod
}

#[test]
fn a_pod_runs_at_once_and_for_ever() {
    let (pod, due) = step(pod(json!({}), json!({})), 0);
    let status = pod.status.as_ref().unwrap();
    assert_eq!((phase(&pod), due), ("Running", None));
    assert_eq!((status.pod_ip.as_deref(), status.host_ip.as_deref()), (Some("100.64.0.9"), Some("198.18.0.1")));
    assert!(status.container_statuses.as_ref().unwrap()[0].ready);
    for type_ in ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"] {
        assert_eq!(condition(&pod, type_), ("True".to_owned(), 0), "{type_}");
    }
    assert_eq!(step(pod.clone(), 500).0, pod);
}

#[test]
fn it_waits_for_its_start() {
    let (pod, due) = step(pod(json!({START_DELAY: "5s"}), json!({})), 0);
    assert_eq!((phase(&pod), due, pod.status.as_ref().unwrap().pod_ip.as_deref()), ("Pending", Some(5), None));
    assert_eq!(condition(&pod, "Ready"), ("False ContainersNotReady".to_owned(), 0));
    let (pod, _) = step(pod, 5);
    assert_eq!((phase(&pod), condition(&pod, "Ready")), ("Running", ("True".to_owned(), 5)));
}

#[test]
fn it_ends_in_the_phase_of_its_exit_code() {
    let check = |code: &str, expected: &str, reason: &str| {
        let annotations = json!({RUN_TIME: "3s", crate::annotations::EXIT_CODE: code});
        let (pod, due) = step(pod(annotations, json!({"restartPolicy": "Never"})), 0);
        assert_eq!((phase(&pod), due), ("Running", Some(3)));
        let (pod, due) = step(pod, 3);
        assert_eq!((phase(&pod), due), (expected, None));
        assert_eq!(condition(&pod, "Ready"), (format!("False {reason}"), 3));
        assert_eq!(step(pod.clone(), 900).0, pod, "a terminal phase never changes");
    };
    check("0", "Succeeded", "PodCompleted");
    check("7", "Failed", "PodFailed");
}

#[test]
fn readiness_is_said_and_gated() {
    let (unready, _) = step(pod(json!({READY: "false"}), json!({})), 0);
    assert_eq!((phase(&unready), condition(&unready, "Ready").0.as_str()), ("Running", "False ContainersNotReady"));
    let (gated, _) = step(pod(json!({}), json!({"readinessGates": [{"conditionType": "x/y"}]})), 0);
    assert_eq!(condition(&gated, "ContainersReady").0, "True");
    assert_eq!(condition(&gated, "Ready").0, "False ReadinessGatesNotReady");
    let mut open = gated;
    let condition_of_others = PodCondition { type_: "x/y".to_owned(), status: "True".to_owned(), ..Default::default() };
    open.status.as_mut().unwrap().conditions.as_mut().unwrap().push(condition_of_others);
    assert_eq!(condition(&step(open, 10).0, "Ready"), ("True".to_owned(), 10));
}

#[test]
fn a_deadline_ends_it() {
    let (pod, due) = step(pod(json!({}), json!({"activeDeadlineSeconds": 8})), 0);
    assert_eq!(due, Some(8));
    let (pod, _) = step(pod, 8);
    let status = pod.status.as_ref().unwrap();
    assert_eq!((phase(&pod), status.reason.as_deref()), ("Failed", Some("DeadlineExceeded")));
    assert!(!status.container_statuses.as_ref().unwrap()[0].ready);
}

#[test]
fn init_containers_are_done_and_sidecars_run() {
    let inits = json!({"initContainers": [{"name": "a"}, {"name": "b", "restartPolicy": "Always"}]});
    let (pod, _) = step(pod(json!({}), inits), 0);
    let all = pod.status.as_ref().unwrap().init_container_statuses.clone().unwrap();
    assert_eq!(exit_code(&all[0]), Some(0));
    assert!(all[1].state.as_ref().unwrap().running.is_some() && all[1].ready);
}

#[test]
fn a_deleted_pod_goes_after_its_time() {
    let (plain, _) = step(pod(json!({}), json!({})), 0);
    assert_eq!(plan(&deleted(plain, 10, 30), ADDRESSES, at(10)), Turn { step: Step::Remove, due: None });
    let (slow, _) = step(pod(json!({STOP_TIME: "5s"}), json!({})), 0);
    let slow = deleted(slow, 10, 30);
    assert_eq!(plan(&slow, ADDRESSES, at(12)), Turn { step: Step::Nothing, due: Some(at(15)) });
    assert_eq!(plan(&slow, ADDRESSES, at(15)).step, Step::Remove);
    let (slower, _) = step(pod(json!({STOP_TIME: "50s"}), json!({})), 0);
    assert_eq!(plan(&deleted(slower, 10, 30), ADDRESSES, at(40)).step, Step::Remove, "the grace period is the limit");
}

#[test]
fn who_counts_a_pod_learns_how_it_ended() {
    let (mut pod, _) = step(pod(json!({}), json!({"restartPolicy": "Never"})), 0);
    pod.metadata.finalizers = Some(vec!["batch.kubernetes.io/job-tracking".to_owned()]);
    let Step::Write(status) = plan(&deleted(pod.clone(), 10, 30), ADDRESSES, at(10)).step else { panic!("no status") };
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    pod.status = Some(*status);
    assert_eq!(plan(&deleted(pod.clone(), 10, 30), ADDRESSES, at(10)).step, Step::Remove);
    assert_eq!(plan(&deleted(pod, 10, 0), ADDRESSES, at(10)).step, Step::Nothing, "it waits for its finalizers alone");
}
