//! From totals to rates: how many billionths of a core were used between two samples.
//!
//! Invariants: samples that are too close keep the rate before them; a total that fell, a clock that jumped or a gap that
//! is too long give no rate; what is not seen any more is forgotten.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

/// Closer samples say more about the noise than about the use.
const SHORTEST: Duration = Duration::from_secs(2);
/// Longer gaps average over what nobody asks about.
const LONGEST: Duration = Duration::from_secs(300);

/// The last samples, by control group.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    entries: HashMap<String, Entry>,
    round: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    time: Timestamp,
    total: u64,
    rate: Option<u64>,
    round: u64,
}

impl Rates {
    /// Takes in a total and says the rate.
    pub(crate) fn observe(&mut self, key: &str, time: Timestamp, total: u64) -> Option<u64> {
        let round = self.round;
        let Some(entry) = self.entries.get_mut(key) else {
            self.entries.insert(key.to_owned(), Entry { time, total, rate: None, round });
            return None;
        };
        entry.round = round;
        match step(*entry, time, total) {
            Step::Keep => {}
            Step::Restart => *entry = Entry { time, total, rate: None, round },
            Step::Rate(rate) => *entry = Entry { time, total, rate: Some(rate), round },
        }
        entry.rate
    }

    /// Ends a round of samples: what was in neither of the last two is forgotten.
    pub(crate) fn end_round(&mut self) {
        let oldest = self.round.saturating_sub(1);
        self.entries.retain(|_, entry| entry.round >= oldest);
        self.round += 1;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Keep,
    Restart,
    Rate(u64),
}

fn step(last: Entry, time: Timestamp, total: u64) -> Step {
    let Ok(elapsed) = Duration::try_from(time.duration_since(last.time)) else { return Step::Restart };
    if total < last.total || elapsed > LONGEST {
        return Step::Restart;
    }
    if elapsed < SHORTEST {
        return Step::Keep;
    }
    let rate = u128::from(total - last.total) * 1_000_000_000 / elapsed.as_nanos();
    Step::Rate(u64::try_from(rate).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_over_time() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let last = Entry { time: at(100), total: 1_000_000_000, rate: None, round: 0 };
        for (second, total, expected) in [
            (110, 6_000_000_000, Step::Rate(500_000_000)),
            (101, 2_000_000_000, Step::Keep),
            (110, 999, Step::Restart),
            (90, 6_000_000_000, Step::Restart),
            (3700, 6_000_000_000, Step::Restart),
        ] {
            assert_eq!(step(last, at(second), total), expected, "{second} {total}");
        }
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let mut rates = Rates::default();
        assert_eq!(rates.observe("a", at(0), 0), None);
        rates.observe("b", at(0), 0);
        rates.end_round();
        assert_eq!(rates.observe("a", at(10), 10_000_000_000), Some(1_000_000_000));
        rates.end_round();
        rates.observe("a", at(20), 10_000_000_000);
        rates.end_round();
        assert_eq!(rates.entries.len(), 1);
    }
}
