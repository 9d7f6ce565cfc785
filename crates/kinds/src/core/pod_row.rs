//! The row of a pod: what `kubectl get pods` shows.
//!
//! The invariant: STATUS is upstream's word for the same statuses of containers, since people and scripts match on it.

use jiff::Timestamp;
use kedge_meta::parse_time;
use serde_json::Value;

use crate::strategy::Column;
use crate::table::{AGE, NAME, age, column, human_duration, name, or_none, wide};
use crate::value::{at, int, is_set, items, text, truth};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "string", "Containers that are ready, of all that stay"),
    column("Status", "string", "State of the pod's containers in one word"),
    column("Restarts", "string", "Restarts of containers, and when the last one was"),
    AGE,
    wide("IP", "string", "First IP address of the pod"),
    wide("Node", "string", "Node that runs the pod"),
    wide("Nominated Node", "string", "Node that pods are being removed from to make room for this one"),
    wide("Readiness Gates", "string", "Readiness gates that are met, of all"),
];

/// What is counted while going through the containers.
struct Counts {
    ready: i64,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

pub(super) fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (reason, counts) = summarize(pod);
    let restarts = match counts.last_restart {
        Some(time) if counts.restarts != 0 => {
            format!("{} ({} ago)", counts.restarts, human_duration(now.duration_since(time).as_secs()))
        }
        _ => counts.restarts.to_string(),
    };
    let stay = |one: &&Value| text(one, &["restartPolicy"]) == "Always";
    let total =
        items(pod, &["spec", "containers"]).len() + items(pod, &["spec", "initContainers"]).iter().filter(stay).count();
    let ip = items(pod, &["status", "podIPs"]).first().map(|ip| text(ip, &["ip"])).unwrap_or_default();
    vec![
        name(pod),
        Value::from(format!("{}/{total}", counts.ready)),
        Value::from(reason),
        Value::from(restarts),
        age(pod, now),
        Value::from(or_none(ip)),
        Value::from(or_none(text(pod, &["spec", "nodeName"]))),
        Value::from(or_none(text(pod, &["status", "nominatedNodeName"]))),
        Value::from(readiness_gates(pod)),
    ]
}

