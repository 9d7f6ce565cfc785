//! Audit: what is written down of requests, and when.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use kedge_apiserver::Config;
use kedge_audit::{Audit, AuditOptions};
use kedge_meta::UserInfo;
use kedge_store::MemoryStore;
use serde_json::{Value, json};

use crate::harness::{Events, Harness, Identities, request};
use crate::hook_server::{HookServer, MAPS, configure, map, webhook};
use crate::tokens;

const EVERYTHING: &str = "[{level: RequestResponse}]";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// A server that writes down what it does.
struct Audited {
    harness: Harness,
    dir: tempfile::TempDir,
}

impl Audited {
    /// With these rules, and nothing at the first stage.
    async fn with(rules: &str) -> Self {
        Self::with_policy(&format!("omitStages: [RequestReceived]\nrules: {rules}"), |_| {}).await
    }

    async fn with_policy(policy: &str, change: impl FnOnce(&mut AuditOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        std::fs::write(&path, format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{policy}")).unwrap();
        let mut options = AuditOptions { policy_file: Some(path), ..AuditOptions::default() };
        options.log.path = Some(dir.path().join("audit.log"));
        change(&mut options);
        let audit = Audit::open(&options).await.unwrap();
        let identities = Identities { audit, ..Identities::default() };
        Self { harness: Harness::build(Arc::new(MemoryStore::new()), Config::default(), identities).await, dir }
    }

    /// All events so far; those of requests that were answered are there.
    fn events(&self) -> Vec<Value> {
        read(&self.dir.path().join("audit.log"))
    }

    fn last(&self) -> Value {
        self.events().pop().expect("something was written down")
    }
}

fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Some of an event's fields.
fn stages(events: &[Value]) -> Vec<(&str, &str, u64)> {
    fn text(value: &Value) -> &str {
        value.as_str().unwrap_or_default()
    }
    let code = |event: &Value| event["responseStatus"]["code"].as_u64().unwrap_or_default();
    events.iter().map(|event| (text(&event["verb"]), text(&event["stage"]), code(event))).collect()
}

#[tokio::test]
async fn a_request_is_written_down_with_who_what_and_what_came_of_it() {
    let audited = Audited::with(EVERYTHING).await;
    let jane = UserInfo::authenticated("jane", ["system:masters"]);
    let headers = [
        ("content-type", "application/json"),
        ("audit-id", "my-id"),
        ("user-agent", "test/1.0"),
        ("x-forwarded-for", "192.0.2.7"),
    ];
    let body = Bytes::from(map("a").to_string());
    let sent = request(Method::POST, &format!("{MAPS}?fieldManager=m"), &headers, body);
    let answer = audited.harness.send(Some(jane), sent).await;
    assert_eq!((answer.status().as_u16(), answer.headers()["audit-id"].to_str().unwrap()), (201, "my-id"));
    let event = audited.last();
    let expected = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": "my-id",
        "stage": "ResponseComplete", "requestURI": format!("{MAPS}?fieldManager=m"), "verb": "create",
        "user": {"username": "jane", "groups": ["system:masters", "system:authenticated"]},
        "sourceIPs": ["192.0.2.7", "::1"], "userAgent": "test/1.0",
        "objectRef": {"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 201}, "requestObject": map("a"),
        "responseObject": event["responseObject"],
        "requestReceivedTimestamp": "2026-01-02T03:04:05.000000Z", "stageTimestamp": "2026-01-02T03:04:05.000000Z",
        "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""},
    });
    assert_eq!(event, expected);
    let answered = &event["responseObject"]["metadata"];
    assert!(answered["uid"].is_string() && answered["managedFields"].is_array(), "{event}");

    let own = audited.harness.get(&format!("{MAPS}/a")).await;
    let id = own.headers["audit-id"].to_str().unwrap().to_owned();
    assert_eq!((audited.last()["auditID"].as_str(), id.len()), (Some(id.as_str()), 36));

    // Patches are written down as they were sent.
    let patch = json!([{"op": "add", "path": "/data/x", "value": "y"}]);
    let headers = [("content-type", "application/json-patch+json")];
    let patched = audited.harness.raw(Method::PATCH, &format!("{MAPS}/a"), &headers, patch.to_string()).await;
    patched.expect(200);
    assert_eq!(audited.last()["requestObject"], patch);
    let headers = [("content-type", "application/apply-patch+yaml")];
    let applied = "apiVersion: v1\nkind: ConfigMap\ndata:\n  z: \"1\"\n";
    audited.harness.raw(Method::PATCH, &format!("{MAPS}/a?fieldManager=f"), &headers, applied).await.expect(200);
    assert_eq!(audited.last()["requestObject"]["data"], json!({"z": "1"}));

    // Lists, protobuf and what is no object.
    let headers = [("accept", "application/vnd.kubernetes.protobuf")];
    audited.harness.raw(Method::GET, MAPS, &headers, "").await;
    assert_eq!(audited.last()["responseObject"]["items"][0]["data"]["z"], "1");
    audited.harness.get("/version").await.expect(200);
    let version = audited.last();
    assert_eq!((&version["objectRef"], &version["responseObject"]), (&Value::Null, &Value::Null));

    audited.harness.delete(&format!("{MAPS}/a")).await.expect(200);
    let deleted = audited.last()["responseStatus"].take();
    assert_eq!(
        (&deleted["status"], &deleted["code"], &deleted["details"]["name"]),
        (&json!("Success"), &json!(200), &json!("a"))
    );
    audited.harness.get(&format!("{MAPS}/a")).await.refused(404, "NotFound", "");
    let missing = audited.last();
    assert_eq!(missing["responseStatus"]["message"], "configmaps \"a\" not found");
    assert_eq!(missing["responseObject"]["kind"], "Status");
}

#[tokio::test]
async fn nothing_is_written_down_beyond_the_level() {
    let rules = "\n- {level: None, verbs: [list]}\n- {level: Metadata, resources: [{resources: [secrets]}]}\n\
                 - {level: Request, omitManagedFields: true, resources: [{resources: [configmaps]}]}";
    let audited = Audited::with(rules).await;
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "hidden"}});
    audited.harness.post(SECRETS, secret).await.expect(201);
    audited.harness.get(&format!("{SECRETS}/s")).await.expect(200);
    audited.harness.get(SECRETS).await.expect(200);
    audited.harness.get("/version").await.expect(200);
    let events = audited.events();
    assert_eq!(stages(&events), [("create", "ResponseComplete", 201), ("get", "ResponseComplete", 200)]);
    assert_eq!(events[0]["objectRef"]["name"], "s");
    let text = std::fs::read_to_string(audited.dir.path().join("audit.log")).unwrap();
    assert!(!text.contains("hidden") && !text.contains("aGlkZGVu"), "{text}");

    let mut own = audited.harness.post(MAPS, map("a")).await.expect(201);
    own["data"] = json!({"k": "v"});
    assert!(own["metadata"]["managedFields"].is_array());
    audited.harness.put(&format!("{MAPS}/a"), own.clone()).await.expect(200);
    let event = audited.last();
    own["metadata"].as_object_mut().unwrap().remove("managedFields");
    assert_eq!((&event["requestObject"], &event["responseObject"]), (&own, &Value::Null));
    assert_eq!(event["objectRef"]["uid"], own["metadata"]["uid"]);
    assert_eq!(event["objectRef"]["resourceVersion"], own["metadata"]["resourceVersion"]);
    let metrics = audited.harness.get("/metrics").await.text;
    for line in [
        "apiserver_audit_event_total 4\n",
        "apiserver_audit_level_total{level=\"None\"} 3\n",
        "apiserver_audit_level_total{level=\"Request\"} 2\n",
        "apiserver_audit_requests_rejected_total 0\n",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[tokio::test]
async fn who_may_not_is_written_down_with_the_reason() {
    let audited = Audited::with("[{level: Metadata}]").await;
    let refused = audited.harness.get_as(UserInfo::authenticated("joe", []), MAPS).await;
    refused.refused(403, "Forbidden", "cannot list resource");
    let event = audited.last();
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!((&event["responseStatus"]["reason"], &event["user"]["username"]), (&json!("Forbidden"), &json!("joe")));
}

#[tokio::test]
async fn a_watch_is_written_down_when_it_begins_and_when_it_ends() {
    let audited = Audited::with_policy("rules: [{level: RequestResponse}]", |_| {}).await;
    let mut watch = Events::open(&audited.harness, &format!("{MAPS}?watch=true")).await;
    assert_eq!(stages(&audited.events()), [("watch", "RequestReceived", 0), ("watch", "ResponseStarted", 200)]);
    audited.harness.post(MAPS, map("a")).await.expect(201);
    assert_eq!(watch.next_name().await, ("ADDED".to_owned(), "a".to_owned()));
    drop(watch);
    // Nobody waits for the last event of a stream: it is there once the task that writes it has run.
    while audited.events().len() < 5 {
        tokio::task::yield_now().await;
    }
    let events = audited.events();
    assert_eq!(stages(&events)[4], ("watch", "ResponseComplete", 200));
    assert_eq!(events[0]["auditID"], events[4]["auditID"]);

    let answer =
        audited.harness.send(None, request(Method::GET, &format!("{MAPS}?watch=true&timeoutSeconds=1"), &[], "")).await;
    answer.into_body().collect().await.unwrap();
    while audited.events().len() < 8 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stages(&audited.events())[7], ("watch", "ResponseComplete", 200));
}

