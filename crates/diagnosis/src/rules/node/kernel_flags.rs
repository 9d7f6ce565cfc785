//! E9: the kubelet protects its kernel settings, and finds others.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::lines::{is_of_kubelet, one_of_each_machine, told_of_starts};
use crate::rules::{Explains, Layer, Rule, Scope};

/// What the kubelet wants where it may not set it.
const WANTED: &[(&str, &str)] = &[
    ("vm.overcommit_memory", "1"),
    ("vm.panic_on_oom", "0"),
    ("kernel.panic", "10"),
    ("kernel.panic_on_oops", "1"),
    ("kernel.keys.root_maxkeys", "1000000"),
    ("kernel.keys.root_maxbytes", "25000000"),
];

pub(super) const RULE: Rule = Rule {
    id: "E9",
    title: "settings of the kernel are not those that the kubelet wants",
    layer: Layer::System,
    explains: &[Explains { ids: &["D9", "E2", "E6"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let wanted = |line: &crate::facts::LogFact| is_of_kubelet(line) && line.text.contains("invalid kernel flag: ");
    let told = told_of_starts(evidence, wanted, |line| {
        let flags =
            line.split("invalid kernel flag: ").skip(1).map(|rest| rest.trim_end_matches(['"', ']', ' ', ',', '[']));
        let flags: Vec<&str> = flags.collect();
        (format!("the kubelet ends at once, for protectKernelDefaults is on: {}", flags.join("; ")), repair())
    });
    one_of_each_machine(told.into_iter().chain(foreseen(evidence)))
}

fn foreseen(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    let strict = evidence.documents("kubelet").filter(|(_, _, kubelet)| kubelet["protectKernelDefaults"] == true);
    strict.filter_map(|(index, item, _)| {
        let wrong: Vec<(usize, String)> = WANTED
            .iter()
            .flat_map(|(name, wanted)| {
                let here = evidence.settings(name).filter(|(_, other, _)| other.place == item.place);
                let wrong = here.filter(|(_, _, value)| value.is_some_and(|value| value != *wanted));
                wrong.map(move |(index, _, value)| {
                    (index, format!("{name} is {}, {wanted} is wanted", value.unwrap_or_default()))
                })
            })
            .collect();
        let texts: Vec<&str> = wrong.iter().map(|(_, text)| text.as_str()).collect();
        let proof = std::iter::once(index).chain(wrong.iter().map(|(index, _)| *index)).collect();
        let text = format!("the kubelet will not start, for protectKernelDefaults is on: {}", texts.join("; "));
        let mut finding =
            Finding::failure(Subject::machine(&item.place), item, Certainty::Likely, text, proof, repair());
        finding.severity = Severity::Warning;
        (!wrong.is_empty()).then_some(finding)
    })
}

fn repair() -> Repair {
    Repair::of(&[
        (
            "Set what it wants, now and after a reboot",
            "printf 'vm.overcommit_memory=1\\nvm.panic_on_oom=0\\nkernel.panic=10\\nkernel.panic_on_oops=1\\nkernel.keys.root_maxkeys=1000000\\nkernel.keys.root_maxbytes=25000000\\n' > /etc/sysctl.d/90-kubelet.conf && sysctl --system",
        ),
        ("Start it", "systemctl restart kubelet"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn the_kubelets_words_are_found() {
        let line = "E0722 kubelet.go:1] \"Failed to start ContainerManager\" err=\"[invalid kernel flag: vm/overcommit_memory, expected value: 1, actual value: 0, invalid kernel flag: kernel/panic, expected value: 10, actual value: 0]\"";
        let found = found_among(&RULE, [logged("kubelet", line)]);
        assert!(
            found.len() == 1
                && found[0].ends_with("actual value: 0; kernel/panic, expected value: 10, actual value: 0"),
            "{found:?}"
        );
    }

    #[test]
    fn other_values_matter_only_where_they_are_protected() {
        let strict = |is: bool| document("kubelet", json!({"protectKernelDefaults": is}));
        let memory = |value: &str| setting("vm.overcommit_memory", Some(value));
        assert_eq!(found_among(&RULE, [strict(true), memory("0")]).len(), 1);
        assert_eq!(found_among(&RULE, [strict(true), memory("1")]), [""; 0]);
        assert_eq!(found_among(&RULE, [strict(false), memory("0")]), [""; 0]);
    }
}
