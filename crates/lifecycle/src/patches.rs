//! A directory of patches to what Kedge writes for a machine and its cluster: the manifests of the static pods, the kubelet's
//! configuration, the Deployment of cluster DNS; kubeadm's file names and lines.
//!
//! Read once and whole, before anything is changed. Invariant: what a patch leaves is an object of its kind, or the patch is
//! refused with its name.

mod file_name;

use std::path::{Path, PathBuf};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kedge_schema::{OwnedSchema, Schema, json_patch, merge_patch, strategic_merge_patch, type_by_gvk};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::file_name::{PatchType, Read, read_name};
use crate::Say;

pub(crate) use file_name::PatchTarget;

/// Why patches can't be read or applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchesError {
    /// The directory, or a file in it.
    #[error("could not list patch files for path \"{}\"", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file's name.
    #[error("{file}: {why}")]
    Name {
        /// Which.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file's content.
    #[error("could not convert patch to JSON: {file}")]
    Content {
        /// Which.
        file: String,
        /// Why.
        source: serde_yaml::Error,
    },
    /// A patch does not fit.
    #[error("could not apply the following patch of type {kind:?} to target {target:?} ({file}): {patch}: {why}")]
    Apply {
        /// Strategic, merge or JSON, as upstream calls them.
        kind: &'static str,
        /// What it is for.
        target: &'static str,
        /// Where it stands.
        file: String,
        /// It.
        patch: String,
        /// Why.
        why: String,
    },
}

/// Where patches are, in a configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PatchesConfiguration {
    directory: String,
}

impl PatchesConfiguration {
    /// The directory, where one is named.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        (!self.directory.is_empty()).then(|| self.directory.clone().into())
    }
}

/// One patch.
#[derive(Debug, Clone, PartialEq)]
struct Patch {
    file: String,
    target: PatchTarget,
    kind: PatchType,
    content: Value,
}

/// Patches in the order in which they are applied.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Patches {
    patches: Vec<Patch>,
}

impl Patches {
    /// Reads a directory; there are none where none is named.
    pub(crate) fn read(directory: Option<&Path>, say: Say<'_>) -> Result<Self, PatchesError> {
        let Some(directory) = directory else { return Ok(Self::default()) };
        say(&format!("[patches] Reading patches from path \"{}\"", directory.display()));
        let (mut patches, mut found, mut ignored) = (Vec::new(), Vec::new(), Vec::new());
        for file in list(directory)? {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = |path: &Path| {
                std::fs::read_to_string(path).map_err(|source| PatchesError::File { path: path.to_owned(), source })
            };
            let (target, kind) = match read_name(&name) {
                Read::Patch(target, kind) => (target, kind),
                Read::Wrong(why) => return Err(PatchesError::Name { file: name, why }),
                Read::Other(why) => {
                    say(&format!("[patches] Ignoring file {name:?}: {why}"));
                    ignored.push(name);
                    continue;
                }
            };
            let text = text(&file)?;
            if text.is_empty() {
                say(&format!("[patches] Ignoring empty file: {name:?}"));
                ignored.push(name);
                continue;
            }
            let documents = documents(&text).map_err(|source| PatchesError::Content { file: name.clone(), source })?;
            patches.extend(documents.into_iter().map(|content| Patch { file: name.clone(), target, kind, content }));
            found.push(name);
        }
        if !found.is_empty() {
            say(&format!("[patches] Found the following patch files: [{}]", found.join(" ")));
        }
        if !ignored.is_empty() {
            say(&format!("[patches] Ignored the following files: [{}]", ignored.join(" ")));
        }
        Ok(Self { patches })
    }

    /// Changes what a target's patches change.
    pub(crate) fn apply(&self, target: PatchTarget, mut object: Value, say: Say<'_>) -> Result<Value, PatchesError> {
        for patch in self.patches.iter().filter(|patch| patch.target == target) {
            object = patch.changed(object).map_err(|why| PatchesError::Apply {
                kind: patch.kind.media_type(),
                target: target.name(),
                file: patch.file.clone(),
                patch: patch.content.to_string(),
                why,
            })?;
            let kind = patch.kind.media_type();
            say(&format!("[patches] Applied patch of type {kind:?} to target {:?}", target.name()));
        }
        Ok(object)
    }

    /// The same for the static pod of a component.
    pub(crate) fn apply_to_pod(&self, component: &str, pod: Value, say: Say<'_>) -> Result<Value, PatchesError> {
        match PatchTarget::of_component(component) {
            Some(target) => self.apply(target, pod, say),
            None => Ok(pod),
        }
    }
}

impl Patch {
    fn changed(&self, object: Value) -> Result<Value, String> {
        let changed = match self.kind {
            PatchType::Json => json_patch(object, &self.content).map_err(|error| error.to_string())?,
            PatchType::Merge => {
                let mut object = object;
                merge_patch(&mut object, &self.content);
                object
            }
            PatchType::Strategic => strategic(self.target, object, self.content.clone())?,
        };
        let is_whole = match self.target {
            PatchTarget::KubeletConfiguration => is_kubelet_configuration(&changed),
            PatchTarget::CoreDnsDeployment => is_of_type::<Deployment>(&changed, "Deployment"),
            _ => is_of_type::<Pod>(&changed, "Pod"),
        };
        is_whole.map(|()| changed)
    }
}

fn strategic(target: PatchTarget, object: Value, patch: Value) -> Result<Value, String> {
    let (group, kind) = match target {
        // No list of it merges, and nothing else is known of its fields here.
        PatchTarget::KubeletConfiguration => {
            let free =
                OwnedSchema::from_structural(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
            return strategic_merge_patch(object, patch, free.schema()).map_err(|error| error.to_string());
        }
        PatchTarget::CoreDnsDeployment => ("apps", "Deployment"),
        _ => ("", "Pod"),
    };
    let schema = type_by_gvk(group, "v1", kind).map_or_else(Schema::untyped, Schema::of);
    strategic_merge_patch(object, patch, schema).map_err(|error| error.to_string())
}

fn is_of_type<T: DeserializeOwned>(object: &Value, kind: &str) -> Result<(), String> {
    if object["kind"] != kind {
        return Err(format!("patched manifest is not a valid {kind} object"));
    }
    serde_json::from_value::<T>(object.clone()).map(drop).map_err(|error| error.to_string())
}

fn is_kubelet_configuration(object: &Value) -> Result<(), String> {
    match object["kind"] == "KubeletConfiguration" && object["apiVersion"] == "kubelet.config.k8s.io/v1beta1" {
        true => Ok(()),
        false => Err("what it leaves is no KubeletConfiguration of kubelet.config.k8s.io/v1beta1".to_owned()),
    }
}

/// The files below a directory, by their paths; upstream goes through directories in it, too.
fn list(directory: &Path) -> Result<Vec<PathBuf>, PatchesError> {
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |source| PatchesError::File { path, source }
    };
    let mut files = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(&next).map_err(unusable(&next))? {
            let path = entry.map_err(unusable(&next))?.path();
            // A link to a directory is no directory here, so that there is an end.
            match path.symlink_metadata().map_err(unusable(&path))?.is_dir() {
                true => pending.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    Ok(files)
}

fn documents(text: &str) -> Result<Vec<Value>, serde_yaml::Error> {
    let all = serde_yaml::Deserializer::from_str(text).map(Value::deserialize);
    all.filter(|document| !matches!(document, Ok(Value::Null))).collect()
}

#[cfg(test)]
mod tests;
