//! A6: a kubeconfig flag of a static pod names a file that is not in the container.

use crate::evidence::Evidence;
use crate::facts::FileKind;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::subject;
use crate::rules::control_plane::{component_of, effects, host_path, path_flags, pods_of_manifests};
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule = Rule {
    id: "A6",
    title: "a component is told to use a kubeconfig that is not there",
    layer: Layer::Etcd,
    explains: effects::OF_A_COMPONENT,
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, pod) in pods_of_manifests(evidence) {
        let Some(component) = component_of(pod) else { continue };
        for (flag, path) in path_flags(pod).filter(|(flag, _)| flag.ends_with("kubeconfig")) {
            let (evidence_items, why) = match host_path(pod, path) {
                None => (vec![index], format!("{path} is not in the container: no volume is mounted there")),
                Some(host) => match evidence.file(&item.place, &host) {
                    Some((file, FileKind::Missing)) => {
                        (vec![index, file], format!("{host} does not exist on the host"))
                    }
                    _ => continue,
                },
            };
            let repair = Repair::of(&[(
                "Set the flag to the file that is mounted",
                &format!("kedge init phase control-plane {} --dry-run", component.phase()),
            )])
            .acting(0, component.restore());
            let text = format!("--{flag} of {}: {why}", component.name());
            found.push(
                Finding::failure(subject(pod), item, Certainty::Proven, text, evidence_items, repair)
                    .only(component.effects()),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_kubeconfig_that_is_not_mounted_or_not_there_is_found() {
        let flag = "--kubeconfig=/etc/kubernetes/schedulerr.conf";
        let texts = found_among(&RULE, scheduler_manifest(flag, "/etc/kubernetes/scheduler.conf", "FileOrCreate"));
        assert_eq!(texts.len(), 1);
        assert!(texts[0].contains("no volume is mounted there"), "{texts:?}");
    }

    #[test]
    fn the_files_of_kubeadm_are_right() {
        let flag = "--kubeconfig=/etc/kubernetes/scheduler.conf";
        assert_eq!(
            found_among(&RULE, scheduler_manifest(flag, "/etc/kubernetes/scheduler.conf", "FileOrCreate")),
            [""; 0]
        );
    }
}
