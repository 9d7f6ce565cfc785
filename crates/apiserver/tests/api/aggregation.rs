//! APIs that other servers answer for: what they are told, what clients see of them, and what their APIServices say.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kedge_meta::UserInfo;
use kedge_pki::{CertificateAuthority, LeafRequest};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::custom::eventually;
use crate::harness::{Harness, Identities};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1.wardle.example";
const OWN: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1.wardle.example";
const BASE: &str = "/apis/wardle.example/v1";

/// The list of its resources, its schema, and for everything else what it was asked and by whom.
async fn extension(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let said =
        |name: &str| -> Vec<&str> { parts.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect() };
    let document = match parts.uri.path() {
        BASE => {
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example/v1", "resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"], "shortNames": ["fl"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"]}]})
        }
        "/openapi/v3" => {
            json!({"paths": {"apis/wardle.example/v1": {"serverRelativeURL": "/openapi/v3/apis/wardle.example/v1?hash=1"}}})
        }
        "/openapi/v2" if said("if-none-match") == ["\"1\""] => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = http::StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        "/openapi/v2" => {
            let flunder = "#/definitions/com.example.wardle.v1.Flunder";
            let meta = "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
            json!({"swagger": "2.0", "info": {"title": "wardle", "version": "1"},
                "paths": {"/apis/wardle.example/v1/flunders": {"get": {"operationId": "listFlunders", "responses": {"200":
                    {"description": "OK", "schema": {"$ref": flunder}}}}}, "/version/": {"get": {"operationId": "version"}}},
                "definitions": {"com.example.wardle.v1.Flunder": {"type": "object", "description": "A flunder.",
                    "properties": {"metadata": {"$ref": meta}}}, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta": {}}})
        }
        _ => json!({"asked": format!("{} {}", parts.method, parts.uri), "user": said("x-remote-user"),
            "groups": said("x-remote-group"), "credentials": parts.headers.contains_key("authorization"), "body": body}),
    };
    let mut response = Response::new(Full::from(document.to_string()));
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response.headers_mut().insert("etag", "\"1\"".parse().unwrap());
    Ok(response)
}

/// A server, and an extension server on loopback; its port, and the bundle by which it is believed.
async fn cluster() -> (Harness, u16, String) {
    let (harness, port, bundle, _) = counted_cluster().await;
    (harness, port, bundle)
}

/// The same, with the number of connections that the extension server has taken so far.
async fn counted_cluster() -> (Harness, u16, String, Arc<AtomicUsize>) {
    let dir = tempfile::tempdir().unwrap();
    let authority = |name: &str| CertificateAuthority::ensure(dir.path(), name, name).unwrap();
    let (servers, proxies) = (authority("servers"), authority("front-proxy-ca"));
    let serving = servers.issue(&LeafRequest::server("x", vec!["ext.default.svc".to_owned()], Vec::new())).unwrap();
    // Only who shows a certificate of the front proxies' authority gets in.
    let mut tls = kedge_pki::server_config(&serving, proxies.certificate_pem()).unwrap();
    tls.alpn_protocols.clear();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let connections = Arc::<AtomicUsize>::default();
    let taken = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            taken.fetch_add(1, Ordering::Relaxed);
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            if stream.get_ref().1.peer_certificates().is_none() {
                continue;
            }
            let builder = hyper::server::conn::http1::Builder::new();
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service_fn(extension)));
        }
    });
    proxies.ensure_leaf(dir.path(), "client", &LeafRequest::client("front-proxy-client", &[])).unwrap();
    let file = |name: &str| dir.path().join(name);
    let identity = kedge_pki::following_identity(&file("client.crt"), &file("client.key")).unwrap();
    let identities = Identities { proxy_identity: Some(identity), ..Identities::default() };
    let harness = Harness::known(identities).await;
    (harness, port, base64::engine::general_purpose::STANDARD.encode(servers.certificate_pem()), connections)
}

/// A Service that leads to loopback; endpoints may not lie there.
async fn service(harness: &Harness) {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ext"},
        "spec": {"type": "ExternalName", "externalName": "localhost"}});
    harness.post("/api/v1/namespaces/default/services", service).await.expect(201);
}

