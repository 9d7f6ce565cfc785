//! What every component counts of its way to the API, under client-go's names: requests, work queues, leases.
//!
//! Parts count here; who shows it is the component's business. Invariant: a queue that is gone shows no depth, and its counters
//! stay.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use kedge_metrics::{Counters, Gauges, Histograms, Text};
use parking_lot::Mutex;

use crate::request_metrics::RequestMetrics;

/// 10 ns, and each ten times the one before.
const BOUNDS: &[f64] = &[1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0];

/// Everything of one component. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ComponentMetrics {
    /// Requests to the API.
    pub requests: Arc<RequestMetrics>,
    /// Work queues.
    pub queues: Arc<QueueMetrics>,
    /// Leases.
    pub leases: Arc<LeaseMetrics>,
}

impl ComponentMetrics {
    /// All of it.
    pub fn write(&self, text: &mut Text) {
        self.leases.write(text);
        self.requests.write(text);
        self.queues.write(text);
    }
}

const RENEWAL_BOUNDS: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0];

/// Which leases are held, and how renewals go.
#[derive(Debug)]
pub struct LeaseMetrics {
    holds: Gauges,
    slow_path: Counters,
    renewals: Histograms,
    failures: Counters,
    missed: Counters,
    widened: Gauges,
}

impl Default for LeaseMetrics {
    fn default() -> Self {
        Self {
            holds: Gauges::new(
                "leader_election_master_status",
                &["name"],
                "Whether this process holds the lease: 1 or 0.",
            ),
            slow_path: Counters::new(
                "leader_election_slowpath_total",
                &["name"],
                "Renewals that had to read the lease because somebody else wrote it.",
            ),
            renewals: Histograms::new(
                "kedge_leader_election_renewal_duration_seconds",
                &["name"],
                RENEWAL_BOUNDS,
                "How long renewals of a held lease took that succeeded.",
            ),
            failures: Counters::new(
                "kedge_leader_election_renewal_failures_total",
                &["name"],
                "Renewals of a held lease that failed, or did not come to an end in time.",
            ),
            missed: Counters::new(
                "kedge_leader_election_deadline_missed_total",
                &["name"],
                "Terms that ended because the lease was not renewed within the renew deadline.",
            ),
            widened: Gauges::new(
                "kedge_leader_election_widening_ratio",
                &["name"],
                "By how much the durations are widened because requests are slow; 1 as configured.",
            ),
        }
    }
}

impl LeaseMetrics {
    pub(crate) fn holds(&self, name: &str, is_held: bool) {
        self.holds.set(&[name], if is_held { 1.0 } else { 0.0 });
    }

    pub(crate) fn renewed(&self, name: &str, took: Duration) {
        self.renewals.observe(&[name], took);
    }

    pub(crate) fn failed(&self, name: &str) {
        self.failures.count(&[name]);
    }

    pub(crate) fn missed(&self, name: &str) {
        self.missed.count(&[name]);
    }

    pub(crate) fn slow_path(&self, name: &str) {
        self.slow_path.count(&[name]);
    }

    pub(crate) fn widened(&self, name: &str, factor: f64) {
        self.widened.set(&[name], factor);
    }

    fn write(&self, text: &mut Text) {
        self.holds.write(text);
        self.slow_path.write(text);
        self.renewals.write(text);
        self.failures.write(text);
        self.missed.write(text);
        self.widened.write(text);
    }
}

/// How a queue is now.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct QueueNow {
    /// Keys that wait for a worker.
    pub(crate) depth: usize,
    /// For how long those in work have been so, together.
    pub(crate) unfinished: Duration,
    /// For how long the one that is in work the longest.
    pub(crate) longest: Duration,
}

/// A figure of a queue: its name, what it means, and its value.
type Figure = (&'static str, &'static str, fn(&QueueNow) -> f64);

/// Who knows how a queue is now.
pub(crate) trait Watched: Send + Sync {
    fn now(&self) -> QueueNow;
}

/// What work queues do, by name.
pub struct QueueMetrics {
    adds: Counters,
    retries: Counters,
    waited: Histograms,
    worked: Histograms,
    queues: Mutex<BTreeMap<&'static str, Weak<dyn Watched>>>,
}

impl fmt::Debug for QueueMetrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("QueueMetrics").finish_non_exhaustive()
    }
}

