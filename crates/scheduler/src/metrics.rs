//! What the scheduler counts, under upstream's names.
//!
//! Invariant: an attempt is counted once, when it has ended: with the answer to its binding, or without a node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use kedge_client::ComponentMetrics;
use kedge_metrics::{Counters, Gauges, Histograms, Text};

use crate::pod_figures::PodFigures;
use crate::queue::Refusers;

/// 1 ms, and each twice the one before.
const ATTEMPT_BOUNDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
/// 10 ms, and each twice the one before.
const POD_BOUNDS: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36,
    1310.72, 2621.44, 5242.88,
];
/// 0.1 ms, and each twice the one before.
const POINT_BOUNDS: &[f64] =
    &[0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048];
const ATTEMPTS_BOUNDS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0];
const VICTIMS_BOUNDS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
/// From here on, attempts are one class.
const MANY_ATTEMPTS: u32 = 15;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With a node.
    Scheduled,
    /// No node fits.
    Unschedulable,
    /// Something failed.
    Error,
}

impl Ended {
    fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Unschedulable => "unschedulable",
            Self::Error => "error",
        }
    }
}

/// How many pods wait where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) active: usize,
    pub(crate) backing_off: usize,
    pub(crate) unschedulable: usize,
    pub(crate) gated: usize,
}

/// Everything that the scheduler counts.
#[derive(Debug)]
pub struct SchedulerMetrics {
    /// What every component counts.
    pub component: ComponentMetrics,
    attempts: Counters,
    attempt_durations: Histograms,
    algorithm_durations: Histograms,
    pod_durations: Histograms,
    pod_attempts: Histograms,
    pending: Gauges,
    cache: Gauges,
    preemptions: Counters,
    victims: Histograms,
    queued: Counters,
    refused: Gauges,
    claims: Counters,
    extension_points: Histograms,
    evaluations: Counters,
    working: Gauges,
    /// The pods, for what they ask for.
    pub(crate) pods: PodFigures,
    /// Plugins that ever refused a pod: their gauges go back to zero.
    known_refusers: Mutex<BTreeSet<String>>,
}

impl Default for SchedulerMetrics {
    fn default() -> Self {
        const BY_RESULT: &[&str] = &["result", "profile"];
        let timed = |name, labels, bounds, help| Histograms::new(name, labels, bounds, help);
        Self {
            component: ComponentMetrics::default(),
            attempts: Counters::new(
                "scheduler_schedule_attempts_total",
                BY_RESULT,
                "Attempts to place a pod, by result.",
            ),
            attempt_durations: timed(
                "scheduler_scheduling_attempt_duration_seconds",
                BY_RESULT,
                ATTEMPT_BOUNDS,
                "How long attempts took, with the binding.",
            ),
            algorithm_durations: timed(
                "scheduler_scheduling_algorithm_duration_seconds",
                &[],
                ATTEMPT_BOUNDS,
                "How long it took to choose a node.",
            ),
            pod_durations: timed(
                "scheduler_pod_scheduling_sli_duration_seconds",
                &["attempts"],
                POD_BOUNDS,
                "From a pod's first attempt until it was bound.",
            ),
            pod_attempts: timed(
                "scheduler_pod_scheduling_attempts",
                &[],
                ATTEMPTS_BOUNDS,
                "Attempts that a pod took until it was bound.",
            ),
            pending: Gauges::new("scheduler_pending_pods", &["queue"], "Pods that wait, by what they wait for."),
            cache: Gauges::new("scheduler_cache_size", &["type"], "What the scheduler's cache holds."),
            preemptions: Counters::new("scheduler_preemption_attempts_total", &[], "Preemptions that were tried."),
            victims: timed("scheduler_preemption_victims", &[], VICTIMS_BOUNDS, "Pods that a preemption chose."),
            queued: Counters::new(
                "scheduler_queue_incoming_pods_total",
                &["queue", "event"],
                "Pods that were put into a queue, by the event that did.",
            ),
            refused: Gauges::new(
                "scheduler_unschedulable_pods",
                &["plugin"],
                "Pods that wait because a plugin refused them.",
            ),
            claims: Counters::new(
                "scheduler_resourceclaim_creates_total",
                &["status"],
                "Claims that were made for extended resources, by how that ended.",
            ),
            extension_points: timed(
                "scheduler_framework_extension_point_duration_seconds",
                &["extension_point", "status", "profile"],
                POINT_BOUNDS,
                "Latency for running all plugins of a specific extension point.",
            ),
            evaluations: Counters::new(
                "scheduler_plugin_evaluation_total",
                &["plugin", "extension_point", "profile"],
                "Number of attempts to schedule pods by each plugin and the extension point.",
            ),
            working: Gauges::new(
                "scheduler_goroutines",
                &["operation"],
                "Number of running tasks split by the work they do such as binding.",
            ),
            pods: PodFigures::default(),
            known_refusers: Mutex::default(),
        }
    }
}

