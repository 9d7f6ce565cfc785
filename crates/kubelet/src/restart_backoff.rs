//! Back-off by key with upstream's rules: 10 s doubling to 5 min, forgotten after twice the maximum without a failure.
//!
//! A value without a clock: `now` comes in as an argument. Invariant: a key's delay never exceeds the maximum.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

const INITIAL: Duration = Duration::from_secs(10);
const MAXIMUM: Duration = Duration::from_secs(300);

struct Entry {
    delay: Duration,
    updated: Timestamp,
}

/// The delays of containers that keep failing, or of images that cannot be pulled.
pub(crate) struct BackoffTable<K> {
    entries: HashMap<K, Entry>,
}

impl<K: Eq + std::hash::Hash> BackoffTable<K> {
    pub(crate) fn new() -> Self {
        Self { entries: HashMap::new() }
    }

    /// How long an event of `since` (an exit) still has to wait; `None` where it may be answered at once.
    pub(crate) fn remaining(&self, key: &K, since: Timestamp, now: Timestamp) -> Option<Duration> {
        let entry = self.entries.get(key)?;
        if elapsed(entry.updated, since) > MAXIMUM * 2 {
            return None;
        }
        rest(entry.delay, since, now)
    }

    /// How long until a further attempt, counted from the last failure.
    pub(crate) fn remaining_since_update(&self, key: &K, now: Timestamp) -> Option<Duration> {
        let entry = self.entries.get(key)?;
        rest(entry.delay, entry.updated, now)
    }

    /// The delay of a key at this moment.
    pub(crate) fn delay(&self, key: &K) -> Duration {
        self.entries.get(key).map(|entry| entry.delay).unwrap_or_default()
    }

    /// Counts a failure that happened at `since`: the next one waits longer.
    pub(crate) fn next(&mut self, key: K, since: Timestamp, now: Timestamp) {
        let delay = match self.entries.get(&key) {
            Some(entry) if elapsed(entry.updated, since) <= MAXIMUM * 2 => (entry.delay * 2).min(MAXIMUM),
            _ => INITIAL,
        };
        self.entries.insert(key, Entry { delay, updated: now });
    }

    /// Forgets what no longer matters.
    pub(crate) fn collect(&mut self, now: Timestamp) {
        self.entries.retain(|_, entry| elapsed(entry.updated, now) <= MAXIMUM * 2);
    }
}

/// What is left of a delay that began at `since`. One that seems to begin far ahead began before somebody set the clock
/// back: nobody knows how much of it is left, and waiting for the clock may take hours.
// DIVERGES: upstream waits until the clock has caught up.
fn rest(delay: Duration, since: Timestamp, now: Timestamp) -> Option<Duration> {
    if elapsed(now, since) > delay {
        return None;
    }
    delay.checked_sub(elapsed(since, now)).filter(|rest| !rest.is_zero())
}

/// From `earlier` to `later`, zero where the clock went back.
fn elapsed(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn the_first_restart_is_immediate_and_then_delays_double_to_five_minutes() {
        let mut table = BackoffTable::new();
        let mut now = 0;
        assert_eq!(table.remaining(&"c", at(now), at(now)), None);
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            table.next("c", at(now), at(now));
            assert_eq!(table.delay(&"c").as_secs(), expected);
            assert_eq!(table.remaining(&"c", at(now), at(now)), Some(Duration::from_secs(expected)));
            now += i64::try_from(expected).unwrap();
            assert_eq!(table.remaining(&"c", at(now - 1), at(now - 1)).map(|rest| rest.as_secs()), Some(expected));
        }
    }

    #[test]
    fn ten_quiet_minutes_reset_it() {
        let mut table = BackoffTable::new();
        table.next("c", at(0), at(0));
        table.next("c", at(0), at(0));
        assert_eq!(table.delay(&"c").as_secs(), 20);
        assert_eq!(table.remaining(&"c", at(601), at(601)), None);
        table.next("c", at(601), at(601));
        assert_eq!(table.delay(&"c").as_secs(), 10);
    }

    #[test]
    fn a_clock_that_jumps_costs_one_delay_at_most() {
        let mut table = BackoffTable::new();
        table.next("c", at(10_000), at(10_000));
        assert_eq!(table.remaining(&"c", at(10_000), at(9_995)), Some(Duration::from_secs(10)), "a little back");
        assert_eq!(table.remaining(&"c", at(10_000), at(6_400)), None, "an hour back");
        assert_eq!(table.remaining_since_update(&"c", at(6_400)), None);
        assert_eq!(table.remaining(&"c", at(10_000), at(13_600)), None, "an hour ahead");
        assert_eq!(table.remaining_since_update(&"c", at(10_005)), Some(Duration::from_secs(5)));
        // The next failure after the jump is told by the new clock alone.
        table.next("c", at(6_401), at(6_401));
        assert_eq!(table.remaining(&"c", at(6_401), at(6_401)), Some(Duration::from_secs(20)));
        table.collect(at(10_800));
        assert_eq!(table.delay(&"c"), Duration::ZERO);
    }
}
