//! emptyDir volumes: a directory of the pod's, on disk, in memory or in huge pages.
//!
//! Invariant: what a container wrote stays until the pod ends, whatever is restarted meanwhile.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use kedge_meta::Quantity;

use crate::dirs::{VolumeDirs, write_marker};
use crate::mount_table::{is_mount_point, mount_huge_pages, mount_tmpfs};
use crate::ownership;
use crate::pod;

pub(crate) const PLUGIN: &str = "kubernetes.io/empty-dir";
const HUGE_PAGES: &str = "hugepages-";

/// What an emptyDir is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Medium {
    Disk,
    /// With a size in bytes.
    Memory(i64),
    /// With a page size in bytes.
    HugePages(i64),
}

/// Makes the directory, once. `node_memory` is what pods of this node may use, in bytes.
pub(crate) fn ensure(
    dirs: &VolumeDirs,
    pod: &Pod,
    volume: &str,
    source: &EmptyDirVolumeSource,
    node_memory: i64,
) -> Result<PathBuf, String> {
    let directory = dirs.volume(pod::uid(pod), PLUGIN, volume);
    let marker = dirs.ready_marker(pod::uid(pod), PLUGIN, volume);
    if marker.exists() && directory.exists() {
        return Ok(directory);
    }
    let medium = medium(pod, source, node_memory)?;
    let text = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(&directory).map_err(text)?;
    mount(&directory, &medium).map_err(text)?;
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).map_err(text)?;
    ownership::apply(pod, &directory, false)?;
    write_marker(&marker).map_err(text)?;
    Ok(directory)
}

fn mount(directory: &Path, medium: &Medium) -> std::io::Result<()> {
    match medium {
        _ if is_mount_point(directory) => Ok(()),
        Medium::Disk => Ok(()),
        Medium::Memory(bytes) => mount_tmpfs(directory, Some(*bytes).filter(|bytes| *bytes > 0)),
        Medium::HugePages(page) => mount_huge_pages(directory, *page),
    }
}

fn medium(pod: &Pod, source: &EmptyDirVolumeSource, node_memory: i64) -> Result<Medium, String> {
    let medium = source.medium.as_deref().unwrap_or_default();
    match medium {
        "" => Ok(Medium::Disk),
        "Memory" => Ok(Medium::Memory(memory_size(pod, source, node_memory))),
        "HugePages" => only_page_size(pod).map(Medium::HugePages),
        _ => match medium.strip_prefix("HugePages-") {
            Some(size) => page_size(pod, size).map(Medium::HugePages),
            None => Err(format!("unknown storage medium {medium:?}")),
        },
    }
}

/// The smallest of what the node can give, what the pod may use, and what the volume may hold.
fn memory_size(pod: &Pod, source: &EmptyDirVolumeSource, node_memory: i64) -> i64 {
    let of_pod = pod::memory_limit(pod);
    let own = source.size_limit.as_ref().and_then(|limit| limit.0.parse::<Quantity>().ok()).map(Quantity::units);
    [Some(node_memory), of_pod, own].into_iter().flatten().filter(|bytes| *bytes > 0).min().unwrap_or(0)
}

/// The page sizes that containers of the pod ask for.
fn page_sizes(pod: &Pod) -> BTreeSet<String> {
    let requests = pod::containers(pod).filter_map(|container| {
        let resources = container.resources.as_ref()?;
        Some(resources.requests.iter().chain(resources.limits.iter()).flat_map(|list| list.keys().cloned()))
    });
    requests.flatten().filter_map(|name| name.strip_prefix(HUGE_PAGES).map(str::to_owned)).collect()
}

fn only_page_size(pod: &Pod) -> Result<i64, String> {
    let sizes = page_sizes(pod);
    match sizes.len() {
        0 => Err("medium HugePages used but no HugePages requests found".to_owned()),
        1 => bytes(sizes.first().map(String::as_str).unwrap_or_default()),
        _ => Err("multiple page sizes for huge pages in a single pod defined".to_owned()),
    }
}

fn page_size(pod: &Pod, size: &str) -> Result<i64, String> {
    let wanted = bytes(size)?;
    let asked = page_sizes(pod).iter().any(|known| bytes(known) == Ok(wanted));
    match asked {
        true => Ok(wanted),
        false => Err(format!("medium {size} is not in the huge pages resources of the pod's containers")),
    }
}

fn bytes(size: &str) -> Result<i64, String> {
    size.parse::<Quantity>().map(Quantity::units).map_err(|_| format!("{size:?} is not a page size"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn media_and_their_sizes() {
        let check = |source: serde_json::Value, limits: serde_json::Value, expected: Result<Medium, &str>| {
            let source = serde_json::from_value(source).unwrap();
            let containers = json!([{ "name": "c", "resources": { "limits": limits } }]);
            let pod = serde_json::from_value(json!({ "metadata": {}, "spec": { "containers": containers } })).unwrap();
            assert_eq!(medium(&pod, &source, 1000), expected.map_err(str::to_owned), "{source:?}");
        };
        let memory = json!({ "medium": "Memory" });
        check(json!({}), json!({}), Ok(Medium::Disk));
        check(memory.clone(), json!({}), Ok(Medium::Memory(1000)));
        check(memory.clone(), json!({ "memory": "500" }), Ok(Medium::Memory(500)));
        check(json!({ "medium": "Memory", "sizeLimit": "100" }), json!({ "memory": "500" }), Ok(Medium::Memory(100)));
        check(json!({ "medium": "Memory", "sizeLimit": "1Mi" }), json!({}), Ok(Medium::Memory(1000)));
        let huge = json!({ "medium": "HugePages" });
        check(huge.clone(), json!({ "hugepages-2Mi": "4Mi" }), Ok(Medium::HugePages(2 << 20)));
        check(huge.clone(), json!({}), Err("medium HugePages used but no HugePages requests found"));
        check(
            huge,
            json!({ "hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi" }),
            Err("multiple page sizes for huge pages in a single pod defined"),
        );
        let sized = json!({ "medium": "HugePages-1Gi" });
        check(sized, json!({ "hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi" }), Ok(Medium::HugePages(1 << 30)));
        check(json!({ "medium": "Paper" }), json!({}), Err("unknown storage medium \"Paper\""));
    }
}
