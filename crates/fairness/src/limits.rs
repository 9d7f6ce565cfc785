//! How many seats each level has: by its shares, by what it may lend and borrow, and by what it needed lately.
//!
//! Invariant: levels that are limited never get less than their lower bound, exempt ones always get what they use.

use crate::allocation::{Class, allocate};
use crate::demand::Observed;

/// How slowly a smoothed demand falls in [`PERIOD`].
const SMOOTHING: f64 = 0.977;

/// Nanoseconds.
const PERIOD: f64 = 10e9;

/// Of a level's seats, how many one request may take.
const REQUEST_FRACTION: f64 = 0.15;

/// What a level is entitled to, as its specification says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// `nominalConcurrencyShares`.
    pub nominal: u64,
    /// `lendablePercent`.
    pub lendable_percent: u64,
    /// `borrowingLimitPercent`; absent: no limit.
    pub borrowing_percent: Option<u64>,
}

/// Seats of a level that come from the configuration alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Configured {
    /// By its shares.
    pub nominal: u64,
    /// When others have borrowed all that they may.
    pub lower: u64,
    /// When it has borrowed all that it may.
    pub upper: u64,
}

/// A level's seats and what they follow.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// From the configuration.
    pub configured: Configured,
    /// Whether the level is exempt.
    pub is_exempt: bool,
    /// Seats that it has now.
    pub current: u64,
    /// What it needed in the last period.
    pub observed: Observed,
    /// What it needs at this moment, where somebody waits; otherwise 0.
    ///
    /// DIVERGES: upstream looks at the period that has passed alone.
    pub wanted: f64,
    /// What it needed, falling slowly.
    pub smoothed: f64,
    /// What it is given seats for.
    pub target: f64,
}

/// What a period's end comes to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rebalanced {
    /// Which fraction of its demand each level got that is at no bound.
    pub fair_fraction: f64,
}

/// Seats of all levels out of the server's.
pub fn configure(server: u64, shares: &[Shares]) -> Vec<Configured> {
    let sum: u64 = shares.iter().map(|shares| shares.nominal).sum();
    let percent = |seats: u64, percent: u64| (seats as f64 * percent as f64 / 100.0).round() as u64;
    let one = |shares: &Shares| {
        let nominal = (server * shares.nominal).div_ceil(sum.max(1));
        let lower = nominal - percent(nominal, shares.lendable_percent).min(nominal);
        let borrowed = shares.borrowing_percent.map_or(server, |share| percent(nominal, share));
        Configured { nominal, lower, upper: nominal + borrowed }
    };
    shares.iter().map(one).collect()
}

/// What a new level begins with.
pub fn initial(configured: &Configured) -> u64 {
    configured.nominal - (configured.nominal - configured.lower) / 2
}

/// The most seats for one request of a level with queues.
pub fn max_seats(nominal: u64, hand_size: u64) -> u64 {
    let part = (nominal as f64 * REQUEST_FRACTION).ceil() as u64;
    part.min(nominal / hand_size.max(1)).max(1)
}

/// Gives every level the seats for the next period. What was observed is in `observed`.
pub fn rebalance(levels: &mut [Limits]) -> Rebalanced {
    let nominal: u64 = levels.iter().map(|level| level.configured.nominal).sum();
    levels.iter_mut().for_each(smooth);
    let exempt: u64 = levels.iter().filter(|level| level.is_exempt).map(needed).sum();
    let mut limited: Vec<&mut Limits> = Vec::new();
    for level in levels {
        match level.is_exempt {
            true => level.current = needed(level),
            false => limited.push(level),
        }
    }
    let left = nominal as i64 - exempt as i64;
    let fair_fraction = share(left, nominal, &mut limited);
    Rebalanced { fair_fraction }
}

fn share(left: i64, nominal: u64, levels: &mut [&mut Limits]) -> f64 {
    let lower: i64 = levels.iter().map(|level| level.configured.lower as i64).sum();
    let wanted: i64 = levels.iter().map(|level| needed(level) as i64).sum();
    if left <= lower {
        levels.iter_mut().for_each(|level| level.current = level.configured.lower);
        return 0.0;
    }
    if left <= wanted {
        let part = (left - lower) as f64 / (wanted - lower) as f64;
        for level in levels {
            let more = needed(level) - level.configured.lower;
            level.current = level.configured.lower + (more as f64 * part).round() as u64;
        }
        return 0.0;
    }
    let class = |level: &&mut Limits| Class {
        target: level.target,
        lower: needed(level) as f64,
        upper: level.configured.upper as f64,
    };
    let classes: Vec<Class> = levels.iter().map(class).collect();
    // Where it cannot be done, everybody keeps what they have.
    let Some((given, fraction)) = allocate(nominal as f64, &classes) else { return 0.0 };
    levels.iter_mut().zip(given).for_each(|(level, given)| level.current = given.round() as u64);
    fraction
}

