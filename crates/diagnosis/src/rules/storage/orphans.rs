//! I12: directories of pods that are gone are left on a machine, and its kubelet says so again and again.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity};
use crate::rules::signs::Sign;
use crate::rules::{Layer, Rule};

const SIGN: Sign = Sign {
    programs: &["kubelet"],
    words: &[
        &["rphaned pod ", " found, but failed to rmdir() volume at path"],
        &["rphaned pod ", " found, but volume paths are still present on disk"],
        &["rphaned pod ", " found, but error occurred"],
        &["rphaned pod ", " found, but volumes are not cleaned up"],
    ],
    over: &["Cleaned up orphaned pod volumes dir", "Cleaned up orphaned volume from pod"],
};

pub(super) const RULE: Rule = Rule {
    id: "I12",
    title: "directories of pods that are gone are left on a machine",
    layer: Layer::Kubelet,
    explains: &[],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut repair = Repair::of(&[
        (
            "Is anything still mounted there? If so, unmount it and let the kubelet do the rest",
            "grep /var/lib/kubelet/pods/UID /proc/mounts",
        ),
        (
            "Only when nothing is mounted below: look at what is left, then remove it",
            "ls -laR /var/lib/kubelet/pods/UID/volumes; rm -r --one-file-system /var/lib/kubelet/pods/UID",
        ),
    ]);
    repair.dangerous = true;
    let mut found = SIGN.found(
        evidence,
        Certainty::Proven,
        |_| repair.clone(),
        |told| format!("the kubelet cannot clean up: {}", told.text.trim()),
    );
    for finding in &mut found {
        finding.severity = Severity::Warning;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn what_is_left_is_found_in_both_wordings() {
        check_lines(
            &RULE,
            &[
                (
                    "kubelet",
                    "E0722 10:00:00.0 1 kubelet_volumes.go:163] \"There were many similar errors. Turn up verbosity to see them.\" err=\"orphaned pod \\\"6b9\\\" found, but failed to rmdir() volume at path /var/lib/kubelet/pods/6b9/volumes/kubernetes.io~csi/pv: directory not empty\" numErrs=1",
                ),
                (
                    "kubelet",
                    "Orphaned pod \"6b9\" found, but volume paths are still present on disk : There were a total of 1 errors similar to this.",
                ),
            ],
            &[("kubelet", "\"Cleaned up orphaned pod volumes dir\" podUID=\"6b9\"")],
        );
    }
}
