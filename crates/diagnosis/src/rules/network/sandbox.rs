//! Why pods get no network: the words of CNI plugins, as events of pods, conditions of nodes and the runtime's log have
//! them, one finding for each machine.

use crate::evidence::{Evidence, Place};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{condition, text};
use crate::rules::events::told_of_nodes;
use crate::rules::lines::says;
use crate::rules::signs::Sign;

/// Findings for each machine where a plugin said one of these; `tell` makes a sentence of the message.
pub(super) fn refused_networks(
    evidence: &Evidence,
    forms: &'static [&'static [&'static str]],
    repair: &Repair,
    tell: impl Fn(&str) -> String,
) -> Vec<Finding> {
    let wanted = |reason: &str, message: &str| {
        matches!(reason, "FailedCreatePodSandBox" | "FailedKillPod" | "NetworkNotReady") && says(message, forms)
    };
    let mut found = told_of_nodes(evidence, repair, wanted, |_, message| tell(message));
    let mut add = |finding: Finding| {
        if !found.iter().any(|known| known.place == finding.place) {
            found.push(finding);
        }
    };
    for (index, item, node) in evidence.objects("Node") {
        let message = condition(node, "Ready").map_or("", |ready| text(&ready["message"]));
        if says(message, forms) {
            let place = Place::Node(text(&node["metadata"]["name"]).to_owned());
            let subject = Subject::machine(&place);
            let mut finding =
                Finding::failure(subject, item, Certainty::Proven, tell(message), vec![index], repair.clone());
            finding.place = place;
            add(finding);
        }
    }
    let sign = Sign { programs: &["containerd", "crio", "kubelet"], words: forms, over: &[] };
    for told in sign.told(evidence) {
        let subject = Subject::machine(&told.item.place);
        let sentence = tell(told.text);
        add(Finding::failure(subject, told.item, Certainty::Proven, sentence, told.lines, repair.clone()));
    }
    found
}