fn api_service(port: u16, bundle: &str) -> Value {
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": NAME}, "spec": {
        "group": "wardle.example", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 200,
        "caBundle": bundle, "service": {"name": "ext", "namespace": "default", "port": port}}})
}

async fn reason(harness: &Harness, wanted: &str) -> Value {
    eventually(harness, OWN, |answer| answer.json["status"]["conditions"][0]["reason"] == wanted).await
}

#[tokio::test]
async fn another_server_answers_and_is_told_who_asks() {
    let (harness, port, bundle) = cluster().await;
    service(&harness).await;
    harness.post(SERVICES, api_service(port, &bundle)).await.expect(201);
    let available = reason(&harness, "Passed").await;
    assert_eq!(available["status"]["conditions"][0]["message"], "all checks passed");
    let path = format!("{BASE}/namespaces/a/flunders/b?x=1");
    let headers = [("authorization", "Bearer secret"), ("x-remote-user", "root"), ("content-type", "application/json")];
    let answer = harness.raw(Method::PUT, &path, &headers, "{\"kind\":\"Flunder\"}").await.expect(200);
    let expected = json!({"asked": format!("PUT {path}"), "user": ["admin"], "groups": ["system:masters", "system:authenticated"],
        "credentials": false, "body": "{\"kind\":\"Flunder\"}"});
    assert_eq!(answer, expected);
    // Who may not ask does not get there.
    let nobody = UserInfo::authenticated("nobody", [""; 0]);
    harness.get_as(nobody, &path).await.refused(403, "Forbidden", "cannot get resource \"flunders\"");
    harness.delete(OWN).await.expect(200);
    eventually(&harness, BASE, |answer| answer.code == 404).await;
}

#[tokio::test]
async fn requests_share_connections() {
    let (harness, port, bundle, connections) = counted_cluster().await;
    service(&harness).await;
    harness.post(SERVICES, api_service(port, &bundle)).await.expect(201);
    reason(&harness, "Passed").await;
    for index in 0..30 {
        harness.get(&format!("{BASE}/flunders/{index}")).await.expect(200);
    }
    // One for these requests, one for looks at the server at the same time, and some that were begun and not needed.
    let count = connections.load(Ordering::Relaxed);
    assert!(count <= 4, "{count} connections for 30 requests, one after the other");
    // Who is believed for another reason is connected to anew.
    let blind = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    harness.patch(OWN, blind).await.expect(200);
    eventually(&harness, &format!("{BASE}/flunders"), |_| connections.load(Ordering::Relaxed) > count).await;
}

