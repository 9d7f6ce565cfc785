//! A15: the API server does not answer.

use std::collections::BTreeMap;

use crate::evidence::{Evidence, Item, Place};
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::signs::{Sign, Told};
use crate::rules::{Explains, Layer, Rule, Scope};

/// What a person's command says of it.
const SIGN: Sign = Sign {
    programs: &["kubectl", "kubeadm"],
    words: &[&["The connection to the server", "was refused - did you specify the right host or port?"]],
    over: &[],
};

pub(super) const RULE: Rule = Rule {
    id: "A15",
    title: "the API server does not answer",
    layer: Layer::Api,
    explains: &[
        Explains { ids: &["A20", "C5", "D10", "E1", "E2", "G14", "H2", "H3"], scope: Scope::Anywhere },
        Explains { ids: &["W1"], scope: Scope::ControlPlane },
        // The kubelet of the machine that should have it.
        Explains { ids: &["E22"], scope: Scope::Touched },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut machines: BTreeMap<&Place, Vec<Call<'_>>> = BTreeMap::new();
    for call in failed_calls(evidence) {
        machines.entry(&call.1.place).or_default().push(call);
    }
    let mut found: Vec<Finding> = machines.into_values().filter_map(|calls| of_machine(&calls)).collect();
    if found.is_empty() {
        let tell = |told: &Told<'_>| told.text.trim().to_owned();
        found = SIGN.found(evidence, Certainty::Likely, |told| repair(told.text), tell);
    }
    found
}

/// What one machine found out; its own server comes first, as what is wrong with that is there to be seen.
fn of_machine(calls: &[Call<'_>]) -> Option<Finding> {
    let is_own = |target: &str| ["//127.", "//[::1]", "//localhost"].iter().any(|own| target.contains(own));
    let (_, item, target, error) = calls.iter().find(|(_, _, target, _)| is_own(target)).or(calls.first())?;
    let text = format!("{target}: {error}. What runs goes on running, and nothing can be changed");
    let proof = calls.iter().map(|(index, ..)| *index).collect();
    let hosts = calls.iter().filter_map(|(_, _, target, _)| Some(Subject::new("Node", host(target)?)));
    let subject = Subject::new("Server", target);
    let finding = Finding::failure(subject, item, Certainty::Likely, text, proof, repair(error));
    Some(finding.touching(hosts.collect()))
}

/// The host in `https://HOST:PORT`.
fn host(target: &str) -> Option<&str> {
    let (host, _) = target.strip_prefix("https://")?.rsplit_once(':')?;
    Some(host.trim_matches(['[', ']']))
}

/// The item, what was called, and how it failed.
type Call<'a> = (usize, &'a Item, &'a str, &'a str);

/// Calls of an API server that failed, with their target and their error.
pub(super) fn failed_calls(evidence: &Evidence) -> Vec<Call<'_>> {
    let calls = evidence.pick(|fact| match fact {
        Fact::Call { target, error: Some(error) } => Some((target.as_str(), error.as_str())),
        _ => None,
    });
    calls.map(|(index, item, (target, error))| (index, item, target, error)).collect()
}

fn repair(error: &str) -> Repair {
    let is_cut =
        ["handshake eof", "reset by peer", "unexpected eof", "closed", "EOF"].iter().any(|word| error.contains(word));
    let advice = match error.contains("refused") {
        true => "Nothing listens there: on that machine, look at the container of kube-apiserver and its last words",
        false if is_cut => {
            "The connection is taken and cut: a balancer with no API server behind it. On the control plane's machines, see why none runs"
        }
        false => "Look at the way there: firewall, balancer, names, clocks",
    };
    Repair::of(&[(advice, "kedge doctor node")])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_refused_call_is_found_and_an_answer_is_not() {
        let call = |error: Option<&str>| Item {
            time: None,
            place: Place::Cluster,
            origin: "kubeconfig".to_owned(),
            fact: Fact::Call { target: "https://10.0.0.1:6443".to_owned(), error: error.map(str::to_owned) },
        };
        assert_eq!(found_among(&RULE, [call(Some("connection refused"))]).len(), 1);
        assert_eq!(found_among(&RULE, [call(None)]), [""; 0]);
    }

    #[test]
    fn a_persons_command_says_it_too() {
        check_lines(
            &RULE,
            &[(
                "kubectl",
                "The connection to the server 192.0.2.1:6443 was refused - did you specify the right host or port?",
            )],
            &[("kubectl", "No resources found in default namespace.")],
        );
    }
}
