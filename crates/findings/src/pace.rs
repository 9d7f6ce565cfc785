//! When to look next: soon after a warning, seldom where all is well, and never more than the budget gives. Pure.
//!
//! Invariant: over any long time, looks cost no more than [`SHARE`] of a processor.

use std::time::Duration;

/// Of one processor.
const SHARE: f64 = 0.005;
/// Processor time that may be saved up, in seconds: so that trouble is followed closely when it begins.
const MOST_SAVED: f64 = 3.0;
/// Between two looks at a healthy cluster.
const CALM: Duration = Duration::from_secs(30);
/// Between two looks while something is wrong, to see it go.
const BUSY: Duration = Duration::from_secs(5);
/// Between two looks at all.
const LEAST: Duration = Duration::from_secs(1);

/// The budget of looks.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// Saved processor time, in seconds; below zero it is owed.
    saved: f64,
    /// When it was last counted.
    counted: Duration,
}

/// When the next look may and should be, from the same start as `now`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    /// Not before, whatever happens.
    pub(crate) earliest: Duration,
    /// Without a reason.
    pub(crate) latest: Duration,
}

impl Pace {
    /// A full purse.
    pub(crate) fn new(now: Duration) -> Self {
        Self { saved: MOST_SAVED, counted: now }
    }

    /// After a look that ended now.
    pub(crate) fn spend(&mut self, now: Duration, cost: Duration, has_findings: bool) -> Next {
        let earned = now.saturating_sub(self.counted).as_secs_f64() * SHARE;
        self.saved = (self.saved + earned).min(MOST_SAVED) - cost.as_secs_f64();
        self.counted = now;
        let owed = Duration::try_from_secs_f64(-self.saved / SHARE).unwrap_or_default();
        let earliest = now + owed.max(LEAST);
        let latest = now + if has_findings { BUSY } else { CALM };
        Next { earliest, latest: latest.max(earliest) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_small_cluster_is_looked_at_often_and_a_large_one_seldom() {
        let mut pace = Pace::new(Duration::ZERO);
        let calm = pace.spend(seconds(1.0), seconds(0.05), false);
        assert_eq!(calm, Next { earliest: seconds(2.0), latest: seconds(31.0) });
        let busy = pace.spend(seconds(2.0), seconds(0.05), true);
        assert_eq!(busy, Next { earliest: seconds(3.0), latest: seconds(7.0) });
        let mut pace = Pace::new(Duration::ZERO);
        let large = pace.spend(seconds(10.0), seconds(8.0), true);
        assert_eq!((large.earliest, large.latest), (seconds(1010.0), seconds(1010.0)));
    }

    #[test]
    fn in_the_long_run_the_budget_holds() {
        for cost in [0.01, 0.2, 2.0, 20.0] {
            let (mut pace, mut now, mut spent) = (Pace::new(Duration::ZERO), Duration::ZERO, 0.0);
            while now < seconds(100_000.0) {
                now += seconds(cost);
                spent += cost;
                // There is always a reason to look.
                now = pace.spend(now, seconds(cost), true).earliest;
            }
            let share = spent / now.as_secs_f64();
            assert!(share < 0.01, "{cost}: {share}");
        }
    }
}
