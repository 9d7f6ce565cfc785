//! The latencies of the last minute's syncs, kept as small as the two questions asked of them allow. Pure.
//!
//! Invariant: what is kept grows older and slower towards the front, so the front is the slowest.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);

/// Latencies of syncs.
#[derive(Debug, Default)]
pub struct Latency {
    last: Option<Duration>,
    slowest: VecDeque<(Instant, Duration)>,
}

impl Latency {
    /// Notes one that took `took` and ended at `now`.
    pub fn record(&mut self, now: Instant, took: Duration) {
        self.last = Some(took);
        while self.slowest.back().is_some_and(|(_, slower)| *slower <= took) {
            self.slowest.pop_back();
        }
        self.slowest.push_back((now, took));
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        while self.slowest.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.slowest.pop_front();
        }
    }

    /// The last one.
    pub fn last(&self) -> Option<Duration> {
        self.last
    }

    /// The slowest of the last minute.
    pub fn slowest(&mut self, now: Instant) -> Option<Duration> {
        self.forget(now);
        self.slowest.front().map(|(_, took)| *took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_the_last_minute_is_known() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut latency = Latency::default();
        assert_eq!((latency.last(), latency.slowest(start)), (None, None));
        for (at, took) in [(0, 9), (10, 3), (20, 5), (30, 1)] {
            latency.record(start + Duration::from_secs(at), ms(took));
        }
        let slowest = [(30, Some(9)), (61, Some(5)), (81, Some(1)), (91, None)];
        for (at, slowest) in slowest {
            assert_eq!(latency.slowest(start + Duration::from_secs(at)), slowest.map(ms), "after {at} s");
        }
        assert_eq!(latency.last(), Some(ms(1)));
    }
}
