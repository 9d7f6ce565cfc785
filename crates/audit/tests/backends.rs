//! Where events end up: files and programs that take them, here on loopback.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use kedge_audit::{Audit, AuditOptions, Event, Level, ObjectReference, ResponseStatus, Stage};
use kedge_auth::{Attributes, ResourceAttributes};
use kedge_meta::{UserInfo, parse_time};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

fn event(id: &str) -> Event {
    let time = parse_time("2026-01-02T03:04:05Z").unwrap();
    Event {
        level: Level::Metadata,
        audit_id: id.to_owned(),
        stage: Stage::ResponseComplete,
        request_uri: "/version".to_owned(),
        verb: "get".to_owned(),
        user: UserInfo::authenticated("jane", []),
        impersonated_user: None,
        source_ips: Vec::new(),
        user_agent: String::new(),
        object_ref: Some(ObjectReference::default()),
        response_status: Some(ResponseStatus::of_code(200)),
        request_object: None,
        response_object: None,
        request_received_timestamp: time,
        stage_timestamp: time,
        annotations: BTreeMap::new(),
    }
}

/// What a program was sent: path, authorization, body.
type Sent = (String, String, Value);

/// A program that answers with these codes, one after another, and 200 after them; where `hangs`, with nothing at all.
async fn program(codes: &'static [u16], hangs: bool) -> (u16, UnboundedReceiver<Sent>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, received) = unbounded_channel();
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (told, count) = (told.clone(), Arc::clone(&count));
            let service = service_fn(move |request| {
                let index = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                answer(request, told.clone(), codes.get(index).copied().unwrap_or(200), hangs)
            });
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                server.serve_connection(TokioIo::new(stream), service).await
            });
        }
    });
    (port, received)
}

async fn answer(
    request: Request<Incoming>,
    told: UnboundedSender<Sent>,
    code: u16,
    hangs: bool,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path_and_query().unwrap().to_string();
    let who = request.headers().get("authorization").map_or("", |value| value.to_str().unwrap()).to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    told.send((path, who, serde_json::from_slice(&body).unwrap())).unwrap();
    if hangs {
        std::future::pending::<()>().await;
    }
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    Ok(response)
}

async fn open(dir: &std::path::Path, change: impl FnOnce(&mut AuditOptions)) -> Arc<Audit> {
    let policy = dir.join("policy.yaml");
    std::fs::write(&policy, "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}").unwrap();
    let mut options = AuditOptions { policy_file: Some(policy), ..AuditOptions::default() };
    change(&mut options);
    Audit::open(&options).await.unwrap().unwrap()
}

async fn open_webhook(dir: &std::path::Path, port: u16, change: impl FnOnce(&mut AuditOptions)) -> Arc<Audit> {
    let file = dir.join("webhook.yaml");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{port}/audit/in?from=a")}}],
        "users": [{"name": "u", "user": {"token": "secret"}}]});
    std::fs::write(&file, config.to_string()).unwrap();
    open(dir, |options| {
        options.webhook.config_file = Some(file);
        options.webhook.initial_backoff = Duration::from_millis(1);
        change(options);
    })
    .await
}

fn ids(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["auditID"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn events_leave_in_batches_and_the_rest_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (port, mut received) = program(&[], false).await;
    let audit = open_webhook(dir.path(), port, |options| options.webhook.batch.max_size = 2).await;
    for id in ["1", "2", "3"] {
        assert!(audit.record(event(id)).await);
    }
    let (path, who, list) = received.recv().await.unwrap();
    assert_eq!((path.as_str(), who.as_str()), ("/audit/in?from=a", "Bearer secret"));
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("EventList"), &json!("audit.k8s.io/v1")));
    assert_eq!(ids(&list), ["1", "2"]);
    assert_eq!(list["items"][0]["user"]["username"], "jane");
    // The third would wait for others for 30 s.
    audit.close().await;
    assert_eq!(ids(&received.recv().await.unwrap().2), ["3"]);
}

#[tokio::test]
async fn what_is_not_taken_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let (port, mut received) = program(&[503, 404], false).await;
    let audit =
        open_webhook(dir.path(), port, |options| options.webhook.batch.mode = "blocking-strict".to_owned()).await;
    assert!(audit.record(event("1")).await);
    for _ in 0..3 {
        assert_eq!(ids(&received.recv().await.unwrap().2), ["1"]);
    }
    let (port, _received) = program(&[500; 5], false).await;
    let audit =
        open_webhook(dir.path(), port, |options| options.webhook.batch.mode = "blocking-strict".to_owned()).await;
    assert!(!audit.record(event("2")).await);
    assert!(audit.metrics().contains("apiserver_audit_error_total{plugin=\"webhook\"} 1\n"));
}

#[tokio::test]
async fn nobody_waits_for_a_program_that_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (port, mut received) = program(&[], true).await;
    let audit = open_webhook(dir.path(), port, |options| {
        options.webhook.batch.max_size = 1;
        options.webhook.batch.buffer_size = 3;
        options.webhook.batch.throttle_enable = false;
    })
    .await;
    let mut told = 0;
    // So many batches are on their way at once; then the queue fills.
    while !audit.metrics().contains("plugin=\"buffered\"") {
        assert!(audit.record(event("1")).await);
        tokio::task::yield_now().await;
        told += usize::from(received.try_recv().is_ok());
        assert!(told <= 16);
    }
}

#[tokio::test]
async fn a_file_gets_all_events_in_either_mode() {
    for mode in ["batch", "blocking"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/audit.log");
        let audit = open(dir.path(), |options| {
            options.log.path = Some(path.clone());
            options.log.batch.mode = mode.to_owned();
            options.log.format = "legacy".to_owned();
        })
        .await;
        let recorded = (0..100).map(|id| audit.record(event(&id.to_string())));
        for is_recorded in recorded {
            assert!(is_recorded.await);
        }
        audit.record_later(event("last"));
        if mode == "blocking" {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.lines().count() >= 100);
        }
        while std::fs::read_to_string(&path).unwrap().lines().count() < 101 {
            tokio::task::yield_now().await;
        }
        audit.close().await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().all(|line| line.contains(" AUDIT: id=\"")) && text.contains("id=\"last\""), "{text}");
    }
}

#[tokio::test]
async fn without_a_policy_or_a_place_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = AuditOptions::default();
    options.log.path = Some(dir.path().join("a.log"));
    assert!(Audit::open(&options).await.unwrap().is_none());
    assert!(!dir.path().join("a.log").exists());
    options.policy_file = Some(dir.path().join("policy.yaml"));
    let error = Audit::open(&options).await.err().unwrap();
    assert!(error.to_string().starts_with("loading audit policy file "), "{error}");
    options.log.format = "xml".to_owned();
    let error = Audit::open(&options).await.err().unwrap();
    assert!(error.to_string().starts_with("invalid audit log format xml"), "{error}");
}

#[tokio::test]
async fn decisions_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path(), |options| options.log.path = Some(dir.path().join("a.log"))).await;
    let user = UserInfo::authenticated("jane", []);
    let resource = ResourceAttributes { version: "v1", resource: "pods", ..ResourceAttributes::default() };
    let attributes = Attributes { user: &user, verb: "list", resource: Some(resource), path: "" };
    assert_eq!(audit.decide(&attributes).level, Level::Metadata);
    assert!(audit.metrics().contains("apiserver_audit_level_total{level=\"Metadata\"} 1\n"));
}
