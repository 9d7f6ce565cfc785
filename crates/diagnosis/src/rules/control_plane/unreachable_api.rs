//! A15: the API server does not answer.

use crate::evidence::{Evidence, Item};
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
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let failed = failed_calls(evidence).into_iter().map(|(index, item, target, error)| {
        let text = format!("{target}: {error}. What runs goes on running, and nothing can be changed");
        let subject = Subject::new("Server", target);
        Finding::failure(subject, item, Certainty::Likely, text, vec![index], repair(error))
    });
    let mut found: Vec<Finding> = failed.collect();
    if found.is_empty() {
        let tell = |told: &Told<'_>| told.text.trim().to_owned();
        found = SIGN.found(evidence, Certainty::Likely, |told| repair(told.text), tell);
    }
    found
}

/// Calls of an API server that failed, with their target and their error.
pub(super) fn failed_calls(evidence: &Evidence) -> Vec<(usize, &Item, &str, &str)> {
    let calls = evidence.pick(|fact| match fact {
        Fact::Call { target, error: Some(error) } => Some((target.as_str(), error.as_str())),
        _ => None,
    });
    calls.map(|(index, item, (target, error))| (index, item, target, error)).collect()
}

fn repair(error: &str) -> Repair {
    let advice = match error.contains("refused") {
        true => "Nothing listens there: look at the container of kube-apiserver and its last words",
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