impl Default for QueueMetrics {
    fn default() -> Self {
        let name = &["name"];
        Self {
            adds: Counters::new("workqueue_adds_total", name, "Keys that were added."),
            retries: Counters::new("workqueue_retries_total", name, "Keys that were added for later."),
            waited: Histograms::new(
                "workqueue_queue_duration_seconds",
                name,
                BOUNDS,
                "How long keys waited for a worker.",
            ),
            worked: Histograms::new("workqueue_work_duration_seconds", name, BOUNDS, "How long keys were in work."),
            queues: Mutex::default(),
        }
    }
}

impl QueueMetrics {
    /// From now on this queue is the one of its name.
    pub(crate) fn watch(&self, name: &'static str, queue: Weak<dyn Watched>) {
        self.queues.lock().insert(name, queue);
        self.adds.add(&[name], 0);
        self.retries.add(&[name], 0);
    }

    pub(crate) fn added(&self, name: &str) {
        self.adds.count(&[name]);
    }

    pub(crate) fn retried(&self, name: &str) {
        self.retries.count(&[name]);
    }

    pub(crate) fn waited(&self, name: &str, took: Duration) {
        self.waited.observe(&[name], took);
    }

    pub(crate) fn worked(&self, name: &str, took: Duration) {
        self.worked.observe(&[name], took);
    }

    fn write(&self, text: &mut Text) {
        self.adds.write(text);
        self.retries.write(text);
        self.waited.write(text);
        self.worked.write(text);
        let now: Vec<(&str, QueueNow)> = {
            let queues = self.queues.lock();
            queues.iter().filter_map(|(name, queue)| Some((*name, queue.upgrade()?.now()))).collect()
        };
        let figures: [Figure; 3] = [
            ("workqueue_depth", "Keys that wait for a worker.", |now| {
                f64::from(u32::try_from(now.depth).unwrap_or(u32::MAX))
            }),
            (
                "workqueue_unfinished_work_seconds",
                "For how long keys have been in work that are not done, together.",
                |now| now.unfinished.as_secs_f64(),
            ),
            (
                "workqueue_longest_running_processor_seconds",
                "For how long the key has been in work that is so the longest.",
                |now| now.longest.as_secs_f64(),
            ),
        ];
        for (family, help, figure) in figures {
            text.family(family, "gauge", help);
            for (name, now) in &now {
                text.sample(family, &[("name", name)], figure(now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Queue;

    fn text(metrics: &ComponentMetrics) -> String {
        let mut text = Text::default();
        metrics.write(&mut text);
        text.finish()
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_is_counted_under_its_name() {
        let metrics = ComponentMetrics::default();
        let queue: Queue<&str> = Queue::new();
        queue.measure("deployment", &metrics.queues);
        queue.add("a");
        queue.add("a");
        queue.add("b");
        tokio::time::advance(Duration::from_secs(2)).await;
        let key = queue.next().await;
        queue.add(key);
        tokio::time::advance(Duration::from_secs(3)).await;
        let seen = text(&metrics);
        let shows =
            |seen: &str, line: &str| assert!(seen.lines().any(|known| known == line), "{line:?} is not in\n{seen}");
        shows(&seen, "workqueue_adds_total{name=\"deployment\"} 3");
        shows(&seen, "workqueue_depth{name=\"deployment\"} 1");
        shows(&seen, "workqueue_unfinished_work_seconds{name=\"deployment\"} 3");
        shows(&seen, "workqueue_longest_running_processor_seconds{name=\"deployment\"} 3");
        shows(&seen, "workqueue_queue_duration_seconds_sum{name=\"deployment\"} 2");
        queue.retry(key);
        queue.done(&key);
        let seen = text(&metrics);
        shows(&seen, "workqueue_retries_total{name=\"deployment\"} 1");
        shows(&seen, "workqueue_work_duration_seconds_sum{name=\"deployment\"} 3");
        shows(&seen, "workqueue_depth{name=\"deployment\"} 2");
        drop(queue);
        let seen = text(&metrics);
        assert!(!seen.contains("workqueue_depth{") && seen.contains("workqueue_adds_total{"), "{seen}");
    }

    #[test]
    fn a_lease_is_held_or_not() {
        let metrics = ComponentMetrics::default();
        metrics.leases.holds("kube-scheduler", true);
        assert!(text(&metrics).contains("leader_election_master_status{name=\"kube-scheduler\"} 1\n"));
        metrics.leases.holds("kube-scheduler", false);
        assert!(text(&metrics).contains("leader_election_master_status{name=\"kube-scheduler\"} 0\n"));
    }
}
