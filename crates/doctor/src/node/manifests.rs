//! The directory of static pods, and every path of the host that its pods refer to.

use std::collections::BTreeSet;
use std::path::Path;

use kedge_diagnosis::{Evidence, Fact, Item, ManifestFact};
use serde_json::Value;

use crate::machine;
use crate::node::unseen;

/// A manifest is larger than this by mistake only.
const MOST_BYTES: u64 = 1 << 20;

pub(super) fn read(directory: &Path, item: &impl Fn(String, Fact) -> Item, evidence: &mut Evidence) {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => return evidence.unseen.push(unseen(directory.display().to_string(), error)),
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut referred = BTreeSet::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // The kubelet passes hidden files by, and so does this.
        if name.starts_with('.') || !path.is_file() {
            continue;
        }
        let pod = parse(&path);
        if let Ok(pod) = &pod {
            referred.extend(host_paths(pod));
        }
        let shown = path.display().to_string();
        evidence.items.push(item(shown.clone(), Fact::Manifest(ManifestFact { path: shown, pod })));
    }
    let files = referred.into_iter().map(|path| item(format!("ls -la {path}"), Fact::File(machine::file(&path))));
    evidence.items.extend(files);
}

fn parse(path: &Path) -> Result<Value, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MOST_BYTES {
        return Err(format!("it has {size} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let pod: Value = serde_yaml::from_str(&text).map_err(|error| error.to_string())?;
    match pod["kind"].as_str() {
        Some("Pod") => Ok(with_namespace(pod)),
        Some(kind) => Err(format!("it is a {kind}")),
        None => Err("it has no kind".to_owned()),
    }
}

/// A static pod without a namespace is one of `default`.
fn with_namespace(mut pod: Value) -> Value {
    if pod["metadata"]["namespace"].is_null() {
        pod["metadata"]["namespace"] = Value::from("default");
    }
    pod
}

/// Paths of the host that a pod mounts, and the files that its flags name.
fn host_paths(pod: &Value) -> Vec<String> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut paths: Vec<String> = volumes
        .filter_map(|volume| Some(volume["hostPath"]["path"].as_str()?.trim_end_matches('/').to_owned()))
        .collect();
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    for container in containers {
        let words = ["command", "args"].into_iter().flat_map(|field| container[field].as_array().into_iter().flatten());
        let values = words.filter_map(|word| Some(word.as_str()?.strip_prefix("--")?.split_once('=')?.1));
        paths.extend(values.filter(|value| value.starts_with('/')).map(str::to_owned));
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_diagnosis::{FileKind, Place};

    #[test]
    fn manifests_are_read_with_what_they_refer_to() {
        let directory = tempfile::tempdir().expect("a directory");
        let manifests = directory.path().join("manifests");
        let config = directory.path().join("scheduler.conf");
        std::fs::create_dir(&manifests).expect("it is made");
        std::fs::write(&config, "").expect("it is written");
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: kube-scheduler, namespace: kube-system}}\nspec:\n  containers:\n  \
             - {{name: c, command: [x, --kubeconfig=/nowhere/x.conf]}}\n  volumes:\n  \
             - {{name: k, hostPath: {{path: {}, type: FileOrCreate}}}}\n",
            config.display()
        );
        std::fs::write(manifests.join("kube-scheduler.yaml"), pod).expect("it is written");
        std::fs::write(manifests.join("broken.yaml"), "a: [").expect("it is written");
        std::fs::write(manifests.join(".hidden"), "a: [").expect("it is written");
        let item = |origin, fact| Item { time: None, place: Place::Node("one".to_owned()), origin, fact };
        let mut evidence = Evidence::default();
        read(&manifests, &item, &mut evidence);
        let mut pods = 0;
        let mut files = Vec::new();
        for item in &evidence.items {
            match &item.fact {
                Fact::Manifest(manifest) => pods += usize::from(manifest.pod.is_ok()),
                Fact::File(file) => files.push(file.kind),
                _ => {}
            }
        }
        files.sort_by_key(|kind| format!("{kind:?}"));
        assert_eq!((pods, evidence.items.len(), files), (1, 4, vec![FileKind::EmptyFile, FileKind::Missing]));
    }
}
