//! Counters and histograms by label values.
//!
//! Invariant: bounded. Label values come from this program and not from users, so the bound is only met by mistake; what
//! would be beyond it is not counted.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::text::{Text, amount};

const MOST_SERIES: usize = 4096;

/// Name, label names and meaning of a family.
#[derive(Debug, Clone, Copy)]
struct Meaning {
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
}

/// Counters that only grow.
#[derive(Debug)]
pub struct Counters {
    meaning: Meaning,
    values: Mutex<BTreeMap<Vec<String>, u64>>,
}

impl Counters {
    /// A family; `count` gets as many values as there are labels.
    pub fn new(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { meaning: Meaning { name, labels, help }, values: Mutex::default() }
    }

    /// Counts one.
    pub fn count(&self, labels: &[&str]) {
        self.add(labels, 1);
    }

    /// Counts several.
    pub fn add(&self, labels: &[&str], number: u64) {
        let mut values = self.values.lock();
        let key: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        if values.len() < MOST_SERIES || values.contains_key(&key) {
            *values.entry(key).or_default() += number;
        }
    }

    /// Forgets the series that `keep` refuses.
    pub fn retain(&self, keep: impl Fn(&[String]) -> bool) {
        self.values.lock().retain(|labels, _| keep(labels));
    }

    /// All series. A counter without labels is there before it counts.
    pub fn write(&self, text: &mut Text) {
        let Meaning { name, labels, help } = self.meaning;
        text.family(name, "counter", help);
        let values = self.values.lock();
        if labels.is_empty() && values.is_empty() {
            text.sample(name, &[], 0.0);
        }
        for (key, value) in values.iter() {
            let pairs: Vec<(&str, &str)> = labels.iter().copied().zip(key.iter().map(String::as_str)).collect();
            text.sample(name, &pairs, amount(*value));
        }
    }
}

/// Figures that go up and down.
#[derive(Debug)]
pub struct Gauges {
    meaning: Meaning,
    values: Mutex<BTreeMap<Vec<String>, f64>>,
}

impl Gauges {
    /// A family; `set` gets as many values as there are labels.
    pub fn new(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { meaning: Meaning { name, labels, help }, values: Mutex::default() }
    }

    /// How it is now.
    pub fn set(&self, labels: &[&str], value: f64) {
        let mut values = self.values.lock();
        let key: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        if values.len() < MOST_SERIES || values.contains_key(&key) {
            values.insert(key, value);
        }
    }

    /// All series.
    pub fn write(&self, text: &mut Text) {
        let Meaning { name, labels, help } = self.meaning;
        text.family(name, "gauge", help);
        for (key, value) in self.values.lock().iter() {
            let pairs: Vec<(&str, &str)> = labels.iter().copied().zip(key.iter().map(String::as_str)).collect();
            text.sample(name, &pairs, *value);
        }
    }
}

/// Durations, or other amounts, in buckets.
#[derive(Debug)]
pub struct Histograms {
    meaning: Meaning,
    bounds: &'static [f64],
    values: Mutex<BTreeMap<Vec<String>, Buckets>>,
}

#[derive(Debug, Clone, Default)]
struct Buckets {
    counts: Vec<u64>,
    sum: f64,
    count: u64,
}

impl Histograms {
    /// A family; `observe` gets as many values as there are labels, and `bounds` rise.
    pub fn new(
        name: &'static str,
        labels: &'static [&'static str],
        bounds: &'static [f64],
        help: &'static str,
    ) -> Self {
        Self { meaning: Meaning { name, labels, help }, bounds, values: Mutex::default() }
    }

    /// Takes in one duration.
    pub fn observe(&self, labels: &[&str], took: Duration) {
        self.observe_value(labels, took.as_secs_f64());
    }

    /// Takes in one amount of something else than time.
    pub fn observe_value(&self, labels: &[&str], value: f64) {
        let mut values = self.values.lock();
        let key: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        if values.len() >= MOST_SERIES && !values.contains_key(&key) {
            return;
        }
        let buckets = values.entry(key).or_default();
        buckets.counts.resize(self.bounds.len(), 0);
        for (bound, count) in self.bounds.iter().zip(&mut buckets.counts) {
            *count += u64::from(value <= *bound);
        }
        buckets.sum += value;
        buckets.count += 1;
    }

    /// Forgets the series that `keep` refuses.
    pub fn retain(&self, keep: impl Fn(&[String]) -> bool) {
        self.values.lock().retain(|labels, _| keep(labels));
    }

    /// All series.
    pub fn write(&self, text: &mut Text) {
        let Meaning { name, labels, help } = self.meaning;
        text.family(name, "histogram", help);
        for (key, buckets) in self.values.lock().iter() {
            let pairs: Vec<(&str, &str)> = labels.iter().copied().zip(key.iter().map(String::as_str)).collect();
            let bounds = self.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            let counts = buckets.counts.iter().copied().chain([buckets.count]);
            for (bound, count) in bounds.zip(counts) {
                let with_bound: Vec<(&str, &str)> = pairs.iter().copied().chain([("le", bound.as_str())]).collect();
                text.sample(&format!("{name}_bucket"), &with_bound, amount(count));
            }
            text.sample(&format!("{name}_sum"), &pairs, buckets.sum);
            text.sample(&format!("{name}_count"), &pairs, amount(buckets.count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_everything_below_them() {
        let histograms = Histograms::new("h", &["kind"], &[0.1, 1.0], "H.");
        histograms.observe(&["a"], Duration::from_millis(500));
        histograms.observe(&["a"], Duration::from_secs(2));
        let mut text = Text::default();
        histograms.write(&mut text);
        let expected = "# HELP h H.\n# TYPE h histogram\n\
            h_bucket{kind=\"a\",le=\"0.1\"} 0\nh_bucket{kind=\"a\",le=\"1\"} 1\nh_bucket{kind=\"a\",le=\"+Inf\"} 2\n\
            h_sum{kind=\"a\"} 2.5\nh_count{kind=\"a\"} 2\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn gauges_show_what_was_set_last() {
        let gauges = Gauges::new("g", &["name"], "G.");
        gauges.set(&["a"], 1.0);
        gauges.set(&["a"], 0.0);
        let mut text = Text::default();
        gauges.write(&mut text);
        assert_eq!(text.finish(), "# HELP g G.\n# TYPE g gauge\ng{name=\"a\"} 0\n");
    }

    #[test]
    fn counters_without_labels_start_at_zero() {
        let counters = Counters::new("c", &[], "C.");
        let write = || {
            let mut text = Text::default();
            counters.write(&mut text);
            text.finish()
        };
        assert!(write().ends_with("c 0\n"));
        counters.count(&[]);
        assert!(write().ends_with("c 1\n"));
    }
}
