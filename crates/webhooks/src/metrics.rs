//! What webhooks did, counted under upstream's names.

use std::collections::BTreeSet;
use std::time::Duration;

use kedge_metrics::{Counters, Histograms, Text};

use crate::hook::HookKind;

/// Upper bounds of the durations, in seconds.
const BUCKETS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];

/// Upper bounds of the durations of conversions, in seconds.
const CONVERSION_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0];

/// The same by definition.
const CRD_BUCKETS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];

/// What conversion webhooks did.
pub(crate) struct Conversions {
    requests: Counters,
    durations: Histograms,
    /// By definition and versions.
    conversions: Histograms,
}

impl Default for Conversions {
    fn default() -> Self {
        Self {
            requests: Counters::new(
                "apiserver_conversion_webhook_request_total",
                &["result", "failure_type"],
                "Counter for conversion webhook requests with success/failure and failure error type",
            ),
            durations: Histograms::new(
                "apiserver_conversion_webhook_duration_seconds",
                &["result", "failure_type"],
                CONVERSION_BUCKETS,
                "Conversion webhook request latency",
            ),
            conversions: Histograms::new(
                "apiserver_crd_conversion_webhook_duration_seconds",
                &["crd_name", "from_version", "to_version", "succeeded"],
                CRD_BUCKETS,
                "CRD webhook conversion duration in seconds",
            ),
        }
    }
}

impl Conversions {
    /// Counts a call; `failure` is upstream's word for what went wrong.
    pub(crate) fn ended(&self, failure: Option<&str>, took: Duration) {
        let result = if failure.is_some() { "failure" } else { "success" };
        let labels = [result, failure.unwrap_or_default()];
        self.requests.count(&labels);
        self.durations.observe(&labels, took);
    }

    /// Counts what a call meant for the definition `name`: the versions that its objects had, and the one they got.
    pub(crate) fn converted(&self, name: &str, from: &BTreeSet<&str>, to: &str, succeeded: bool, took: Duration) {
        for from in from {
            self.conversions.observe(&[name, from, to, &succeeded.to_string()], took);
        }
    }

    /// Everything, in Prometheus' format.
    pub(crate) fn text(&self) -> String {
        let mut text = Text::default();
        self.requests.write(&mut text);
        self.durations.write(&mut text);
        self.conversions.write(&mut text);
        text.finish()
    }
}

/// How a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The webhook let the request pass.
    Allowed,
    /// The webhook refused, with this code.
    Denied(u16),
    /// The webhook could not be asked, and the request goes on; the code of the failure.
    FailedOpen(u16),
    /// The webhook could not be asked, and the request ends; the code of the failure.
    FailedClosed(u16),
    /// Its answer could not be made use of.
    Unusable,
}

/// The numbers.
pub struct Metrics {
    requests: Counters,
    durations: Histograms,
    rejections: Counters,
    opened: Counters,
    exclusions: Counters,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Counters::new(
                "apiserver_admission_webhook_request_total",
                &["name", "type", "operation", "code", "rejected"],
                "Admission webhook request total, identified by name and broken out for each admission type (validating or mutating) and operation. Additional labels specify whether the request was rejected or not and an HTTP status code. Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.",
            ),
            durations: Histograms::new(
                "apiserver_admission_webhook_admission_duration_seconds",
                &["name", "type", "operation", "rejected"],
                BUCKETS,
                "Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
            ),
            rejections: Counters::new(
                "apiserver_admission_webhook_rejection_count",
                &["name", "type", "operation", "error_type", "rejection_code"],
                "Admission webhook rejection count, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify an error type (calling_webhook_error or apiserver_internal_error if an error occurred; no_error otherwise) and optionally a non-zero rejection code if the webhook rejects the request with an HTTP status code (honored by the apiserver when the code is greater or equal to 400). Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.",
            ),
            opened: Counters::new(
                "apiserver_admission_webhook_fail_open_count",
                &["name", "type"],
                "Admission webhook fail open count, identified by name and broken out for each admission type (validating or mutating).",
            ),
            exclusions: Counters::new(
                "apiserver_admission_match_condition_exclusions_total",
                &["name", "kind", "type", "operation"],
                "Admission match condition evaluation exclusions count, identified by name of resource containing the match condition and broken out for each kind containing matchConditions (webhook or policy), operation and admission type (validate or admit).",
            ),
        }
    }
}

fn step(kind: HookKind) -> &'static str {
    match kind {
        HookKind::Mutating => "admit",
        HookKind::Validating => "validating",
    }
}

impl Metrics {
    /// Counts a question.
    pub fn asked(&self, name: &str, kind: HookKind, operation: &str, outcome: Outcome, took: Duration) {
        let step = step(kind);
        let (code, rejected, error) = match outcome {
            Outcome::Allowed => (200, false, None),
            Outcome::Denied(code) => (code, true, Some("no_error")),
            Outcome::FailedOpen(code) => (code, false, None),
            Outcome::FailedClosed(code) => (code, true, Some("calling_webhook_error")),
            Outcome::Unusable => (0, true, Some("apiserver_internal_error")),
        };
        let (code, rejected) = (code.min(600).to_string(), rejected.to_string());
        self.requests.count(&[name, step, operation, &code, &rejected]);
        self.durations.observe(&[name, step, operation, &rejected], took);
        if let Some(error) = error {
            self.rejections.count(&[name, step, operation, error, &code]);
        }
        if matches!(outcome, Outcome::FailedOpen(_)) {
            self.opened.count(&[name, step]);
        }
    }

    /// Counts a webhook that was not asked because of its conditions.
    pub fn excluded(&self, name: &str, kind: HookKind, operation: &str) {
        let kind = if kind == HookKind::Mutating { "admit" } else { "validate" };
        self.exclusions.count(&[name, "webhook", kind, operation]);
    }

    /// Everything, in Prometheus' format.
    pub fn text(&self) -> String {
        let mut text = Text::default();
        self.requests.write(&mut text);
        self.durations.write(&mut text);
        self.rejections.write(&mut text);
        self.opened.write(&mut text);
        self.exclusions.write(&mut text);
        text.finish()
    }
}
