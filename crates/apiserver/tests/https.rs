//! The API over TLS: client certificates, tokens, HTTP/1.1 and HTTP/2, watches, shutdown.

#![allow(clippy::unwrap_used)]

#[path = "api/harness.rs"]
#[allow(dead_code)]
mod harness;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kedge_pki::{ClusterNames, ClusterPki};
use kedge_store::{Key, Template, Transaction, Write};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use harness::{Events, Harness};

struct Served {
    address: std::net::SocketAddr,
    pki: ClusterPki,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), kedge_apiserver::Error>>,
    harness: Harness,
    _dir: tempfile::TempDir,
}

async fn serve() -> Served {
    serve_over(Harness::new().await).await
}

async fn serve_over(harness: Harness) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let loopback = vec!["127.0.0.1".parse().unwrap()];
    let names = ClusterNames {
        node_name: "n1".to_owned(),
        dns_domain: "cluster.local".to_owned(),
        api_addresses: loopback.clone(),
        api_names: Vec::new(),
        node_addresses: loopback,
    };
    let pki = ClusterPki::ensure(dir.path(), &names).unwrap();
    let tls = kedge_pki::server_config(&pki.apiserver, pki.authority.certificate_pem()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let (server, token) = (Arc::clone(&harness.server), shutdown.clone());
    let task = tokio::spawn(async move { server.serve(listener, Arc::new(tls), token).await });
    Served { address, pki, shutdown, task, harness, _dir: dir }
}