impl SchedulerMetrics {
    /// An attempt is over.
    pub(crate) fn attempted(&self, profile: &str, ended: Ended, took: Duration) {
        self.attempts.count(&[ended.name(), profile]);
        self.attempt_durations.observe(&[ended.name(), profile], took);
    }

    /// The plugins of an extension point have had their say.
    pub(crate) fn ran(&self, point: &str, is_good: bool, profile: &str, took: Duration) {
        let status = if is_good { "Success" } else { "Unschedulable" };
        self.extension_points.observe(&[point, status, profile], took);
    }

    /// A pod was bound, or could not be, after the API server was asked for so long.
    pub(crate) fn asked_to_bind(&self, is_good: bool, profile: &str, took: Duration) {
        self.extension_points.observe(&["Bind", if is_good { "Success" } else { "Error" }, profile], took);
    }

    /// Plugins take part in an attempt, at an extension point.
    pub(crate) fn evaluated<'a>(&self, plugins: impl Iterator<Item = &'a str>, point: &str, profile: &str) {
        plugins.for_each(|plugin| self.evaluations.count(&[plugin, point, profile]));
    }

    /// So many bindings are on their way.
    pub(crate) fn binding(&self, bindings: usize) {
        self.working.set(&["binding"], number(bindings));
    }

    /// What each pod of the cluster asks for and may use, as `/metrics/resources` shows it.
    pub fn write_pods(&self, text: &mut Text) {
        self.pods.write(text);
    }

    /// A node was looked for.
    pub(crate) fn decided(&self, took: Duration) {
        self.algorithm_durations.observe(&[], took);
    }

    /// A pod was bound, after so many attempts, this long after the first of them began.
    pub(crate) fn bound(&self, attempts: u32, took: Duration) {
        let class = if attempts >= MANY_ATTEMPTS { format!("{MANY_ATTEMPTS}+") } else { attempts.to_string() };
        self.pod_durations.observe(&[&class], took);
        self.pod_attempts.observe_value(&[], f64::from(attempts));
    }

    /// A claim for extended resources was asked for.
    pub(crate) fn made_claim(&self, is_made: bool) {
        self.claims.count(&[if is_made { "success" } else { "failure" }]);
    }

    /// A preemption was tried; with how many victims.
    pub(crate) fn preempted(&self, victims: usize) {
        self.preemptions.count(&[]);
        if victims > 0 {
            self.victims.observe_value(&[], number(victims));
        }
    }

    /// Pods were put into queues by an event.
    pub(crate) fn queued(&self, event: &str, active: usize, backing_off: usize) {
        for (queue, count) in [("active", active), ("backoff", backing_off)] {
            for _ in 0..count {
                self.queued.count(&[queue, event]);
            }
        }
        if active + backing_off == 0 {
            self.queued.count(&["unschedulable", event]);
        }
    }

    /// How many pods wait, by the plugins that refused them.
    pub(crate) fn refused<'a>(&self, pods: impl Iterator<Item = (&'a Refusers, usize)>) {
        let mut by_plugin: BTreeMap<&str, usize> = BTreeMap::new();
        for (refusers, count) in pods {
            refusers.iter().for_each(|plugin| *by_plugin.entry(plugin).or_default() += count);
        }
        let mut known = self.known_refusers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.extend(by_plugin.keys().map(|plugin| (*plugin).to_owned()));
        for plugin in known.iter() {
            self.refused.set(&[plugin], number(by_plugin.get(plugin.as_str()).copied().unwrap_or_default()));
        }
    }

    /// How many pods wait, and what the cache holds.
    pub(crate) fn stands(&self, pending: Pending, nodes: usize, pods: usize, assumed: usize) {
        for (queue, count) in [
            ("active", pending.active),
            ("backoff", pending.backing_off),
            ("unschedulable", pending.unschedulable),
            ("gated", pending.gated),
        ] {
            self.pending.set(&[queue], number(count));
        }
        for (kind, count) in [("nodes", nodes), ("pods", pods), ("assumed_pods", assumed)] {
            self.cache.set(&[kind], number(count));
        }
    }

    /// All of it.
    pub fn write(&self, text: &mut Text) {
        self.attempts.write(text);
        self.attempt_durations.write(text);
        self.algorithm_durations.write(text);
        self.pod_durations.write(text);
        self.pod_attempts.write(text);
        self.pending.write(text);
        self.cache.write(text);
        self.preemptions.write(text);
        self.victims.write(text);
        self.queued.write(text);
        self.refused.write(text);
        self.claims.write(text);
        self.extension_points.write(text);
        self.evaluations.write(text);
        self.working.write(text);
        self.component.write(text);
    }
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_and_pods_are_counted_under_upstreams_names() {
        let metrics = SchedulerMetrics::default();
        metrics.attempted("default-scheduler", Ended::Unschedulable, Duration::from_millis(1));
        metrics.attempted("default-scheduler", Ended::Scheduled, Duration::from_millis(3));
        metrics.decided(Duration::from_millis(1));
        metrics.bound(2, Duration::from_secs(3));
        metrics.bound(40, Duration::from_secs(3));
        metrics.preempted(0);
        metrics.queued("PodAdd", 2, 0);
        metrics.made_claim(false);
        metrics.ran("Filter", true, "p", Duration::from_micros(150));
        metrics.asked_to_bind(false, "p", Duration::from_millis(1));
        metrics.evaluated(["NodePorts"].into_iter(), "Filter", "p");
        metrics.binding(7);
        metrics.queued("ScheduleAttemptFailure", 0, 0);
        metrics.refused(
            [(&Refusers::from(["NodeName", "NodePorts"]), 2), (&Refusers::from(["NodePorts"]), 1)].into_iter(),
        );
        metrics.stands(Pending { active: 1, backing_off: 2, unschedulable: 3, gated: 4 }, 5, 6, 1);
        let mut text = Text::default();
        metrics.write(&mut text);
        let text = text.finish();
        for line in [
            "scheduler_schedule_attempts_total{result=\"scheduled\",profile=\"default-scheduler\"} 1",
            "scheduler_schedule_attempts_total{result=\"unschedulable\",profile=\"default-scheduler\"} 1",
            "scheduler_scheduling_attempt_duration_seconds_bucket{result=\"scheduled\",profile=\"default-scheduler\",le=\"0.004\"} 1",
            "scheduler_scheduling_algorithm_duration_seconds_count 1",
            "scheduler_pod_scheduling_sli_duration_seconds_count{attempts=\"2\"} 1",
            "scheduler_pod_scheduling_sli_duration_seconds_count{attempts=\"15+\"} 1",
            "scheduler_pod_scheduling_attempts_sum 42",
            "scheduler_pending_pods{queue=\"unschedulable\"} 3",
            "scheduler_cache_size{type=\"nodes\"} 5",
            "scheduler_preemption_attempts_total 1",
            "scheduler_queue_incoming_pods_total{queue=\"active\",event=\"PodAdd\"} 2",
            "scheduler_queue_incoming_pods_total{queue=\"unschedulable\",event=\"ScheduleAttemptFailure\"} 1",
            "scheduler_framework_extension_point_duration_seconds_bucket{extension_point=\"Filter\",status=\"Success\",profile=\"p\",le=\"0.0002\"} 1",
            "scheduler_framework_extension_point_duration_seconds_count{extension_point=\"Bind\",status=\"Error\",profile=\"p\"} 1",
            "scheduler_plugin_evaluation_total{plugin=\"NodePorts\",extension_point=\"Filter\",profile=\"p\"} 1",
            "scheduler_goroutines{operation=\"binding\"} 7",
            "scheduler_resourceclaim_creates_total{status=\"failure\"} 1",
            "scheduler_unschedulable_pods{plugin=\"NodePorts\"} 3",
        ] {
            assert!(text.lines().any(|known| known == line), "{line:?} is not in\n{text}");
        }
    }
}
