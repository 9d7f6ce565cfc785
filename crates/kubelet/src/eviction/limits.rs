//! Limits of local storage that pods set for themselves: of `emptyDir` volumes, of the pod, of its containers.
//!
//! Pure. Invariant: the texts are upstream's, and only the first violation is told.

use k8s_openapi::api::core::v1::Pod;
use kedge_meta::Quantity;

use super::usage::PodUsage;
use crate::resources;
use crate::spec;

const STORAGE: &str = "ephemeral-storage";

/// A limit that was exceeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// What `kubelet_evictions` counts it under.
    pub(crate) signal: &'static str,
    pub(crate) message: String,
}

/// Whether a pod has any limit of local storage, so that it is worth measuring.
pub(crate) fn has_limits(pod: &Pod) -> bool {
    let empty_dirs = spec::pod_spec(pod).volumes.iter().flatten().filter_map(|volume| volume.empty_dir.as_ref());
    let sized = empty_dirs.filter_map(|empty_dir| empty_dir.size_limit.as_ref()).next().is_some();
    let containers = spec::containers(pod).iter().chain(spec::init_containers(pod));
    let own = spec::pod_spec(pod).resources.as_ref().and_then(|own| own.limits.as_ref());
    sized
        || own.is_some_and(|limits| limits.contains_key(STORAGE))
        || containers.into_iter().any(|container| spec::limit(container, STORAGE).is_some())
}

/// The first limit that a pod exceeds.
pub(crate) fn violation(pod: &Pod, usage: &PodUsage, dedicated_image_fs: bool) -> Option<Violation> {
    empty_dir(pod, usage).or_else(|| whole_pod(pod, usage)).or_else(|| container(pod, usage, dedicated_image_fs))
}

fn empty_dir(pod: &Pod, usage: &PodUsage) -> Option<Violation> {
    spec::pod_spec(pod).volumes.iter().flatten().find_map(|volume| {
        let limit = volume.empty_dir.as_ref()?.size_limit.as_ref()?;
        let amount: Quantity = limit.0.parse().ok().filter(|amount| *amount > Quantity::ZERO)?;
        let used = Quantity::from_units(usage.empty_dirs.get(&volume.name)?.bytes);
        (used > amount).then(|| Violation {
            signal: "emptydirfs.limit",
            message: format!("Usage of EmptyDir volume {:?} exceeds the limit {:?}. ", volume.name, limit.0),
        })
    })
}

fn whole_pod(pod: &Pod, usage: &PodUsage) -> Option<Violation> {
    let limit = resources::pod_limit(pod, STORAGE)?;
    (usage.ephemeral_storage() > limit).then(|| Violation {
        signal: "ephemeralpodfs.limit",
        message: format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
            super::threshold::binary(limit)
        ),
    })
}

fn container(pod: &Pod, usage: &PodUsage, dedicated_image_fs: bool) -> Option<Violation> {
    usage.containers.iter().find_map(|used| {
        let container = spec::containers(pod).iter().find(|container| container.name == used.name)?;
        let limits = container.resources.as_ref()?.limits.as_ref()?;
        let limit = limits.get(STORAGE)?;
        let amount = spec::amount(Some(limits), STORAGE).filter(|amount| *amount != Quantity::ZERO)?;
        let rootfs = used.rootfs.filter(|_| !dedicated_image_fs).unwrap_or_default();
        let bytes = used.logs.unwrap_or_default().plus(rootfs).bytes;
        (Quantity::from_units(bytes) > amount).then(|| Violation {
            signal: "ephemeralcontainerfs.limit",
            message: format!("Container {} exceeded its local ephemeral storage limit {:?}. ", used.name, limit.0),
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::usage::{ContainerUsage, DiskUsage};
    use super::*;

    fn pod(limits: &[&str], size_limit: &str) -> Pod {
        let containers: Vec<_> = limits
            .iter()
            .enumerate()
            .map(|(index, limit)| {
                json!({ "name": format!("c{index}"), "resources": { "limits": { "ephemeral-storage": limit } } })
            })
            .collect();
        serde_json::from_value(json!({ "metadata": {}, "spec": {
            "containers": containers,
            "volumes": [{ "name": "v", "emptyDir": { "sizeLimit": size_limit } }],
        } }))
        .unwrap()
    }

    fn usage(layer: i64, logs: i64, volume: i64) -> PodUsage {
        let disk = |bytes: i64| Some(DiskUsage { bytes, inodes: 1 });
        let container = ContainerUsage { name: "c0".to_owned(), rootfs: disk(layer), logs: disk(logs), memory: None };
        PodUsage {
            containers: vec![container],
            empty_dirs: disk(volume).into_iter().map(|used| ("v".to_owned(), used)).collect(),
            local_volumes: disk(volume).unwrap(),
            ..PodUsage::default()
        }
    }

    #[test]
    fn limits_and_their_texts() {
        let mi = 1 << 20;
        let of_container = "Container c0 exceeded its local ephemeral storage limit \"2Mi\". ";
        let of_pod = "Pod ephemeral local storage usage exceeds the total limit of containers 6Mi. ";
        let of_volume = "Usage of EmptyDir volume \"v\" exceeds the limit \"3Mi\". ";
        for (used, dedicated, expected) in [
            (usage(mi, mi, 3 * mi), false, None),
            (usage(0, 0, 3 * mi + 1), false, Some(of_volume)),
            (usage(2 * mi, 2 * mi, 3 * mi), false, Some(of_pod)),
            (usage(2 * mi, 1, 0), false, Some(of_container)),
            (usage(2 * mi, 1, 0), true, None),
        ] {
            let found = violation(&pod(&["2Mi", "4Mi"], "3Mi"), &used, dedicated).map(|violation| violation.message);
            assert_eq!(found.as_deref(), expected, "{used:?}");
        }
    }

    #[test]
    fn a_pod_without_limits_is_not_measured() {
        assert!(has_limits(&pod(&["1Mi"], "0")));
        let bare: Pod = serde_json::from_value(json!({ "metadata": {}, "spec": {
            "containers": [{ "name": "c" }], "volumes": [{ "name": "v", "emptyDir": {} }],
        } }))
        .unwrap();
        assert!(!has_limits(&bare));
        assert_eq!(violation(&bare, &usage(1 << 40, 0, 1 << 40), false), None);
    }
}
