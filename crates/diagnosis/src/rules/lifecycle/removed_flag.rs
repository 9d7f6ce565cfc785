//! D17: the kubelet is given a flag that its version no longer has, or that the next one will not have.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::object::{list, text};
use crate::rules::lines::{is_of_kubelet, one_of_each_machine, says, told_of_starts};
use crate::rules::{Explains, Layer, Rule, Scope};

/// Flags that were removed, with the minor version of 1.x that removed them.
const REMOVED: &[(&str, u32)] = &[
    ("--network-plugin", 24),
    ("--cni-conf-dir", 24),
    ("--cni-bin-dir", 24),
    ("--non-masquerade-cidr", 24),
    ("--experimental-check-node-capabilities-before-mount", 24),
    ("--container-runtime", 27),
    ("--master-service-namespace", 27),
    ("--keep-terminated-pod-volumes", 31),
    ("--pod-infra-container-image", 35),
];

pub(super) const RULE: Rule = Rule {
    id: "D17",
    title: "the kubelet is given a flag that is no more",
    layer: Layer::Kubelet,
    explains: &[Explains { ids: &["D9", "E2", "E6"], scope: Scope::SameNode }],
    find,
};

const FORMS: &[&[&str]] =
    &[&["failed to parse kubelet flag"], &["unknown flag: --"], &["unexpected argument '--", "found"]];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let told = told_of_starts(
        evidence,
        |line| is_of_kubelet(line) && says(&line.text, FORMS),
        |line| (format!("the kubelet ends at once: {line}"), repair()),
    );
    one_of_each_machine(told.into_iter().chain(foreseen(evidence)))
}

/// Flags in the files from which the kubelet is started.
fn foreseen(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    evidence.documents("kubelet-flags").filter_map(|(index, item, flags)| {
        let words = words(flags);
        let given = |flag: &str| words.iter().any(|word| word.split('=').next() == Some(flag));
        let (flag, minor) = REMOVED.iter().find(|(flag, _)| given(flag))?;
        let text =
            format!("the kubelet is given {flag}, which 1.{minor} removed: a kubelet of that version does not start");
        let subject = Subject::machine(&item.place);
        let mut finding = Finding::failure(subject, item, Certainty::Likely, text, vec![index], repair());
        finding.severity = Severity::Warning;
        Some(finding)
    })
}

/// The words of flags, given as one text or as a list of them.
fn words(flags: &Value) -> Vec<&str> {
    let texts = flags.as_str().into_iter().chain(list(flags).map(text));
    let words = texts.flat_map(|text| text.split_whitespace());
    words.map(|word| word.trim_start_matches("KUBELET_KUBEADM_ARGS=").trim_matches('"')).collect()
}

fn repair() -> Repair {
    Repair::of(&[
        (
            "See where it stands",
            "grep -rn -- '--' /var/lib/kubelet/kubeadm-flags.env /etc/default/kubelet /etc/sysconfig/kubelet /etc/systemd/system/kubelet.service.d",
        ),
        ("Delete it there, and start the kubelet", "systemctl daemon-reload && systemctl restart kubelet"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn an_unknown_flag_is_found_in_the_log() {
        let line = "E0722 10:00:00.0 1 run.go:74] \"command failed\" err=\"failed to parse kubelet flag: unknown flag: --network-plugin\"";
        assert_eq!(found_among(&RULE, [logged("kubelet", line)]).len(), 1);
        assert_eq!(
            found_among(&RULE, [logged("kubelet", "error: unexpected argument '--network-plugin' found")]).len(),
            1
        );
        assert_eq!(found_among(&RULE, [logged("containerd", "unknown flag: --x")]), [""; 0]);
    }

    #[test]
    fn a_flag_that_will_be_gone_is_foreseen() {
        let flags = |text: &str| document("kubelet-flags", json!(text));
        assert_eq!(
            found_among(&RULE, [flags("KUBELET_KUBEADM_ARGS=\"--pod-infra-container-image=x --node-ip=1.2.3.4\"")])
                .len(),
            1
        );
        assert_eq!(found_among(&RULE, [document("kubelet-flags", json!(["--container-runtime=remote"]))]).len(), 1);
        assert_eq!(
            found_among(&RULE, [flags("--container-runtime-endpoint=unix:///run/containerd/containerd.sock")]),
            [""; 0]
        );
    }
}
