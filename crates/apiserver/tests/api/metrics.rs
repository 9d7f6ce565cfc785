//! What is counted of admission, policies, watches and tokens, under upstream's names.

use http::Method;
use kedge_auth::TokenSubject;
use serde_json::{Value, json};

use crate::custom::{TOOLS, define, tool, tools};
use crate::harness::{Answer, Events, Harness, token_keys};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, size: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"x": "x".repeat(size)}})
}

/// The value of a series that is written as this; absent where there is none.
async fn value(harness: &Harness, series: &str) -> Option<f64> {
    let text = harness.get("/metrics").await.text;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    let name = series.split('{').next().unwrap();
    let family = ["_bucket", "_count", "_sum"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
    assert!(text.contains(&format!("# TYPE {family} ")), "{family} is not announced");
    line
}

#[tokio::test]
async fn rules_of_custom_resources_are_timed() {
    let harness = Harness::new().await;
    let rules = json!([{"rule": "self.size > 0"}]);
    let spec =
        json!({"type": "object", "x-kubernetes-validations": rules, "properties": {"size": {"type": "integer"}}});
    define(&harness, tools(spec)).await;
    let count = async |name: &str| {
        value(&harness, &format!("apiserver_cel_{name}_duration_seconds_count")).await.unwrap_or_default()
    };
    assert_eq!((count("compilation").await, count("evaluation").await), (0.0, 0.0));
    for name in ["a", "b"] {
        harness.post(TOOLS, tool(name, json!({"size": 1}))).await.expect(201);
    }
    assert_eq!((count("compilation").await, count("evaluation").await), (1.0, 2.0));
}

#[tokio::test]
async fn plugins_are_timed_by_name() {
    let harness = Harness::new().await;
    let count = async |name: &str, step: &str, rejected: bool| {
        let labels = format!("name=\"{name}\",operation=\"CREATE\",rejected=\"{rejected}\",type=\"{step}\"");
        let series = format!("apiserver_admission_controller_admission_duration_seconds_count{{{labels}}}");
        value(&harness, &series).await.unwrap_or(0.0)
    };
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    harness.post("/api/v1/namespaces/default/pods", pod.clone()).await.expect(403);
    assert_eq!(count("ServiceAccount", "admit", true).await, 1.0);
    assert_eq!(count("PodSecurity", "validate", false).await, 0.0, "it was not asked any more");
    harness.post("/api/v1/namespaces/default/serviceaccounts", account).await.expect(201);
    harness.post("/api/v1/namespaces/default/pods", pod).await.expect(201);
    for (name, step) in [
        ("ServiceAccount", "admit"),
        ("DefaultTolerationSeconds", "admit"),
        ("PodSecurity", "validate"),
        ("Priority", "admit"),
        ("Priority", "validate"),
        ("ResourceQuota", "validate"),
    ] {
        assert!(count(name, step, false).await >= 1.0, "{name} {step}");
    }
    assert!(count("ValidatingAdmissionWebhook", "validate", false).await >= 2.0);
    harness.post("/api/v1/namespaces/nowhere/configmaps", map("a", 1)).await.expect(404);
    assert_eq!(count("NamespaceLifecycle", "validate", true).await, 1.0);
    assert_eq!(count("", "validate", false).await, 0.0, "what is no plugin upstream has no name");
}

#[tokio::test]
async fn policies_are_counted_by_what_they_say() {
    let harness = Harness::new().await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]});
    let policy = |name: &str, expression: &str, failure: &str| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name}, "spec": {"matchConstraints": {"resourceRules": [rule]},
            "failurePolicy": failure, "validations": [{"expression": expression}]}})
    };
    let binding = |name: &str, actions: Value| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": actions}})
    };
    for (name, expression, failure, actions) in [
        ("size", "object.data.x == 'x'", "Fail", json!(["Warn", "Audit"])),
        ("strict", "object.metadata.name != 'no'", "Fail", json!(["Deny"])),
        ("lost", "object.data.none == 'x'", "Ignore", json!(["Deny"])),
    ] {
        let policies = format!("{group}/validatingadmissionpolicies");
        harness.post(&policies, policy(name, expression, failure)).await.expect(201);
        let bindings = format!("{group}/validatingadmissionpolicybindings");
        harness.post(&bindings, binding(name, actions)).await.expect(201);
    }
    let mutating = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": "mark"}, "spec": {"matchConstraints": {"resourceRules": [rule]}, "failurePolicy": "Fail",
        "reinvocationPolicy": "Never", "mutations": [{"patchType": "ApplyConfiguration",
        "applyConfiguration": {"expression": "Object{metadata: Object.metadata{labels: {'marked': 'yes'}}}"}}]}});
    harness.post(&format!("{group}/mutatingadmissionpolicies"), mutating).await.expect(201);
    let bound = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": "mark"}, "spec": {"policyName": "mark"}});
    harness.post(&format!("{group}/mutatingadmissionpolicybindings"), bound).await.expect(201);
    let created = harness.post(MAPS, map("a", 2)).await.expect(201);
    assert_eq!(created["metadata"]["labels"]["marked"], "yes");
    harness.post(MAPS, map("no", 1)).await.expect(422);
    let count = async |name: &str, error: &str, action: &str| {
        let labels = format!("policy=\"{name}\",policy_binding=\"{name}\",error_type=\"{error}\"");
        let (kind, labels) = match action {
            "" => ("mutating", labels),
            action => ("validating", format!("{labels},enforcement_action=\"{action}\"")),
        };
        let family = format!("apiserver_{kind}_admission_policy_check");
        let total = value(&harness, &format!("{family}_total{{{labels}}}")).await;
        assert_eq!(value(&harness, &format!("{family}_duration_seconds_count{{{labels}}}")).await, total);
        total.unwrap_or(0.0)
    };
    assert_eq!(count("size", "invalid_error", "warn").await, 1.0);
    assert_eq!(count("size", "invalid_error", "audit").await, 1.0);
    assert_eq!(count("size", "invalid_error", "deny").await, 0.0);
    assert_eq!(count("strict", "invalid_error", "deny").await, 1.0);
    assert_eq!(count("lost", "invalid_error", "allow").await, 2.0, "failures that were ignored");
    assert_eq!(count("mark", "no_error", "").await, 2.0);
}

