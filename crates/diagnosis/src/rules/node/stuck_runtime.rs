//! E5: the runtime's calls hang, so that the kubelet no longer knows what runs.

use jiff::Timestamp;
use serde_json::Value;

use crate::evidence::{Evidence, Place};
use crate::facts::LogFact;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{condition, subject, text};
use crate::rules::lines::{is_of_kubelet, one_of_each_machine, told_within};
use crate::rules::{Explains, Layer, Rule, Scope};

const WORDS: &str = "PLEG is not healthy";
/// Of a kubelet that has just started, which is told apart from one whose first round hangs by how long it says so.
const FIRST_ROUND: &str = "pleg has yet to be successful";
/// The kubelet says it every few seconds while it lasts.
const SPAN: i64 = 120;
/// Processes in an uninterruptible wait that are quoted.
const MOST: usize = 5;

pub(super) const RULE: Rule = Rule {
    id: "E5",
    title: "calls of the container runtime hang",
    layer: Layer::Runtime,
    explains: &[Explains { ids: &["E2", "W1", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, node) in evidence.objects("Node") {
        let Some(ready) = condition(node, "Ready").filter(|ready| ready["status"] == "False") else { continue };
        let message = text(&ready["message"]);
        let is_starting = message.contains(FIRST_ROUND) && is_new(ready, evidence.gathered);
        if !message.contains(WORDS) || is_starting {
            continue;
        }
        let name = text(&node["metadata"]["name"]);
        let told = format!("{name}: {message}");
        let proof = with_waiting(evidence, &Place::Node(name.to_owned()), vec![index]);
        found.push(Finding::failure(subject(node), item, Certainty::Proven, told, proof, repair()).on_node(name));
    }
    let says_so = |line: &LogFact| line.text.contains(WORDS) && !line.text.contains(FIRST_ROUND);
    let told = told_within(evidence, SPAN, |line| is_of_kubelet(line) && says_so(line), |_| false);
    found.extend(told.iter().map(|told| {
        let place = &told.item.place;
        let text = format!("the kubelet waits for the runtime: {}", told.line.text.trim());
        let mut finding = told.finding(Subject::machine(place), Certainty::Proven, text, repair());
        finding.evidence = with_waiting(evidence, place, finding.evidence);
        finding
    }));
    one_of_each_machine(found)
}

/// Whether a condition is as it is since a moment ago.
fn is_new(condition: &Value, now: Timestamp) -> bool {
    let since = text(&condition["lastTransitionTime"]).parse::<Timestamp>();
    since.is_ok_and(|since| now.as_second() - since.as_second() < SPAN)
}

/// The same proof with the processes that wait for a disk or a server.
fn with_waiting(evidence: &Evidence, place: &Place, mut proof: Vec<usize>) -> Vec<usize> {
    let waiting = evidence.processes().filter(|(_, item, process)| item.place == *place && process.state == 'D');
    proof.extend(waiting.map(|(index, ..)| index).take(MOST));
    proof
}

fn repair() -> Repair {
    Repair::of(&[
        ("See what waits in the kernel, and for what", "ps -eo pid,stat,wchan:32,cmd | awk '$2 ~ /^D/'"),
        ("If it is a server of files that is gone", "umount -f -l MOUNTPOINT"),
        ("Restart the runtime: containers go on meanwhile", "systemctl restart containerd"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    const MESSAGE: &str = "PLEG is not healthy: pleg was last seen active 3m5.5s ago; threshold is 3m0s";

    #[test]
    fn a_hanging_runtime_is_found_by_its_node_and_by_the_log() {
        let sick = node("one", json!([{"type": "Ready", "status": "False", "message": MESSAGE}]));
        assert_eq!(found(&RULE, [sick]).len(), 1);
        let line = format!("E0722 kubelet.go:2000] \"Skipping pod synchronization\" err=\"{MESSAGE}\"");
        assert_eq!(found_among(&RULE, [ago(logged("kubelet", &line), 5), process("df -h", 'D', "nfs_wait")]).len(), 1);
        assert_eq!(found_among(&RULE, [ago(logged("kubelet", &line), 900), unit("kubelet", "active", "")]), [""; 0]);
    }

    #[test]
    fn the_first_round_of_a_kubelet_is_no_trouble() {
        let message = "PLEG is not healthy: pleg has yet to be successful";
        let starting = format!(
            "E0722 kubelet.go:2000] \"Skipping pod synchronization\" err=\"[container runtime status check may not have \
             completed yet, {message}]\""
        );
        assert_eq!(found_among(&RULE, [logged("kubelet", &starting)]), [""; 0]);
        let since = |seconds: i64| {
            let since = jiff::Timestamp::from_second(now().as_second() - seconds).unwrap().to_string();
            let ready = json!([{"type": "Ready", "status": "False", "message": message, "lastTransitionTime": since}]);
            found(&RULE, [node("one", ready)]).len()
        };
        assert_eq!((since(20), since(600)), (0, 1), "but one that lasts is");
        let down = node("one", json!([{"type": "Ready", "status": "False", "message": "container runtime is down"}]));
        assert_eq!(found(&RULE, [down]), [""; 0]);
    }
}
