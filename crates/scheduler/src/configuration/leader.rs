//! The file's part about leader election.
//!
//! Only what the file says: flags and defaults are added by who starts the scheduler.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// How the scheduler competes with others; `None` where the file says nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LeaderElection {
    /// Whether to compete at all.
    pub leader_elect: Option<bool>,
    lease_duration: Option<String>,
    renew_deadline: Option<String>,
    retry_period: Option<String>,
    pub(super) resource_lock: Option<String>,
    /// Name of the Lease.
    pub resource_name: Option<String>,
    /// Its namespace.
    pub resource_namespace: Option<String>,
}

impl LeaderElection {
    /// How long others wait before they take over.
    pub fn lease_duration(&self) -> Option<Duration> {
        self.lease_duration.as_deref().and_then(duration)
    }

    /// How long a leader tries to renew.
    pub fn renew_deadline(&self) -> Option<Duration> {
        self.renew_deadline.as_deref().and_then(duration)
    }

    /// The pause between attempts.
    pub fn retry_period(&self) -> Option<Duration> {
        self.retry_period.as_deref().and_then(duration)
    }

    /// The fields that hold durations, as they are written.
    pub(super) fn durations(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let fields = [
            ("leaseDuration", &self.lease_duration),
            ("renewDeadline", &self.renew_deadline),
            ("retryPeriod", &self.retry_period),
        ];
        fields.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?)))
    }
}

/// Go's way of writing durations, such as `1m30s`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    Duration::try_from(text.parse::<SignedDuration>().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, milliseconds) in
            [("15s", Some(15_000)), ("1m30s", Some(90_000)), ("250ms", Some(250)), ("0", Some(0))]
                .into_iter()
                .chain([("soon", None), ("-1s", None)])
        {
            assert_eq!(duration(text).map(|duration| duration.as_millis()), milliseconds, "{text}");
        }
    }
}
