//! Webhooks of a running control plane, set up and met with kubectl: one refuses, one changes, one converts.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use kedge_e2e::{Host, HostOptions, eventually};
use kedge_pki::{CertificateAuthority, LeafRequest};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A server on loopback for as long as the test runs.
struct Hooks {
    address: SocketAddr,
    bundle: String,
    _dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Hooks {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let authority = CertificateAuthority::ensure(dir.path(), "hooks", "hooks").expect("an authority can be made");
        let leaf = LeafRequest::server("hooks", Vec::new(), vec!["127.0.0.1".parse().expect("it is an address")]);
        let identity = authority.issue(&leaf).expect("a certificate can be made");
        let tls = kedge_pki::server_config_without_client_certificates(&identity).expect("it is a good certificate");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        runtime.spawn(serve(listener, TlsAcceptor::from(Arc::new(tls))));
        let bundle = base64::engine::general_purpose::STANDARD.encode(authority.certificate_pem());
        Self { address, bundle, _dir: dir, _runtime: runtime }
    }

    fn client_config(&self, path: &str) -> Value {
        json!({"url": format!("https://{}/{path}", self.address), "caBundle": self.bundle})
    }

    fn configuration(&self, kind: &str, path: &str) -> String {
        let webhook = json!({"name": format!("{path}.example.com"), "clientConfig": self.client_config(path),
            "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]});
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": path},
            "webhooks": [webhook]})
        .to_string()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor) {
    while let Ok((tcp, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(tcp).await else { return };
            let connection = auto::Builder::new(TokioExecutor::new());
            // A client that leaves early is no matter of the test's.
            let _ = connection.serve_connection(TokioIo::new(stream), service_fn(respond)).await;
        });
    }
}

async fn respond(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let bytes = request.into_body().collect().await.expect("the request comes whole").to_bytes();
    let review: Value = serde_json::from_slice(&bytes).expect("a review is JSON");
    let asked = &review["request"];
    let mut response = match path.as_str() {
        "/refuse" => refuse(asked),
        "/change" => change(asked),
        _ => convert(asked),
    };
    response["uid"] = asked["uid"].clone();
    let answer = json!({"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response});
    Ok(Response::new(Full::from(answer.to_string())))
}

fn refuse(asked: &Value) -> Value {
    match asked["object"]["data"]["verdict"].as_str() {
        Some("bad") => json!({"allowed": false, "status": {"message": "the verdict is bad"}}),
        _ => json!({"allowed": true, "warnings": ["the verdict is open"]}),
    }
}

fn change(asked: &Value) -> Value {
    let verdict = asked["object"]["data"]["verdict"].as_str().unwrap_or("none");
    let patch = json!([{"op": "add", "path": "/metadata/labels", "value": {"verdict": verdict}}]).to_string();
    let patch = base64::engine::general_purpose::STANDARD.encode(patch);
    json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
}

/// `hostPort` of v1 is `host` and `port` of v2.
fn convert(asked: &Value) -> Value {
    let wanted = asked["desiredAPIVersion"].as_str().unwrap_or_default();
    let converted = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = json!(wanted);
        let fields = object.as_object_mut().expect("objects are objects");
        let mut take =
            |name: &str| fields.remove(name).and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default();
        if wanted.ends_with("/v2") {
            let both = take("hostPort");
            let (host, port) = both.split_once(':').unwrap_or((&both, ""));
            object["host"] = json!(host);
            object["port"] = json!(port);
        } else {
            let both = format!("{}:{}", take("host"), take("port"));
            object["hostPort"] = json!(both);
        }
        object
    };
    let objects: Vec<Value> = asked["objects"].as_array().into_iter().flatten().map(converted).collect();
    json!({"result": {"status": "Success"}, "convertedObjects": objects})
}

fn control_plane() -> Option<Host> {
    Host::up(HostOptions { control_plane_only: true, ..HostOptions::default() })
}

#[test]
fn admission_webhooks_refuse_and_change() {
    let Some(host) = control_plane() else { return };
    let (kubectl, hooks) = (host.kubectl(), Hooks::start());
    kubectl.apply(&hooks.configuration("ValidatingWebhookConfiguration", "refuse"));
    kubectl.apply(&hooks.configuration("MutatingWebhookConfiguration", "change"));
    let create = |name: &str, verdict: &str| {
        let literal = format!("verdict={verdict}");
        kubectl.try_run(&["create", "configmap", name, "--from-literal", &literal])
    };
    let refused = create("a", "bad");
    let text = "admission webhook \"refuse.example.com\" denied the request: the verdict is bad";
    assert!(!refused.ok && refused.stderr.contains(text), "{}", refused.all());
    let created = create("b", "good");
    assert!(created.ok && created.stderr.contains("Warning: the verdict is open"), "{}", created.all());
    let label = kubectl.run(&["get", "configmap", "b", "-o", "jsonpath={.metadata.labels.verdict}"]);
    assert_eq!(label, "good");
    kubectl.run(&["delete", "validatingwebhookconfiguration", "refuse"]);
    let created = create("c", "bad");
    assert!(created.ok, "{}", created.all());
    // Whoever is away is named, and can be sent away.
    drop(hooks);
    let failed = create("d", "good");
    assert!(failed.stderr.contains("failed calling webhook \"change.example.com\""), "{}", failed.all());
    kubectl.run(&["delete", "mutatingwebhookconfiguration", "change"]);
    assert!(create("d", "good").ok);
}

#[test]
fn a_conversion_webhook_serves_every_version() {
    let Some(host) = control_plane() else { return };
    let (kubectl, hooks) = (host.kubectl(), Hooks::start());
    let text = json!({"type": "string"});
    let version = |name: &str, properties: Value| {
        json!({"name": name, "served": true, "storage": name == "v1",
            "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}})
    };
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "hosts.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "hosts", "kind": "Host"},
            "versions": [version("v1", json!({"hostPort": text})), version("v2", json!({"host": text, "port": text}))],
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
                "clientConfig": hooks.client_config("convert")}}}});
    kubectl.apply(&definition.to_string());
    kubectl.run(&["wait", "--for", "condition=established", "crd/hosts.example.com", "--timeout", "60s"]);
    let apply = |version: &str, name: &str, fields: &str| {
        kubectl
            .apply(&format!("apiVersion: example.com/{version}\nkind: Host\nmetadata: {{name: {name}}}\n{fields}\n"));
    };
    apply("v1", "one", "hostPort: 'a:1'");
    apply("v2", "two", "host: b\nport: '2'");
    let hosts = kubectl.run(&["get", "hosts.v2.example.com", "-o", "jsonpath={.items[*].host}"]);
    assert_eq!(hosts, "a b");
    let both = kubectl.run(&["get", "hosts.v1.example.com", "-o", "jsonpath={.items[*].hostPort}"]);
    assert_eq!(both, "a:1 b:2");
    kubectl.run(&["delete", "hosts.v2.example.com", "one"]);
    drop(hooks);
    eventually("the webhook to be missed", Duration::from_secs(60), || {
        let failed = kubectl.try_run(&["get", "hosts.v2.example.com"]);
        if failed.stderr.contains("conversion webhook for") { Ok(()) } else { Err(failed.all()) }
    });
    kubectl.run(&["delete", "crd", "hosts.example.com", "--timeout", "60s"]);
}
