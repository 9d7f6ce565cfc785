//! A7: a kubeconfig of a static pod is an empty file, which the kubelet made because the host path was mistyped.

use crate::action::Action;
use crate::evidence::Evidence;
use crate::facts::FileKind;
use crate::finding::Finding;
use crate::rules::control_plane::{Made, effects, made_by_the_kubelet};
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule = Rule {
    id: "A7",
    title: "a mistyped host path made an empty kubeconfig",
    layer: Layer::Etcd,
    explains: effects::OF_A_COMPONENT,
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let made = Made {
        volume: "FileOrCreate",
        kind: FileKind::EmptyFile,
        what: "file",
        remove: "rm",
        action: |path| Action::RemoveEmptyFile { path },
    };
    made_by_the_kubelet(evidence, &made, |_, _| true)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn an_empty_file_below_a_kubeconfig_is_found() {
        let mut items = scheduler_manifest(
            "--kubeconfig=/etc/kubernetes/scheduler.conf",
            "/etc/kubernetes/schedulr.conf",
            "FileOrCreate",
        );
        items.push(file("/etc/kubernetes/schedulr.conf", FileKind::EmptyFile));
        assert_eq!(found_among(&RULE, items).len(), 1);
    }

    #[test]
    fn a_file_with_content_is_right() {
        let mut items = scheduler_manifest(
            "--kubeconfig=/etc/kubernetes/scheduler.conf",
            "/etc/kubernetes/scheduler.conf",
            "FileOrCreate",
        );
        items.push(file("/etc/kubernetes/scheduler.conf", FileKind::File));
        assert_eq!(found_among(&RULE, items), [""; 0]);
    }
}