fn summarize(pod: &Value) -> (String, Counts) {
    let phase = text(pod, &["status", "phase"]);
    let mut reason = match text(pod, &["status", "reason"]) {
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    let conditions = items(pod, &["status", "conditions"]);
    let gated = |one: &Value| text(one, &["type"]) == "PodScheduled" && text(one, &["reason"]) == "SchedulingGated";
    if conditions.iter().any(gated) {
        reason = "SchedulingGated".to_owned();
    }
    let (initializing, sidecars, mut counts) = init_containers(pod, &mut reason);
    if !initializing || has_condition(conditions, "Initialized") {
        let ready = counts.ready;
        counts = Counts { ready, ..sidecars };
        containers(pod, conditions, &mut reason, &mut counts);
    }
    if is_set(pod, &["metadata", "deletionTimestamp"]) {
        if text(pod, &["status", "reason"]) == "NodeLost" {
            reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            reason = "Terminating".to_owned();
        }
    }
    (reason, counts)
}

/// Goes through init containers up to the first that is not done. Whether there is one, what sidecars count, what all count.
fn init_containers(pod: &Value, reason: &mut String) -> (bool, Counts, Counts) {
    let specs = items(pod, &["spec", "initContainers"]);
    let mut all = Counts { ready: 0, restarts: 0, last_restart: None };
    let mut sidecars = Counts { ready: 0, restarts: 0, last_restart: None };
    for (index, status) in items(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
        let spec = specs.iter().find(|spec| text(spec, &["name"]) == text(status, &["name"]));
        let sidecar = spec.is_some_and(|spec| text(spec, &["restartPolicy"]) == "Always");
        count_restarts(status, &mut all);
        if sidecar {
            count_restarts(status, &mut sidecars);
        }
        let terminated = at(status, &["state", "terminated"]);
        if terminated.is_some_and(|terminated| int(terminated, &["exitCode"]).unwrap_or(0) == 0) {
            continue;
        }
        if sidecar && truth(status, &["started"]) {
            all.ready += i64::from(truth(status, &["ready"]));
            continue;
        }
        let waiting = text(status, &["state", "waiting", "reason"]);
        *reason = match terminated {
            Some(terminated) => format!("Init:{}", end_reason(terminated)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{index}/{}", specs.len()),
        };
        return (true, sidecars, all);
    }
    (false, sidecars, all)
}

fn containers(pod: &Value, conditions: &[Value], reason: &mut String, counts: &mut Counts) {
    let mut running = false;
    for status in items(pod, &["status", "containerStatuses"]).iter().rev() {
        count_restarts(status, counts);
        let waiting = text(status, &["state", "waiting", "reason"]);
        if !waiting.is_empty() {
            *reason = waiting.to_owned();
        } else if let Some(terminated) = at(status, &["state", "terminated"]) {
            *reason = end_reason(terminated);
        } else if truth(status, &["ready"]) && at(status, &["state", "running"]).is_some() {
            running = true;
            counts.ready += 1;
        }
    }
    if reason == "Completed" && running {
        *reason = if has_condition(conditions, "Ready") { "Running" } else { "NotReady" }.to_owned();
    }
}

fn count_restarts(status: &Value, counts: &mut Counts) {
    counts.restarts += int(status, &["restartCount"]).unwrap_or(0);
    let finished = parse_time(text(status, &["lastState", "terminated", "finishedAt"]));
    counts.last_restart = counts.last_restart.max(finished);
}

fn end_reason(terminated: &Value) -> String {
    match (text(terminated, &["reason"]), int(terminated, &["signal"]).unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", int(terminated, &["exitCode"]).unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn has_condition(conditions: &[Value], kind: &str) -> bool {
    conditions
        .iter()
        .find(|condition| text(condition, &["type"]) == kind)
        .is_some_and(|condition| text(condition, &["status"]) == "True")
}

fn readiness_gates(pod: &Value) -> String {
    let gates = items(pod, &["spec", "readinessGates"]);
    let conditions = items(pod, &["status", "conditions"]);
    let met = gates.iter().filter(|gate| has_condition(conditions, text(gate, &["conditionType"]))).count();
    match gates.len() {
        0 => "<none>".to_owned(),
        all => format!("{met}/{all}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(pod: Value, expected: [&str; 4]) {
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let cells = row(&pod, now);
        assert_eq!(cells.len(), COLUMNS.len());
        let shown: Vec<&str> = cells[1..5].iter().filter_map(Value::as_str).collect();
        assert_eq!(shown, expected, "{pod}");
    }

    #[test]
    fn statuses_are_upstreams() {
        let metadata = json!({"name": "web", "creationTimestamp": "2026-01-01T23:55:00Z"});
        let running = json!({"ready": true, "restartCount": 0, "state": {"running": {}}});
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        check(
            json!({"metadata": metadata, "spec": two, "status": {"phase": "Pending"}}),
            ["0/2", "Pending", "0", "5m"],
        );
        check(
            json!({"metadata": metadata, "spec": two, "status": {
                "phase": "Running", "containerStatuses": [running, running]}}),
            ["2/2", "Running", "0", "5m"],
        );
        check(
            json!({"metadata": metadata, "spec": two, "status": {"phase": "Running", "containerStatuses": [
                {"ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                 "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T23:58:30Z"}}},
                running]}}),
            ["1/2", "CrashLoopBackOff", "3 (90s ago)", "5m"],
        );
        check(
            json!({"metadata": metadata, "spec": two, "status": {"phase": "Failed", "containerStatuses": [
                {"ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 137, "signal": 9}}}]}}),
            ["0/2", "Signal:9", "0", "5m"],
        );
        check(
            json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T23:55:00Z",
                    "deletionTimestamp": "2026-01-02T00:00:30Z"},
                "spec": two, "status": {"phase": "Running", "containerStatuses": [running, running]}}),
            ["2/2", "Terminating", "0", "5m"],
        );
    }

    #[test]
    fn init_containers_come_first() {
        let metadata = json!({"name": "web", "creationTimestamp": "2026-01-01T23:55:00Z"});
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [
            {"name": "side", "restartPolicy": "Always"}, {"name": "setup"}]});
        let side = json!({"name": "side", "ready": true, "started": true, "restartCount": 1, "state": {"running": {}}});
        let waiting = json!([{"name": "a", "state": {"waiting": {"reason": "PodInitializing"}}}]);
        for (setup, expected) in [
            (json!({"name": "setup", "state": {"running": {}}}), ["1/2", "Init:1/2", "1", "5m"]),
            (
                json!({"name": "setup", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}),
                ["1/2", "Init:CrashLoopBackOff", "3", "5m"],
            ),
            (
                json!({"name": "setup", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}),
                ["1/2", "Init:Error", "1", "5m"],
            ),
            (
                json!({"name": "setup", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}),
                ["1/2", "PodInitializing", "1", "5m"],
            ),
        ] {
            check(
                json!({"metadata": metadata, "spec": spec, "status": {
                    "phase": "Pending", "initContainerStatuses": [side, setup], "containerStatuses": waiting}}),
                expected,
            );
        }
    }
}
