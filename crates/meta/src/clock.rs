//! Time as data: a clock that can be injected, and the two time formats of the Kubernetes API.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

/// Where the time comes from. Deciding code takes `now` as an argument; code at the edges holds a `Clock`.
pub trait Clock: Send + Sync + 'static {
    /// The wall-clock time.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock for tests that moves only when told to.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<Timestamp>>);

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn new(start: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(start)))
    }

    /// Moves the clock forward by `by`.
    pub fn advance(&self, by: Duration) {
        *self.0.lock() += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}

/// `metav1.Time`: RFC 3339 in UTC with whole seconds, as in `2026-01-02T03:04:05Z`.
pub fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `metav1.MicroTime`: RFC 3339 in UTC with six decimals, as in `2026-01-02T03:04:05.000006Z`.
pub fn format_micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Reads either format; `None` where the text is no RFC 3339 time.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_upstream_writes_them() {
        let time: Timestamp = "2026-01-02T03:04:05.000006Z".parse().unwrap();
        assert_eq!(format_time(time), "2026-01-02T03:04:05Z");
        assert_eq!(format_micro_time(time), "2026-01-02T03:04:05.000006Z");
        assert_eq!(parse_time("2026-01-02T03:04:05.000006Z"), Some(time));
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.now().as_second(), 5);
    }
}
