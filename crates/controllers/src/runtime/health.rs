//! How all controllers fare, as one component status.
//!
//! Invariant: only outages of the API server make a controller count as failing, not what is wrong with single objects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kedge_meta::ComponentStatus;
use parking_lot::Mutex;

use crate::error::ReconcileError;

/// How all controllers fare, as one component status.
#[derive(Clone)]
pub(crate) struct Health {
    status: ComponentStatus,
    state: Arc<Mutex<HealthState>>,
}

#[derive(Default)]
struct HealthState {
    waiting: BTreeSet<&'static str>,
    failing: BTreeMap<&'static str, (u32, String)>,
}

/// So many failures in a row, each because of the API server, make a controller count as failing.
const FAILING_AFTER: u32 = 3;

impl Health {
    pub(crate) fn new(status: ComponentStatus) -> Self {
        Self { status, state: Arc::default() }
    }

    /// A controller waits for its caches.
    pub(crate) fn waits(&self, name: &'static str) {
        self.state.lock().waiting.insert(name);
    }

    /// A controller has its caches.
    pub(crate) fn works(&self, name: &'static str) {
        let mut state = self.state.lock();
        state.waiting.remove(name);
        self.publish(&state);
    }

    /// The term ended: nothing waits or fails any more.
    pub(crate) fn clear(&self) {
        *self.state.lock() = HealthState::default();
    }

    pub(super) fn succeeded(&self, name: &'static str, latency: Duration) {
        self.status.heartbeat(Some(latency));
        let mut state = self.state.lock();
        if state.failing.remove(name).is_some_and(|(count, _)| count >= FAILING_AFTER) {
            self.publish(&state);
        }
    }

    pub(super) fn failed(&self, name: &'static str, error: &ReconcileError) {
        if error.is_race() || !error.is_outage() {
            return;
        }
        let mut state = self.state.lock();
        let entry = state.failing.entry(name).or_default();
        entry.0 += 1;
        entry.1 = match error {
            ReconcileError::Api(error) => error.to_string(),
            other => other.to_string(),
        };
        if entry.0 >= FAILING_AFTER {
            self.publish(&state);
        }
    }

    fn publish(&self, state: &HealthState) {
        let failing: Vec<String> = state
            .failing
            .iter()
            .filter(|(_, (count, _))| *count >= FAILING_AFTER)
            .map(|(name, (_, text))| format!("{name}: {text}"))
            .collect();
        if !failing.is_empty() {
            self.status.degraded("RequestsFail", failing.join("; "));
        } else if state.waiting.is_empty() {
            self.status.running();
        } else {
            let names: Vec<&str> = state.waiting.iter().copied().collect();
            self.status.set(
                kedge_meta::ComponentState::Starting,
                "WaitingForCaches",
                format!("waiting for the first lists of {}", names.join(", ")),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use kedge_meta::{ComponentState, ManualClock, StatusBoard};

    #[test]
    fn only_outages_degrade() {
        let board = StatusBoard::new(Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH)));
        let health = Health::new(board.component("kube-controller-manager"));
        health.waits("a");
        health.works("a");
        assert_eq!(board.reports()[0].state, ComponentState::Running);
        let outage = || {
            let mut status = kube::core::Status::failure("etcd is slow", "InternalError");
            status.code = 500;
            ReconcileError::Api(kube::Error::Api(status.boxed()))
        };
        for _ in 0..9 {
            health.failed("a", &ReconcileError::Object("bad".to_owned()));
        }
        health.failed("a", &outage());
        health.failed("a", &outage());
        assert_eq!(board.reports()[0].state, ComponentState::Running);
        health.failed("a", &outage());
        assert_eq!(board.reports()[0].state, ComponentState::Degraded);
        assert_eq!(board.reports()[0].reason, "RequestsFail");
        health.succeeded("a", Duration::from_millis(1));
        assert_eq!(board.reports()[0].state, ComponentState::Running);
    }
}
