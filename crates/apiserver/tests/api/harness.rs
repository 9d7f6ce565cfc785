//! A server over a store, in memory as a rule, and requests to it.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use kedge_apiserver::{ApiServer, Body, Config, Deps, LocalService};
use kedge_auth::TokenKeys;
use kedge_meta::{ManualClock, StatusBoard, UserInfo, parse_time};
use kedge_store::{MemoryStore, Store};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::Value;
use tower::Service;

/// A server and what it works with.
pub(crate) struct Harness {
    pub(crate) server: Arc<ApiServer>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: ManualClock,
    admin: LocalService,
}

/// What a server shows others.
#[derive(Default)]
pub(crate) struct Identities {
    pub(crate) kubelet_tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) proxy_identity: Option<Arc<dyn rustls::client::ResolvesClientCert>>,
    pub(crate) webhook_credentials: kedge_apiserver::WebhookCredentials,
    pub(crate) audit: Option<Arc<kedge_audit::Audit>>,
}

/// An answer that has been read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

pub(crate) fn token_keys() -> TokenKeys {
    TokenKeys::from_private_pem(&token_key_pem()).unwrap()
}

/// A new key on P-256.
pub(crate) fn token_key_pem() -> String {
    let random = ring::rand::SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let body = base64::engine::general_purpose::STANDARD.encode(document.as_ref());
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}

impl Harness {
    pub(crate) async fn new() -> Self {
        Self::with(Config { advertise_address: IpAddr::from([192, 0, 2, 10]), ..Config::default() }).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        Self::over(Arc::new(MemoryStore::new()), config).await
    }

    pub(crate) async fn over(store: Arc<dyn Store>, config: Config) -> Self {
        Self::build(store, config, Identities::default()).await
    }

    /// A server with identities of its own.
    pub(crate) async fn known(identities: Identities) -> Self {
        Self::build(Arc::new(MemoryStore::new()), Config::default(), identities).await
    }

    pub(crate) async fn build(store: Arc<dyn Store>, config: Config, identities: Identities) -> Self {
        let clock = ManualClock::new(parse_time("2026-01-02T03:04:05Z").unwrap());
        let board = StatusBoard::new(Arc::new(clock.clone()));
        let deps = Deps {
            store: store.clone(),
            clock: Arc::new(clock.clone()),
            status: board.component("kube-apiserver"),
            board,
            token_keys: token_keys(),
            client_ca: None,
            front_proxy: None,
            kubelet_tls: identities.kubelet_tls,
            proxy_identity: identities.proxy_identity,
            webhook_credentials: identities.webhook_credentials,
            audit: identities.audit,
        };
        let server = ApiServer::new(config, deps).await.unwrap();
        let admin = server.local_service(UserInfo::authenticated("admin", ["system:masters"]));
        Self { server, store, clock, admin }
    }

    /// Sends a request as `user` (`system:masters` where absent) and gives back the answer before its body is read.
    pub(crate) async fn send(&self, user: Option<UserInfo>, request: Request<Full<Bytes>>) -> Response<Body> {
        let mut service = user.map_or_else(|| self.admin.clone(), |user| self.server.local_service(user));
        match service.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// A request with a JSON body; `null` sends none.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        let content_type = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.raw(method, path, &[("content-type", content_type)], body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, body).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, Value::Null).await
    }

    pub(crate) async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        Answer::read(self.send(None, request(method, path, headers, body)).await).await
    }

    /// GET as somebody.
    pub(crate) async fn get_as(&self, user: UserInfo, path: &str) -> Answer {
        Answer::read(self.send(Some(user), request(Method::GET, path, &[], "")).await).await
    }

    pub(crate) async fn call_as(&self, user: UserInfo, method: Method, path: &str, body: Value) -> Answer {
        let headers = [("content-type", "application/json")];
        Answer::read(self.send(Some(user), request(method, path, &headers, body.to_string())).await).await
    }
}

pub(crate) fn request(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).unwrap()
}

impl Answer {
    pub(crate) async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let json = serde_json::from_str(&text).unwrap_or_default();
        Self { code: parts.status.as_u16(), headers: parts.headers, text, json }
    }

    /// Fails with the answer's text where the code is another one.
    #[track_caller]
    pub(crate) fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text);
        self.json
    }

    /// Fails unless the answer is a `Status` with this code, reason and a message that contains `text`.
    #[track_caller]
    pub(crate) fn refused(self, code: u16, reason: &str, text: &str) -> Value {
        let message = self.json["message"].as_str().unwrap_or("");
        assert!(self.code == code && self.json["reason"] == reason && message.contains(text), "{}", self.text);
        self.json
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        self.headers.get_all("warning").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }
}

/// The events of a watch, one by one.
pub(crate) struct Events {
    body: Body,
    rest: Vec<u8>,
}

impl Events {
    pub(crate) async fn open(harness: &Harness, path: &str) -> Self {
        let response = harness.send(None, request(Method::GET, path, &[], "")).await;
        Self::over(response)
    }

    pub(crate) fn over(response: Response<Body>) -> Self {
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), rest: Vec::new() }
    }

    /// The next event; `None` at the end of the watch.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            self.rest.extend_from_slice(frame.data_ref().unwrap());
        }
    }

    /// The next event's type and the name of its object.
    pub(crate) async fn next_name(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch goes on");
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}
