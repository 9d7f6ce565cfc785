//! Prometheus endpoints: the kubelet's own, resource use as the metrics server reads it, the cAdvisor names, and probes.

use std::fmt::Write;

use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::Pod;

use super::stats::{self, ContainerSample, PodSample};
use super::{Body, Server, answer};
use crate::runtime_state::ContainerPhase;
use crate::spec;

/// One figure of a container.
type Figure = fn(&ContainerSample) -> Option<f64>;

/// Collects lines in the text format.
struct Text(String);

impl Text {
    fn new() -> Self {
        Self(String::new())
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn response(self) -> Response<Body> {
        answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.0)
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// `/metrics`.
pub(super) fn own(server: &Server) -> Response<Body> {
    let mut text = Text::new();
    let states: Vec<_> = server.agent.states.uids().iter().map(|uid| server.agent.states.get(uid)).collect();
    text.family("kubelet_running_pods", "gauge", "Number of pods that have a running pod sandbox");
    let running = states.iter().filter(|state| state.ready_sandbox().is_some()).count();
    text.sample("kubelet_running_pods", &[], number(running));
    text.family("kubelet_running_containers", "gauge", "Number of containers currently running");
    for (phase, name) in [
        (ContainerPhase::Created, "created"),
        (ContainerPhase::Running, "running"),
        (ContainerPhase::Exited, "exited"),
        (ContainerPhase::Unknown, "unknown"),
    ] {
        let count =
            states.iter().flat_map(|state| &state.containers).filter(|container| container.phase == phase).count();
        text.sample("kubelet_running_containers", &[("container_state", name)], number(count));
    }
    text.family("kubelet_desired_pods", "gauge", "The number of pods the kubelet is being instructed to run");
    text.sample("kubelet_desired_pods", &[], number(server.pods.read().len()));
    text.family("kubelet_node_name", "gauge", "The node's name. The count is always 1.");
    text.sample("kubelet_node_name", &[("node", &server.agent.config.node_name)], 1.0);
    text.response()
}

/// `/metrics/resource`.
pub(super) async fn resource(server: &Server) -> Response<Body> {
    let mut text = Text::new();
    let node = stats::node(server);
    let pods = stats::pods(server).await;
    text.family("node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds");
    if let Some(nanos) = node.cpu_nanos {
        text.sample("node_cpu_usage_seconds_total", &[], seconds(nanos));
    }
    text.family("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes");
    text.sample("node_memory_working_set_bytes", &[], bytes(node.working_set));
    each_container(&mut text, &pods, "container_cpu_usage_seconds_total", "counter", |c| c.cpu_nanos.map(seconds));
    each_container(&mut text, &pods, "container_memory_working_set_bytes", "gauge", |c| c.working_set.map(bytes));
    each_container(&mut text, &pods, "container_start_time_seconds", "gauge", |c| {
        u64::try_from(c.started_at).ok().map(seconds)
    });
    for (name, kind) in [("pod_cpu_usage_seconds_total", "counter"), ("pod_memory_working_set_bytes", "gauge")] {
        text.family(name, kind, "Use of the pod as a whole");
        for sample in &pods {
            let Some(usage) = sample.usage else { continue };
            let value = if kind == "counter" { seconds(usage.cpu_nanos) } else { bytes(usage.working_set_bytes) };
            text.sample(name, &[("namespace", spec::namespace(&sample.pod)), ("pod", spec::name(&sample.pod))], value);
        }
    }
    text.family(
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
    );
    text.sample("resource_scrape_error", &[], 0.0);
    text.response()
}

fn each_container(
    text: &mut Text,
    pods: &[PodSample],
    name: &str,
    kind: &str,
    value: impl Fn(&ContainerSample) -> Option<f64>,
) {
    text.family(name, kind, "Use of the container");
    for sample in pods {
        for container in &sample.containers {
            let Some(value) = value(container) else { continue };
            let labels = [
                ("container", container.name.as_str()),
                ("namespace", spec::namespace(&sample.pod)),
                ("pod", spec::name(&sample.pod)),
            ];
            text.sample(name, &labels, value);
        }
    }
}

/// `/metrics/cadvisor`, in part.
pub(super) async fn cadvisor(server: &Server) -> Response<Body> {
    let mut text = Text::new();
    text.family("machine_cpu_cores", "gauge", "Number of logical CPU cores.");
    text.sample("machine_cpu_cores", &[], number(usize::try_from(server.agent.machine.cpu_millis / 1000).unwrap_or(0)));
    text.family("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.");
    text.sample("machine_memory_bytes", &[], bytes(server.agent.machine.memory_bytes));
    let pods = stats::pods(server).await;
    let families: [(&str, &str, Figure); 4] = [
        ("container_cpu_usage_seconds_total", "counter", |c| c.cpu_nanos.map(seconds)),
        ("container_memory_working_set_bytes", "gauge", |c| c.working_set.map(bytes)),
        ("container_memory_usage_bytes", "gauge", |c| c.usage.or(c.working_set).map(bytes)),
        ("container_memory_rss", "gauge", |c| c.rss.map(bytes)),
    ];
    for (name, kind, value) in families {
        text.family(name, kind, "Use of the container");
        for sample in &pods {
            let parent = server.agent.cgroups.parent_of(&sample.pod);
            for container in &sample.containers {
                let Some(value) = value(container) else { continue };
                let id = format!("{parent}/{}", container.id);
                let labels = [
                    ("container", container.name.as_str()),
                    ("id", id.as_str()),
                    ("image", container.image.as_str()),
                    ("name", container.id.as_str()),
                    ("namespace", spec::namespace(&sample.pod)),
                    ("pod", spec::name(&sample.pod)),
                ];
                text.sample(name, &labels, value);
            }
        }
    }
    text.response()
}

/// `/metrics/probes`: the present verdict of each container that runs.
pub(super) fn probes(server: &Server) -> Response<Body> {
    let mut text = Text::new();
    text.family(
        "prober_probe_verdict",
        "gauge",
        "1 where the probe's latest verdict is success, 0 where it is failure",
    );
    let pods: Vec<std::sync::Arc<Pod>> = server.pods.read().values().cloned().collect();
    for pod in pods {
        let state = server.agent.states.get(spec::uid(&pod));
        for container in state.containers.iter().filter(|container| container.running()) {
            let verdicts = server.agent.probes.get(&container.id);
            for (kind, verdict) in
                [("Liveness", verdicts.liveness), ("Readiness", verdicts.readiness), ("Startup", verdicts.startup)]
            {
                let Some(verdict) = verdict else { continue };
                let labels = [
                    ("probe_type", kind),
                    ("container", container.name.as_str()),
                    ("namespace", spec::namespace(&pod)),
                    ("pod", spec::name(&pod)),
                ];
                text.sample("prober_probe_verdict", &labels, f64::from(u8::from(verdict)));
            }
        }
    }
    text.response()
}

fn seconds(nanos: u64) -> f64 {
    std::time::Duration::from_nanos(nanos).as_secs_f64()
}

#[allow(clippy::cast_precision_loss)]
fn bytes(amount: u64) -> f64 {
    amount as f64
}

fn number(count: usize) -> f64 {
    bytes(count as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_format() {
        let mut text = Text::new();
        text.family("a", "gauge", "What it is");
        text.sample("a", &[("l", "x\"y")], 1.5);
        text.sample("a", &[], 2.0);
        assert_eq!(text.0, "# HELP a What it is\n# TYPE a gauge\na{l=\"x\\\"y\"} 1.5\na 2\n");
    }
}
