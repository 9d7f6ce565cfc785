//! Priority and fairness: whose request runs, waits or is refused.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use kedge_apiserver::Config;
use kedge_meta::UserInfo;
use serde_json::{Value, json};

use crate::harness::{Answer, Harness, request};

const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";

fn level(name: &str, response: Value) -> Value {
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": name}, "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": response}}})
}

fn schema(name: &str, level: &str, user: &str) -> Value {
    let everything =
        json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]);
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": name}, "spec": {
        "matchingPrecedence": 50, "priorityLevelConfiguration": {"name": level},
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": user}}], "resourceRules": everything}]}})
}

fn queue(length: u64) -> Value {
    json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": length}})
}

fn noxu() -> UserInfo {
    UserInfo::authenticated("noxu", ["readers"])
}

/// A server on which `noxu` may read, with a level and a schema of its own.
async fn harness(config: Config, response: Value) -> Harness {
    let harness = Harness::with(config).await;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "readers"}, "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "readers"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}});
    harness.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.expect(201);
    harness.post(LEVELS, level("mine", response)).await.expect(201);
    harness.post(SCHEMAS, schema("noxu", "mine", "noxu")).await.expect(201);
    harness
}

/// Seats for one request at a time.
fn one_seat() -> Config {
    Config { max_requests_inflight: 200, max_mutating_requests_inflight: 46, ..Config::default() }
}

/// A watch whose state nobody has read yet: it has its seat.
async fn unread_watch(harness: &Harness) -> http::Response<kedge_apiserver::Body> {
    let path = "/api/v1/namespaces?watch=true";
    let response = harness.send(Some(noxu()), request(Method::GET, path, &[], "")).await;
    assert_eq!(response.status(), 200);
    response
}

#[tokio::test]
async fn a_request_is_judged_by_the_schema_that_it_matches() {
    let harness = harness(Config::default(), queue(5)).await;
    let uid = |object: Value| object["metadata"]["uid"].as_str().unwrap().to_owned();
    let of = |answer: &Answer, header: &str| answer.headers[header].to_str().unwrap().to_owned();
    let (level_header, schema_header) = ("x-kubernetes-pf-prioritylevel-uid", "x-kubernetes-pf-flowschema-uid");
    let answer = harness.get_as(noxu(), "/api/v1/namespaces").await;
    assert_eq!(of(&answer, level_header), uid(harness.get(&format!("{LEVELS}/mine")).await.expect(200)));
    assert_eq!(of(&answer, schema_header), uid(harness.get(&format!("{SCHEMAS}/noxu")).await.expect(200)));
    let other = harness.get_as(UserInfo::authenticated("other", ["system:authenticated"]), "/version").await;
    assert_eq!(of(&other, schema_header), uid(harness.get(&format!("{SCHEMAS}/global-default")).await.expect(200)));
    // A schema that leads nowhere is passed over, also for who is not let in.
    let to_nowhere = json!({"spec": {"priorityLevelConfiguration": {"name": "nowhere"}}});
    harness.patch(&format!("{SCHEMAS}/noxu"), to_nowhere).await.expect(200);
    let answer = harness.get_as(UserInfo::authenticated("noxu", ["system:authenticated"]), "/api/v1/namespaces").await;
    assert_eq!(answer.code, 403);
    assert_eq!(of(&answer, schema_header), uid(harness.get(&format!("{SCHEMAS}/global-default")).await.expect(200)));
}

#[tokio::test]
async fn without_queues_a_full_level_refuses() {
    let harness = harness(one_seat(), json!({"type": "Reject"})).await;
    let watch = unread_watch(&harness).await;
    let refused = harness.get_as(noxu(), "/api/v1/namespaces/default").await;
    assert_eq!((refused.code, refused.text.as_str()), (429, "Too many requests, please try again later.\n"));
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.headers.contains_key("x-kubernetes-pf-prioritylevel-uid"));
    // Others have seats of their own, and who is exempt needs none.
    harness
        .get_as(UserInfo::authenticated("x", ["readers", "system:authenticated"]), "/api/v1/namespaces")
        .await
        .expect(200);
    let metrics = harness.get("/metrics").await.text;
    let rejected = "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"noxu\",priority_level=\"mine\",reason=\"concurrency-limit\"} 1";
    assert!(metrics.contains(rejected), "{metrics}");
    assert!(metrics.contains("apiserver_flowcontrol_nominal_limit_seats{priority_level=\"mine\"} 1\n"));
    drop(watch);
    harness.get_as(noxu(), "/api/v1/namespaces/default").await.expect(200);
}

