//! The lines of `/metrics/resource` that matter here.
//!
//! Pure. Invariants: a line that is not understood is left out; what has no time of its own was measured when it was read.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// A measurement of one node or container.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Measured {
    /// When.
    pub(crate) time: Option<Timestamp>,
    /// When it was started.
    pub(crate) start: Option<Timestamp>,
    /// Core-nanoseconds.
    pub(crate) cpu: Option<u64>,
    /// Bytes.
    pub(crate) memory: Option<u64>,
}

/// Namespace and name of a pod.
pub(crate) type PodKey = (String, String);

/// What one node said.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct NodeReport {
    pub(crate) node: Measured,
    /// By pod, then by container.
    pub(crate) pods: BTreeMap<PodKey, BTreeMap<String, Measured>>,
}

/// Reads a report.
pub(crate) fn parse(text: &str, now: Timestamp) -> NodeReport {
    let mut report = NodeReport::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(sample) = Sample::parse(line) else { continue };
        let measured = match sample.name {
            "node_cpu_usage_seconds_total" | "node_memory_working_set_bytes" => &mut report.node,
            "container_cpu_usage_seconds_total"
            | "container_memory_working_set_bytes"
            | "container_start_time_seconds" => {
                let (Some(namespace), Some(pod), Some(container)) =
                    (sample.label("namespace"), sample.label("pod"), sample.label("container"))
                else {
                    continue;
                };
                report.pods.entry((namespace, pod)).or_default().entry(container).or_default()
            }
            _ => continue,
        };
        sample.apply(measured, now);
    }
    report
}

/// One line.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
    time: Option<Timestamp>,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, rest) = line.split_at(end);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => parse_labels(rest)?,
            None => (Vec::new(), rest),
        };
        let mut words = rest.split_whitespace();
        let value: f64 = words.next()?.parse().ok()?;
        let time = words.next().and_then(|millis| Timestamp::from_millisecond(millis.parse().ok()?).ok());
        Some(Self { name, labels, value, time })
    }

    fn label(&self, name: &str) -> Option<String> {
        self.labels.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
    }

    fn apply(&self, measured: &mut Measured, now: Timestamp) {
        if !self.value.is_finite() || self.value < 0.0 {
            return;
        }
        if self.name == "container_start_time_seconds" {
            measured.start = Timestamp::from_nanosecond(i128::from(whole(self.value * 1e9))).ok();
            return;
        }
        measured.time = measured.time.or(self.time.or(Some(now)));
        if self.name.contains("_cpu_") {
            measured.cpu = Some(whole(self.value * 1e9));
        } else {
            measured.memory = Some(whole(self.value));
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// Labels up to the closing bracket, and what follows it.
fn parse_labels(mut rest: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (index, '"') => break index,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((name, value));
        rest = &after[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report() {
        let text = "# HELP x y\nnode_cpu_usage_seconds_total 12.5 5000\nnode_memory_working_set_bytes 1.5e+09 5000\n\
            container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 0.25\n\
            container_start_time_seconds{pod=\"p\",container=\"c\",namespace=\"n\"} 2.5\n\
            container_memory_working_set_bytes{container=\"a\\\"b\",namespace=\"n\",pod=\"p\"} NaN\n\
            broken{ 1\nother 3\n";
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let report = parse(text, at(9));
        let node = Measured { time: Some(at(5)), start: None, cpu: Some(12_500_000_000), memory: Some(1_500_000_000) };
        assert_eq!(report.node, node);
        let containers = &report.pods[&("n".to_owned(), "p".to_owned())];
        let started = Timestamp::from_millisecond(2500).unwrap();
        let expected = Measured { time: Some(at(9)), start: Some(started), cpu: Some(250_000_000), memory: None };
        assert_eq!(containers["c"], expected);
        assert_eq!(containers["a\"b"], Measured::default());
    }
}
