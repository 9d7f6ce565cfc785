//! Competitors over a Lease in virtual time: slow servers, stopped processes, clocks that jump.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::FutureExt;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::ComponentMetrics;

/// A server of one Lease; anything else that is posted is an act, which it writes down.
#[derive(Default)]
struct Server {
    delay: Mutex<Duration>,
    lease: Mutex<Option<Value>>,
    version: AtomicU64,
    acts: Mutex<Vec<String>>,
    requests: AtomicU64,
}

impl Server {
    fn client(self: &Arc<Self>, name: &'static str) -> Client {
        let server = self.clone();
        crate::client_from_service(tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                server.requests.fetch_add(1, Ordering::Relaxed);
                let delay = *server.delay.lock();
                tokio::time::sleep(delay).await;
                let (parts, body) = request.into_parts();
                let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                let (code, answer) = server.answer(name, &parts.method, parts.uri.path(), &body);
                let response = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, Infallible>(response.unwrap())
            }
        }))
    }

    fn answer(&self, name: &str, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
        let status = |code: u16, reason: &str| {
            (code, json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason }))
        };
        if !path.contains("/leases") {
            self.acts.lock().push(name.to_owned());
            return (201, json!({}));
        }
        let mut lease = self.lease.lock();
        if method == Method::GET {
            return lease.clone().map_or_else(|| status(404, "NotFound"), |lease| (200, lease));
        }
        let mut sent: Value = serde_json::from_slice(body).unwrap();
        let before = lease.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
        match (method == Method::POST, before) {
            (true, Some(_)) => return status(409, "AlreadyExists"),
            (false, before) if before.as_ref() != Some(&sent["metadata"]["resourceVersion"]) => {
                return status(409, "Conflict");
            }
            _ => {}
        }
        sent["metadata"]["resourceVersion"] = json!(self.version.fetch_add(1, Ordering::Relaxed).to_string());
        *lease = Some(sent.clone());
        (200, sent)
    }

    fn holder(&self) -> String {
        let lease = self.lease.lock();
        lease.as_ref().and_then(|lease| lease["spec"]["holderIdentity"].as_str()).unwrap_or_default().to_owned()
    }
}

/// One process: it acts all the time, leads when it may, and can be stopped as by SIGSTOP.
struct Process {
    stopped: Arc<AtomicBool>,
    shutdown: CancellationToken,
    fence: Fence,
    metrics: ComponentMetrics,
    task: tokio::task::JoinHandle<u32>,
}

impl Process {
    fn start(server: &Arc<Server>, name: &'static str, clock: Arc<dyn Clock>) -> Self {
        let (client, metrics, shutdown) = (server.client(name), ComponentMetrics::default(), CancellationToken::new());
        let config = LeaderConfig::new("manager", name);
        let elector = LeaderElector::new(client.clone(), config).unwrap().counted(&metrics.leases).clocked(clock);
        let fence = elector.fence();
        let stopped = Arc::new(AtomicBool::new(false));
        let (guarded, token) = (fence.guard(client), shutdown.clone());
        // Who acts is asked first, so that it notices nothing before it acts.
        let all = async move {
            tokio::select! {
                biased;
                () = act(guarded) => 0,
                terms = lead(elector, token) => terms,
            }
        };
        let task = tokio::spawn(stoppable(stopped.clone(), all.boxed()));
        Self { stopped, shutdown, fence, metrics, task }
    }

    fn figure(&self, name: &str) -> String {
        let mut text = kedge_metrics::Text::default();
        self.metrics.write(&mut text);
        let text = text.finish();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.rsplit(' ').next().unwrap_or_default().to_owned()
    }
}

