//! The order in which pods go.
//!
//! Pure. Invariant: those that use more than they asked for go first, then the least important, then those that exceed
//! their requests by the most; a pod that runs for the node's sake is never among them.

use std::cmp::Reverse;

use k8s_openapi::api::core::v1::Pod;

use super::threshold::{Resource, Signal};
use super::usage::{Candidate, Parts, requested};
use crate::spec;

/// Pods from here on keep the cluster going.
const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// Whether a pod is never evicted: static, a mirror, or critical by its priority.
pub(crate) fn is_critical(pod: &Pod) -> bool {
    spec::is_static(pod)
        || spec::is_mirror(pod)
        || spec::pod_spec(pod).priority.unwrap_or(0) >= SYSTEM_CRITICAL_PRIORITY
}

/// The parts of a pod's disk usage that a signal is about.
pub(crate) fn parts(signal: Signal, dedicated_image_fs: bool) -> Parts {
    if !dedicated_image_fs {
        return Parts { rootfs: true, logs: true, volumes: true };
    }
    let is_image = matches!(signal, Signal::ImagefsAvailable | Signal::ImagefsInodesFree);
    Parts { rootfs: is_image, logs: !is_image, volumes: !is_image }
}

/// Sorts the pods: the first one goes first.
pub(crate) fn rank(candidates: &mut [Candidate], signal: Signal, dedicated_image_fs: bool) {
    let resource = signal.resource();
    let parts = parts(signal, dedicated_image_fs);
    candidates.sort_by_key(|candidate| {
        let priority = spec::pod_spec(&candidate.pod).priority.unwrap_or(0);
        // A pod of which nothing is known goes before all others.
        let Some(used) = used(candidate, resource, parts) else { return (false, i32::MIN, Reverse(i64::MAX)) };
        let over = used.saturating_sub(requested(&candidate.pod, resource));
        // Nobody can ask for process ids, so that everybody would be over.
        let within = resource != Resource::Pids && over <= 0;
        (within, priority, Reverse(over))
    });
}

fn used(candidate: &Candidate, resource: Resource, parts: Parts) -> Option<i64> {
    let usage = candidate.usage.as_ref()?;
    Some(match resource {
        Resource::Memory => usage.memory.unwrap_or(0),
        Resource::Pids => usage.processes.unwrap_or(0),
        Resource::EphemeralStorage => usage.disk(parts).bytes,
        Resource::Inodes => usage.disk(parts).inodes,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::usage::{ContainerUsage, DiskUsage, PodUsage};
    use super::*;

    fn candidate(name: &str, priority: i32, request: &str, usage: Option<PodUsage>) -> Candidate {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "priority": priority, "containers": [
                { "name": "c", "resources": { "requests": { "memory": request, "ephemeral-storage": request } } }
            ] },
        }))
        .unwrap();
        Candidate { pod: Arc::new(pod), usage }
    }

    fn order(mut candidates: Vec<Candidate>, signal: Signal, dedicated: bool) -> Vec<String> {
        rank(&mut candidates, signal, dedicated);
        candidates.iter().map(|candidate| spec::name(&candidate.pod).to_owned()).collect()
    }

    #[test]
    fn memory_over_requests_then_priority_then_amount() {
        let memory = |bytes: i64| Some(PodUsage { memory: Some(bytes), ..PodUsage::default() });
        let names = order(
            vec![
                candidate("within", 0, "100", memory(100)),
                candidate("over-important", 10, "10", memory(1000)),
                candidate("over-little", 0, "10", memory(20)),
                candidate("over-much", 0, "10", memory(30)),
                candidate("unknown", 100, "10", None),
                candidate("within-important", 5, "100", memory(1)),
            ],
            Signal::MemoryAvailable,
            false,
        );
        assert_eq!(names, ["unknown", "over-much", "over-little", "over-important", "within", "within-important"]);
    }

    #[test]
    fn process_ids_by_priority_then_number() {
        let processes = |count: i64| Some(PodUsage { processes: Some(count), ..PodUsage::default() });
        let all = vec![
            candidate("many-important", 1, "1", processes(100)),
            candidate("few", 0, "1", processes(1)),
            candidate("many", 0, "1", processes(9)),
        ];
        assert_eq!(order(all, Signal::PidAvailable, false), ["many", "few", "many-important"]);
    }

    #[test]
    fn disk_counts_what_lies_on_the_file_system() {
        let disk = |bytes: i64| Some(DiskUsage { bytes, inodes: 1000 - bytes });
        let usage = |rootfs: i64, logs: i64, volumes: i64| {
            let container = ContainerUsage { rootfs: disk(rootfs), logs: disk(logs), ..ContainerUsage::default() };
            Some(PodUsage { containers: vec![container], local_volumes: disk(volumes).unwrap(), ..PodUsage::default() })
        };
        let all = || {
            vec![
                candidate("layer", 0, "0", usage(100, 1, 1)),
                candidate("logs", 0, "0", usage(1, 60, 1)),
                candidate("volumes", 0, "0", usage(1, 1, 80)),
            ]
        };
        for (signal, dedicated, expected) in [
            (Signal::NodefsAvailable, false, ["layer", "volumes", "logs"]),
            (Signal::NodefsAvailable, true, ["volumes", "logs", "layer"]),
            (Signal::ImagefsAvailable, true, ["layer", "logs", "volumes"]),
            (Signal::ImagefsInodesFree, true, ["logs", "volumes", "layer"]),
        ] {
            assert_eq!(order(all(), signal, dedicated), expected, "{signal:?} {dedicated}");
        }
    }

    #[test]
    fn critical_pods() {
        let mut plain = (*candidate("p", 0, "0", None).pod).clone();
        assert!(!is_critical(&plain));
        plain.metadata.annotations = Some([(spec::CONFIG_SOURCE_ANNOTATION.to_owned(), "file".to_owned())].into());
        assert!(is_critical(&plain));
        assert!(is_critical(&candidate("p", SYSTEM_CRITICAL_PRIORITY, "0", None).pod));
    }
}
