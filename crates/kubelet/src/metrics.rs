//! What the node agent counts about itself, under upstream's names.
//!
//! Parts of the agent count here; `server/metrics.rs` shows it. Invariant: counting never blocks on anything but memory.

use std::time::Duration;

use jiff::Timestamp;
use kedge_metrics::{Counters, Histograms, Text};
use parking_lot::Mutex;
use tokio::time::Instant;

const DEFAULT_BOUNDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const START_BOUNDS: &[f64] = &[
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0,
    600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
/// 5 ms, and each 2.5 times the one before.
const RUNTIME_BOUNDS: &[f64] = &[
    0.005,
    0.0125,
    0.03125,
    0.078125,
    0.1953125,
    0.48828125,
    1.220703125,
    3.0517578125,
    7.62939453125,
    19.073486328125,
    47.6837158203125,
    119.20928955078125,
    298.0232238769531,
    745.0580596923828,
];

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    runtime_operations: Counters,
    runtime_errors: Counters,
    runtime_durations: Histograms,
    pub(crate) evictions: Counters,
    pub(crate) started_containers: Counters,
    pub(crate) started_container_errors: Counters,
    image_volumes_requested: Counters,
    image_volumes_mounted: Counters,
    image_volume_errors: Counters,
    started_pods: Counters,
    started_pod_errors: Counters,
    pod_worker: Histograms,
    pod_start: Histograms,
    relist: Histograms,
    relist_interval: Histograms,
    relisted: Mutex<Option<(Instant, Timestamp)>>,
    probes: Counters,
    probe_durations: Histograms,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            runtime_operations: Counters::new(
                "kubelet_runtime_operations_total",
                &["operation_type"],
                "Calls of the container runtime.",
            ),
            runtime_errors: Counters::new(
                "kubelet_runtime_operations_errors_total",
                &["operation_type"],
                "Calls of the container runtime that failed.",
            ),
            runtime_durations: Histograms::new(
                "kubelet_runtime_operations_duration_seconds",
                &["operation_type"],
                RUNTIME_BOUNDS,
                "How long calls of the container runtime took.",
            ),
            evictions: Counters::new("kubelet_evictions", &["eviction_signal"], "Pods evicted, by signal."),
            started_containers: Counters::new(
                "kubelet_started_containers_total",
                &["container_type"],
                "Containers that were to be started.",
            ),
            started_container_errors: Counters::new(
                "kubelet_started_containers_errors_total",
                &["container_type", "code"],
                "Containers that could not be started.",
            ),
            image_volumes_requested: Counters::new(
                "kubelet_image_volume_requested_total",
                &[],
                "Volumes that are images and were asked for.",
            ),
            image_volumes_mounted: Counters::new(
                "kubelet_image_volume_mounted_succeed_total",
                &[],
                "Volumes that are images and were there for their container.",
            ),
            image_volume_errors: Counters::new(
                "kubelet_image_volume_mounted_errors_total",
                &[],
                "Volumes that are images and were not there for their container.",
            ),
            started_pods: Counters::new("kubelet_started_pods_total", &[], "Sandboxes that were to be started."),
            started_pod_errors: Counters::new(
                "kubelet_started_pods_errors_total",
                &[],
                "Sandboxes that could not be started.",
            ),
            pod_worker: Histograms::new(
                "kubelet_pod_worker_duration_seconds",
                &["operation_type"],
                DEFAULT_BOUNDS,
                "How long one round of a pod's worker took.",
            ),
            pod_start: Histograms::new(
                "kubelet_pod_start_duration_seconds",
                &[],
                START_BOUNDS,
                "From when a pod was first seen to when it ran.",
            ),
            relist: Histograms::new(
                "kubelet_pleg_relist_duration_seconds",
                &[],
                DEFAULT_BOUNDS,
                "How long listing everything in the runtime took.",
            ),
            relist_interval: Histograms::new(
                "kubelet_pleg_relist_interval_seconds",
                &[],
                DEFAULT_BOUNDS,
                "Time between the beginnings of two listings.",
            ),
            relisted: Mutex::default(),
            probes: Counters::new(
                "prober_probe_total",
                &["probe_type", "result", "container", "pod", "namespace", "pod_uid"],
                "Attempts of probes, by result.",
            ),
            probe_durations: Histograms::new(
                "prober_probe_duration_seconds",
                &["probe_type", "container", "pod", "namespace"],
                DEFAULT_BOUNDS,
                "How long attempts of probes took.",
            ),
        }
    }

    /// One call of the container runtime, by the name that it has there.
    pub(crate) fn runtime_call(&self, call: &str, took: Duration, failed: bool) {
        let operation = operation(call);
        self.runtime_operations.count(&[&operation]);
        self.runtime_durations.observe(&[&operation], took);
        if failed {
            self.runtime_errors.count(&[&operation]);
        }
        if call == "RunPodSandbox" {
            self.started_pods.count(&[]);
            if failed {
                self.started_pod_errors.count(&[]);
            }
        }
    }

    /// One listing of everything in the runtime.
    pub(crate) fn relisted(&self, began: Instant, now: Timestamp) {
        self.relist.observe(&[], began.elapsed());
        let before = self.relisted.lock().replace((began, now));
        if let Some((before, _)) = before {
            self.relist_interval.observe(&[], began.saturating_duration_since(before));
        }
    }

    /// A volume that is an image was asked for.
    pub(crate) fn image_volume(&self, mounted: bool) {
        self.image_volumes_requested.count(&[]);
        let counter = if mounted { &self.image_volumes_mounted } else { &self.image_volume_errors };
        counter.count(&[]);
    }

    /// One round of a pod's worker; `create` for its first.
    pub(crate) fn worker_round(&self, first: bool, took: Duration) {
        self.pod_worker.observe(&[if first { "create" } else { "sync" }], took);
    }

    /// A pod runs for the first time.
    pub(crate) fn pod_started(&self, took: Duration) {
        self.pod_start.observe(&[], took);
    }

    /// One attempt of a probe: type, result, container, pod, namespace and uid.
    pub(crate) fn probed(&self, labels: [&str; 6], took: Duration) {
        let [kind, _, container, pod, namespace, _] = labels;
        self.probes.count(&labels);
        self.probe_durations.observe(&[kind, container, pod, namespace], took);
    }

    /// Forgets the probes of pods that are gone: by namespace and name.
    pub(crate) fn retain_pods(&self, keep: impl Fn(&str, &str) -> bool) {
        self.probes.retain(|labels| keep(&labels[4], &labels[3]));
        self.probe_durations.retain(|labels| keep(&labels[3], &labels[2]));
    }

    /// What `/metrics` shows of it.
    pub(crate) fn write(&self, text: &mut Text) {
        for counters in [
            &self.evictions,
            &self.runtime_operations,
            &self.runtime_errors,
            &self.started_containers,
            &self.started_container_errors,
            &self.image_volumes_requested,
            &self.image_volumes_mounted,
            &self.image_volume_errors,
            &self.started_pods,
            &self.started_pod_errors,
        ] {
            counters.write(text);
        }
        for histograms in
            [&self.runtime_durations, &self.pod_worker, &self.pod_start, &self.relist, &self.relist_interval]
        {
            histograms.write(text);
        }
        if let Some((_, at)) = *self.relisted.lock() {
            let seconds = std::time::Duration::try_from(at.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
            let help = "When listing everything in the runtime last succeeded.";
            text.single("kubelet_pleg_last_seen_seconds", "gauge", help, seconds.as_secs_f64());
        }
    }

    /// What `/metrics/probes` shows of it.
    pub(crate) fn write_probes(&self, text: &mut Text) {
        self.probes.write(text);
        self.probe_durations.write(text);
    }
}

