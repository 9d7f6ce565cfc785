//! Whole requests to an API server over a store in memory: a line with method and path, headers, an empty line, a body.
//!
//! Time is that of a paused clock, so that no wait takes any.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use kedge_apiserver::{ApiServer, Body, Config, Deps, LocalService};
use kedge_auth::TokenKeys;
use kedge_meta::{ManualClock, StatusBoard, UserInfo};
use kedge_store::MemoryStore;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use tokio::runtime::Runtime;
use tower::Service;

use super::{outcome, size};

/// After so many requests there is a new server: what is stored must not grow for ever.
const LIFE: u32 = 2000;

struct Server {
    // Before the runtime, so that it goes first.
    service: LocalService,
    runtime: Runtime,
    requests: u32,
}

thread_local! {
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
}

pub(super) fn request(input: &[u8]) -> u64 {
    let Some(request) = read(input) else { return 0 };
    SERVER.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|server| server.requests >= LIFE) {
            *slot = None;
        }
        let server = slot.get_or_insert_with(Server::new);
        server.requests += 1;
        let Server { service, runtime, .. } = server;
        runtime.block_on(async {
            let response = match service.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            answer(response).await
        })
    })
}

fn read(input: &[u8]) -> Option<Request<Full<Bytes>>> {
    let end = input.windows(2).position(|pair| pair == b"\n\n").unwrap_or(input.len());
    let body = Bytes::copy_from_slice(input.get(end + 2..).unwrap_or_default());
    let head = String::from_utf8_lossy(&input[..end]);
    let mut lines = head.lines();
    let (method, path) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).ok()?).uri(path);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(body)).ok()?;
    // Paths of HTTP begin with a slash; the connection sees to it.
    request.uri().path().starts_with('/').then_some(request)
}

async fn answer(response: Response<Body>) -> u64 {
    let code = response.status().as_u16();
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(Duration::from_millis(10), body.frame()).await {
        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if bytes.len() > 8 << 20 {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains("this request caused apiserver to panic"), "a handler panicked");
    if code < 300 { outcome(u64::from(code), "") ^ size(bytes.len()) } else { outcome(u64::from(code), &text) }
}

impl Server {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime can be made");
        let server = runtime.block_on(ApiServer::new(config(), deps())).expect("a server over memory starts");
        let service = server.local_service(UserInfo::authenticated("admin", ["system:masters"]));
        Self { service, runtime, requests: 0 }
    }
}

fn config() -> Config {
    Config { advertise_address: std::net::IpAddr::from([192, 0, 2, 10]), ..Config::default() }
}

fn deps() -> Deps {
    let clock = ManualClock::new(kedge_meta::parse_time("2026-01-02T03:04:05Z").expect("a good time"));
    let board = StatusBoard::new(Arc::new(clock.clone()));
    Deps {
        audit: None,
        store: Arc::new(MemoryStore::new()),
        clock: Arc::new(clock),
        status: board.component("kube-apiserver"),
        board,
        token_keys: token_keys(),
        client_ca: None,
        front_proxy: None,
        kubelet_tls: None,
        proxy_identity: None,
        webhook_credentials: Default::default(),
    }
}

fn token_keys() -> TokenKeys {
    let random = ring::rand::SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key can be made");
    let body = base64::engine::general_purpose::STANDARD.encode(key.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    TokenKeys::from_private_pem(&pem).expect("the key is good")
}
