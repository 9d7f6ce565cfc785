//! Counters and histograms in Prometheus' text format, with upstream's names.
//!
//! Bounded: label values come from the registry, from the fixed set of verbs and from status codes; requests on what is
//! not served count under an empty resource.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::core::Core;

mod alerts;
mod attempts;
mod expressions;
mod health;
mod histogram;
mod labels;
mod policies;
mod repairs;
mod tokens;
mod watch_events;
mod watch_lists;

pub(crate) use alerts::Alerts;
pub(crate) use attempts::Attempts;
pub(crate) use expressions::Expressions;
pub(crate) use health::Healthchecks;
pub(crate) use histogram::Histogram;
pub(crate) use labels::Labels;
pub(crate) use policies::Policies;
pub(crate) use repairs::PortRepairs;
pub(crate) use tokens::{Token, Tokens};
pub(crate) use watch_events::{Sent, WatchEvents};
pub(crate) use watch_lists::{WatchList, WatchLists};

/// Upper bounds of the latency histogram, in seconds.
const SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

/// The same for the time that is this server's own.
const OWN_SECONDS: &[f64] =
    &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];

/// Upper bounds of the sizes of answers, in bytes.
const BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Upper bounds of the steps of admission, in seconds.
pub(crate) const STEP_SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];

/// What became of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finished {
    pub(crate) code: u16,
    /// How long it took; absent for those that run for long.
    pub(crate) duration: Option<Duration>,
    /// How much of that it waited for its turn, or for webhooks.
    pub(crate) elsewhere: Duration,
    /// How large its answer is, where that is known.
    pub(crate) bytes: Option<usize>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: BTreeMap<(Labels, u16), u64>,
    durations: BTreeMap<Labels, Histogram>,
    own_durations: BTreeMap<Labels, Histogram>,
    sizes: BTreeMap<Labels, Histogram>,
    /// Requests that run for long, and have not ended.
    running: BTreeMap<Labels, u64>,
    /// By step, operation and whether it refused.
    steps: BTreeMap<[&'static str; 3], Histogram>,
    /// The labels of deprecated APIs that were asked for, as text.
    deprecated: BTreeSet<String>,
}

/// The server's own numbers.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    counts: Mutex<Counts>,
    pub(crate) alerts: Alerts,
    pub(crate) attempts: Attempts,
    pub(crate) expressions: Expressions,
    pub(crate) healthchecks: Healthchecks,
    pub(crate) port_repairs: PortRepairs,
    pub(crate) tokens: Tokens,
    pub(crate) watch_events: WatchEvents,
    pub(crate) watch_lists: WatchLists,
    pub(crate) policies: Policies,
}

/// A request that runs for long, until it is dropped.
pub(crate) struct Running {
    core: Arc<Core>,
    labels: Labels,
}

impl Running {
    pub(crate) fn new(core: &Arc<Core>, labels: Labels) -> Self {
        *core.metrics.counts.lock().running.entry(labels.clone()).or_default() += 1;
        Self { core: Arc::clone(core), labels }
    }

    /// As what it is counted.
    pub(crate) fn labels(&self) -> &Labels {
        &self.labels
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(number) = self.core.metrics.counts.lock().running.get_mut(&self.labels) {
            *number = number.saturating_sub(1);
        }
    }
}

impl Metrics {
    /// Counts a finished request.
    pub(crate) fn finished(&self, labels: Labels, finished: Finished) {
        let Finished { code, duration, elsewhere, bytes } = finished;
        let mut counts = self.counts.lock();
        if let Some(duration) = duration {
            observe(&mut counts.durations, &labels, SECONDS, duration.as_secs_f64());
            if labels.dry_run.is_empty() {
                let own = duration.saturating_sub(elsewhere);
                observe(&mut counts.own_durations, &labels, OWN_SECONDS, own.as_secs_f64());
            }
        }
        // Only what is read may grow large.
        if let Some(bytes) = bytes.filter(|_| matches!(labels.verb, "GET" | "LIST")) {
            observe(&mut counts.sizes, &labels, BYTES, bytes as f64);
        }
        *counts.requests.entry((labels, code)).or_default() += 1;
    }