/// The cells of a table's rows about a level.
async fn dump(harness: &Harness, name: &str) -> Vec<Vec<String>> {
    let text = harness.get(&format!("/debug/api_priority_and_fairness/{name}")).await.text;
    let rows = text.lines().filter(|line| line.starts_with("mine,"));
    rows.map(|line| line.split(',').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// With a watch that runs, a request that waits, and one that was refused.
async fn check_dumps(harness: &Harness) {
    let levels = dump(harness, "dump_priority_levels").await;
    assert_eq!(levels, [["mine", "1", "false", "false", "1", "1", "1", "1", "0", "0"]]);
    let queues = dump(harness, "dump_queues").await;
    assert_eq!(queues.len(), 1);
    assert_eq!(queues[0][..5], ["mine", "0", "1", "1", "1"]);
    assert_eq!(queues[0][6..], ["1", "1", "0.00300000ss"], "{queues:?}");
    let requests = dump(harness, "dump_requests?includeRequestDetails=1").await;
    let cells = |row: usize, from: usize, to: usize| requests[row][from..to].join(" ");
    assert_eq!((cells(0, 1, 5), cells(1, 1, 5)), ("noxu 0 0 ".to_owned(), "noxu 0 -1 ".to_owned()));
    assert_eq!((cells(0, 6, 10).as_str(), cells(1, 6, 9).as_str()), ("1 0 0s 0001-01-01T00:00:00Z", "1 0 0s"));
    assert_eq!(cells(0, 10, 18), "noxu get /api/v1/namespaces/default default default v1 namespaces ");
    assert_eq!(cells(1, 10, 18), "noxu watch /api/v1/namespaces   v1 namespaces ");
    let plain = harness.get("/debug/api_priority_and_fairness/dump_requests").await.text;
    assert!(plain.lines().next().unwrap().ends_with("AdditionalLatency, StartTime"), "{plain}");
    harness.get("/debug/api_priority_and_fairness/dump_nonsense").await.expect(404);
    let somebody = UserInfo::authenticated("x", ["system:authenticated"]);
    assert_eq!(harness.get_as(somebody, "/debug/api_priority_and_fairness/dump_queues").await.code, 403);
}

#[tokio::test]
async fn in_queues_requests_wait_for_their_turn() {
    let harness = Arc::new(harness(one_seat(), queue(1)).await);
    let watch = unread_watch(&harness).await;
    let asking = Arc::clone(&harness);
    let waiting = tokio::spawn(async move { asking.get_as(noxu(), "/api/v1/namespaces/default").await });
    let in_queue = "current_inqueue_requests{flow_schema=\"noxu\",priority_level=\"mine\"} 1";
    while !harness.get("/metrics").await.text.contains(in_queue) {
        tokio::task::yield_now().await;
    }
    assert_eq!(harness.get_as(noxu(), "/api/v1/namespaces/default").await.code, 429, "the queue is full");
    assert!(!waiting.is_finished());
    check_dumps(&harness).await;
    drop(watch);
    waiting.await.unwrap().expect(200);
    // Whoever goes away while waiting leaves the queue.
    let watch = unread_watch(&harness).await;
    let asking = Arc::clone(&harness);
    let waiting = tokio::spawn(async move { asking.get_as(noxu(), "/api/v1/namespaces/default").await });
    while !harness.get("/metrics").await.text.contains(in_queue) {
        tokio::task::yield_now().await;
    }
    waiting.abort();
    let empty = "current_inqueue_requests{flow_schema=\"noxu\",priority_level=\"mine\"} 0";
    while !harness.get("/metrics").await.text.contains(empty) {
        tokio::task::yield_now().await;
    }
    drop(watch);
    harness.get_as(noxu(), "/api/v1/namespaces/default").await.expect(200);
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let config = Config { request_timeout: Duration::from_secs(1), ..one_seat() };
    let harness = harness(config, queue(5)).await;
    let _watch = unread_watch(&harness).await;
    let refused = harness.get_as(noxu(), "/api/v1/namespaces/default").await;
    // The watch's seat is free again after the time that a request may take; a slow machine may see that.
    assert!(matches!(refused.code, 429 | 200), "{}", refused.text);
    if refused.code == 429 {
        let timed_out = "rejected_requests_total{flow_schema=\"noxu\",priority_level=\"mine\",reason=\"time-out\"} 1";
        assert!(harness.get("/metrics").await.text.contains(timed_out));
    }
    // An answer that nobody reads keeps its seat for no longer than a request may take.
    loop {
        if harness.get_as(noxu(), "/api/v1/namespaces/default").await.code == 200 {
            break;
        }
    }
}

#[tokio::test]
async fn mandatory_objects_count_also_where_they_are_deleted() {
    let harness = Harness::new().await;
    for name in ["exempt", "catch-all"] {
        harness.delete(&format!("{SCHEMAS}/{name}")).await.expect(200);
        harness.delete(&format!("{LEVELS}/{name}")).await.expect(200);
    }
    let answer = harness.get("/api/v1/namespaces").await;
    assert_eq!(answer.code, 200);
    assert_eq!(answer.headers["x-kubernetes-pf-flowschema-uid"], "", "what is imagined has no uid");
}
