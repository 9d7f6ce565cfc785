//! How patient a competitor is: its durations, widened while requests are slow.
//!
//! Pure. Invariants: durations keep their proportion and stay between what was configured and the widest that is allowed;
//! they widen at once, and narrow only after a while of requests that would have fitted.

use std::time::Duration;

/// So many times the latency of a request must fit into the renew deadline.
const ROOM: f64 = 3.0;
/// So many requests in a row must fit before durations narrow.
const CALM: u32 = 30;

/// By how much durations are widened now.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    renew_deadline: Duration,
    most: f64,
    factor: f64,
    calm: u32,
}

impl Patience {
    /// Durations as they were configured; `widest` bounds the lease's.
    pub(super) fn new(lease_duration: Duration, renew_deadline: Duration, widest: Duration) -> Self {
        let most = (widest.as_secs_f64() / lease_duration.as_secs_f64()).max(1.0);
        Self { renew_deadline, most, factor: 1.0, calm: 0 }
    }

    /// By how much durations are widened.
    pub(super) fn factor(&self) -> f64 {
        self.factor
    }

    /// A request took so long, with or without an answer; whether that changed something.
    pub(super) fn observe(&mut self, took: Duration) -> bool {
        let wanted = (took.as_secs_f64() * ROOM / self.renew_deadline.as_secs_f64()).ceil().clamp(1.0, self.most);
        if wanted > self.factor {
            (self.factor, self.calm) = (wanted, 0);
            return true;
        }
        if wanted == self.factor {
            self.calm = 0;
            return false;
        }
        self.calm += 1;
        if self.calm < CALM {
            return false;
        }
        (self.factor, self.calm) = (wanted, 0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_requests_widen_at_once_and_fast_ones_narrow_after_a_while() {
        let seconds = Duration::from_secs_f64;
        let mut patience = Patience::new(seconds(15.0), seconds(10.0), seconds(60.0));
        let mut check = |took: f64, times: u32, factor: f64| {
            for _ in 0..times {
                patience.observe(seconds(took));
            }
            assert_eq!(patience.factor(), factor, "{times} times {took} s");
        };
        check(0.01, 100, 1.0);
        check(3.3, 1, 1.0);
        check(4.0, 1, 2.0);
        check(12.0, 1, 4.0);
        check(100.0, 1, 4.0);
        check(0.01, 29, 4.0);
        check(12.0, 1, 4.0);
        check(0.01, 29, 4.0);
        check(0.01, 1, 1.0);
        let mut fixed = Patience::new(seconds(15.0), seconds(10.0), seconds(15.0));
        assert!(!fixed.observe(seconds(100.0)));
        assert_eq!(fixed.factor(), 1.0);
    }
}
