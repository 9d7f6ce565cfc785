//! G8: flannel's plugin has no subnet, because its agent did not write one: it does not run, or its node has no range.

use crate::evidence::{Evidence, Place};
use crate::finding::{Finding, Repair, Subject};
use crate::rules::network::sandbox::refused_networks;
use crate::rules::{Explains, Layer, Rule, Scope};

const FORMS: &[&[&str]] =
    &[&["/run/flannel/subnet.env", "no such file or directory"], &["failed to load flannel 'subnet.env' file"]];

pub(super) const RULE: Rule = Rule {
    id: "G8",
    title: "flannel has no range of addresses for a machine's pods",
    layer: Layer::Network,
    explains: &[Explains { ids: &["E3", "W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        (
            "Does flannel's agent run on the machine, and what does it say?",
            "kubectl -n kube-flannel get pods -o wide; kubectl -n kube-flannel logs ds/kube-flannel-ds",
        ),
        ("Has the node a range?", "kubectl get nodes -o custom-columns=NAME:.metadata.name,CIDR:.spec.podCIDR"),
        (
            "Where it has none: let the controller manager give ranges out",
            "--allocate-node-cidrs=true --cluster-cidr=10.244.0.0/16",
        ),
    ]);
    let mut found = refused_networks(evidence, FORMS, &repair, |_| {
        "flannel's plugin finds no /run/flannel/subnet.env, which flannel's agent writes when it knows its node's range"
            .to_owned()
    });
    for finding in &mut found {
        if let Some(index) = without_range(evidence, &finding.place) {
            finding.text.push_str("; the node has no spec.podCIDR");
            finding.evidence.push(index);
        }
    }
    found
}

/// The node, if it was looked at and has no range.
fn without_range(evidence: &Evidence, place: &Place) -> Option<usize> {
    let Place::Node(name) = place else { return None };
    let (index, _, node) = evidence.object(&Subject::new("Node", name))?;
    node["spec"]["podCIDR"].is_null().then_some(index)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_missing_file_is_found_in_both_wordings_and_tied_to_the_range() {
        let old = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox \"a\": plugin type=\"flannel\" failed (add): loadFlannelSubnetEnv failed: open /run/flannel/subnet.env: no such file or directory";
        let new = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox \"a\": plugin type=\"flannel\" failed (add): failed to load flannel 'subnet.env' file: stat /run/flannel/subnet.env: not there. Check the flannel pod log for this node.";
        let web = pod("a", "web", json!({"nodeName": "one"}), json!({}));
        for message in [old, new] {
            let texts = found(
                &RULE,
                [event_of("Pod", "web", "FailedCreatePodSandBox", message), web.clone(), node("one", json!([]))],
            );
            assert!(texts.len() == 1 && texts[0].ends_with("no spec.podCIDR"), "{texts:?}");
        }
        assert_eq!(found_among(&RULE, [logged("containerd", old)]).len(), 1);
        assert_eq!(found_among(&RULE, [logged("containerd", "subnet.env was written")]), [""; 0]);
    }
}
