//! A3: leaders lose their leases because the way to the API server, a balancer's, is closed to them.

use crate::evidence::{Evidence, Place};
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::control_plane::leases;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "A3",
    title: "leaders do not reach the API server through its balancer",
    layer: Layer::Api,
    explains: &[
        Explains { ids: &["H2", "H3"], scope: Scope::Anywhere },
        Explains { ids: &["W1"], scope: Scope::Touched },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let lost = leases::lost(evidence);
    let mut found: Vec<Finding> = Vec::new();
    for told in leases::CLOSED.told(evidence) {
        let Some(address) = dialled(told.text) else { continue };
        let known = calls(evidence, &told.item.place);
        // Where nobody reaches an API server, that is the trouble.
        let answers = known.iter().find(|(_, target, works)| *works && !target.contains(address));
        if (answers.is_none() && !known.is_empty()) || lost.is_empty() {
            continue;
        }
        let certainty = if answers.is_some() { Certainty::Likely } else { Certainty::Possible };
        let repair = Repair::of(&[
            (
                "See what the balancer says of its servers, and whether its address is where it should be",
                "ip addr; curl -k https://ADDRESS:6443/readyz",
            ),
            (
                "Let the controller manager and the scheduler ask the API server of their own machine",
                "kubeadm init phase kubeconfig controller-manager --apiserver-advertise-address ADDRESS",
            ),
        ]);
        let own = answers.map_or(String::new(), |(_, target, _)| format!(", while {target} answers"));
        let text = format!("{} does not reach {address}{own}: {}", told.source.subject(), told.text.trim());
        let mut proof = told.lines.clone();
        proof.extend(answers.map(|(index, _, _)| *index));
        proof.extend(leases::proof(&lost));
        let subject = Subject::new("Server", address);
        let finding = Finding::failure(subject, told.item, certainty, text, proof, repair);
        found.push(finding.touching(vec![told.source.subject()]));
    }
    found
}

/// What was called from a machine, and whether it answered.
fn calls<'a>(evidence: &'a Evidence, place: &Place) -> Vec<(usize, &'a str, bool)> {
    let calls = evidence.pick(|fact| match fact {
        Fact::Call { target, error } => Some((target.as_str(), error.is_none())),
        _ => None,
    });
    calls
        .filter(|(_, item, _)| item.place == *place)
        .map(|(index, _, (target, works))| (index, target, works))
        .collect()
}

/// The address in `dial tcp ADDRESS: ...`.
fn dialled(line: &str) -> Option<&str> {
    let after = line.split_once("dial tcp ")?.1;
    Some(after.split(": ").next()?.trim())
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    const CLOSED: &str = r#"E0722 10:00:00.0 1 leaderelection.go:429] error retrieving resource lock kube-system/kube-scheduler: Get "https://192.0.2.100:6443/x": dial tcp 192.0.2.100:6443: i/o timeout"#;

    fn call(target: &str, error: Option<&str>) -> Item {
        on("one", Fact::Call { target: target.to_owned(), error: error.map(str::to_owned) })
    }

    #[test]
    fn a_balancer_that_does_not_answer_is_found_where_the_server_does() {
        let lines =
            || [ago(line_of("kube-scheduler", CLOSED), 9), ago(line_of("kube-scheduler", "leaderelection lost"), 8)];
        let texts = found_among(&RULE, lines().into_iter().chain([call("https://127.0.0.1:6443", None)]));
        assert!(
            texts.len() == 1
                && texts[0].contains("does not reach 192.0.2.100:6443, while https://127.0.0.1:6443 answers"),
            "{texts:?}"
        );
        assert_eq!(found_among(&RULE, lines()).len(), 1);
        assert_eq!(
            found_among(&RULE, lines().into_iter().chain([call("https://127.0.0.1:6443", Some("refused"))])),
            [""; 0]
        );
    }

    #[test]
    fn one_timeout_without_a_lost_lease_is_nothing() {
        assert_eq!(found_among(&RULE, [ago(line_of("kube-scheduler", CLOSED), 9)]), [""; 0]);
    }
}
