//! What is said about failures of the API server: one line for each cause, a summary now and then, one line when it is over.
//!
//! It retries nothing. Invariant: however many loops retry however fast, the number of lines depends on the number of
//! causes and on time only; every failure that has no line of its own is counted in a later one.

mod episodes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::failure::{FailureCause, classify};
use episodes::{Episodes, Line, Told};

/// The failures of one client, told by all that use it. Cheap to clone.
#[derive(Clone, Default)]
pub struct FailureLog {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Whether anything fails: successes are many, and need not take the lock.
    any: AtomicBool,
    episodes: Mutex<Episodes>,
    reached: Notify,
}

impl FailureLog {
    /// A request failed and will be tried again. `what` completes "failed to ...", such as `watch pods`, and is one of few.
    pub fn failed(&self, what: &str, error: &kube::Error) -> FailureCause {
        let cause = classify(error);
        self.failed_by(what, cause, error);
        cause
    }

    /// The same, where the cause is known already.
    pub fn failed_by(&self, what: &str, cause: FailureCause, error: &(dyn std::error::Error + 'static)) {
        let lines = self.note(|episodes| episodes.failed(what, cause, Instant::now()));
        for line in lines {
            write(what, &line, Some(error));
        }
    }

    /// The same request was answered as it should be.
    pub fn succeeded(&self, what: &str) {
        if !self.inner.any.load(Ordering::Acquire) {
            return;
        }
        for line in self.note(|episodes| episodes.succeeded(what, Instant::now())) {
            write(what, &line, None);
        }
    }

    /// Why no request gets through now, where that is so.
    pub fn unreachable(&self) -> Option<FailureCause> {
        self.inner.episodes.lock().server_cause()
    }

    /// Waits until the server can be reached again, after it could not: others need not wait for their back-off then.
    pub async fn reached_again(&self) {
        self.inner.reached.notified().await;
    }

    fn note(&self, change: impl FnOnce(&mut Episodes) -> Vec<Line>) -> Vec<Line> {
        let mut episodes = self.inner.episodes.lock();
        let was_away = episodes.server_cause().is_some();
        let lines = change(&mut episodes);
        self.inner.any.store(episodes.any(), Ordering::Release);
        if was_away && episodes.server_cause().is_none() {
            self.inner.reached.notify_waiters();
        }
        lines
    }
}

fn write(what: &str, line: &Line, error: Option<&(dyn std::error::Error + 'static)>) {
    let Line { told, server, cause, attempts, lasted } = line;
    let (cause, seconds, attempts) = (cause.to_string(), lasted.as_secs(), *attempts);
    match (told, server) {
        (Told::First, true) => {
            tracing::warn!(cause, what, error, "the API server cannot be reached; retrying with back-off");
        }
        (Told::First, false) => tracing::warn!(cause, error, "failed to {what}; retrying with back-off"),
        (Told::Still, true) => {
            tracing::warn!(cause, attempts, seconds, error, "the API server still cannot be reached");
        }
        (Told::Still, false) => tracing::warn!(cause, attempts, seconds, error, "it still fails to {what}"),
        (Told::Over, true) => tracing::info!(cause, attempts, seconds, "the API server answers again"),
        (Told::Over, false) => tracing::info!(cause, attempts, seconds, "it succeeds again to {what}"),
    }
}
