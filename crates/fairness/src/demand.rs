//! How many seats a level could have used, over time: average, deviation and the most at once.
//!
//! Weighted by time exactly, not sampled.

/// A value that changes now and then.
#[derive(Debug, Clone)]
pub struct Demand {
    since: u64,
    last: u64,
    value: f64,
    area: f64,
    squares: f64,
    most: f64,
}

/// What a value did since the last reset.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Observed {
    /// Nanoseconds that were looked at.
    pub nanos: u64,
    /// Weighted by time.
    pub average: f64,
    /// Weighted by time.
    pub deviation: f64,
    /// The highest value.
    pub most: f64,
}

impl Demand {
    /// Nothing is in demand yet.
    pub fn new(now: u64) -> Self {
        Self { since: now, last: now, value: 0.0, area: 0.0, squares: 0.0, most: 0.0 }
    }

    /// From now on it is this.
    pub fn set(&mut self, now: u64, value: u64) {
        self.advance(now);
        self.value = value as f64;
        self.most = self.most.max(self.value);
    }

    /// What was seen since the last time; starts anew.
    pub fn reset(&mut self, now: u64) -> Observed {
        self.advance(now);
        let nanos = now.saturating_sub(self.since);
        let time = nanos as f64;
        let average = if nanos == 0 { 0.0 } else { self.area / time };
        let variance = if nanos == 0 { 0.0 } else { (self.squares / time - average * average).max(0.0) };
        let observed = Observed { nanos, average, deviation: variance.sqrt(), most: self.most };
        *self = Self { since: now, last: now, value: self.value, area: 0.0, squares: 0.0, most: self.value };
        observed
    }

    fn advance(&mut self, now: u64) {
        let time = now.saturating_sub(self.last) as f64;
        self.area += self.value * time;
        self.squares += self.value * self.value * time;
        self.last = self.last.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_weighted_by_time() {
        let mut demand = Demand::new(0);
        demand.set(10, 4);
        demand.set(20, 8);
        demand.set(30, 0);
        let observed = demand.reset(40);
        assert_eq!((observed.nanos, observed.average, observed.most), (40, 3.0, 8.0));
        assert!((observed.deviation - 11f64.sqrt()).abs() < 1e-9);
        demand.set(40, 2);
        demand.set(50, 1);
        let observed = demand.reset(60);
        assert_eq!((observed.average, observed.deviation, observed.most), (1.5, 0.5, 2.0));
        assert_eq!(demand.reset(60), Observed { most: 1.0, ..Observed::default() });
    }
}
