//! The typed status that every component keeps, and the board on which one process collects them.
//!
//! Invariant: a report's `since` changes exactly when its state or reason changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;

/// What a component is doing, from an operator's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ComponentState {
    /// Not yet able to do its work for the first time.
    Starting,
    /// Doing its work.
    Running,
    /// Works in part, or waits for something that is missing; `reason` and `message` say what.
    Degraded,
    /// Ended.
    Stopped,
}

/// One component's state at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentReport {
    /// The component's name, such as `kube-scheduler`.
    pub component: String,
    /// What it is doing.
    pub state: ComponentState,
    /// One CamelCase word for machines, such as `LeaseLost`; empty while all is well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence for people: what happened, to what, and what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When the state or the reason last changed.
    pub since: Timestamp,
    /// When the component last reported, changed or not.
    pub heartbeat: Timestamp,
    /// The latest measured latency of the component's typical work (a commit, a sync, a rule change).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_micros: Option<u64>,
}

/// The handle through which a component reports.
#[derive(Clone)]
pub struct ComponentStatus {
    board: StatusBoard,
    component: &'static str,
}

impl ComponentStatus {
    /// Reports a state, with a reason and message (both may be empty for `Running`).
    pub fn set(&self, state: ComponentState, reason: &str, message: impl Into<String>) {
        let now = self.board.clock.now();
        let message = message.into();
        let mut reports = self.board.reports.lock();
        let report = reports.entry(self.component).or_insert_with(|| fresh(self.component, now));
        if report.state != state || report.reason != reason {
            report.since = now;
        }
        report.state = state;
        report.reason = reason.to_owned();
        report.message = message;
        report.heartbeat = now;
    }

    /// Reports `Running`.
    pub fn running(&self) {
        self.set(ComponentState::Running, "", "");
    }

    /// Reports `Degraded`.
    pub fn degraded(&self, reason: &str, message: impl Into<String>) {
        self.set(ComponentState::Degraded, reason, message);
    }

    /// Reports that the component is alive, and how long its latest typical work took.
    pub fn heartbeat(&self, latency: Option<Duration>) {
        let now = self.board.clock.now();
        let mut reports = self.board.reports.lock();
        let report = reports.entry(self.component).or_insert_with(|| fresh(self.component, now));
        report.heartbeat = now;
        if let Some(latency) = latency {
            report.latency_micros = Some(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        }
    }
}

/// All reports of one process.
#[derive(Clone)]
pub struct StatusBoard {
    clock: Arc<dyn Clock>,
    reports: Arc<Mutex<BTreeMap<&'static str, ComponentReport>>>,
}

impl StatusBoard {
    /// An empty board.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, reports: Arc::default() }
    }

    /// The handle for one component, which is on the board as `Starting` from now on.
    pub fn component(&self, component: &'static str) -> ComponentStatus {
        let now = self.clock.now();
        self.reports.lock().entry(component).or_insert_with(|| fresh(component, now));
        ComponentStatus { board: self.clone(), component }
    }

    /// Every report, by component name.
    pub fn reports(&self) -> Vec<ComponentReport> {
        self.reports.lock().values().cloned().collect()
    }
}

fn fresh(component: &str, now: Timestamp) -> ComponentReport {
    ComponentReport {
        component: component.to_owned(),
        state: ComponentState::Starting,
        reason: String::new(),
        message: String::new(),
        since: now,
        heartbeat: now,
        latency_micros: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn since_moves_only_when_state_or_reason_changes() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let board = StatusBoard::new(Arc::new(clock.clone()));
        let status = board.component("kube-proxy");
        clock.advance(Duration::from_secs(1));
        status.degraded("SyncFailed", "nft: no such file");
        clock.advance(Duration::from_secs(1));
        status.degraded("SyncFailed", "nft: permission denied");
        status.heartbeat(Some(Duration::from_millis(3)));
        let report = board.reports().remove(0);
        assert_eq!(report.since.as_second(), 1);
        assert_eq!(report.heartbeat.as_second(), 2);
        assert_eq!(report.message, "nft: permission denied");
        assert_eq!(report.latency_micros, Some(3000));
    }
}