#[tokio::test]
async fn requests_that_must_be_written_down_and_cannot_are_refused() {
    let full = |mode: &'static str| {
        move |options: &mut AuditOptions| {
            options.log.path = Some("/dev/full".into());
            options.log.batch.mode = mode.to_owned();
        }
    };
    let policy = "rules: [{level: None, nonResourceURLs: [/metrics]}, {level: Metadata}]";
    let strict = Audited::with_policy(policy, full("blocking-strict")).await;
    strict.harness.post(MAPS, map("a")).await.refused(500, "InternalError", "failed to store audit event");
    let metrics = strict.harness.get("/metrics").await.text;
    for line in ["apiserver_audit_requests_rejected_total 1\n", "apiserver_audit_error_total{plugin=\"log\"} 1\n"] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    let blocking = Audited::with_policy(policy, full("blocking")).await;
    blocking.harness.post(MAPS, map("a")).await.expect(201);
    let metrics = blocking.harness.get("/metrics").await.text;
    assert!(metrics.contains("apiserver_audit_error_total{plugin=\"log\"} 2\n"), "{metrics}");
}

#[tokio::test]
async fn admission_leaves_word() {
    let audited = Audited::with("[{level: Request}]").await;
    let harness = &audited.harness;
    // Pod security.
    let labels =
        json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/audit": "restricted"});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": labels}});
    harness.post("/api/v1/namespaces", namespace).await.expect(201);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    for namespace in ["n", "default"] {
        harness.post(&format!("/api/v1/namespaces/{namespace}/serviceaccounts"), account.clone()).await.expect(201);
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a", "image": "i"}]}});
        harness.post(&format!("/api/v1/namespaces/{namespace}/pods"), pod).await.expect(201);
        let said = audited.last()["annotations"].take();
        let violations = said["pod-security.kubernetes.io/audit-violations"].as_str().unwrap_or_default();
        if namespace == "n" {
            assert_eq!(said["pod-security.kubernetes.io/enforce-policy"], "baseline:latest");
            assert!(violations.starts_with("would violate PodSecurity \"restricted:latest\": allowPriv"), "{said}");
        } else {
            assert_eq!(said["pod-security.kubernetes.io/enforce-policy"], "privileged:latest");
            assert_eq!(violations, "");
        }
    }
    // Policies.
    let group = "/apis/admissionregistration.k8s.io/v1";
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]});
    let spec = json!({"matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "true"}, {"expression": "object.metadata.name != 'a'", "message": "no a"}],
        "auditAnnotations": [{"key": "name", "valueExpression": "'called ' + object.metadata.name"}]});
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "p.io"}, "spec": spec});
    harness.post(&format!("{group}/validatingadmissionpolicies"), policy).await.expect(201);
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "b"}, "spec": {"policyName": "p.io", "validationActions": ["Audit", "Warn"]}});
    harness.post(&format!("{group}/validatingadmissionpolicybindings"), binding).await.expect(201);
    harness.post(MAPS, map("a")).await.expect(201);
    let said = audited.last()["annotations"].take();
    let failure = said["validation.policy.admission.k8s.io/validation_failure"].as_str().unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(failure).unwrap(),
        json!([{"message": "no a", "policy": "p.io", "binding": "b", "expressionIndex": 1,
            "validationActions": ["Audit", "Warn"]}])
    );
    assert_eq!(said["p.io/name"], "called a");
    // Webhooks.
    let adding = HookServer::adding("mark", None).await;
    let lost = json!({"url": "https://127.0.0.1:1/"});
    let noting = HookServer::start(|_| json!({"allowed": true, "auditAnnotations": {"k": "v"}})).await;
    let open = json!({"failurePolicy": "Ignore"});
    configure(
        harness,
        "Mutating",
        "m",
        json!([webhook("add", adding.client_config(), json!({})), webhook("lost", lost.clone(), open.clone())]),
    )
    .await;
    configure(
        harness,
        "Validating",
        "v",
        json!([webhook("note", noting.client_config(), json!({})), webhook("gone", lost, open)]),
    )
    .await;
    harness.post(MAPS, map("b")).await.expect(201);
    let said = audited.last()["annotations"].take();
    let inner = |key: &str| serde_json::from_str::<Value>(said[key].as_str().unwrap_or_default()).unwrap_or_default();
    assert_eq!(
        inner("mutation.webhook.admission.k8s.io/round_0_index_0"),
        json!({"configuration": "m", "webhook": "add.a.io", "mutated": true})
    );
    assert_eq!(inner("mutation.webhook.admission.k8s.io/round_0_index_1")["mutated"], false);
    let patch = inner("patch.webhook.admission.k8s.io/round_0_index_0");
    assert_eq!((&patch["patchType"], &patch["patch"][0]["op"]), (&json!("JSONPatch"), &json!("add")));
    assert_eq!(said["failed-open.mutation.webhook.admission.k8s.io/round_0_index_1"], "lost.a.io");
    assert_eq!(said["failed-open.validating.webhook.admission.k8s.io/round_0_index_1"], "gone.a.io");
    assert_eq!(said["note.a.io/k"], "v");
    // Deprecated APIs.
    harness.get("/api/v1/namespaces/default/endpoints").await.expect(200);
    assert_eq!(audited.last()["annotations"]["k8s.io/deprecated"], "true");
}

#[tokio::test]
async fn whose_token_should_have_been_renewed_is_told() {
    let audited = Audited::with("[{level: Metadata}]").await;
    let harness = &audited.harness;
    tokens::prepare(harness).await;
    let answer = tokens::ask(harness, json!({}), tokens::bound_to_the_pod(3607)).await.expect(201);
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": answer["status"]["token"]}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    harness.post(path, review.clone()).await.expect(201);
    assert_eq!(audited.last()["annotations"]["authentication.k8s.io/stale-token"], Value::Null);
    harness.clock.advance(std::time::Duration::from_secs(3610));
    harness.post(path, review).await.expect(201);
    assert_eq!(
        audited.last()["annotations"]["authentication.k8s.io/stale-token"],
        "subject: system:serviceaccount:default:robot, seconds after warning threshold: 3"
    );
}
