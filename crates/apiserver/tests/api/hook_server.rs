//! A webhook in the test's own process: HTTPS on a port of loopback, with an authority of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::harness::Harness;

/// Who called, as far as that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) has_certificate: bool,
    pub(crate) authorization: String,
}

/// A webhook that runs until it is dropped.
pub(crate) struct HookServer {
    pub(crate) address: SocketAddr,
    /// PEM in base64, as configurations have it.
    pub(crate) bundle: String,
    /// A client certificate that it takes, and its key; PEM.
    pub(crate) client: (String, String),
    seen: Arc<Mutex<Vec<Value>>>,
    callers: Arc<Mutex<Vec<Caller>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for HookServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How it serves, its authority in base64, and a client certificate of that authority.
fn certificate() -> (rustls::ServerConfig, String, (String, String)) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let names = ["127.0.0.1", "hook.default.svc"].map(str::to_owned).to_vec();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let client_key = KeyPair::generate().unwrap();
    let client = CertificateParams::new(Vec::new()).unwrap().signed_by(&client_key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = verifier.allow_unauthenticated().build().unwrap();
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let builder = builder.with_client_cert_verifier(verifier);
    let mut config = builder.with_single_cert(vec![leaf.der().clone()], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let bundle = base64::engine::general_purpose::STANDARD.encode(authority.pem());
    (config, bundle, (client.pem(), client_key.serialize_pem()))
}

impl HookServer {
    /// Answers each review with what `answer` makes of its `request`; the uid is added.
    pub(crate) async fn start(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        Self::start_slow(move |request| {
            let response = answer(&request);
            Box::pin(async move { response })
        })
        .await
    }

    /// The same with an answer that takes its time.
    pub(crate) async fn start_slow(
        answer: impl Fn(Value) -> BoxFuture<'static, Value> + Send + Sync + 'static,
    ) -> Self {
        let (config, bundle, client) = certificate();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let callers = Arc::new(Mutex::new(Vec::new()));
        let (acceptor, log, answer) = (TlsAcceptor::from(Arc::new(config)), Arc::clone(&seen), Arc::new(answer));
        let visitors = Arc::clone(&callers);
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, log, answer) = (acceptor.clone(), Arc::clone(&log), Arc::clone(&answer));
                let visitors = Arc::clone(&visitors);
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    let has_certificate = stream.get_ref().1.peer_certificates().is_some();
                    let service = service_fn(move |request: Request<Incoming>| {
                        let authorization = request.headers().get(AUTHORIZATION);
                        let authorization =
                            authorization.map_or_else(String::new, |value| value.to_str().unwrap().to_owned());
                        visitors.lock().unwrap().push(Caller { has_certificate, authorization });
                        respond(request, Arc::clone(&log), answer.clone())
                    });
                    let connection = auto::Builder::new(TokioExecutor::new());
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, bundle, client, seen, callers, task }
    }

    /// One that lets everything pass.
    pub(crate) async fn allowing() -> Self {
        Self::start(|_| json!({"allowed": true})).await
    }

    /// One that refuses everything.
    pub(crate) async fn denying() -> Self {
        Self::start(|_| json!({"allowed": false, "status": {"message": "not today"}})).await
    }

    /// One that adds a key to `data`, if the key `after` is there.
    pub(crate) async fn adding(key: &'static str, after: Option<&'static str>) -> Self {
        Self::start(move |request| {
            let data = &request["object"]["data"];
            if after.is_some_and(|after| data.get(after).is_none()) || data.get(key).is_some() {
                return json!({"allowed": true});
            }
            patching(&json!([{"op": "add", "path": format!("/data/{key}"), "value": "yes"}]))
        })
        .await
    }

    /// `clientConfig` with its URL.
    pub(crate) fn client_config(&self) -> Value {
        json!({"url": format!("https://{}/hook", self.address), "caBundle": self.bundle})
    }

    /// What it was asked so far: the `request` of each review.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.reviews().into_iter().map(|review| review["request"].clone()).collect()
    }

    /// The same with the envelopes.
    pub(crate) fn reviews(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }

    /// Who asked it so far.
    pub(crate) fn callers(&self) -> Vec<Caller> {
        self.callers.lock().unwrap().clone()
    }

    pub(crate) fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }
}

async fn respond(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Value>>>,
    answer: Arc<impl Fn(Value) -> BoxFuture<'static, Value> + Send + Sync + 'static + ?Sized>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let bytes = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&bytes).unwrap();
    seen.lock().unwrap().push(review.clone());
    let mut response = answer(review["request"].clone()).await;
    if let Some(code) = response["httpCode"].as_u64() {
        let code = u16::try_from(code).unwrap();
        return Ok(Response::builder().status(code).body(Full::from("it is broken")).unwrap());
    }
    if response.get("uid").is_none() {
        response["uid"] = review["request"]["uid"].clone();
    }
    let answer = json!({"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response});
    Ok(Response::new(Full::from(answer.to_string())))
}

/// A response with a JSON patch.
pub(crate) fn patching(patch: &Value) -> Value {
    let patch = base64::engine::general_purpose::STANDARD.encode(patch.to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
}

/// A rule about everything that is done to a resource.
pub(crate) fn rule(group: &str, version: &str, resource: &str) -> Value {
    json!({"operations": ["*"], "apiGroups": [group], "apiVersions": [version], "resources": [resource]})
}

/// A webhook about ConfigMaps, changed by what `more` has.
pub(crate) fn webhook(name: &str, config: Value, more: Value) -> Value {
    let mut webhook = json!({"name": format!("{name}.a.io"), "clientConfig": config, "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "rules": [rule("", "v1", "configmaps")]});
    for (field, value) in more.as_object().unwrap() {
        webhook[field] = value.clone();
    }
    webhook
}

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

pub(crate) fn path_of(kind: &str) -> String {
    format!("{CONFIGURATIONS}/{}webhookconfigurations", kind.to_ascii_lowercase())
}

/// Creates a configuration; `kind` is `Mutating` or `Validating`.
pub(crate) async fn configure(harness: &Harness, kind: &str, name: &str, webhooks: Value) {
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1",
        "kind": format!("{kind}WebhookConfiguration"), "metadata": {"name": name}, "webhooks": webhooks});
    harness.post(&path_of(kind), configuration).await.expect(201);
}

/// Where ConfigMaps are.
pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub(crate) fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}
