//! Static pods and components of the control plane.

mod backup_file;
mod broken_manifest;
mod command;
mod empty_directory;
mod empty_file;
mod kubeconfig_path;
mod silent_controllers;
mod silent_scheduler;
mod unmounted_file;
mod unreachable_api;

pub(super) mod effects;

use serde_json::Value;

use crate::evidence::{Evidence, Item};
use crate::facts::FileKind;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{list, subject, text};
use crate::rules::Rule;
use effects::Component;

pub(super) const RULES: &[&Rule] = &[
    &command::RULE,
    &kubeconfig_path::RULE,
    &empty_file::RULE,
    &empty_directory::RULE,
    &unmounted_file::RULE,
    &broken_manifest::RULE,
    &backup_file::RULE,
    &unreachable_api::RULE,
    &silent_scheduler::RULE,
    &silent_controllers::RULE,
];

/// Pods that files of the machine make.
pub(super) fn pods_of_manifests(evidence: &Evidence) -> impl Iterator<Item = (usize, &Item, &Value)> {
    evidence.manifests().filter_map(|(index, item, manifest)| Some((index, item, manifest.pod.as_ref().ok()?)))
}

/// Which component a pod of `kube-system` is: by its label, else by its name.
pub(super) fn component_of(pod: &Value) -> Option<Component> {
    if text(&pod["metadata"]["namespace"]) != "kube-system" {
        return None;
    }
    let label = text(&pod["metadata"]["labels"]["component"]);
    Component::ALL
        .into_iter()
        .find(|component| label == component.name() || text(&pod["metadata"]["name"]).starts_with(component.name()))
}

/// Which component a file of the directory of static pods makes, by its name.
pub(super) fn component_of_file(path: &str) -> Option<Component> {
    let name = path.rsplit('/').next().unwrap_or_default();
    Component::ALL.into_iter().find(|component| name.starts_with(component.name()))
}

/// Flags of a pod's first container that name files: the flag without its dashes, and the path.
pub(super) fn path_flags(pod: &Value) -> impl Iterator<Item = (&str, &str)> {
    let container = &pod["spec"]["containers"][0];
    let words = list(&container["command"]).chain(list(&container["args"]));
    words.filter_map(|word| text(word).strip_prefix("--")?.split_once('=')).filter(|(_, value)| value.starts_with('/'))
}

/// Where a path of the first container lies on the host, if a volume of the host is mounted there.
pub(super) fn host_path(pod: &Value, path: &str) -> Option<String> {
    let mounts = list(&pod["spec"]["containers"][0]["volumeMounts"]);
    let below = |mount: &str| path == mount || path.strip_prefix(mount).is_some_and(|rest| rest.starts_with('/'));
    let mount = mounts
        .filter(|mount| below(text(&mount["mountPath"]).trim_end_matches('/')))
        .max_by_key(|mount| text(&mount["mountPath"]).len())?;
    let volume = list(&pod["spec"]["volumes"]).find(|volume| volume["name"] == mount["name"])?;
    let host = volume["hostPath"]["path"].as_str()?.trim_end_matches('/');
    let rest = &path[text(&mount["mountPath"]).trim_end_matches('/').len()..];
    Some(format!("{host}{rest}"))
}

/// What the kubelet makes where a host path leads nowhere.
struct Made {
    /// The type of the volume.
    volume: &'static str,
    kind: FileKind,
    what: &'static str,
    /// The command that removes it.
    remove: &'static str,
}

/// A finding for each host path of a component where only that lies which the kubelet made; `counts` is asked with the pod
/// and the path.
fn made_by_the_kubelet(evidence: &Evidence, made: &Made, counts: impl Fn(&Value, &str) -> bool) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, pod) in pods_of_manifests(evidence) {
        let Some(component) = component_of(pod) else { continue };
        for volume in list(&pod["spec"]["volumes"]).filter(|volume| volume["hostPath"]["type"] == made.volume) {
            let path = text(&volume["hostPath"]["path"]).trim_end_matches('/');
            let there = evidence.file(&item.place, path).filter(|(_, kind)| *kind == made.kind);
            let Some((file, _)) = there.filter(|_| counts(pod, path)) else { continue };
            let (what, name) = (made.what, component.name());
            let dry_run = format!("kedge init phase control-plane {} --dry-run", component.phase());
            let repair = Repair::of(&[
                ("Correct the host path in the manifest", &dry_run),
                (&format!("Remove the empty {what}"), &format!("{} {path}", made.remove)),
            ]);
            let text = format!(
                "{path}, a host path of {name}, is an empty {what}: the kubelet made it, because nothing was there"
            );
            let proof = vec![index, file];
            let finding = Finding::failure(subject(pod), item, Certainty::Proven, text, proof, repair);
            found.push(finding.only(component.effects()));
        }
    }
    found
}
