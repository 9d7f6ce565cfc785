//! E7: the kubelet refuses to run on the old kind of control groups.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::lines::{is_of_kubelet, one_of_each_machine, says, told_of_starts};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "E7",
    title: "the kubelet does not run on cgroup v1",
    layer: Layer::System,
    explains: &[Explains { ids: &["D9", "E2", "E6"], scope: Scope::SameNode }],
    find,
};

const FORMS: &[&[&str]] = &[
    &["kubelet is configured to not run on a host using cgroup v1"],
    &["cgroup v1 support is unsupported and will be removed"],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let refused = told_of_starts(
        evidence,
        |line| is_of_kubelet(line) && says(&line.text, &FORMS[..1]),
        |_| {
            ("the kubelet ends at once: this machine has cgroup v1, and failCgroupV1 is true, the default since 1.35".to_owned(), repair())
        },
    );
    one_of_each_machine(refused.into_iter().chain(foreseen(evidence)))
}

/// A kubelet that is told to go on with v1 will have to go on without.
fn foreseen(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    evidence.measures("cgroup_version").filter(|(_, _, version)| version.value < 2.0).filter_map(|(index, item, _)| {
        let mut kubelets = evidence.documents("kubelet").filter(|(_, other, _)| other.place == item.place);
        let (document, _, _) = kubelets.find(|(_, _, kubelet)| kubelet["failCgroupV1"] == true)?;
        let text = "this machine has cgroup v1, and its kubelet has failCgroupV1: it will not start again".to_owned();
        let proof = vec![index, document];
        let mut finding =
            Finding::failure(Subject::machine(&item.place), item, Certainty::Likely, text, proof, repair());
        finding.severity = Severity::Warning;
        Some(finding)
    })
}

fn repair() -> Repair {
    Repair::of(&[
        ("See which one it is: cgroup2fs is v2", "stat -fc %T /sys/fs/cgroup"),
        (
            "Boot with v2: add it to the kernel's command line, and reboot",
            "grubby --update-kernel=ALL --args=systemd.unified_cgroup_hierarchy=1",
        ),
        (
            "Or go on with v1 for now",
            "echo 'failCgroupV1: false' >> /var/lib/kubelet/config.yaml && systemctl restart kubelet",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_refusal_is_found_and_a_warning_of_the_kubelet_is_not() {
        let refused = "E0722 run.go:72] \"command failed\" err=\"failed to run Kubelet: kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be removed in a future release\"";
        assert_eq!(found_among(&RULE, [logged("kubelet", refused)]).len(), 1);
        let warned = "W0722 cgroup v1 support is unsupported and will be removed in a future release";
        assert_eq!(found_among(&RULE, [logged("kubelet", warned)]), [""; 0]);
    }

    #[test]
    fn a_setting_that_will_refuse_is_foreseen() {
        let version = |version: f64| measured("cgroup_version", "/sys/fs/cgroup", version, None);
        let kubelet = |fails: bool| document("kubelet", json!({"failCgroupV1": fails}));
        assert_eq!(found_among(&RULE, [version(1.0), kubelet(true)]).len(), 1);
        assert_eq!(found_among(&RULE, [version(1.0), kubelet(false)]), [""; 0]);
        assert_eq!(found_among(&RULE, [version(2.0), kubelet(true)]), [""; 0]);
    }
}
