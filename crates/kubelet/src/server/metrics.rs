//! `/metrics` and `/metrics/probes`: what the node agent says of itself.

use std::sync::Arc;

use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use kedge_metrics::{Text, amount};
use kedge_stats::{FsStats, VolumeStats};

use super::{Body, Server, answer};
use crate::runtime_state::{ContainerPhase, PodRuntime};
use crate::spec;

/// A figure of a volume: its name, what it means, and its value.
type Figure = (&'static str, &'static str, fn(&FsStats) -> Option<u64>);

/// A text as an answer.
pub(super) fn response(text: Text) -> Response<Body> {
    answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text.finish())
}

/// `/metrics`.
pub(super) async fn own(server: &Server) -> Response<Body> {
    let mut text = Text::default();
    let states: Vec<_> = server.agent.states.uids().iter().map(|uid| server.agent.states.get(uid)).collect();
    running(&mut text, &states);
    desired(&mut text, server);
    text.family("kubelet_node_name", "gauge", "Always 1, with the node's name as a label.");
    text.sample("kubelet_node_name", &[("node", &server.agent.config.node_name)], 1.0);
    server.agent.metrics.write(&mut text);
    server.agent.requests.write(&mut text);
    volumes(&mut text, server).await;
    process(&mut text);
    response(text)
}

fn running(text: &mut Text, states: &[Arc<PodRuntime>]) {
    let ready = states.iter().filter(|state| state.ready_sandbox().is_some()).count();
    text.single("kubelet_running_pods", "gauge", "Pods with a sandbox that runs.", number(ready));
    let name = "kubelet_running_containers";
    text.family(name, "gauge", "Containers, by state.");
    for (phase, state) in [
        (ContainerPhase::Created, "created"),
        (ContainerPhase::Exited, "exited"),
        (ContainerPhase::Running, "running"),
        (ContainerPhase::Unknown, "unknown"),
    ] {
        let count = states.iter().flat_map(|state| &state.containers).filter(|record| record.phase == phase).count();
        text.sample(name, &[("container_state", state)], number(count));
    }
}

fn desired(text: &mut Text, server: &Server) {
    let pods: Vec<Arc<Pod>> = server.pods.read().values().cloned().collect();
    let is_over = |pod: &Pod| {
        let status = server.agent.statuses.get(spec::uid(pod));
        status.is_some_and(|status| spec::is_terminal_phase(status.phase.as_deref()))
    };
    for (name, help, active) in [
        ("kubelet_desired_pods", "Pods that are to run.", false),
        ("kubelet_active_pods", "Pods that count when others are admitted.", true),
    ] {
        text.family(name, "gauge", help);
        for (is_static, label) in [(false, ""), (true, "true")] {
            let counted = pods.iter().filter(|pod| spec::is_static(pod) == is_static && !(active && is_over(pod)));
            text.sample(name, &[("static", label)], number(counted.count()));
        }
    }
    let mirrored = pods.iter().filter(|pod| spec::is_static(pod)).count();
    text.single("kubelet_mirror_pods", "gauge", "Mirror pods that are wanted.", number(mirrored));
    let ephemeral =
        pods.iter().map(|pod| spec::pod_spec(pod).ephemeral_containers.as_deref().unwrap_or_default().len());
    let help = "Ephemeral containers of the node's pods.";
    text.single("kubelet_managed_ephemeral_containers", "gauge", help, number(ephemeral.sum()));
}

/// Use of the volumes that were made for claims.
async fn volumes(text: &mut Text, server: &Server) {
    let summary = server.collector.summary().await;
    let all: Vec<&VolumeStats> = summary.pods.iter().flat_map(|pod| &pod.volume_stats).collect();
    let families: [Figure; 6] = [
        ("kubelet_volume_stats_available_bytes", "Free bytes of the volume.", |fs| fs.available_bytes),
        ("kubelet_volume_stats_capacity_bytes", "Size of the volume.", |fs| fs.capacity_bytes),
        ("kubelet_volume_stats_inodes", "Inodes of the volume.", |fs| fs.inodes),
        ("kubelet_volume_stats_inodes_free", "Free inodes of the volume.", |fs| fs.inodes_free),
        ("kubelet_volume_stats_inodes_used", "Used inodes of the volume.", |fs| fs.inodes_used),
        ("kubelet_volume_stats_used_bytes", "Used bytes of the volume.", |fs| fs.used_bytes),
    ];
    for (name, help, value) in families {
        text.family(name, "gauge", help);
        let mut written = std::collections::BTreeSet::new();
        for volume in &all {
            let (Some(claim), Some(value)) = (&volume.pvc_ref, value(&volume.fs)) else { continue };
            // Several pods may share a claim; a series is there once.
            if written.insert((&claim.namespace, &claim.name)) {
                let labels = [("namespace", claim.namespace.as_str()), ("persistentvolumeclaim", &claim.name)];
                text.sample(name, &labels, amount(value));
            }
        }
    }
}

/// The process, as every Prometheus client shows it.
fn process(text: &mut Text) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    let resident: Option<u64> = resident;
    if let Some(kibibytes) = resident {
        let help = "Resident memory of the process.";
        text.single("process_resident_memory_bytes", "gauge", help, amount(kibibytes * 1024));
    }
    if let Ok(usage) = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF) {
        let millis = |time: nix::sys::time::TimeVal| {
            use nix::sys::time::TimeValLike;
            u64::try_from(time.num_milliseconds()).unwrap_or(0)
        };
        let total = millis(usage.user_time()) + millis(usage.system_time());
        let help = "Core-seconds of the process.";
        text.single("process_cpu_seconds_total", "counter", help, amount(total) / 1000.0);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        text.single("process_open_fds", "gauge", "Open file descriptors.", number(files.count()));
    }
}

/// `/metrics/probes`.
pub(super) fn probes(server: &Server) -> Response<Body> {
    let mut text = Text::default();
    let pods = server.pods.read();
    server.agent.metrics.retain_pods(|namespace, name| {
        pods.values().any(|pod| spec::namespace(pod) == namespace && spec::name(pod) == name)
    });
    drop(pods);
    server.agent.metrics.write_probes(&mut text);
    response(text)
}

fn number(count: usize) -> f64 {
    amount(count as u64)
}