fn smooth(level: &mut Limits) {
    if level.observed.nanos > 0 {
        let envelope = level.observed.average + level.observed.deviation;
        // However often this is asked, it falls alike.
        let kept = SMOOTHING.powf(level.observed.nanos as f64 / PERIOD);
        level.smoothed = envelope.max(kept * level.smoothed + (1.0 - kept) * envelope);
    }
    level.target = level.smoothed.max(level.wanted).max(needed(level) as f64);
}

/// What a level is not to go below in this period.
fn needed(level: &Limits) -> u64 {
    let most = level.observed.most.round() as u64;
    let most = if level.is_exempt { most } else { most.min(level.configured.nominal) };
    most.max(level.configured.lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(nominal: u64, lendable_percent: u64, borrowing_percent: Option<u64>) -> Shares {
        Shares { nominal, lendable_percent, borrowing_percent }
    }

    #[test]
    fn seats_follow_shares() {
        let all =
            configure(600, &[shares(0, 0, None), shares(5, 0, None), shares(30, 33, Some(50)), shares(40, 25, None)]);
        let expected = [(0, 0, 600), (40, 40, 640), (240, 161, 360), (320, 240, 920)];
        let seen: Vec<_> = all.iter().map(|one| (one.nominal, one.lower, one.upper)).collect();
        assert_eq!(seen, expected);
        assert_eq!(initial(&all[2]), 201);
        assert_eq!((max_seats(240, 6), max_seats(50, 6), max_seats(3, 6)), (36, 8, 1));
    }

    fn level(configured: (u64, u64, u64), observed: (f64, f64)) -> Limits {
        let (nominal, lower, upper) = configured;
        let (average, most) = observed;
        Limits {
            configured: Configured { nominal, lower, upper },
            observed: Observed { nanos: 10, average, deviation: 0.0, most },
            ..Limits::default()
        }
    }

    #[test]
    fn who_is_busy_borrows_from_who_is_not() {
        let mut levels =
            [level((50, 10, 150), (90.0, 100.0)), level((50, 10, 150), (1.0, 4.0)), level((0, 0, 100), (0.0, 0.0))];
        let rebalanced = rebalance(&mut levels);
        assert_eq!(levels.map(|level| level.current), [90, 10, 0]);
        assert!((rebalanced.fair_fraction - 1.0).abs() < 0.01);
        // It falls slowly.
        levels.iter_mut().for_each(|level| level.observed = Observed { nanos: 10, ..Observed::default() });
        rebalance(&mut levels);
        assert!(levels[0].smoothed > 85.0 && levels[0].current > 80, "{levels:?}");
    }

    #[test]
    fn demand_is_forgotten_alike_however_often_it_is_asked_for() {
        let idle = |nanos| Observed { nanos, ..Observed::default() };
        let left_after = |times: u64| {
            let mut level = [Limits { smoothed: 90.0, ..level((50, 10, 150), (0.0, 0.0)) }];
            for _ in 0..times {
                level[0].observed = idle(60_000_000_000 / times);
                rebalance(&mut level);
            }
            level[0].smoothed
        };
        assert!((left_after(1) - left_after(600)).abs() < 1e-6);
        assert!((left_after(6) - 90.0 * SMOOTHING.powi(6)).abs() < 1e-6);
    }

    #[test]
    fn all_busy_means_that_everybody_has_its_own() {
        let mut levels = [level((50, 10, 150), (90.0, 100.0)), level((50, 30, 150), (90.0, 100.0))];
        rebalance(&mut levels);
        assert_eq!(levels.map(|level| level.current), [50, 50]);
    }

    #[test]
    fn what_exempt_requests_use_is_taken_from_the_others() {
        let exempt = |most: f64| Limits { is_exempt: true, ..level((0, 0, 100), (0.0, most)) };
        let mut levels = [exempt(30.0), level((50, 10, 150), (90.0, 100.0)), level((50, 30, 150), (90.0, 100.0))];
        assert_eq!(rebalance(&mut levels).fair_fraction, 0.0);
        assert_eq!(levels.map(|level| level.current), [30, 30, 40]);
        levels[0] = exempt(500.0);
        rebalance(&mut levels);
        assert_eq!(levels.map(|level| level.current), [500, 10, 30]);
    }
}