async fn act(client: Client) {
    loop {
        let request = Request::post("/api/v1/namespaces/default/pods").body(b"{}".to_vec()).unwrap();
        let _ = client.request::<Value>(request).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// As components do; says how many terms there were.
async fn lead(mut elector: LeaderElector, shutdown: CancellationToken) -> u32 {
    let mut terms = 0;
    while elector.acquire(&shutdown).await {
        terms += 1;
        if elector.hold(&shutdown).await.is_none() {
            break;
        }
    }
    terms
}

/// A future that does not go on while it is stopped.
async fn stoppable<T>(stopped: Arc<AtomicBool>, mut future: Pin<Box<dyn Future<Output = T> + Send>>) -> T {
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    std::future::poll_fn(move |context| {
        while tick.poll_tick(context).is_ready() {}
        match stopped.load(Ordering::Relaxed) {
            true => std::task::Poll::Pending,
            false => future.as_mut().poll(context),
        }
    })
    .await
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// A wall clock that goes with virtual time, and can be set ahead.
struct WallClock {
    origin: Instant,
    ahead: Mutex<Duration>,
}

impl WallClock {
    fn new() -> Arc<Self> {
        Arc::new(Self { origin: Instant::now(), ahead: Mutex::default() })
    }
}

impl Clock for WallClock {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH + self.origin.elapsed() + *self.ahead.lock()
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_slow_by_twelve_seconds_for_a_minute_ends_no_process() {
    let server = Arc::new(Server::default());
    let process = Process::start(&server, "a", WallClock::new());
    seconds(100).await;
    assert!(process.fence.is_open());
    assert_eq!(process.figure("kedge_leader_election_deadline_missed_total"), "");

    *server.delay.lock() = Duration::from_secs(12);
    seconds(13).await;
    assert!(!process.fence.is_open(), "it still leads, 13 s after the last renewal that can have come through");
    seconds(47).await;
    *server.delay.lock() = Duration::ZERO;
    seconds(1).await;
    assert!(process.fence.is_open(), "it does not lead a second after the server recovered");
    assert_eq!(process.figure("kedge_leader_election_deadline_missed_total"), "1");
    assert_eq!(process.figure("kedge_leader_election_widening_ratio"), "4");
    assert_eq!(server.lease.lock().as_ref().unwrap()["spec"]["leaseDurationSeconds"], 60);
    let before = server.acts.lock().len();
    seconds(120).await;
    assert!(server.acts.lock().len() > before + 1000);
    assert_eq!(process.figure("kedge_leader_election_widening_ratio"), "1");
    assert_eq!(process.figure("kedge_leader_election_deadline_missed_total"), "1");

    process.shutdown.cancel();
    assert_eq!(process.task.await.unwrap(), 2);
    assert_eq!(server.holder(), "", "a clean stop gives the lease back");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_stopped_never_acts_beside_its_successor() {
    let server = Arc::new(Server::default());
    let first = Process::start(&server, "a", WallClock::new());
    seconds(1).await;
    let second = Process::start(&server, "b", WallClock::new());
    seconds(30).await;
    assert_eq!((first.fence.is_open(), second.fence.is_open()), (true, false));
    first.stopped.store(true, Ordering::Relaxed);
    seconds(60).await;
    assert_eq!(server.holder(), "b");
    first.stopped.store(false, Ordering::Relaxed);
    seconds(60).await;
    second.stopped.store(true, Ordering::Relaxed);
    seconds(7).await;
    second.stopped.store(false, Ordering::Relaxed);
    seconds(30).await;
    assert_eq!(server.holder(), "b", "a pause that is shorter than the deadline loses nothing");
    second.shutdown.cancel();
    assert_eq!(second.task.await.unwrap(), 1);
    seconds(5).await;
    assert_eq!(server.holder(), "a", "a lease that was given back is taken at once");
    let mut turns = server.acts.lock().clone();
    turns.dedup();
    assert_eq!(turns, ["a", "b", "a"], "they took turns");
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_makes_nobody_act_twice() {
    let server = Arc::new(Server::default());
    let clock = WallClock::new();
    let first = Process::start(&server, "a", clock.clone());
    seconds(1).await;
    let second = Process::start(&server, "b", WallClock::new());
    seconds(30).await;
    *clock.ahead.lock() = Duration::from_secs(3600);
    assert!(!first.fence.is_open(), "the machine may have slept for an hour");
    seconds(3).await;
    assert!(first.fence.is_open(), "the lease was its own all the time");
    seconds(60).await;
    assert!(!second.fence.is_open());
    assert!(server.acts.lock().iter().all(|name| name == "a"));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_is_one_request() {
    let server = Arc::new(Server::default());
    let config = LeaderConfig::new("manager", "a");
    let mut elector = LeaderElector::new(server.client("a"), config).unwrap();
    let shutdown = CancellationToken::new();
    assert!(elector.acquire(&shutdown).await);
    let before = server.requests.load(Ordering::Relaxed);
    let token = shutdown.clone();
    tokio::join!(elector.hold(&shutdown), async {
        seconds(21).await;
        assert_eq!(server.requests.load(Ordering::Relaxed) - before, 10);
        token.cancel();
    });
}

#[tokio::test]
async fn impossible_orders_of_durations_are_refused() {
    let server = Arc::new(Server::default());
    let check = |lease, renew, retry| {
        let config = LeaderConfig {
            lease_duration: Duration::from_secs(lease),
            renew_deadline: Duration::from_secs(renew),
            retry_period: Duration::from_secs(retry),
            ..LeaderConfig::new("kube-scheduler", "a")
        };
        LeaderElector::new(server.client("a"), config).err()
    };
    assert_eq!(check(15, 10, 2), None);
    assert_eq!(check(10, 10, 2), Some(LeaderError::LeaseDuration));
    assert_eq!(check(15, 2, 2), Some(LeaderError::RenewDeadline));
}
