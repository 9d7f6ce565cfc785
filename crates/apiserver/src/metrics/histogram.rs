//! Amounts in buckets.

use std::fmt::Write;

/// How often amounts were how large.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    counts: Box<[u64]>,
    sum: f64,
    total: u64,
}

impl Histogram {
    /// With rising upper bounds.
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len()].into(), sum: 0.0, total: 0 }
    }

    pub(crate) fn observe(&mut self, value: f64) {
        self.sum += value;
        self.total += 1;
        if let Some(bucket) = self.bounds.iter().position(|bound| value <= *bound) {
            self.counts[bucket] += 1;
        }
    }

    /// How many amounts there were.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn write(&self, text: &mut String, name: &str, labels: &str) {
        let mut below = 0;
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            below += count;
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
        }
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", self.total);
        let _ = writeln!(text, "{name}_sum{{{labels}}} {}", self.sum);
        let _ = writeln!(text, "{name}_count{{{labels}}} {}", self.total);
    }
}