/// A request over a connection of its own, as the administrator or without a certificate.
async fn call(served: &Served, admin: bool, h2: bool, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let authority = served.pki.authority.certificate_pem();
    let mut tls = match admin {
        true => kedge_pki::client_config(&served.pki.admin, authority).unwrap(),
        false => nobody(authority),
    };
    tls.alpn_protocols = vec![if h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let tcp = TcpStream::connect(served.address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = TokioIo::new(TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap());
    if h2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        return sender.send_request(request).await.unwrap();
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.unwrap()
}

/// A client without a certificate.
fn nobody(authority: &str) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

async fn json_of(response: Response<Incoming>) -> (u16, Value) {
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

fn request(served: &Served, path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    harness::request(Method::GET, &format!("https://{}{path}", served.address), headers, "")
}

#[tokio::test]
async fn certificates_and_tokens_are_users() {
    let served = serve().await;
    for h2 in [false, true] {
        let (code, list) = json_of(call(&served, true, h2, request(&served, "/api/v1/namespaces", &[])).await).await;
        assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 4));
    }
    let (code, status) = json_of(call(&served, false, true, request(&served, "/api/v1/namespaces", &[])).await).await;
    assert_eq!(code, 403, "{status}");
    assert!(
        status["message"].as_str().unwrap().contains("User \"system:anonymous\" cannot list resource \"namespaces\"")
    );
    let bad = request(&served, "/api", &[("authorization", "Bearer nonsense")]);
    assert_eq!(json_of(call(&served, false, false, bad).await).await.0, 401);
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    served.harness.post(accounts, account).await.expect(201);
    let wanted = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let token = served.harness.post(&format!("{accounts}/robot/token"), wanted).await.expect(201);
    let bearer = format!("Bearer {}", token["status"]["token"].as_str().unwrap());
    let good = request(&served, "/apis", &[("authorization", &bearer)]);
    assert_eq!(json_of(call(&served, false, false, good).await).await.0, 200);
    let denied = request(&served, "/api/v1/nodes", &[("authorization", &bearer)]);
    let (code, status) = json_of(call(&served, false, false, denied).await).await;
    assert_eq!(code, 403);
    assert!(status["message"].as_str().unwrap().contains("User \"system:serviceaccount:default:robot\""), "{status}");
    let acting = [("impersonate-user", "jane"), ("impersonate-group", "developers")];
    let (code, status) = json_of(call(&served, true, true, request(&served, "/api/v1/nodes", &acting)).await).await;
    assert_eq!(code, 403);
    assert!(status["message"].as_str().unwrap().contains("User \"jane\""), "{status}");
}

#[tokio::test]
async fn a_bootstrap_token_is_a_user_until_it_ends() {
    let served = serve().await;
    let encoded = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": "bootstrap-token-abcdef"}, "data": {
            "token-id": encoded("abcdef"), "token-secret": encoded("0123456789abcdef"),
            "usage-bootstrap-authentication": encoded("true"), "expiration": encoded("2026-01-02T04:04:05Z"),
            "auth-extra-groups": encoded("system:bootstrappers:kubeadm:default-node-token")}});
    served.harness.post("/api/v1/namespaces/kube-system/secrets", secret).await.expect(201);
    let ask = |token: &'static str| {
        let bearer = format!("Bearer {token}");
        let request = request(&served, "/api/v1/nodes", &[("authorization", &bearer)]);
        let answer = call(&served, false, false, request);
        async move { json_of(answer.await).await }
    };
    let (code, status) = ask("abcdef.0123456789abcdef").await;
    assert_eq!(code, 403, "{status}");
    assert!(status["message"].as_str().unwrap().contains("User \"system:bootstrap:abcdef\""), "{status}");
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "joiners"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io",
            "name": "system:bootstrappers:kubeadm:default-node-token"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    served.harness.post(bindings, binding).await.expect(201);
    let role =
        json!({"rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}], "aggregationRule": null});
    served.harness.patch("/apis/rbac.authorization.k8s.io/v1/clusterroles/view", role).await.expect(200);
    assert_eq!(ask("abcdef.0123456789abcdef").await.0, 200);
    assert_eq!(ask("abcdef.0123456789abcdee").await.0, 401);
    served.harness.clock.advance(std::time::Duration::from_secs(7200));
    assert_eq!(ask("abcdef.0123456789abcdef").await.0, 401);
}

#[tokio::test]
async fn a_shutdown_ends_watches_and_then_the_server() {
    let served = serve().await;
    let watch = call(&served, true, true, request(&served, "/api/v1/namespaces?watch=true", &[])).await;
    let mut body = watch.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"{\"type\":\"ADDED\""));
    served.shutdown.cancel();
    while let Some(Ok(_)) = body.frame().await {}
    served.task.await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn a_watch_takes_http_1_http_2_and_websocket() {
    let served = serve().await;
    let path = "/api/v1/namespaces?watch=true&fieldSelector=metadata.name%3Ddefault";
    for h2 in [false, true] {
        let mut body = call(&served, true, h2, request(&served, path, &[])).await.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.starts_with(b"{\"type\":\"ADDED\"") && first.ends_with(b"}\n"), "{first:?}");
    }
    let upgrade = |accept: &'static str| {
        [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("accept", accept),
        ]
    };
    for (accept, is_text) in [("*/*", true), (kedge_schema::PROTOBUF, false)] {
        let answer = call(&served, true, false, request(&served, path, &upgrade(accept))).await;
        assert_eq!((answer.status().as_u16(), &answer.headers()["upgrade"]), (101, &"websocket".parse().unwrap()));
        let connection = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
        let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(connection, role, None).await;
        let event = socket.next().await.unwrap().unwrap();
        assert_eq!(event.is_text(), is_text);
        match is_text {
            true => {
                let event: Value = serde_json::from_str(event.to_text().unwrap()).unwrap();
                assert_eq!(
                    (&event["type"], &event["object"]["metadata"]["name"]),
                    (&json!("ADDED"), &json!("default"))
                );
            }
            false => assert!(event.into_data().starts_with(b"\x0a\x05ADDED\x12")),
        }
    }
    let refused = call(&served, false, false, request(&served, path, &upgrade("*/*"))).await;
    assert_eq!(refused.status(), 403, "nobody's watch is not upgraded");
}