/// Upstream's word for a call: `ListPodSandbox` is `list_podsandbox`, `ListContainers` is `list_containers`.
fn operation(call: &str) -> String {
    let mut operation = String::with_capacity(call.len() + 4);
    for (index, character) in call.replace("PodSandbox", "Podsandbox").chars().enumerate() {
        if character.is_ascii_uppercase() && index > 0 {
            operation.push('_');
        }
        operation.push(character.to_ascii_lowercase());
    }
    match operation.as_str() {
        "update_container_resources" => "update_container".to_owned(),
        _ => operation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_upstreams_words() {
        for (call, expected) in [
            ("RunPodSandbox", "run_podsandbox"),
            ("PodSandboxStatus", "podsandbox_status"),
            ("ListPodSandbox", "list_podsandbox"),
            ("ListContainers", "list_containers"),
            ("ExecSync", "exec_sync"),
            ("ImageFsInfo", "image_fs_info"),
            ("UpdateContainerResources", "update_container"),
        ] {
            assert_eq!(operation(call), expected);
        }
    }

    #[test]
    fn failures_are_counted_apart() {
        let metrics = Metrics::new();
        metrics.runtime_call("RunPodSandbox", Duration::from_millis(1), true);
        let mut text = Text::default();
        metrics.write(&mut text);
        let text = text.finish();
        for line in [
            "kubelet_runtime_operations_errors_total{operation_type=\"run_podsandbox\"} 1",
            "kubelet_started_pods_errors_total 1",
            "kubelet_runtime_operations_duration_seconds_count{operation_type=\"run_podsandbox\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn probes_of_gone_pods_are_forgotten() {
        let metrics = Metrics::new();
        metrics.probed(["Liveness", "successful", "c", "p", "n", "u"], Duration::ZERO);
        metrics.retain_pods(|namespace, name| (namespace, name) == ("n", "p"));
        let write = || {
            let mut text = Text::default();
            metrics.write_probes(&mut text);
            text.finish()
        };
        assert!(write().contains("pod_uid=\"u\"} 1"));
        metrics.retain_pods(|_, _| false);
        assert!(!write().contains("pod_uid"));
    }
}