    /// Notes how long a step of admission took: `admit` or `validate`.
    pub(crate) fn admitted(&self, step: &'static str, operation: &'static str, rejected: bool, took: Duration) {
        let labels = [step, operation, if rejected { "true" } else { "false" }];
        let mut counts = self.counts.lock();
        let histogram = counts.steps.entry(labels).or_insert_with(|| Histogram::new(STEP_SECONDS));
        histogram.observe(took.as_secs_f64());
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
            let labels = labels.text(true);
            let _ = writeln!(text, "apiserver_request_total{{code=\"{code}\",{labels}}} {count}");
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
            histogram.write(text, name, &labels.text(true));
        }
        let name = "apiserver_request_sli_duration_seconds";
        let help = "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.";
        header(text, name, "histogram", help);
        for (labels, histogram) in &counts.own_durations {
            histogram.write(text, name, &labels.text(false));
        }
        let name = "apiserver_response_sizes";
        let help = "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.";
        header(text, name, "histogram", help);
        for (labels, histogram) in &counts.sizes {
            histogram.write(text, name, &labels.text(false));
        }
        let name = "apiserver_longrunning_requests";
        let help = "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.";
        header(text, name, "gauge", help);
        for (labels, number) in &counts.running {
            let _ = writeln!(text, "{name}{{{}}} {number}", labels.text(false));
        }
        let name = "apiserver_admission_step_admission_duration_seconds";
        let help = "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).";
        header(text, name, "histogram", help);
        for ([step, operation, rejected], histogram) in &counts.steps {
            let labels = format!("operation=\"{operation}\",rejected=\"{rejected}\",type=\"{step}\"");
            histogram.write(text, name, &labels);
        }
        self.alerts.write(text);
        self.attempts.write(text);
        self.expressions.write(text);
        self.port_repairs.write(text);
        self.tokens.write(text);
        self.watch_events.write(text);
        self.watch_lists.write(text);
        self.policies.write(text);
    }
}

fn observe(by_labels: &mut BTreeMap<Labels, Histogram>, labels: &Labels, bounds: &'static [f64], value: f64) {
    let histogram = match by_labels.get_mut(labels) {
        Some(histogram) => histogram,
        None => by_labels.entry(labels.clone()).or_insert_with(|| Histogram::new(bounds)),
    };
    histogram.observe(value);
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
            verb: "GET",
            group: String::new(),
            version: "v1".to_owned(),
            resource: "pods".to_owned(),
            subresource: String::new(),
            scope: "resource",
            dry_run: "",
        };
        let finished = |code, millis: Option<u64>, bytes| Finished {
            code,
            duration: millis.map(Duration::from_millis),
            elsewhere: Duration::from_millis(20),
            bytes,
        };
        metrics.finished(labels.clone(), finished(200, Some(30), Some(10)));
        metrics.finished(labels.clone(), finished(200, Some(70_000), Some(2_000)));
        metrics.deprecated(&labels, "1.39");
        metrics.finished(labels.clone(), finished(404, None, None));
        metrics.finished(Labels { verb: "POST", dry_run: "All", ..labels }, finished(201, None, Some(10)));
        metrics.admitted("validate", "CREATE", true, Duration::from_millis(7));
        let mut text = String::new();
        metrics.write(&mut text);
        for line in [
            "apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"v1\"} 2",
            "apiserver_requested_deprecated_apis{group=\"\",removed_release=\"1.39\",resource=\"pods\",subresource=\"\",version=\"v1\"} 1\n",
            "apiserver_request_sli_duration_seconds_sum{component=\"apiserver\",group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"v1\"} 69.99",
            "le=\"0.025\"} 0",
            "le=\"0.05\"} 1",
            "le=\"60\"} 1",
            "le=\"+Inf\"} 2",
            "verb=\"GET\",version=\"v1\"} 70.03",
            "apiserver_response_sizes_bucket{component=\"apiserver\",group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"v1\",le=\"1000\"} 1",
            "dry_run=\"All\",group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"} 1",
            "apiserver_admission_step_admission_duration_seconds_bucket{operation=\"CREATE\",rejected=\"true\",type=\"validate\",le=\"0.025\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