#[tokio::test]
async fn clients_discover_what_another_server_has() {
    let (harness, port, bundle) = cluster().await;
    service(&harness).await;
    harness.post(SERVICES, api_service(port, &bundle)).await.expect(201);
    reason(&harness, "Passed").await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let aggregated = harness.raw(Method::GET, "/apis", &[("accept", accept)], "").await.expect(200);
    let group =
        aggregated["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "wardle.example");
    let kind = json!({"group": "", "version": "", "kind": "Flunder"});
    let expected = json!([{"version": "v1", "freshness": "Current", "resources": [{
        "resource": "flunders", "responseKind": kind, "scope": "Namespaced", "singularResource": "flunder",
        "verbs": ["get", "list"], "shortNames": ["fl"],
        "subresources": [{"subresource": "status", "responseKind": kind, "verbs": ["get"]}]}]}]);
    assert_eq!(group.unwrap()["versions"], expected);
    let group = harness.get("/apis/wardle.example").await.expect(200);
    assert_eq!(group["preferredVersion"]["groupVersion"], "wardle.example/v1");
    assert_eq!(harness.get(BASE).await.expect(200)["resources"][0]["name"], "flunders");
    let old = harness.get("/openapi/v2").await;
    let (old, etag) = (old.json, old.headers["etag"].clone());
    let own = &old["paths"]["/apis/wardle.example/v1/flunders"]["get"];
    assert_eq!(own["operationId"], "listFlunders");
    let definitions = &old["definitions"];
    assert_eq!(definitions["com.example.wardle.v1.Flunder"]["description"], "A flunder.");
    let meta = &definitions["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"];
    assert!(meta["properties"]["name"].is_object(), "what is shared stays as it was: {meta}");
    assert!(old["paths"]["/api/v1/pods"].is_object() && old["paths"]["/version/"]["get"]["operationId"] != "version");
    let accept = [("accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")];
    let protobuf = harness.raw(Method::GET, "/openapi/v2", &accept, "").await.text;
    assert!(protobuf.contains("com.example.wardle.v1.Flunder") && protobuf.contains("listFlunders"));
    // It has not changed, and neither has the document.
    harness.patch(OWN, json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    assert_eq!(harness.get("/openapi/v2").await.headers["etag"], etag);
    let index = harness.get("/openapi/v3").await.expect(200);
    let url = &index["paths"]["apis/wardle.example/v1"]["serverRelativeURL"];
    assert_eq!(harness.get(url.as_str().unwrap()).await.expect(200)["asked"], format!("GET {}", url.as_str().unwrap()));
}

#[tokio::test]
async fn an_api_service_says_what_is_missing() {
    let (harness, port, bundle) = cluster().await;
    harness.post(SERVICES, api_service(port, &bundle)).await.expect(201);
    reason(&harness, "ServiceNotFound").await;
    harness.get(&format!("{BASE}/flunders")).await.refused(503, "ServiceUnavailable", "service unavailable");
    let services = "/api/v1/namespaces/default/services";
    let spec = json!({"selector": {"app": "x"}, "ports": [{"name": "https", "port": 1}]});
    let wrong = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ext"}, "spec": spec});
    harness.post(services, wrong).await.expect(201);
    let said = reason(&harness, "ServicePortError").await;
    let message = format!("service/ext in \"default\" is not listening on port {port}");
    assert_eq!(said["status"]["conditions"][0]["message"], message);
    harness
        .patch(&format!("{services}/ext"), json!({"spec": {"ports": [{"name": "https", "port": port}]}}))
        .await
        .expect(200);
    reason(&harness, "EndpointsNotFound").await;
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "ext-1", "labels": {"kubernetes.io/service-name": "ext"}},
        "ports": [{"name": "https", "port": port}],
        "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": false}}]});
    harness.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await.expect(201);
    reason(&harness, "MissingEndpoints").await;
    harness.delete(&format!("{services}/ext")).await.expect(200);
    service(&harness).await;
    // A bundle that is another authority's.
    let other = CertificateAuthority::ensure(tempfile::tempdir().unwrap().path(), "other", "other").unwrap();
    let other = base64::engine::general_purpose::STANDARD.encode(other.certificate_pem());
    harness.patch(OWN, json!({"spec": {"caBundle": other}})).await.expect(200);
    let failed = reason(&harness, "FailedDiscoveryCheck").await;
    let message = failed["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.starts_with("failing or missing response from https://localhost:"), "{message}");
    let blind = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    harness.patch(OWN, blind).await.expect(200);
    reason(&harness, "Passed").await;
}

#[tokio::test]
async fn own_groups_have_api_services() {
    let harness = Harness::new().await;
    for (name, priority) in [("v1.", 18_000), ("v1.apps", 17_800), ("v2.autoscaling", 17_500)] {
        let own = harness.get(&format!("{SERVICES}/{name}")).await.expect(200);
        let condition = &own["status"]["conditions"][0];
        assert_eq!((&own["spec"]["groupPriorityMinimum"], &condition["reason"]), (&json!(priority), &json!("Local")));
    }
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "flunders.wardle.example"}, "spec": {"group": "wardle.example", "scope": "Namespaced",
        "names": {"plural": "flunders", "kind": "Flunder"}, "versions": [{"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    harness.post(definitions, definition).await.expect(201);
    let own = eventually(&harness, OWN, |answer| answer.code == 200).await;
    assert_eq!(own["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "true");
    harness.delete(&format!("{definitions}/flunders.wardle.example")).await.expect(200);
    eventually(&harness, OWN, |answer| answer.code == 404).await;
}
