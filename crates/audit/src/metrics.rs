//! What was recorded and what was lost, counted under upstream's names.

use kedge_metrics::{Counters, Text};

use crate::policy::Level;

pub(crate) struct Metrics {
    pub(crate) events: Counters,
    pub(crate) errors: Counters,
    levels: Counters,
    pub(crate) rejected: Counters,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            events: Counters::new(
                "apiserver_audit_event_total",
                &[],
                "Counter of audit events generated and sent to the audit backend.",
            ),
            errors: Counters::new(
                "apiserver_audit_error_total",
                &["plugin"],
                "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.",
            ),
            levels: Counters::new(
                "apiserver_audit_level_total",
                &["level"],
                "Counter of policy levels for audit events (1 per request).",
            ),
            rejected: Counters::new(
                "apiserver_audit_requests_rejected_total",
                &[],
                "Counter of apiserver requests rejected due to an error in audit logging backend.",
            ),
        }
    }
}

impl Metrics {
    pub(crate) fn decided(&self, level: Level) {
        self.levels.count(&[level.as_str()]);
    }

    /// Events that `plugin` lost.
    pub(crate) fn lost(&self, plugin: &str, events: usize) {
        self.errors.add(&[plugin], events as u64);
    }

    /// Everything, in Prometheus' format.
    pub(crate) fn text(&self) -> String {
        let mut text = Text::default();
        for counters in [&self.events, &self.errors, &self.levels, &self.rejected] {
            counters.write(&mut text);
        }
        text.finish()
    }
}
