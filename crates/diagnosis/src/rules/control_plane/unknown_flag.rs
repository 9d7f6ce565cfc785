//! A11: a component is given a flag that it does not know, or that the next version does not know.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{container_statuses, list, subject, terminated, text};
use crate::rules::control_plane::effects::Component;
use crate::rules::control_plane::{PROGRAMS, component_named, component_of, effects, pods_of_manifests};
use crate::rules::signs::Sign;
use crate::rules::{Layer, Rule};

const WORDS: &[&[&str]] = &[
    &["unknown flag: --"],
    &["unknown shorthand flag:"],
    &["unexpected argument '--"],
    &["flag provided but not defined: -"],
];
const SIGN: Sign = Sign { programs: PROGRAMS, words: WORDS, over: &[] };
/// Flags that are gone, with the last minor version that knew them.
const GONE: &[(Component, &str, u32)] = &[
    (Component::ApiServer, "insecure-port", 23),
    (Component::ApiServer, "insecure-bind-address", 23),
    (Component::ApiServer, "kubelet-https", 21),
    (Component::ApiServer, "master-service-namespace", 26),
    (Component::ControllerManager, "port", 23),
    (Component::ControllerManager, "address", 23),
    (Component::ControllerManager, "pod-eviction-timeout", 26),
    (Component::ControllerManager, "enable-taint-manager", 26),
    (Component::ControllerManager, "deleting-pods-qps", 23),
    (Component::ControllerManager, "register-retry-count", 23),
    (Component::Scheduler, "port", 23),
    (Component::Scheduler, "address", 23),
    (Component::Scheduler, "policy-config-file", 22),
    (Component::Scheduler, "algorithm-provider", 22),
];

pub(super) const RULE: Rule = Rule {
    id: "A11",
    title: "a component is given a flag that it does not know",
    layer: Layer::Etcd,
    explains: effects::OF_A_COMPONENT,
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for told in SIGN.told(evidence) {
        let Some(component) = component_named(told.source.program()) else { continue };
        let text = format!("{} does not start: {}", component.name(), told.text.trim());
        let subject = told.source.subject();
        let finding = Finding::failure(subject, told.item, Certainty::Proven, text, told.lines, repair(component));
        found.push(finding.only(component.effects()));
    }
    for (index, item, pod) in evidence.objects("Pod") {
        let Some(component) = component_of(pod) else { continue };
        let said = container_statuses(pod)
            .filter(|status| !status["state"]["running"].is_object())
            .filter_map(|status| Some(text(&terminated(status)?["message"])))
            .find(|message| SIGN.is_said_by(message));
        let Some(message) = said.filter(|_| found.iter().all(|known| known.subject != subject(pod))) else { continue };
        let text = format!("{} does not start: {}", component.name(), message.trim());
        let finding = Finding::failure(subject(pod), item, Certainty::Proven, text, vec![index], repair(component));
        found.push(finding.only(component.effects()));
    }
    if found.is_empty() {
        found = ending_flags(evidence);
    }
    found
}

/// Flags that work today and are unknown to a later version.
fn ending_flags(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, pod) in pods_of_manifests(evidence) {
        let Some(component) = component_of(pod) else { continue };
        let container = &pod["spec"]["containers"][0];
        let words = list(&container["command"]).chain(list(&container["args"]));
        let flags = words.filter_map(|word| text(word).strip_prefix("--")?.split('=').next());
        for flag in flags {
            let Some((_, _, last)) = GONE.iter().find(|(of, gone, _)| *of == component && *gone == flag) else {
                continue;
            };
            let text = format!(
                "--{flag} of {} is unknown to versions after v1.{last}: it does not start after an upgrade",
                component.name()
            );
            let finding = Finding::failure(subject(pod), item, Certainty::Proven, text, vec![index], repair(component));
            found.push(finding.warning());
        }
    }
    found
}

fn repair(component: Component) -> Repair {
    Repair::of(&[
        ("See which flags it should have", &format!("kedge init phase control-plane {} --dry-run", component.phase())),
        ("Take the flag out of the manifest: write it beside the directory and move it in", ""),
    ])
    .acting(1, component.restore())
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn an_unknown_flag_is_found_in_any_programs_words() {
        check_lines(
            &RULE,
            &[
                ("kube-apiserver", "Error: unknown flag: --insecure-port"),
                ("kube-scheduler", "error: unexpected argument '--prot' found"),
                ("etcd", "flag provided but not defined: -logger2"),
            ],
            &[
                ("kubelet", "failed to parse kubelet flag: unknown flag: --network-plugin"),
                ("web", "unknown flag: --x"),
            ],
        );
    }

    #[test]
    fn a_flag_without_a_future_warns() {
        let items = |flag: &str| scheduler_manifest(flag, "/etc/kubernetes/scheduler.conf", "FileOrCreate");
        assert_eq!(found_among(&RULE, items("--policy-config-file=/etc/x")).len(), 1);
        assert_eq!(found_among(&RULE, items("--bind-address=127.0.0.1")), [""; 0]);
    }
}
