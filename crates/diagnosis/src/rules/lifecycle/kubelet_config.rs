//! D18: the kubelet's configuration is not there, or cannot be read: the machine never joined, or the file is broken.

use crate::evidence::Evidence;
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::lines::{is_of_kubelet, one_of_each_machine, says, told_of_starts};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "D18",
    title: "the kubelet has no configuration that it can read",
    layer: Layer::Kubelet,
    explains: &[Explains { ids: &["D9", "E2", "E6"], scope: Scope::SameNode }],
    find,
};

const FORMS: &[&[&str]] = &[
    &["failed to load Kubelet config file"],
    &["failed to load kubelet config file"],
    &["failed to validate kubelet configuration"],
    &["cannot use the configuration of the kubelet"],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let broken = evidence.pick(|fact| match fact {
        Fact::Document { name, path, content: Err(why) } if name == "kubelet" => Some((path, why)),
        _ => None,
    });
    let broken = broken.map(|(index, item, (path, why))| {
        let text = format!("{path} cannot be read as the kubelet's configuration: {why}");
        Finding::failure(Subject::machine(&item.place), item, Certainty::Proven, text, vec![index], repair())
    });
    let told = told_of_starts(
        evidence,
        |line| is_of_kubelet(line) && says(&line.text, FORMS),
        |line| (format!("the kubelet ends at once: {line}"), repair()),
    );
    one_of_each_machine(broken.chain(told))
}

fn repair() -> Repair {
    Repair::of(&[
        (
            "A machine that never joined has none: join it",
            "kedge join ADDRESS:6443 --token TOKEN --discovery-token-ca-cert-hash HASH",
        ),
        ("Write it anew from the cluster's", "kubeadm upgrade node phase kubelet-config"),
        ("Start the kubelet", "systemctl restart kubelet"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_missing_and_a_broken_file_are_found() {
        let line = "E0722 10:00:00.0 1 run.go:74] \"command failed\" err=\"failed to load kubelet config file, path: /var/lib/kubelet/config.yaml, error: failed to load Kubelet config file /var/lib/kubelet/config.yaml, error failed to read kubelet config file\"";
        assert_eq!(found_among(&RULE, [logged("kubelet", line)]).len(), 1);
        let broken = |content| {
            on(
                "one",
                Fact::Document { name: "kubelet".to_owned(), path: "/var/lib/kubelet/config.yaml".to_owned(), content },
            )
        };
        assert_eq!(found_among(&RULE, [broken(Err("did not find expected key".to_owned()))]).len(), 1);
        assert_eq!(found_among(&RULE, [broken(Ok(json!({})))]), [""; 0]);
    }

    #[test]
    fn a_kubelet_that_runs_by_now_has_read_its_file() {
        let line = "failed to load kubelet config file, path: /var/lib/kubelet/config.yaml";
        assert_eq!(
            found_among(&RULE, [ago(logged("kubelet", line), 300), unit("kubelet", "active", "enabled")]),
            [""; 0]
        );
    }
}
