//! Counters and histograms in Prometheus' text format, with upstream's names.
//!
//! Bounded: label values come from the registry, from the fixed set of verbs and from status codes; requests on what is
//! not served count under an empty resource.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use parking_lot::Mutex;

/// Upper bounds of the latency histogram, in seconds.
const BUCKETS: [f64; 12] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 5.0, 30.0];

/// What a request counts as.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Labels {
    pub(crate) verb: &'static str,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) scope: &'static str,
}

#[derive(Debug, Default)]
struct Histogram {
    counts: [u64; BUCKETS.len()],
    sum: f64,
    total: u64,
}

#[derive(Debug, Default)]
struct Counts {
    requests: BTreeMap<(Labels, u16), u64>,
    durations: BTreeMap<Labels, Histogram>,
    /// The labels of deprecated APIs that were asked for, as text.
    deprecated: BTreeSet<String>,
}

/// The server's own numbers.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    counts: Mutex<Counts>,
}

impl Metrics {
    /// Counts a finished request. Long-running ones (`duration` absent) have no latency.
    pub(crate) fn finished(&self, labels: Labels, code: u16, duration: Option<Duration>) {
        let mut counts = self.counts.lock();
        if let Some(duration) = duration {
            let seconds = duration.as_secs_f64();
            let histogram = match counts.durations.get_mut(&labels) {
                Some(histogram) => histogram,
                None => counts.durations.entry(labels.clone()).or_default(),
            };
            histogram.sum += seconds;
            histogram.total += 1;
            if let Some(bucket) = BUCKETS.iter().position(|bound| seconds <= *bound) {
                histogram.counts[bucket] += 1;
            }
        }
        *counts.requests.entry((labels, code)).or_default() += 1;
    }

    /// Notes that a deprecated API was asked for, and which release has it no more.
    pub(crate) fn deprecated(&self, labels: &Labels, removed_release: &str) {
        let Labels { group, version, resource, subresource, .. } = labels;
        self.counts.lock().deprecated.insert(format!(
            "group=\"{group}\",removed_release=\"{removed_release}\",resource=\"{resource}\",\
             subresource=\"{subresource}\",version=\"{version}\""
        ));
    }

    /// The text of all of it.
    pub(crate) fn write(&self, text: &mut String) {
        let counts = self.counts.lock();
        header(
            text,
            "apiserver_request_total",
            "counter",
            "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
        );
        for ((labels, code), count) in &counts.requests {
            let _ = writeln!(text, "apiserver_request_total{{code=\"{code}\",{}}} {count}", labels.text());
        }
        header(
            text,
            "apiserver_requested_deprecated_apis",
            "gauge",
            "Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.",
        );
        for labels in &counts.deprecated {
            let _ = writeln!(text, "apiserver_requested_deprecated_apis{{{labels}}} 1");
        }
        let name = "apiserver_request_duration_seconds";
        header(
            text,
            name,
            "histogram",
            "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
        );
        for (labels, histogram) in &counts.durations {
            histogram.write(text, name, &labels.text());
        }
    }
}

/// The `HELP` and `TYPE` lines of a metric.
pub(crate) fn header(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A gauge or counter without labels.
pub(crate) fn single(text: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    header(text, name, kind, help);
    let _ = writeln!(text, "{name} {value}");
}

impl Histogram {
    fn write(&self, text: &mut String, name: &str, labels: &str) {
        let mut below = 0;
        for (bound, count) in BUCKETS.iter().zip(self.counts) {
            below += count;
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
        }
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", self.total);
        let _ = writeln!(text, "{name}_sum{{{labels}}} {}", self.sum);
        let _ = writeln!(text, "{name}_count{{{labels}}} {}", self.total);
    }
}

impl Labels {
    fn text(&self) -> String {
        let Self { verb, group, version, resource, subresource, scope } = self;
        format!(
            "component=\"apiserver\",dry_run=\"\",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",\
             subresource=\"{subresource}\",verb=\"{}\",version=\"{version}\"",
            verb.to_ascii_uppercase()
        )
    }
}

/// What the operating system knows of this process: memory, CPU time, open files, threads. Empty where `/proc` is not.
pub(crate) fn write_process(text: &mut String, started: jiff::Timestamp) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields are counted from the closing parenthesis of the command name, which may hold blanks.
    let fields: Vec<f64> = match stat.rsplit_once(')') {
        Some((_, rest)) => rest.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0.0)).collect(),
        None => return,
    };
    let field = |number: usize| fields.get(number - 4).copied().unwrap_or(0.0);
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let cpu = (field(14) + field(15)) / 100.0;
    single(text, "process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", cpu);
    single(text, "process_open_fds", "gauge", "Number of open file descriptors.", open as f64);
    let resident = field(24) * 4096.0;
    single(text, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident);
    single(text, "process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", field(23));
    single(text, "process_threads", "gauge", "Number of threads of the process.", field(20));
    let started = started.as_millisecond() as f64 / 1000.0;
    single(
        text,
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
        started,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_and_timed() {
        let metrics = Metrics::default();
        let labels = Labels {
            verb: "get",
            group: String::new(),
            version: "v1".to_owned(),
            resource: "pods".to_owned(),
            subresource: String::new(),
            scope: "resource",
        };
        metrics.finished(labels.clone(), 200, Some(Duration::from_millis(30)));
        metrics.finished(labels.clone(), 200, Some(Duration::from_secs(60)));
        metrics.deprecated(&labels, "1.39");
        metrics.finished(labels, 404, None);
        let mut text = String::new();
        metrics.write(&mut text);
        for line in [
            "apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"v1\"} 2",
            "apiserver_requested_deprecated_apis{group=\"\",removed_release=\"1.39\",resource=\"pods\",subresource=\"\",version=\"v1\"} 1\n",
            "le=\"0.025\"} 0",
            "le=\"0.05\"} 1",
            "le=\"30\"} 1",
            "le=\"+Inf\"} 2",
            "verb=\"GET\",version=\"v1\"} 60.03",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
