//! E8: the kernel was started without control of memory, as small boards are.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::lines::{one_of_each_machine, says, told_of_starts};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "E8",
    title: "the kernel does not control memory",
    layer: Layer::System,
    explains: &[Explains { ids: &["D9", "E2", "E6"], scope: Scope::SameNode }],
    find,
};

const FORMS: &[&[&str]] = &[
    &["failed to find memory cgroup"],
    &["missing required cgroups: memory"],
    &["missing required cgroups", "memory"],
    &["CGROUPS_MEMORY: missing"],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let absent =
        evidence.measures("cgroup_controller").filter(|(_, _, found)| found.of == "memory" && found.value == 0.0);
    let absent = absent.map(|(index, item, _)| {
        let text =
            "the kernel's control of memory is switched off: limits of pods cannot be kept, and kubelets do not start";
        Finding::failure(Subject::machine(&item.place), item, Certainty::Proven, text.to_owned(), vec![index], repair())
    });
    let told = told_of_starts(
        evidence,
        |line| says(&line.text, FORMS),
        |line| (format!("the kernel's control of memory is switched off: {line}"), repair()),
    );
    one_of_each_machine(absent.chain(told))
}

fn repair() -> Repair {
    Repair::of(&[
        ("See how the kernel was started", "cat /proc/cmdline; grep memory /proc/cgroups"),
        (
            "On a Raspberry Pi, add it to the one line of cmdline.txt, and reboot",
            "sed -i '1 s/$/ cgroup_enable=memory cgroup_memory=1/' /boot/firmware/cmdline.txt && reboot",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn an_absent_controller_is_found_by_itself_and_by_what_is_said() {
        let controller = |of: &str, value: f64| measured("cgroup_controller", of, value, None);
        assert_eq!(found_among(&RULE, [controller("memory", 0.0)]).len(), 1);
        assert_eq!(found_among(&RULE, [controller("memory", 1.0), controller("hugetlb", 0.0)]), [""; 0]);
        assert_eq!(
            found_among(&RULE, [logged("k3s", "level=fatal msg=\"failed to find memory cgroup (v2)\"")]).len(),
            1
        );
        assert_eq!(
            found_among(&RULE, [pasted("kubeadm", "\t[ERROR SystemVerification]: missing required cgroups: memory")])
                .len(),
            1
        );
        assert_eq!(
            found_among(
                &RULE,
                [pasted("kubeadm", "\t[WARNING SystemVerification]: missing optional cgroups: hugetlb")]
            ),
            [""; 0]
        );
    }
}