#[tokio::test]
async fn the_service_of_the_api_comes_back() {
    let harness = Harness::new().await;
    let path = "/api/v1/namespaces/default/services/kubernetes";
    harness.delete(path).await.expect(200);
    let mut events = Events::open(&harness, "/api/v1/services?watch=true").await;
    let served = serve_over(harness).await;
    assert_eq!(events.next_name().await, ("ADDED".to_owned(), "kubernetes".to_owned()));
    assert_eq!(served.harness.get(path).await.expect(200)["spec"]["clusterIP"], "10.96.0.1");
}

#[tokio::test]
async fn addresses_of_services_are_repaired() {
    let harness = Harness::new().await;
    let service = |name: &str, address: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"clusterIP": address, "ports": [{"port": 80}]}})
    };
    let services = "/api/v1/namespaces/default/services";
    harness.post(services, service("web", "10.96.0.77")).await.expect(201);
    let addresses = "/apis/networking.k8s.io/v1/ipaddresses";
    let leaked = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": "10.96.0.88",
        "labels": {"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "gone"}}});
    harness.post(addresses, leaked).await.expect(201);
    harness.clock.advance(Duration::from_secs(61));
    let mut changes = Events::open(&harness, &format!("{addresses}?watch=true&resourceVersion=0")).await;
    let mut told = Events::open(&harness, "/api/v1/events?watch=true").await;
    let served = serve_over(harness).await;
    while changes.next_name().await != ("DELETED".to_owned(), "10.96.0.88".to_owned()) {}
    let event = told.next().await.unwrap()["object"].clone();
    assert_eq!(
        (&event["reason"], &event["involvedObject"]["kind"]),
        (&json!("IPAddressNotAllocated"), &json!("IPAddress"))
    );
    // Under a living Service, at once and not in the next round.
    served.harness.delete(&format!("{addresses}/10.96.0.77")).await.expect(200);
    while changes.next_name().await != ("DELETED".to_owned(), "10.96.0.77".to_owned()) {}
    assert_eq!(changes.next_name().await, ("ADDED".to_owned(), "10.96.0.77".to_owned()));
    let event = told.next().await.unwrap()["object"].clone();
    let text = "Cluster IP [IPv4]: 10.96.0.77 is not allocated; repairing";
    assert_eq!((&event["reason"], &event["message"]), (&json!("ClusterIPNotAllocated"), &json!(text)));
    assert_eq!(event["involvedObject"]["name"], "web");
    let address = served.harness.get(&format!("{addresses}/10.96.0.77")).await.expect(200);
    assert_eq!(address["spec"]["parentRef"]["name"], "web");
}

/// A record as it stands in the store, with another value.
async fn put_raw(harness: &Harness, key: &str, value: &Value) {
    let bytes = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let value = Template { bytes: bytes.into(), splice_at: None };
    let write = Write::Put { key: Key::new(key), value, ttl: None };
    harness.store.commit(Transaction { writes: vec![write], ..Transaction::default() }).await.unwrap();
}