#[tokio::test]
async fn events_of_watches_are_counted_with_their_sizes() {
    let harness = Harness::new().await;
    harness.post(MAPS, map("a", 3000)).await.expect(201);
    let mut events = Events::open(
        &harness,
        &format!("{MAPS}?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"),
    )
    .await;
    let mut sent = 0;
    for (kind, name) in [("ADDED", "a"), ("BOOKMARK", "")] {
        let event = events.next().await.unwrap();
        assert_eq!(
            (event["type"].as_str(), event["object"]["metadata"]["name"].as_str().unwrap_or("")),
            (Some(kind), name)
        );
        sent += event.to_string().len() + 1;
    }
    harness.post(MAPS, map("b", 10)).await.expect(201);
    assert_eq!(events.next_name().await, ("ADDED".to_owned(), "b".to_owned()));
    let listed = "apiserver_watch_list_duration_seconds_count{group=\"\",resource=\"configmaps\",scope=\"namespace\",version=\"v1\"}";
    assert_eq!(value(&harness, listed).await, Some(1.0));
    let labels = "group=\"\",resource=\"configmaps\",version=\"v1\"";
    let of = async |series: &str| value(&harness, &format!("apiserver_watch_events_{series}")).await.unwrap();
    assert_eq!(of(&format!("total{{{labels}}}")).await, 3.0);
    assert_eq!(of(&format!("sizes_bucket{{{labels},le=\"1024\"}}")).await, 2.0);
    assert_eq!(of(&format!("sizes_bucket{{{labels},le=\"4096\"}}")).await, 3.0);
    assert!(of(&format!("sizes_sum{{{labels}}}")).await > sent as f64);
    // A watch that ends with an error was sent that.
    harness.store.compact(harness.store.revision()).await.unwrap();
    let mut expired = Events::open(&harness, &format!("{MAPS}?watch=true&resourceVersion=1")).await;
    assert_eq!(expired.next().await.unwrap()["type"], "ERROR");
    assert_eq!(of(&format!("total{{{labels}}}")).await, 4.0);
}

