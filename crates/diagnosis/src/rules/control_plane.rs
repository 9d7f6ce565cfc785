//! Static pods and components of the control plane.

mod backup_file;
mod broken_manifest;
mod cgroup_drivers;
mod command;
mod empty_directory;
mod empty_file;
mod host_path_type;
mod hung_leader;
mod kubeconfig_path;
mod lost_by_balancer;
mod lost_by_disk;
mod lost_by_overload;
mod manifest_directory;
mod port_in_use;
mod silent_controllers;
mod silent_scheduler;
mod slow_start;
mod store_unreachable;
mod surviving_workloads;
mod unknown_flag;
mod unmounted_file;
mod unreachable_api;

mod leases;

pub(super) mod effects;

use serde_json::Value;

use crate::action::Action;
use crate::evidence::{Evidence, Item};
use crate::facts::FileKind;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{container_statuses, list, subject, text};
use crate::rules::Rule;
use effects::Component;

pub(super) const RULES: &[&Rule] = &[
    &lost_by_disk::RULE,
    &lost_by_overload::RULE,
    &lost_by_balancer::RULE,
    &hung_leader::RULE,
    &command::RULE,
    &kubeconfig_path::RULE,
    &empty_file::RULE,
    &empty_directory::RULE,
    &host_path_type::RULE,
    &unmounted_file::RULE,
    &unknown_flag::RULE,
    &broken_manifest::RULE,
    &manifest_directory::RULE,
    &backup_file::RULE,
    &unreachable_api::RULE,
    &store_unreachable::RULE,
    &slow_start::RULE,
    &port_in_use::RULE,
    &cgroup_drivers::RULE,
    &surviving_workloads::RULE,
    &silent_scheduler::RULE,
    &silent_controllers::RULE,
];

/// Programs of a control plane, as their containers are named.
pub(super) const PROGRAMS: &[&str] = &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"];

/// Pods that files of the machine make: the files, and what the API shows of files that were not looked at.
pub(super) fn pods_of_manifests(evidence: &Evidence) -> impl Iterator<Item = (usize, &Item, &Value)> {
    let files = evidence.manifests().filter_map(|(index, item, manifest)| {
        let pod = manifest.pod.as_ref().ok()?;
        Some((index, item, pod))
    });
    let is_read = evidence.manifests().next().is_some();
    let mirrors = evidence.objects("Pod").filter(move |(_, _, pod)| {
        !is_read && pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string()
    });
    files.chain(mirrors)
}

/// Whether a subject is a pod of the control plane.
pub(crate) fn is_of_the_control_plane(subject: &Subject) -> bool {
    subject.kind == "Pod"
        && subject.namespace == "kube-system"
        && Component::ALL.into_iter().any(|component| subject.name.starts_with(component.name()))
}

/// Which component a program is.
fn component_named(program: &str) -> Option<Component> {
    Component::ALL.into_iter().find(|component| component.name() == program)
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
    /// The same for a program.
    action: fn(String) -> Action,
}

/// A finding for each host path of a component where only that lies which the kubelet made; `counts` is asked with the pod
/// and the path.
fn made_by_the_kubelet(evidence: &Evidence, made: &Made, counts: impl Fn(&Value, &str) -> bool) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, pod) in pods_of_manifests(evidence) {
        let Some(component) = component_of(pod) else { continue };
        for volume in list(&pod["spec"]["volumes"]).filter(|volume| volume["hostPath"]["type"] == made.volume) {
            let path = text(&volume["hostPath"]["path"]).trim_end_matches('/');
            let (what, name) = (made.what, component.name());
            let there = evidence.file(&item.place, path);
            let (proof, certainty, text) = match there {
                Some((file, kind)) if kind == made.kind && counts(pod, path) => (
                    vec![index, file],
                    Certainty::Proven,
                    format!(
                        "{path}, a host path of {name}, is an empty {what}: the kubelet made it, because nothing was there"
                    ),
                ),
                // The API shows where a path leads to, not what is there: one that leads elsewhere than all others do,
                // in a pod that does not run, is mistyped.
                None if is_astray(pod, volume) && counts(pod, path) => (
                    vec![index],
                    Certainty::Likely,
                    format!(
                        "{path}, a host path of {name}, is not where it is mounted, and {name} does not run: the kubelet makes an empty {what} where nothing is"
                    ),
                ),
                _ => continue,
            };
            let dry_run = format!("kedge init phase control-plane {} --dry-run", component.phase());
            let repair = Repair::of(&[
                ("Correct the host path in the manifest", &dry_run),
                (&format!("Remove the empty {what}"), &format!("{} {path}", made.remove)),
            ])
            .acting(0, component.restore())
            .acting(1, (made.action)(path.to_owned()));
            let finding = Finding::failure(subject(pod), item, certainty, text, proof, repair);
            found.push(finding.only(component.effects()));
        }
    }
    found
}

/// Whether a volume of a pod that does not run leads from one place of `/etc/kubernetes` to another.
fn is_astray(pod: &Value, volume: &Value) -> bool {
    let host = text(&volume["hostPath"]["path"]).trim_end_matches('/');
    let mut mounts = list(&pod["spec"]["containers"][0]["volumeMounts"]);
    let mount = mounts.find(|mount| mount["name"] == volume["name"]);
    let inside = mount.map_or("", |mount| text(&mount["mountPath"]).trim_end_matches('/'));
    let mut statuses = container_statuses(pod).peekable();
    inside.starts_with("/etc/kubernetes/")
        && inside != host
        && statuses.peek().is_some()
        && statuses.all(|status| !status["state"]["running"].is_object())
}
