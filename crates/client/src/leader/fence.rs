//! What keeps a leader from acting after its time: a client whose writes are refused once the lease may be somebody else's.
//!
//! Loops end with their term; this is for the moment before they notice, as after the process was stopped or the machine
//! slept. Invariant: no request that changes something leaves after the renew deadline, by the clock that jumps and by the
//! one that does not.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use kedge_meta::Clock;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use tokio::time::Instant;
use tower::service_fn;

/// Until when this process leads.
#[derive(Clone)]
pub struct Fence {
    until: Arc<Mutex<Option<(Instant, Timestamp)>>>,
    clock: Arc<dyn Clock>,
}

/// Why a write did not leave.
#[derive(Debug, thiserror::Error)]
#[error("the lease is not held any more, so nothing may be changed")]
struct Fenced;

impl Fence {
    /// Nobody leads yet.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { until: Arc::default(), clock }
    }

    /// This process leads for so long from two readings of the clocks on.
    pub(super) fn open(&self, (since, time): (Instant, Timestamp), term: Duration) {
        *self.until.lock() = Some((since + term, time + term));
    }

    /// Both clocks.
    pub(super) fn now(&self) -> (Instant, Timestamp) {
        (Instant::now(), self.clock.now())
    }

    /// This process leads no longer.
    pub(super) fn close(&self) {
        *self.until.lock() = None;
    }

    /// Whether this process leads.
    pub fn is_open(&self) -> bool {
        let Some((until, time)) = *self.until.lock() else { return false };
        Instant::now() < until && self.clock.now() < time
    }

    /// The same client, whose writes fail where this process does not lead. Questions that are asked by POST and change
    /// nothing (reviews of access and tokens) pass.
    pub fn guard(&self, client: Client) -> Client {
        let namespace = client.default_namespace().to_owned();
        let fence = self.clone();
        // The client inside waits itself until it is ready.
        let guarded = service_fn(move |request: http::Request<Body>| {
            let (client, fence) = (client.clone(), fence.clone());
            async move {
                match changes_something(&request) && !fence.is_open() {
                    true => Err(kube::Error::Service(Box::new(Fenced))),
                    false => client.send(request).await,
                }
            }
        });
        Client::new(guarded, namespace)
    }
}

fn changes_something(request: &http::Request<Body>) -> bool {
    let path = request.uri().path();
    !(request.method() == Method::GET || path.ends_with("reviews") || path.ends_with("/token"))
}
