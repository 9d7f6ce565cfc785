//! The Container Device Interface: what a device's name means for a container, for runtimes that do not know it.
//!
//! Source: the CDI specification, version 0.8. Hooks, RDT classes and network devices can't be had over CRI: a device
//! that needs them is refused by name. Invariant: what a spec asks for is applied as a whole or not at all.

use std::path::{Path, PathBuf};

use kedge_cri::v1;
use serde::Deserialize;
use serde_json::Value;

use crate::edits::Edits;

/// One file of a vendor.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: ContainerEdits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: ContainerEdits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerEdits {
    env: Vec<String>,
    device_nodes: Vec<DeviceNode>,
    mounts: Vec<Mount>,
    #[serde(rename = "additionalGids")]
    additional_gids: Vec<i64>,
    hooks: Vec<Value>,
    intel_rdt: Option<Value>,
    net_devices: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceNode {
    path: String,
    host_path: Option<String>,
    permissions: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: String,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
}

/// What devices mean, by their full names `vendor/class=name`. Files of later directories win.
pub(crate) fn resolve(directories: &[PathBuf], names: &[String]) -> Result<Edits, String> {
    let mut edits = Edits::default();
    if names.is_empty() {
        return Ok(edits);
    }
    let specs: Vec<Spec> = directories.iter().rev().flat_map(|directory| read(directory)).collect();
    for name in names {
        let unresolvable = || format!("unresolvable CDI devices {name}");
        let (kind, device) = name.split_once('=').ok_or_else(unresolvable)?;
        let found = specs.iter().filter(|spec| spec.kind == kind).find_map(|spec| {
            let device = spec.devices.iter().find(|known| known.name == device)?;
            Some((spec, device))
        });
        let (spec, device) = found.ok_or_else(unresolvable)?;
        for part in [&device.container_edits, &spec.container_edits] {
            edits
                .merge(apply(part).map_err(|what| format!("CDI device {name} needs {what}, which the runtime lacks"))?);
        }
    }
    Ok(edits)
}

fn read(directory: &Path) -> Vec<Spec> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let parse = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).ok()?;
        let parsed = match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => serde_json::from_str(&text).map_err(|error| error.to_string()),
            Some("yaml" | "yml") => serde_yaml::from_str(&text).map_err(|error| error.to_string()),
            _ => return None,
        };
        parsed.inspect_err(|error| tracing::warn!(path = %path.display(), error, "a CDI spec can't be read")).ok()
    };
    paths.iter().filter_map(parse).collect()
}

fn apply(part: &ContainerEdits) -> Result<Edits, &'static str> {
    if !part.hooks.is_empty() {
        return Err("hooks");
    }
    if part.intel_rdt.is_some() {
        return Err("an RDT class");
    }
    if !part.net_devices.is_empty() {
        return Err("network devices");
    }
    let variable = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), value.to_owned())
    };
    Ok(Edits {
        envs: part.env.iter().map(variable).collect(),
        devices: part.device_nodes.iter().map(device_node).collect(),
        mounts: part.mounts.iter().map(mount).collect(),
        groups: part.additional_gids.iter().copied().filter(|group| *group > 0).collect(),
        ..Edits::default()
    })
}

fn device_node(node: &DeviceNode) -> v1::Device {
    v1::Device {
        container_path: node.path.clone(),
        host_path: node.host_path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| node.path.clone()),
        permissions: node.permissions.clone().filter(|some| !some.is_empty()).unwrap_or_else(|| "rwm".to_owned()),
    }
}

fn mount(mount: &Mount) -> v1::Mount {
    let has = |options: &[&str]| mount.options.iter().any(|option| options.contains(&option.as_str()));
    let propagation = if has(&["shared", "rshared"]) {
        v1::MountPropagation::PropagationBidirectional
    } else if has(&["slave", "rslave"]) {
        v1::MountPropagation::PropagationHostToContainer
    } else {
        v1::MountPropagation::PropagationPrivate
    };
    v1::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.clone(),
        readonly: has(&["ro"]),
        propagation: propagation as i32,
        ..v1::Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn directory(specs: &[(&str, Value)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, spec) in specs {
            std::fs::write(directory.path().join(name), spec.to_string()).unwrap();
        }
        directory
    }

    #[test]
    fn names_become_edits() {
        let node = json!({"path": "/dev/gpu0", "hostPath": "/dev/null", "permissions": "rw"});
        let spec = json!({"cdiVersion": "0.5.0", "kind": "example.com/gpu",
            "containerEdits": {"env": ["ALL=yes"], "mounts": [
                {"hostPath": "/opt/lib", "containerPath": "/lib/gpu", "options": ["ro", "rslave"]}]},
            "devices": [
                {"name": "0", "containerEdits": {"env": ["GPU=0"], "deviceNodes": [node], "additionalGids": [0, 44]}},
                {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/zero"}]}},
                {"name": "hooked", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/x"}]}}]});
        let low = directory(&[("gpu.json", spec), ("bad.json", json!([]))]);
        let names = |names: &[&str]| names.iter().map(|name| format!("example.com/gpu={name}")).collect::<Vec<_>>();
        let directories = [low.path().to_owned()];
        let edits = resolve(&directories, &names(&["0", "1"])).unwrap();
        assert_eq!(edits.envs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(), ["ALL=yes", "GPU=0"]);
        let nodes: Vec<String> =
            edits.devices.iter().map(|d| format!("{} {} {}", d.container_path, d.host_path, d.permissions)).collect();
        assert_eq!(nodes, ["/dev/gpu0 /dev/null rw", "/dev/zero /dev/zero rwm"]);
        assert_eq!((edits.mounts.len(), edits.mounts[0].readonly, edits.groups), (1, true, vec![44]));
        let refused = |name: &str| resolve(&directories, &names(&[name])).unwrap_err();
        assert_eq!(refused("2"), "unresolvable CDI devices example.com/gpu=2");
        assert_eq!(refused("hooked"), "CDI device example.com/gpu=hooked needs hooks, which the runtime lacks");
        let other = json!({"cdiVersion": "0.5.0", "kind": "example.com/gpu",
            "devices": [{"name": "0", "containerEdits": {"env": ["GPU=later"]}}]});
        let high = directory(&[("gpu.yaml", other)]);
        let both = [low.path().to_owned(), high.path().to_owned()];
        assert_eq!(resolve(&both, &names(&["0"])).unwrap().envs["GPU"], "later");
    }
}
