//! `/stats/summary`: what the node, its pods and their containers use.
//!
//! Invariant: a figure that is not known is absent, never zero.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kedge_cri::v1;
use kedge_meta::format_time;
use serde_json::{Map, Value, json};

use super::Server;
use crate::cgroups::Usage;
use crate::machine;
use crate::spec;

/// What one container uses.
pub(super) struct ContainerSample {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) image: String,
    pub(super) started_at: i64,
    pub(super) cpu_nanos: Option<u64>,
    pub(super) cpu_rate: Option<u64>,
    pub(super) working_set: Option<u64>,
    pub(super) usage: Option<u64>,
    pub(super) rss: Option<u64>,
    pub(super) disk: Option<(u64, Option<u64>)>,
}

/// What one pod uses.
pub(super) struct PodSample {
    pub(super) pod: Arc<Pod>,
    pub(super) usage: Option<Usage>,
    pub(super) containers: Vec<ContainerSample>,
}

/// What the node uses, from `/proc`.
pub(super) struct NodeSample {
    pub(super) cpu_nanos: Option<u64>,
    pub(super) working_set: u64,
    pub(super) available: u64,
}

/// Measures the node.
pub(super) fn node(server: &Server) -> NodeSample {
    let available = machine::available_memory();
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    NodeSample {
        cpu_nanos: busy_nanos(&stat),
        working_set: server.agent.machine.memory_bytes.saturating_sub(available),
        available,
    }
}

/// All but idle time, from the first line of `/proc/stat` (hundredths of a second).
fn busy_nanos(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let idle = ticks.get(3)? + ticks.get(4).copied().unwrap_or(0);
    let total: u64 = ticks.iter().take(8).sum();
    Some(total.saturating_sub(idle) * 10_000_000)
}

/// Measures every pod that runs.
pub(super) async fn pods(server: &Server) -> Vec<PodSample> {
    let stats = server.agent.runtime.list_container_stats(None).await.unwrap_or_default();
    let by_id: HashMap<String, v1::ContainerStats> =
        stats.into_iter().filter_map(|stats| Some((stats.attributes.as_ref()?.id.clone(), stats))).collect();
    let pods: Vec<Arc<Pod>> = server.pods.read().values().cloned().collect();
    let samples = pods.into_iter().map(|pod| {
        let state = server.agent.states.get(spec::uid(&pod));
        let running = state.containers.iter().filter(|container| container.running());
        let containers = running.map(|record| {
            let stats = by_id.get(&record.id);
            let value = |value: Option<&v1::UInt64Value>| value.map(|value| value.value);
            let cpu = stats.and_then(|stats| stats.cpu.as_ref());
            let memory = stats.and_then(|stats| stats.memory.as_ref());
            let layer = stats.and_then(|stats| stats.writable_layer.as_ref());
            ContainerSample {
                name: record.name.clone(),
                id: record.id.clone(),
                image: record.image.clone(),
                started_at: record.started_at,
                cpu_nanos: cpu.and_then(|cpu| value(cpu.usage_core_nano_seconds.as_ref())),
                // containerd 1.6 says zero where it does not know.
                cpu_rate: cpu.and_then(|cpu| value(cpu.usage_nano_cores.as_ref())).filter(|rate| *rate > 0),
                working_set: memory.and_then(|memory| value(memory.working_set_bytes.as_ref())),
                usage: memory.and_then(|memory| value(memory.usage_bytes.as_ref())),
                rss: memory.and_then(|memory| value(memory.rss_bytes.as_ref())),
                disk: layer
                    .and_then(|layer| Some((value(layer.used_bytes.as_ref())?, value(layer.inodes_used.as_ref())))),
            }
        });
        let containers = containers.collect();
        let usage = server.agent.cgroups.usage(&server.agent.cgroups.parent_of(&pod));
        PodSample { pod, usage, containers }
    });
    samples.filter(|sample| !sample.containers.is_empty()).collect()
}

/// The answer of `/stats/summary`.
pub(super) async fn summary(server: &Server) -> Value {
    let now = format_time(server.agent.now());
    let node = node(server);
    let disk = machine::disk(&server.agent.config.root_dir).unwrap_or_default();
    let pods = pods(server).await;
    json!({
        "node": {
            "nodeName": server.agent.config.node_name,
            "cpu": figures(&now, &[("usageCoreNanoSeconds", node.cpu_nanos)]),
            "memory": figures(&now, &[("availableBytes", Some(node.available)), ("workingSetBytes", Some(node.working_set))]),
            "fs": figures(&now, &[
                ("availableBytes", Some(disk.available)),
                ("capacityBytes", Some(disk.capacity)),
                ("usedBytes", Some(disk.capacity.saturating_sub(disk.available))),
                ("inodes", Some(disk.inodes)),
                ("inodesFree", Some(disk.inodes_free)),
                ("inodesUsed", Some(disk.inodes.saturating_sub(disk.inodes_free))),
            ]),
        },
        "pods": pods.iter().map(|sample| pod(sample, &now)).collect::<Vec<_>>(),
    })
}

fn pod(sample: &PodSample, now: &str) -> Value {
    let start = spec::pod_status(&sample.pod).start_time.as_ref().map(|start| format_time(start.0));
    let cpu = sample.usage.map(|usage| usage.cpu_nanos);
    json!({
        "podRef": {
            "name": spec::name(&sample.pod),
            "namespace": spec::namespace(&sample.pod),
            "uid": spec::uid(&sample.pod),
        },
        "startTime": start,
        "containers": sample.containers.iter().map(|container| container_value(container, now)).collect::<Vec<_>>(),
        "cpu": figures(now, &[("usageCoreNanoSeconds", cpu)]),
        "memory": figures(now, &[
            ("usageBytes", sample.usage.map(|usage| usage.memory_bytes)),
            ("workingSetBytes", sample.usage.map(|usage| usage.working_set_bytes)),
            ("rssBytes", sample.usage.map(|usage| usage.rss_bytes)),
        ]),
        "process_stats": { "process_count": sample.usage.map(|usage| usage.processes) },
    })
}

fn container_value(sample: &ContainerSample, now: &str) -> Value {
    let start = Timestamp::from_nanosecond(i128::from(sample.started_at)).map(format_time).ok();
    json!({
        "name": sample.name,
        "startTime": start,
        "cpu": figures(now, &[("usageNanoCores", sample.cpu_rate), ("usageCoreNanoSeconds", sample.cpu_nanos)]),
        "memory": figures(now, &[
            ("usageBytes", sample.usage),
            ("workingSetBytes", sample.working_set),
            ("rssBytes", sample.rss),
        ]),
        "rootfs": figures(now, &[
            ("usedBytes", sample.disk.map(|(bytes, _)| bytes)),
            ("inodesUsed", sample.disk.and_then(|(_, inodes)| inodes)),
        ]),
    })
}

fn figures(now: &str, list: &[(&str, Option<u64>)]) -> Value {
    let mut values = Map::from_iter([("time".to_owned(), json!(now))]);
    values.extend(list.iter().filter_map(|(name, value)| Some(((*name).to_owned(), json!((*value)?)))));
    Value::Object(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_leaves_out_idle_and_waiting() {
        assert_eq!(busy_nanos("cpu  100 0 50 1000 20 5 5 0 0 0\ncpu0 1"), Some(160 * 10_000_000));
        assert_eq!(busy_nanos(""), None);
    }

    #[test]
    fn unknown_figures_are_absent() {
        assert_eq!(figures("t", &[("a", Some(1)), ("b", None)]), json!({ "time": "t", "a": 1 }));
    }
}