#[tokio::test]
async fn requests_count_under_the_verbs_of_http() {
    let harness = Harness::new().await;
    let one = format!("{MAPS}/a");
    harness.post(MAPS, map("a", 1)).await.expect(201);
    harness.put(&one, map("a", 2)).await.expect(200);
    harness.patch(&one, json!({"data": {"y": "z"}})).await.expect(200);
    let apply = [("content-type", "application/apply-patch+yaml")];
    let applied = map("a", 3).to_string();
    harness.raw(Method::PATCH, &format!("{one}?fieldManager=m&force=true"), &apply, applied).await.expect(200);
    harness.get(&one).await.expect(200);
    harness.get(MAPS).await.expect(200);
    harness.delete(&one).await.expect(200);
    harness.delete(MAPS).await.expect(200);
    harness.get("/api/v1/namespaces/default/pods/none/log").await.expect(404);
    harness.get("/livez").await;
    let requests = |code: u16, resource: &str, scope: &str, subresource: &str, verb: &str, version: &str| {
        format!(
            "apiserver_request_total{{code=\"{code}\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"{resource}\",\
             scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\"}}"
        )
    };
    for (code, scope, verb) in [
        (201, "resource", "POST"),
        (200, "resource", "PUT"),
        (200, "resource", "PATCH"),
        (200, "resource", "APPLY"),
        (200, "resource", "GET"),
        (200, "namespace", "LIST"),
        (200, "resource", "DELETE"),
        (200, "namespace", "DELETE"),
    ] {
        let series = requests(code, "configmaps", scope, "", verb, "v1");
        assert_eq!(value(&harness, &series).await, Some(1.0), "{series}");
    }
    let log = requests(404, "pods", "resource", "log", "CONNECT", "v1");
    assert_eq!(value(&harness, &log).await, Some(1.0));
    assert_eq!(value(&harness, &requests(200, "", "", "/livez", "GET", "")).await, Some(1.0));
}

#[tokio::test]
async fn checks_of_health_are_counted_by_path() {
    let harness = Harness::new().await;
    harness.get("/readyz?exclude=ping").await;
    harness.get("/readyz/log").await;
    let text = harness.get("/metrics/slis").await.text;
    let has = |line: &str| text.lines().any(|own| own == line);
    assert!(has("kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} 1"), "{text}");
    assert!(has("kubernetes_healthchecks_total{name=\"log\",status=\"success\",type=\"readyz\"} 1"), "{text}");
    assert!(!text.contains("name=\"ping\""), "{text}");
}

#[tokio::test]
async fn the_servers_own_time_is_told_apart() {
    let harness = Harness::new().await;
    harness.post(&format!("{MAPS}?dryRun=All"), map("a", 1)).await.expect(201);
    let labels = "component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"";
    let series = format!("apiserver_request_sli_duration_seconds_count{{{labels}}}");
    assert_eq!(value(&harness, &series).await, None, "dry runs do not count");
    harness.post(MAPS, map("a", 1)).await.expect(201);
    assert_eq!(value(&harness, &series).await, Some(1.0));
}

#[tokio::test]
async fn tokens_that_should_have_been_renewed_are_counted() {
    let harness = Harness::new().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    let account = harness.post("/api/v1/namespaces/default/serviceaccounts", account).await.expect(201);
    let keys = token_keys();
    let issuer = "https://kubernetes.default.svc.cluster.local";
    let subject =
        TokenSubject { name: "robot".to_owned(), uid: account["metadata"]["uid"].as_str().unwrap().to_owned() };
    let now = kedge_meta::parse_time("2026-01-02T03:04:05Z").unwrap();
    let audiences = [issuer.to_owned()];
    let mut claims =
        kedge_auth::service_account_claims(issuer, &audiences, "default", &subject, None, None, "id", now, 31_536_000);
    claims["kubernetes.io"]["warnafter"] = json!(now.as_second() + 3607);
    let token = keys.issue(&claims);
    harness.server.replace_token_keys(keys);
    let review = async || -> Answer {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
        harness.post("/apis/authentication.k8s.io/v1/tokenreviews", review).await
    };
    let counts = async || {
        let of = async |name: &str| value(&harness, &format!("serviceaccount_{name}_tokens_total")).await.unwrap();
        (of("valid").await, of("stale").await)
    };
    assert_eq!(review().await.expect(201)["status"]["authenticated"], true);
    assert_eq!(counts().await, (1.0, 0.0));
    harness.clock.advance(std::time::Duration::from_secs(3700));
    assert_eq!(review().await.expect(201)["status"]["authenticated"], true);
    assert_eq!(counts().await, (1.0, 1.0));
}
