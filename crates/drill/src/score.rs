//! What a drill was worth.
//!
//! Pure.

use serde::{Deserialize, Serialize};

use crate::scenario::Par;

const FULL: i64 = 100;
const HINT: i64 = 10;
const WRONG: i64 = 10;
/// At most so much is lost for each of the two times.
const SLOWEST: i64 = 20;
const NEVER_NAMED: i64 = 30;

/// How a drill went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// Seconds until the cause was named.
    pub detect: Option<u64>,
    /// Seconds until it was repaired.
    pub repair: Option<u64>,
    /// Hints that were taken.
    pub hints: usize,
    /// Causes that were named wrongly.
    pub wrong: usize,
}

/// From 0 to 100; nothing where it was not repaired.
pub fn score(account: &Account, par: Par) -> u8 {
    let Some(repair) = account.repair else { return 0 };
    // A point for each tenth of the par time above it.
    let late = |took: u64, par: u64| {
        let over = took.saturating_sub(par).saturating_mul(10) / par.max(1);
        i64::try_from(over).unwrap_or(SLOWEST).min(SLOWEST)
    };
    let count = |number: usize| i64::try_from(number).unwrap_or(FULL);
    let detect = account.detect.map_or(NEVER_NAMED, |took| late(took, par.detect));
    let points = FULL - detect - late(repair, par.repair) - HINT * count(account.hints) - WRONG * count(account.wrong);
    u8::try_from(points.clamp(0, FULL)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_errors_and_time_cost() {
        let par = Par { detect: 100, repair: 200 };
        let fast = Account { detect: Some(50), repair: Some(200), hints: 0, wrong: 0 };
        for (account, points) in [
            (fast, 100),
            (Account { hints: 2, ..fast }, 80),
            (Account { wrong: 1, ..fast }, 90),
            (Account { detect: None, ..fast }, 70),
            (Account { detect: Some(150), ..fast }, 95),
            (Account { detect: Some(100_000), repair: Some(100_000), ..fast }, 60),
            (Account { hints: 50, ..fast }, 0),
            (Account { repair: None, ..fast }, 0),
        ] {
            assert_eq!(score(&account, par), points, "{account:?}");
        }
    }
}
