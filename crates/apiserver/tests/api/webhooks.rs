//! Admission webhooks that answer: what they are asked, what they refuse, what they change.

use base64::Engine;
use http::Method;
use kedge_apiserver::WebhookCredentials;
use kedge_webhooks::Credentials;
use serde_json::{Value, json};

use crate::custom::{TOOLS, define, tool, tools};
use crate::harness::{Harness, Identities};
use crate::hook_server::{Caller, HookServer, MAPS, configure, map, patching, path_of, rule, webhook};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 1,
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[tokio::test]
async fn a_refusal_reaches_the_client_as_the_webhook_put_it() {
    let (harness, server) = (Harness::new().await, HookServer::start(|request| {
        match request["name"].as_str() {
            Some("plain") => json!({"allowed": false}),
            Some("good") => json!({"allowed": true, "warnings": ["mind the gap"]}),
            _ => json!({"allowed": false, "warnings": ["told you"], "auditAnnotations": {"k": "v"},
                "status": {"code": 403, "reason": "Forbidden", "message": "no", "details": {"causes": [{"field": "data"}]}}}),
        }
    }).await);
    configure(&harness, "Validating", "w", json!([webhook("deny", server.client_config(), json!({}))])).await;
    let refused = harness.post(MAPS, map("bad")).await;
    assert_eq!(refused.warnings(), ["299 - \"told you\""]);
    let refused = refused.refused(403, "Forbidden", "admission webhook \"deny.a.io\" denied the request: no");
    assert_eq!(refused["details"]["causes"][0]["field"], "data");
    let plain = harness.post(MAPS, map("plain")).await;
    let text = "admission webhook \"deny.a.io\" denied the request without explanation";
    assert_eq!((plain.code, &plain.json["message"]), (400, &json!(text)));
    harness.get(&format!("{MAPS}/bad")).await.refused(404, "NotFound", "not found");
    let good = harness.post(MAPS, map("good")).await;
    assert_eq!((good.code, good.warnings()), (201, vec!["299 - \"mind the gap\"".to_owned()]));
    let metrics = harness.get("/metrics").await.text;
    for line in [
        "apiserver_admission_webhook_request_total{name=\"deny.a.io\",type=\"validating\",operation=\"CREATE\",code=\"403\",rejected=\"true\"} 1",
        "apiserver_admission_webhook_rejection_count{name=\"deny.a.io\",type=\"validating\",operation=\"CREATE\",error_type=\"no_error\",rejection_code=\"403\"} 1",
        "apiserver_admission_webhook_admission_duration_seconds_count{name=\"deny.a.io\",type=\"validating\",operation=\"CREATE\",rejected=\"false\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

/// The credentials of a user for all hosts.
fn credentials(user: &Value) -> Credentials {
    let kubeconfig = json!({"users": [{"name": "*", "user": user}]}).to_string();
    Credentials::read(&kubeconfig, std::path::Path::new("/")).unwrap()
}

#[tokio::test]
async fn webhooks_are_shown_who_asks_where_that_is_configured() {
    let server = HookServer::allowing().await;
    let in_base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let (certificate, key) = &server.client;
    let certificate = json!({"client-certificate-data": in_base64(certificate), "client-key-data": in_base64(key)});
    let webhook_credentials = WebhookCredentials {
        mutating: credentials(&json!({"token": "secret"})),
        validating: credentials(&certificate),
    };
    let identities = Identities { webhook_credentials, ..Identities::default() };
    let (harness, anonymous) = (Harness::known(identities).await, Harness::new().await);
    for harness in [&harness, &anonymous] {
        for kind in ["Mutating", "Validating"] {
            let name = kind.to_ascii_lowercase();
            configure(harness, kind, "w", json!([webhook(&name, server.client_config(), json!({}))])).await;
        }
        harness.post(MAPS, map("a")).await.expect(201);
    }
    let shown = |has_certificate: bool, authorization: &str| Caller {
        has_certificate,
        authorization: authorization.to_owned(),
    };
    let expected = [shown(false, "Bearer secret"), shown(true, ""), shown(false, ""), shown(false, "")];
    assert_eq!(server.callers(), expected);
}

#[tokio::test]
async fn every_way_to_write_is_asked_about() {
    let (harness, server) = (Harness::new().await, HookServer::allowing().await);
    configure(&harness, "Validating", "w", json!([webhook("v", server.client_config(), json!({}))])).await;
    let path = format!("{MAPS}/a");
    harness.post(&format!("{MAPS}?fieldManager=m"), map("a")).await.expect(201);
    harness.put(&path, map("a")).await.expect(200);
    harness.patch(&path, json!({"data": {"b": "2"}})).await.expect(200);
    let apply = [("content-type", "application/apply-patch+yaml")];
    let applied = format!("{path}?fieldManager=f&force=true");
    harness.raw(Method::PATCH, &applied, &apply, map("a").to_string()).await.expect(200);
    harness.raw(Method::PATCH, &format!("{MAPS}/b?fieldManager=f"), &apply, map("b").to_string()).await.expect(201);
    harness.delete(&path).await.expect(200);
    harness.delete(&format!("{MAPS}?gracePeriodSeconds=0")).await.expect(200);
    let asked: Vec<(String, String, String)> = server
        .requests()
        .iter()
        .map(|request| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&request["operation"]), text(&request["name"]), text(&request["options"]["kind"]))
        })
        .collect();
    let asked: Vec<[&str; 3]> = asked.iter().map(|(a, b, c)| [a.as_str(), b.as_str(), c.as_str()]).collect();
    assert_eq!(
        asked[..6],
        [
            ["CREATE", "a", "CreateOptions"],
            ["UPDATE", "a", "UpdateOptions"],
            ["UPDATE", "a", "PatchOptions"],
            ["UPDATE", "a", "PatchOptions"],
            ["CREATE", "b", "CreateOptions"],
            ["DELETE", "a", "DeleteOptions"],
        ]
    );
    assert!(asked[6..].contains(&["DELETE", "b", "DeleteOptions"]), "{asked:?}");
    let requests = server.requests();
    let created = &requests[0];
    assert_eq!(
        created["options"],
        json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "m"})
    );
    assert_eq!((&created["namespace"], &created["dryRun"]), (&json!("default"), &json!(false)));
    assert_eq!(created["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(created["requestResource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!(created["userInfo"]["username"], "admin");
    assert_eq!((&created["object"]["data"]["a"], &created["oldObject"]), (&json!("1"), &Value::Null));
    assert!(created["object"]["metadata"]["uid"].is_string());
    let patched = &requests[2];
    assert_eq!((&patched["object"]["data"]["b"], &patched["oldObject"]["data"]["b"]), (&json!("2"), &Value::Null));
    let deleted = &requests[5];
    assert_eq!((&deleted["object"], &deleted["oldObject"]["kind"]), (&Value::Null, &json!("ConfigMap")));
}

#[tokio::test]
async fn a_deletion_can_be_refused() {
    let (harness, server) = (Harness::new().await, HookServer::denying().await);
    harness.post(MAPS, map("a")).await.expect(201);
    let rules = json!({"rules": [{"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]});
    configure(&harness, "Validating", "w", json!([webhook("v", server.client_config(), rules)])).await;
    assert!(harness.delete(&format!("{MAPS}/a")).await.text.contains("denied the request: not today"));
    assert!(harness.delete(MAPS).await.text.contains("denied the request: not today"));
    harness.get(&format!("{MAPS}/a")).await.expect(200);
    harness.delete(&format!("{}/w", path_of("Validating"))).await.expect(200);
    harness.delete(&format!("{MAPS}/a")).await.expect(200);
}

#[tokio::test]
async fn what_a_webhook_adds_is_defaulted_and_checked() {
    let (harness, server) = (
        Harness::new().await,
        HookServer::start(|request| match request["object"]["metadata"]["annotations"]["break"].is_string() {
            true => patching(&json!([{"op": "replace", "path": "/spec/replicas", "value": -1}])),
            false => patching(&json!([{"op": "add", "path": "/spec/template/spec/initContainers",
                "value": [{"name": "added", "image": "i", "unknownField": 1}]}])),
        })
        .await,
    );
    let rules = json!({"rules": [rule("apps", "v1", "deployments")]});
    configure(&harness, "Mutating", "m", json!([webhook("m", server.client_config(), rules)])).await;
    let created = harness.post(DEPLOYMENTS, deployment()).await.expect(201);
    let added = &created["spec"]["template"]["spec"]["initContainers"][0];
    assert_eq!((&added["name"], &added["terminationMessagePolicy"]), (&json!("added"), &json!("File")));
    assert_eq!(added["unknownField"], Value::Null);
    let mut broken = deployment();
    broken["metadata"] = json!({"name": "broken", "annotations": {"break": "it"}});
    harness.post(DEPLOYMENTS, broken).await.refused(422, "Invalid", "must be greater than or equal to 0");
}

#[tokio::test]
async fn webhooks_change_objects_in_order_and_are_asked_again_if_they_want() {
    let harness = Harness::new().await;
    let (first, second) = (HookServer::adding("b", Some("a")).await, HookServer::adding("c", Some("b")).await);
    // Sorted by name, the one that needs `c` comes before the one that adds it.
    let early = HookServer::adding("d", Some("c")).await;
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    configure(
        &harness,
        "Mutating",
        "b-main",
        json!([webhook("one", first.client_config(), json!({})), webhook("two", second.client_config(), json!({}))]),
    )
    .await;
    configure(&harness, "Mutating", "a-early", json!([webhook("early", early.client_config(), again)])).await;
    let created = harness.post(MAPS, map("x")).await.expect(201);
    assert_eq!(created["data"], json!({"a": "1", "b": "yes", "c": "yes", "d": "yes"}));
    assert_eq!([early.requests().len(), first.requests().len(), second.requests().len()], [2, 1, 1]);
    let never = json!([{"op": "replace", "path": "/webhooks/0/reinvocationPolicy", "value": "Never"}]);
    let patch = [("content-type", "application/json-patch+json")];
    let path = format!("{}/a-early", path_of("Mutating"));
    harness.raw(Method::PATCH, &path, &patch, never.to_string()).await.expect(200);
    let created = harness.post(MAPS, map("y")).await.expect(201);
    assert_eq!(created["data"], json!({"a": "1", "b": "yes", "c": "yes"}));
}

#[tokio::test]
async fn custom_resources_are_changed_and_pruned() {
    let (harness, server) = (Harness::new().await, HookServer::start(|request| if request["operation"] == "DELETE" {
        json!({"allowed": true})
    } else {
        patching(&json!([{"op": "add", "path": "/spec/size", "value": 5}, {"op": "add", "path": "/spec/unknown", "value": 1}]))
    }).await);
    let schema = json!({"type": "object", "properties": {"size": {"type": "integer"}, "color": {"type": "string", "default": "red"}}});
    define(&harness, tools(schema)).await;
    let rules = json!({"rules": [rule("a.io", "v1", "tools")]});
    configure(&harness, "Mutating", "m", json!([webhook("m", server.client_config(), rules)])).await;
    let created = harness.post(TOOLS, tool("a", json!({}))).await.expect(201);
    assert_eq!(created["spec"], json!({"size": 5, "color": "red"}));
    harness.delete(&format!("{TOOLS}/a")).await.expect(200);
    let operations: Vec<Value> = server.requests().iter().map(|request| request["operation"].clone()).collect();
    assert_eq!(operations, ["CREATE", "DELETE"]);
}

#[tokio::test]
async fn a_patch_on_a_deletion_is_refused() {
    let (harness, server) = (
        Harness::new().await,
        HookServer::start(|_| patching(&json!([{"op": "add", "path": "/data", "value": {}}]))).await,
    );
    harness.post(MAPS, map("a")).await.expect(201);
    configure(&harness, "Mutating", "m", json!([webhook("m", server.client_config(), json!({}))])).await;
    let text = "admission webhook \"m.a.io\" attempted to modify the object, which is not supported for this operation";
    harness.delete(&format!("{MAPS}/a")).await.refused(500, "InternalError", text);
}

#[tokio::test]
async fn subresources_are_seen_as_what_they_are() {
    let (harness, server) = (
        Harness::new().await,
        HookServer::start(|request| match request["subResource"].as_str() {
            Some("scale") => patching(&json!([{"op": "replace", "path": "/spec/replicas", "value": 7}])),
            _ => json!({"allowed": true}),
        })
        .await,
    );
    harness.post(DEPLOYMENTS, deployment()).await.expect(201);
    let rules = json!({"rules": [rule("apps", "v1", "deployments/*")]});
    configure(&harness, "Mutating", "m", json!([webhook("m", server.client_config(), rules)])).await;
    let path = format!("{DEPLOYMENTS}/web/scale");
    let scaled = harness.patch(&path, json!({"spec": {"replicas": 3}})).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 7);
    let asked = &server.requests()[0];
    assert_eq!(asked["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!((&asked["object"]["kind"], &asked["object"]["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    assert_eq!(asked["oldObject"]["spec"]["replicas"], 1);
    server.forget();
    harness.patch(&format!("{DEPLOYMENTS}/web/status"), json!({"status": {"replicas": 2}})).await.expect(200);
    let asked = &server.requests()[0];
    assert_eq!((&asked["subResource"], &asked["kind"]["kind"]), (&json!("status"), &json!("Deployment")));
}

#[tokio::test]
async fn connections_bindings_and_evictions_are_asked_about() {
    let (harness, server) = (Harness::new().await, HookServer::denying().await);
    harness
        .post(
            "/api/v1/namespaces/default/serviceaccounts",
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}),
        )
        .await
        .expect(201);
    let pods = "/api/v1/namespaces/default/pods";
    harness
        .post(
            pods,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        )
        .await
        .expect(201);
    let rules = json!({"rules": [{"operations": ["CONNECT", "CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
        "resources": ["pods/*", "serviceaccounts/token"]}]});
    configure(&harness, "Validating", "v", json!([webhook("v", server.client_config(), rules)])).await;
    let upgrade = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    let attach = harness.raw(Method::POST, &format!("{pods}/p/attach?stdout=true&container=c"), &upgrade, "").await;
    assert!(attach.text.contains("not today"), "{}", attach.text);
    let exec = harness.raw(Method::POST, &format!("{pods}/p/exec?command=ls&command=-l&stdin=1"), &upgrade, "").await;
    assert!(exec.text.contains("not today"), "{}", exec.text);
    assert!(harness.get(&format!("{pods}/p/proxy/x")).await.text.contains("not today"));
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": "n"}});
    assert!(harness.post(&format!("{pods}/p/binding"), binding).await.text.contains("not today"));
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    assert!(harness.post(&format!("{pods}/p/eviction"), eviction).await.text.contains("not today"));
    let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let account = "/api/v1/namespaces/default/serviceaccounts/default/token";
    assert!(harness.post(account, token).await.text.contains("not today"));
    let requests = server.requests();
    let kinds: Vec<&str> = requests.iter().map(|request| request["kind"]["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["PodAttachOptions", "PodExecOptions", "PodProxyOptions", "Binding", "Eviction", "TokenRequest"]);
    assert_eq!(requests[1]["object"]["command"], json!(["ls", "-l"]));
    assert_eq!((&requests[0]["operation"], &requests[0]["object"]["container"]), (&json!("CONNECT"), &json!("c")));
}

#[tokio::test]
async fn a_connection_is_made_with_what_a_webhook_makes_of_its_options() {
    let patch = patching(&json!([{"op": "replace", "path": "/container", "value": "other"}]));
    let (harness, server) = (Harness::new().await, HookServer::start(move |_| patch.clone()).await);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    harness.post("/api/v1/namespaces/default/serviceaccounts", account).await.expect(201);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    harness.post("/api/v1/nodes", node).await.expect(201);
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    harness.post(pods, pod).await.expect(201);
    let rules = json!({"rules": [{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"],
        "resources": ["pods/attach"]}]});
    configure(&harness, "Mutating", "m", json!([webhook("m", server.client_config(), rules)])).await;
    let upgrade = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    let attach = harness.raw(Method::POST, &format!("{pods}/p/attach?stdout=true&container=c"), &upgrade, "").await;
    assert!(attach.text.contains("container other is not valid for pod p"), "{}", attach.text);
}
