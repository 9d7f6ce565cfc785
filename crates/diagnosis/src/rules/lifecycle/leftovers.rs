//! D8: a machine still has what an earlier cluster left there.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::lines::one_of_each_machine;
use crate::rules::preflight::checks;
use crate::rules::{Explains, Layer, Rule, Scope};

/// Beginnings of the checks' names: files, directories, and the kubelet's port.
const CHECKS: &[&str] = &["FileAvailable--etc-kubernetes", "DirAvailable--", "Port-10250"];

pub(super) const RULE: Rule = Rule {
    id: "D8",
    title: "an earlier cluster left its files",
    layer: Layer::System,
    // What is left may run still, and have the ports.
    explains: &[Explains { ids: &["A18"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let left = || {
        CHECKS.iter().flat_map(|prefix| checks(evidence, prefix)).filter(|check| check.severity == Severity::Failure)
    };
    one_of_each_machine(left().map(|first| {
        let same = || left().filter(|check| check.item.place == first.item.place);
        let texts: Vec<&str> = same().map(|check| check.text).collect();
        let text = format!("this machine is or was part of a cluster: {}", texts.join("; "));
        let mut repair = Repair::of(&[
            ("If it is part of a cluster that is still wanted, stop here: the next step deletes its data", ""),
            ("Take it down, etcd's data and certificates with it", "kedge reset"),
            ("With kubeadm", "kubeadm reset"),
        ]);
        repair.dangerous = true;
        let evidence = same().map(|check| check.index).collect();
        Finding::failure(Subject::machine(&first.item.place), first.item, Certainty::Proven, text, evidence, repair)
    }))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn leftovers_are_one_finding() {
        let lines = [
            "\t[ERROR FileAvailable--etc-kubernetes-manifests-kube-apiserver.yaml]: /etc/kubernetes/manifests/kube-apiserver.yaml already exists",
            "\t[ERROR DirAvailable--var-lib-etcd]: /var/lib/etcd is not empty",
            "\t[ERROR Port-10250]: Port 10250 is in use",
        ];
        let found = found_among(&RULE, lines.map(|line| pasted("kubeadm", line)));
        assert!(
            found.len() == 1 && found[0].contains("already exists; /var/lib/etcd is not empty; Port 10250"),
            "{found:?}"
        );
    }

    #[test]
    fn a_port_of_another_program_is_something_else() {
        assert_eq!(found_among(&RULE, [pasted("kubeadm", "\t[ERROR Port-6443]: Port 6443 is in use")]), [""; 0]);
    }
}
