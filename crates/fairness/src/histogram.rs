//! Histograms: of single values, and of a ratio that is looked at in every nanosecond.
//!
//! Fixed buckets; the text format is the server's.

/// Counts of values by fixed upper bounds.
#[derive(Debug, Clone)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
    total: u64,
}

impl Histogram {
    /// Nothing was seen yet.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len()], sum: 0.0, total: 0 }
    }

    /// Counts a value.
    pub fn observe(&mut self, value: f64) {
        self.observe_many(value, 1);
    }

    /// Counts a value so many times.
    pub fn observe_many(&mut self, value: f64, times: u64) {
        if let Some(bucket) = self.bounds.iter().position(|bound| value <= *bound) {
            self.counts[bucket] += times;
        }
        self.sum += value * times as f64;
        self.total += times;
    }

    /// Each upper bound with how many values are not above it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        self.bounds.iter().zip(&self.counts).scan(0, |below, (bound, count)| {
            *below += count;
            Some((*bound, *below))
        })
    }

    /// The sum of all values.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.total
    }
}

/// A ratio over time: each nanosecond counts as one value.
#[derive(Debug, Clone)]
pub struct TimedHistogram {
    histogram: Histogram,
    numerator: u64,
    denominator: u64,
    last: u64,
}

impl TimedHistogram {
    /// The ratio is 0 until it is set.
    pub fn new(bounds: &'static [f64], now: u64) -> Self {
        Self { histogram: Histogram::new(bounds), numerator: 0, denominator: 1, last: now }
    }

    /// From now on it is this many.
    pub fn set(&mut self, now: u64, numerator: u64) {
        self.advance(now);
        self.numerator = numerator;
    }

    /// From now on it is out of this many.
    pub fn set_denominator(&mut self, now: u64, denominator: u64) {
        self.advance(now);
        self.denominator = denominator.max(1);
    }

    /// What was seen until now.
    pub fn until(&mut self, now: u64) -> &Histogram {
        self.advance(now);
        &self.histogram
    }

    fn advance(&mut self, now: u64) {
        let nanos = now.saturating_sub(self.last);
        if nanos > 0 {
            self.histogram.observe_many(self.numerator as f64 / self.denominator as f64, nanos);
            self.last = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_below_their_bounds() {
        let mut histogram = Histogram::new(&[1.0, 2.0]);
        [0.5, 1.0, 1.5, 9.0].iter().for_each(|value| histogram.observe(*value));
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [(1.0, 2), (2.0, 3)]);
        assert_eq!((histogram.sum(), histogram.total()), (12.0, 4));
    }

    #[test]
    fn a_ratio_counts_for_as_long_as_it_lasts() {
        let mut ratio = TimedHistogram::new(&[0.0, 0.5, 1.0], 0);
        ratio.set_denominator(0, 4);
        ratio.set(10, 2);
        ratio.set(30, 4);
        let seen = ratio.until(60);
        assert_eq!(seen.cumulative().collect::<Vec<_>>(), [(0.0, 10), (0.5, 30), (1.0, 60)]);
        assert_eq!(seen.sum(), 40.0);
    }
}
