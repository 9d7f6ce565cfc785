//! What policies written in CEL said, and how long they thought about it.

use std::time::Duration;

use kedge_metrics::{Counters, Histograms, Text};

/// Upper bounds, in seconds.
const SECONDS: &[f64] = &[0.000_000_5, 0.001, 0.01, 0.1, 1.0];

/// Both families of one kind of policy.
#[derive(Debug)]
struct Checks {
    total: Counters,
    durations: Histograms,
}

impl Checks {
    fn count(&self, labels: &[&str], took: Duration) {
        self.total.count(labels);
        self.durations.observe(labels, took);
    }
}

/// The families of both kinds.
#[derive(Debug)]
pub(crate) struct Policies {
    validating: Checks,
    mutating: Checks,
}

impl Default for Policies {
    fn default() -> Self {
        let validating = &["policy", "policy_binding", "error_type", "enforcement_action"];
        let mutating = &["policy", "policy_binding", "error_type"];
        Self {
            validating: Checks {
                total: Counters::new(
                    "apiserver_validating_admission_policy_check_total",
                    validating,
                    "Validation admission policy check total, labeled by policy and further identified by binding and enforcement action taken.",
                ),
                durations: Histograms::new(
                    "apiserver_validating_admission_policy_check_duration_seconds",
                    validating,
                    SECONDS,
                    "Validation admission latency for individual validation expressions in seconds, labeled by policy and further including binding and enforcement action taken.",
                ),
            },
            mutating: Checks {
                total: Counters::new(
                    "apiserver_mutating_admission_policy_check_total",
                    mutating,
                    "Mutation admission policy check total, labeled by policy and further identified by binding.",
                ),
                durations: Histograms::new(
                    "apiserver_mutating_admission_policy_check_duration_seconds",
                    mutating,
                    SECONDS,
                    "Mutation admission latency for individual mutation expressions in seconds, labeled by policy and binding.",
                ),
            },
        }
    }
}

impl Policies {
    /// A validation came to something: `action` is `allow`, `deny`, `warn` or `audit`. As upstream counts: what passes without
    /// an error is not counted, and what does not hold is an `invalid_error`.
    pub(crate) fn validated(&self, policy: &str, binding: &str, message: &str, action: &str, took: Duration) {
        let error = match message {
            message if message.starts_with("compilation") => "compile_error",
            message if message.starts_with("validation failed due to running out of cost budget") => "out_of_budget",
            _ => "invalid_error",
        };
        self.validating.count(&[policy, binding, error, action], took);
    }

    /// A mutation was tried: `error` is `no_error`, `compile_error`, `out_of_budget` or `invalid_error`.
    pub(crate) fn mutated(&self, policy: &str, binding: &str, error: &str, took: Duration) {
        self.mutating.count(&[policy, binding, error], took);
    }

    pub(super) fn write(&self, text: &mut String) {
        let mut own = Text::default();
        for checks in [&self.validating, &self.mutating] {
            checks.total.write(&mut own);
            checks.durations.write(&mut own);
        }
        text.push_str(&own.finish());
    }
}
