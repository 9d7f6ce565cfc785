//! What is handed on to nodes and pods: logs and proxies, with a kubelet that only repeats what it is asked.

#![allow(clippy::unwrap_used)]

#[path = "api/harness.rs"]
#[allow(dead_code)]
mod harness;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kedge_pki::{ClusterNames, ClusterPki};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use harness::{Harness, Identities};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Answers with method, path, body and whether credentials came along; `/containerLogs/.../broken` is refused.
async fn repeat(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let credentials = parts.headers.contains_key("authorization");
    let text = format!("{} {} {} {credentials}", parts.method, parts.uri, String::from_utf8_lossy(&body));
    let mut response = Response::new(Full::new(Bytes::from(text)));
    if parts.uri.query() == Some("previous=true") {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        *response.body_mut() =
            Full::new(Bytes::from_static(b"previous terminated container \"c\" in pod \"a\" not found"));
    }
    Ok(response)
}

async fn answer_one(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(repeat));
    let _ = connection.await;
}

/// A server, and a kubelet on loopback.
async fn cluster() -> Harness {
    let dir = tempfile::tempdir().unwrap();
    let loopback = vec!["127.0.0.1".parse().unwrap()];
    let names = ClusterNames {
        node_name: "n".to_owned(),
        dns_domain: "cluster.local".to_owned(),
        api_addresses: loopback.clone(),
        api_names: Vec::new(),
        node_addresses: loopback,
    };
    let pki = ClusterPki::ensure(dir.path(), &names).unwrap();
    let authority = pki.authority.certificate_pem();
    let mut tls = kedge_pki::server_config(&pki.apiserver, authority).unwrap();
    tls.alpn_protocols.clear();
    let kubelet = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = kubelet.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(async move {
        loop {
            let (stream, _) = kubelet.accept().await.unwrap();
            tokio::spawn(answer_one(acceptor.accept(stream).await.unwrap()));
        }
    });
    let client = kedge_pki::client_config(&pki.apiserver_kubelet_client, authority).unwrap();
    let store: Arc<dyn kedge_store::Store> = Arc::new(kedge_store::MemoryStore::new());
    let identities = Identities { kubelet_tls: Some(Arc::new(client)), ..Identities::default() };
    let harness = Harness::build(store, kedge_apiserver::Config::default(), identities).await;
    populate(&harness, port).await;
    harness
}

async fn populate(harness: &Harness, kubelet: u16) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet}}}});
    harness.post("/api/v1/nodes", node.clone()).await.expect(201);
    harness.patch("/api/v1/nodes/n/status", json!({"status": node["status"]})).await.expect(200);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    harness.post("/api/v1/namespaces/default/serviceaccounts", account).await.expect(201);
    for (name, node) in [("a", Some("n")), ("b", None)] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"nodeName": node,
            "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}});
        harness.post(PODS, pod).await.expect(201);
    }
    let status = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
    harness.patch(&format!("{PODS}/a/status"), status).await.expect(200);
}

#[tokio::test]
async fn logs_come_from_the_kubelet() {
    let harness = cluster().await;
    let log = harness.get(&format!("{PODS}/a/log?tailLines=5&follow=true&nonsense=1")).await;
    assert_eq!((log.code, log.text.as_str()), (200, "GET /containerLogs/default/a/c?follow=true&tailLines=5  false"));
    assert_eq!(log.headers["content-type"], "text/plain");
    assert_eq!(harness.get(&format!("{PODS}/b/log")).await.text, "");
    let refused = harness.get(&format!("{PODS}/a/log?previous=true")).await;
    refused.refused(400, "BadRequest", "previous terminated container \"c\" in pod \"a\" not found");
    harness.get(&format!("{PODS}/a/log?container=x")).await.refused(
        400,
        "BadRequest",
        "container x is not valid for pod a",
    );
    harness.get(&format!("{PODS}/a/log?tailLines=-1")).await.refused(422, "Invalid", "tailLines: Invalid value: -1");
    harness.get(&format!("{PODS}/missing/log")).await.refused(404, "NotFound", "pods \"missing\" not found");
}

#[tokio::test]
async fn proxies_hand_on_requests_without_credentials() {
    let harness = cluster().await;
    let headers = [("authorization", "Bearer secret")];
    let node = harness.raw(Method::POST, "/api/v1/nodes/n/proxy/some%20path?x=1", &headers, "body").await;
    assert_eq!((node.code, node.text.as_str()), (200, "POST /some%20path?x=1 body false"));
    harness.get(&format!("{PODS}/a/proxy/")).await.refused(400, "BadRequest", "address not allowed");
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    harness.post("/api/v1/namespaces/default/services", service).await.expect(201);
    let bare = harness.raw(Method::GET, "/api/v1/nodes/n/proxy?x=1", &headers, "").await;
    assert_eq!((bare.code, bare.headers["location"].to_str().unwrap()), (301, "/api/v1/nodes/n/proxy/?x=1"));
    let path = "/api/v1/namespaces/default/services/web/proxy/";
    harness.get(path).await.refused(503, "ServiceUnavailable", "no endpoints available for service \"web\"");
}

#[tokio::test]
async fn streams_want_an_upgrade() {
    let harness = cluster().await;
    for path in ["exec?command=ls&stdout=true", "attach?stdout=true", "portforward"] {
        let answer = harness.call(Method::POST, &format!("{PODS}/a/{path}"), json!(null)).await;
        answer.refused(400, "BadRequest", "Upgrade request required");
    }
    harness.call(Method::POST, &format!("{PODS}/a/exec"), json!(null)).await.refused(
        400,
        "BadRequest",
        "you must specify at least 1 command",
    );
}
