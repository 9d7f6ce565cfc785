//! Admission webhooks that can't be asked, or say what can't be made use of.

use serde_json::{Value, json};

use crate::harness::Harness;
use crate::hook_server::{HookServer, MAPS, configure, map, webhook};

#[tokio::test]
async fn a_webhook_that_cannot_be_asked_counts_as_its_policy_says() {
    for (policy, code) in [("Fail", 500), ("Ignore", 201)] {
        let harness = Harness::new().await;
        let more = json!({"failurePolicy": policy});
        let nowhere = json!({"url": "https://127.0.0.1:1/x"});
        configure(&harness, "Validating", "w", json!([webhook("v", nowhere, more)])).await;
        let answer = harness.post(MAPS, map("a")).await;
        assert_eq!(answer.code, code, "{}", answer.text);
        let text = "Internal error occurred: failed calling webhook \"v.a.io\": failed to call webhook: Post \
                    \"https://127.0.0.1:1/x?timeout=10s\": dial tcp 127.0.0.1:1: connect: connection refused";
        if policy == "Fail" {
            assert_eq!(answer.json["message"], text);
            continue;
        }
        let metrics = harness.get("/metrics").await.text;
        let line = "apiserver_admission_webhook_fail_open_count{name=\"v.a.io\",type=\"validating\"} 1";
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[tokio::test]
async fn a_webhook_that_takes_too_long_is_not_waited_for() {
    let server = HookServer::start_slow(|_| Box::pin(std::future::pending())).await;
    let harness = Harness::new().await;
    configure(&harness, "Mutating", "w", json!([webhook("m", server.client_config(), json!({"timeoutSeconds": 1}))]))
        .await;
    let answer = harness.post(MAPS, map("a")).await.refused(500, "InternalError", "context deadline exceeded");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("/hook?timeout=1s\": context deadline exceeded"), "{message}");
}

#[tokio::test]
async fn only_certificates_of_the_named_authorities_are_taken() {
    let (harness, server, other) = (Harness::new().await, HookServer::allowing().await, HookServer::allowing().await);
    let mut config = server.client_config();
    config["caBundle"] = json!(other.bundle);
    configure(&harness, "Validating", "w", json!([webhook("v", config, json!({}))])).await;
    let text = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    harness.post(MAPS, map("a")).await.refused(500, "InternalError", text);
    assert_eq!(server.requests(), Vec::<Value>::new());
}

#[tokio::test]
async fn answers_that_are_none_fail() {
    let cases: [(Value, &str); 4] = [
        (json!({"uid": "another", "allowed": true}), "received invalid webhook response: expected response.uid="),
        (
            json!({"httpCode": 500}),
            "an error on the server (\"it is broken\") has prevented the request from succeeding",
        ),
        (json!({"httpCode": 404}), "failed to call webhook: the server could not find the requested resource"),
        (json!({"allowed": true, "patch": "W10="}), "validating webhook may not return response.patch"),
    ];
    for (response, text) in cases {
        let harness = Harness::new().await;
        let server = HookServer::start(move |_| response.clone()).await;
        configure(&harness, "Validating", "w", json!([webhook("v", server.client_config(), json!({}))])).await;
        harness.post(MAPS, map("a")).await.refused(500, "InternalError", text);
    }
}

#[tokio::test]
async fn a_webhook_of_the_first_version_is_asked_in_it() {
    let (harness, server) = (Harness::new().await, HookServer::adding("b", None).await);
    let more = json!({"admissionReviewVersions": ["v0", "v1beta1", "v1"]});
    configure(&harness, "Mutating", "w", json!([webhook("m", server.client_config(), more)])).await;
    let created = harness.post(MAPS, map("a")).await.expect(201);
    assert_eq!(created["data"]["b"], "yes");
    assert_eq!(server.reviews()[0]["apiVersion"], "admission.k8s.io/v1beta1");
}

#[tokio::test]
async fn a_service_is_reached_at_a_ready_endpoint() {
    let (harness, server) = (Harness::new().await, HookServer::denying().await);
    let services = "/api/v1/namespaces/default/services";
    let config = json!({"service": {"name": "hook", "namespace": "default", "path": "/x", "port": 9443}, "caBundle": server.bundle});
    configure(&harness, "Validating", "w", json!([webhook("v", config, json!({}))])).await;
    let refused = async |text: &str| harness.post(MAPS, map("a")).await.refused(500, "InternalError", text);
    refused("Post \"https://hook.default.svc:9443/x?timeout=10s\": service \"hook\" not found").await;
    harness
        .post(
            services,
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
        "spec": {"ports": [{"name": "web", "port": 9443}]}}),
        )
        .await
        .expect(201);
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
        "ports": [{"name": "web", "port": server.address.port(), "protocol": "TCP"}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": false}}]});
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    // Slices may not name loopback, so it comes by the store's own way.
    let kind = kedge_kinds::builtin_by_resource("discovery.k8s.io", "v1", "endpointslices").unwrap();
    let key = kedge_store::Key::new(kind.key("default", "hook-1"));
    let put = async |slice: &Value| {
        let template = kedge_store::Template { bytes: slice.to_string().into(), splice_at: None };
        let write = kedge_store::Write::Put { key: key.clone(), value: template, ttl: None };
        let transaction = kedge_store::Transaction { writes: vec![write], ..Default::default() };
        kedge_store::Store::commit(&*harness.store, transaction).await.unwrap();
    };
    put(&slice).await;
    harness.get(&format!("{slices}/hook-1")).await.expect(200);
    refused("no endpoints available for service \"hook\"").await;
    let mut ready = slice.clone();
    ready["endpoints"][0]["conditions"]["ready"] = json!(true);
    put(&ready).await;
    let denied = harness.post(MAPS, map("a")).await;
    assert!(denied.text.contains("denied the request: not today"), "{}", denied.text);
}
