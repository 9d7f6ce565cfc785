//! B8: a member of the store is left from a machine that is gone.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::object::{list, text};
use crate::rules::etcd::{OF_THE_STORE, answers};
use crate::rules::signs::Sign;
use crate::rules::{Layer, Rule};

const SIGN: Sign = Sign {
    programs: &["kubeadm", "etcdctl"],
    words: &[
        &["check-etcd", "etcd cluster is not healthy"],
        &["etcdserver: Peer URLs already exists"],
        &["etcdserver: peerURL exists"],
    ],
    over: &[],
};

pub(super) const RULE: Rule = Rule {
    id: "B8",
    title: "a member of the store is left from a machine that is gone",
    layer: Layer::Etcd,
    explains: OF_THE_STORE,
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = SIGN.found(
        evidence,
        Certainty::Likely,
        |_| repair("ID", "NODE"),
        |told| format!("{} is stopped by a member that does not answer: {}", told.source.program(), told.text.trim()),
    );
    let nodes: Vec<&str> = evidence.objects("Node").map(|(_, _, node)| text(&node["metadata"]["name"])).collect();
    for (index, item, answer) in answers(evidence) {
        for member in list(&answer["members"]) {
            let (id, name) = (text(&member["ID"]), text(&member["name"]));
            let peer = text(&member["peerURLs"][0]);
            // A member has no name until it has started once; kubeadm's and Kedge's have their machine's.
            let why = match name {
                "" if member["isLearner"] != true => format!("the member at {peer} was added and has never started"),
                name if !name.is_empty() && !nodes.is_empty() && !nodes.contains(&name) => {
                    format!("{name} at {peer} is a member of the store, and there is no such node")
                }
                _ => continue,
            };
            let subject = Subject::new("Member", if name.is_empty() { peer } else { name });
            let mut finding = Finding::failure(subject, item, Certainty::Likely, why, vec![index], repair(id, name));
            finding.severity = Severity::Warning;
            found.push(finding);
        }
    }
    found
}

fn repair(id: &str, node: &str) -> Repair {
    let mut repair = Repair::of(&[
        ("See which member answers nobody", "etcdctl member list; etcdctl endpoint health --cluster"),
        ("Take it out; a member that is only down comes back without this", &format!("etcdctl member remove {id}")),
        ("And its node, if that is still listed", &format!("kubectl delete node {node}")),
    ]);
    repair.dangerous = true;
    repair
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_join_that_is_refused_is_found() {
        check_lines(
            &RULE,
            &[
                (
                    "kubeadm",
                    "error execution phase check-etcd: etcd cluster is not healthy: failed to dial endpoint https://192.0.2.3:2379 with maintenance client: context deadline exceeded",
                ),
                ("kubeadm", "etcdserver: Peer URLs already exists"),
            ],
            &[("kubeadm", "[check-etcd] Checking that the etcd cluster is healthy")],
        );
    }

    #[test]
    fn members_without_a_machine_are_found() {
        let member = |name: &str| json!({"ID": "7", "name": name, "peerURLs": ["https://192.0.2.3:2380"]});
        let answer = |name: &str| document("etcd", json!({"members": [member("one"), member(name)]}));
        let node = || on("one", Fact::Object(node("one", json!([]))));
        assert_eq!(found_among(&RULE, [answer("gone"), node()]).len(), 1);
        assert_eq!(found_among(&RULE, [answer(""), node()]).len(), 1);
        assert_eq!(found_among(&RULE, [answer("one"), node()]), [""; 0]);
        assert_eq!(found_among(&RULE, [answer("gone")]), [""; 0]);
    }
}
