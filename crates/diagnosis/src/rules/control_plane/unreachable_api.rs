//! A15: the API server does not answer.

use crate::evidence::Evidence;
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::{Layer, Rule};

pub(super) const RULE: Rule =
    Rule { id: "A15", title: "the API server does not answer", layer: Layer::Api, explains: &[], find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let calls = evidence.pick(|fact| match fact {
        Fact::Call { target, error: Some(error) } => Some((target, error)),
        _ => None,
    });
    let failed = calls.map(|(index, item, (target, error))| {
        let advice = match error.contains("refused") {
            true => "Nothing listens there: look at the container of kube-apiserver and its last words",
            false => "Look at the way there: firewall, balancer, names, clocks",
        };
        let repair = Repair::of(&[(advice, "kedge doctor node")]);
        let text = format!("{target}: {error}. What runs goes on running, and nothing can be changed");
        Finding::failure(Subject::new("Server", target), item, Certainty::Likely, text, vec![index], repair)
    });
    failed.collect()
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
}
