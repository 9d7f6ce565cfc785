//! H12: all machines fell silent in the same moment: what they talk to failed, not they.
//!
//! It lies where the silence of one machine lies, which it explains, although what failed may lie higher.

use jiff::Timestamp;

use crate::evidence::{Evidence, Place};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{condition, text};
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign {
    programs: &["kube-controller-manager"],
    words: &[&["all Nodes are not-Ready. Entering master disruption mode"]],
    over: &["some Nodes are Ready. Exiting master disruption mode"],
};
/// Fewer machines may fall silent together by chance.
const FEW: usize = 3;
/// Seconds between the first and the last.
const TOGETHER: i64 = 10;

pub(super) const RULE: Rule = Rule {
    id: "H12",
    title: "all machines fell silent at once",
    layer: Layer::Kubelet,
    explains: &[Explains { ids: &["E2"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let told = SIGN.told(evidence);
    let said: Vec<usize> = told.iter().flat_map(|told| told.lines.iter().copied()).collect();
    let Some((nodes, count)) = silent_together(evidence).or_else(|| (!said.is_empty()).then_some((Vec::new(), 0)))
    else {
        return Vec::new();
    };
    let sentence = match count {
        0 => "the controller manager sees no machine that is ready, and evicts nothing: what machines report to has failed".to_owned(),
        count => format!("all {count} machines fell silent within {TOGETHER} s: what they report to has failed, not they"),
    };
    let certainty = if said.is_empty() { Certainty::Likely } else { Certainty::Proven };
    let repair = Repair::of(&[
        ("Can machines reach the API server? On one of them", "kedge doctor node"),
        (
            "Look at what is between: the load balancer, the store, the clocks of the control plane",
            "kubectl get --raw /readyz?verbose; kubectl get leases -n kube-node-lease",
        ),
        ("Do not restart machines: their pods run on", ""),
    ]);
    let proof: Vec<usize> = said.into_iter().chain(nodes).collect();
    let item = &evidence.items[proof[0]];
    let mut finding = Finding::failure(Subject::new("Cluster", "nodes"), item, certainty, sentence, proof, repair);
    finding.place = Place::Cluster;
    vec![finding]
}

/// Every machine, if there are enough and all of them fell silent together.
fn silent_together(evidence: &Evidence) -> Option<(Vec<usize>, usize)> {
    let mut since: Vec<Timestamp> = Vec::new();
    let mut nodes = Vec::new();
    for (index, _, node) in evidence.objects("Node") {
        let ready = condition(node, "Ready").filter(|ready| ready["status"] == "Unknown")?;
        since.push(text(&ready["lastTransitionTime"]).parse().ok()?);
        nodes.push(index);
    }
    let (first, last) = (since.iter().min()?, since.iter().max()?);
    let count = nodes.len();
    (count >= FEW && last.as_second() - first.as_second() <= TOGETHER).then_some((nodes, count))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn silent(name: &str, seconds: i64) -> Value {
        let since = Timestamp::from_second(now().as_second() - seconds).expect("a time");
        node(
            name,
            json!([{"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status.", "lastTransitionTime": since.to_string()}]),
        )
    }

    #[test]
    fn silence_of_all_at_once_is_found() {
        assert_eq!(found(&RULE, [silent("a", 60), silent("b", 60), silent("c", 57)]).len(), 1);
        let ready = node("d", json!([{"type": "Ready", "status": "True"}]));
        assert_eq!(found(&RULE, [silent("a", 60), silent("b", 60), silent("c", 60), ready]), [""; 0]);
        assert_eq!(found(&RULE, [silent("a", 600), silent("b", 60), silent("c", 60)]), [""; 0]);
        assert_eq!(found(&RULE, [silent("a", 60), silent("b", 60)]), [""; 0]);
    }

    #[test]
    fn the_controller_manager_s_word_is_enough() {
        let line = |text: &str| container_logged("kube-controller-manager", text);
        let entered = || {
            line(
                "I0722 10:00:00.0 1 node_lifecycle_controller.go:1021] \"Controller detected that all Nodes are not-Ready. Entering master disruption mode\" logger=\"node-lifecycle-controller\"",
            )
        };
        assert_eq!(found_among(&RULE, [entered()]).len(), 1);
        let left = line("\"Controller detected that some Nodes are Ready. Exiting master disruption mode\"");
        assert_eq!(found_among(&RULE, [entered(), left]), [""; 0]);
    }
}