#[tokio::test]
async fn node_ports_of_services_are_repaired() {
    let harness = Harness::new().await;
    let service = |name: &str, port: u16| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}})
    };
    let services = "/api/v1/namespaces/default/services";
    let ports = "/registry/ranges/servicenodeports";
    for (name, port) in [("one", 30001), ("two", 30002), ("lost", 30003), ("beyond", 30004)] {
        harness.post(services, service(name, port)).await.expect(201);
    }
    // As a restored backup or an older version may leave it.
    let kind = kedge_kinds::builtin_by_resource("", "v1", "services").unwrap();
    let key = |name: &str| kind.key("default", name);
    for (name, port) in [("two", 30001), ("beyond", 8080)] {
        let record = harness.store.get(&Key::new(key(name))).await.unwrap().unwrap();
        let mut object: Value = serde_json::from_slice(&record.value).unwrap();
        object["spec"]["ports"][0]["nodePort"] = json!(port);
        put_raw(&harness, &key(name), &object).await;
    }
    put_raw(&harness, &format!("{ports}/30003"), &json!("default/gone")).await;
    put_raw(&harness, &format!("{ports}/30777"), &json!("default/gone")).await;
    let mut told = Events::open(&harness, "/api/v1/events?watch=true").await;
    let served = serve_over(harness).await;
    let mut said = std::collections::BTreeSet::new();
    while said.len() < 3 {
        let event = told.next().await.unwrap()["object"].clone();
        let name = event["involvedObject"]["name"].as_str().unwrap().to_owned();
        said.insert((event["reason"].as_str().unwrap().to_owned(), name));
    }
    let expected = [("PortAlreadyAllocated", "two"), ("PortNotAllocated", "lost"), ("PortOutOfRange", "beyond")];
    assert_eq!(said, expected.map(|(reason, name)| (reason.to_owned(), name.to_owned())).into());
    // What nobody has comes last in a round, and is there for others then.
    let freed = [30002, 30004, 30777];
    for (index, port) in freed.into_iter().enumerate() {
        let path = format!("{services}/next-{index}");
        let answer = || async { served.harness.post(services, service(&format!("next-{index}"), port)).await };
        while answer().await.code != 201 {
            tokio::task::yield_now().await;
        }
        served.harness.get(&path).await.expect(200);
    }
    // Who was told keeps what works until people recreate it.
    for name in ["two", "beyond"] {
        let patch = json!({"metadata": {"labels": {"seen": "true"}}});
        served.harness.patch(&format!("{services}/{name}"), patch).await.expect(200);
    }
    let metrics = served.harness.raw(Method::GET, "/metrics", &[], String::new()).await.text;
    for (error, count) in [("duplicate", 1), ("leak", 3), ("outOfRange", 1), ("repair", 1)] {
        let line = format!("apiserver_nodeport_repair_port_errors_total{{type=\"{error}\"}} {count}");
        assert!(metrics.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn flow_schemas_say_whether_they_lead_anywhere_and_come_back() {
    let harness = Harness::new().await;
    let schemas = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    harness.delete(&format!("{schemas}/service-accounts")).await.expect(200);
    harness.patch(&format!("{schemas}/exempt"), json!({"spec": {"matchingPrecedence": 7}})).await.expect(200);
    let mine = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}, "spec": {
        "priorityLevelConfiguration": {"name": "nowhere"}}});
    harness.patch(&format!("{schemas}/system-nodes"), mine).await.expect(200);
    let served = serve_over(harness).await;
    let mut events = Events::open(&served.harness, &format!("{schemas}?watch=true")).await;
    let mut seen = std::collections::BTreeMap::new();
    let expected = [("exempt", 1, "Found"), ("service-accounts", 9000, "Found"), ("system-nodes", 500, "NotFound")];
    let is_there = |seen: &std::collections::BTreeMap<String, (i64, String)>| {
        expected.iter().all(|(name, precedence, reason)| seen.get(*name) == Some(&(*precedence, (*reason).to_owned())))
    };
    while !is_there(&seen) {
        let event = events.next().await.unwrap();
        let object = &event["object"];
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let reason = object["status"]["conditions"][0]["reason"].as_str().unwrap_or("").to_owned();
        seen.insert(name, (object["spec"]["matchingPrecedence"].as_i64().unwrap(), reason));
    }
    let nodes = served.harness.get(&format!("{schemas}/system-nodes")).await.expect(200);
    let condition = &nodes["status"]["conditions"][0];
    let text = "This FlowSchema references the PriorityLevelConfiguration object named \"nowhere\" but there is no such object";
    assert_eq!((&condition["status"], &condition["message"]), (&json!("True"), &json!(text)));
    let managers = nodes["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|entry| entry["manager"] == "api-priority-and-fairness-config-consumer-v1"), "{nodes}");
}
