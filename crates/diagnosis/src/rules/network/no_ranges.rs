//! G9: the ranges of pod addresses are used up, or soon will be.

use ipnet::Ipv4Net;
use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{is_older_than, list, text};
use crate::rules::control_plane::component_of;
use crate::rules::control_plane::effects::Component;
use crate::rules::events::told_by_events;
use crate::rules::{Layer, Rule};

/// Bits of a node's range where nothing else is said.
const DEFAULT_MASK: u8 = 24;
/// It is said when less than one range of so many is left.
const SHARE: usize = 10;
/// Days whose new nodes are the pace.
const PACE_DAYS: i64 = 30;

pub(super) const RULE: Rule = Rule {
    id: "G9",
    title: "no range of pod addresses is left for a node",
    layer: Layer::Network,
    explains: &[],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        ("See what the nodes have", "kubectl get nodes -o custom-columns=NAME:.metadata.name,CIDR:.spec.podCIDRs"),
        ("Enlarge the range of pods, or give each node less", ""),
    ]);
    let mut found = told_by_events(evidence, &repair, |reason, message| {
        matches!(reason, "CIDRNotAvailable" | "CIDRAssignmentFailed") && !message.is_empty()
    });
    if found.is_empty() {
        found.extend(foreseen(evidence, &repair));
    }
    found
}

/// Ranges that are nearly all given out, held against what the controller manager is told to give.
fn foreseen(evidence: &Evidence, repair: &Repair) -> Option<Finding> {
    let mut managers =
        evidence.objects("Pod").filter(|(_, _, pod)| component_of(pod) == Some(Component::ControllerManager));
    let (index, item, pod) = managers.next()?;
    let range = flag(pod, "cluster-cidr")?.split(',').find_map(|range| range.parse::<Ipv4Net>().ok())?;
    let mask = flag(pod, "node-cidr-mask-size-ipv4").or_else(|| flag(pod, "node-cidr-mask-size"));
    let mask = mask.and_then(|mask| mask.parse().ok()).unwrap_or(DEFAULT_MASK);
    let all = 1_usize.checked_shl(u32::from(mask).checked_sub(u32::from(range.prefix_len()))?)?;
    let of_range =
        |node: &Value| text(&node["spec"]["podCIDR"]).parse::<Ipv4Net>().is_ok_and(|own| range.contains(&own));
    let nodes: Vec<&Value> = evidence.objects("Node").map(|(_, _, node)| node).filter(|node| of_range(node)).collect();
    let left = all.saturating_sub(nodes.len());
    // A cluster of one machine may be meant to stay one.
    if nodes.len() < 2 || left * SHARE > all {
        return None;
    }
    let new = nodes.iter().filter(|node| !is_older_than(node, PACE_DAYS * 86_400, evidence.gathered)).count();
    let days = (left * usize::try_from(PACE_DAYS).ok()?).checked_div(new);
    let when = days.filter(|_| left > 0).map_or(String::new(), |days| {
        format!("; at the pace of the last {PACE_DAYS} days none is left in {days} days")
    });
    let told = format!("{} of the {all} ranges in {range} are given out: {left} more nodes get one{when}", nodes.len());
    let subject = Subject::new("Range", &range.to_string());
    Some(Finding::failure(subject, item, Certainty::Proven, told, vec![index], repair.clone()).warning())
}

/// A flag of a pod's first container.
fn flag<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    let container = &pod["spec"]["containers"][0];
    let mut words = list(&container["command"]).chain(list(&container["args"]));
    words.find_map(|word| text(word).strip_prefix("--")?.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_node_without_a_range_is_found() {
        assert_eq!(
            found(&RULE, [event_of("Node", "nine", "CIDRNotAvailable", "Node nine status is now: CIDRNotAvailable")])
                .len(),
            1
        );
        assert_eq!(found(&RULE, [event_of("Node", "nine", "RegisteredNode", "x")]), [""; 0]);
    }

    #[test]
    fn ranges_that_run_out_are_foreseen_with_their_day() {
        let manager = |mask: &str| {
            let command = json!(["kube-controller-manager", "--cluster-cidr=10.244.0.0/20", mask]);
            pod("kube-system", "kube-controller-manager-one", json!({"containers": [{"command": command}]}), json!({}))
        };
        let nodes = |count: u64, mask: u64| {
            (0..count).map(move |number| {
                let mut node = old(node(&format!("n{number}"), json!([])));
                node["spec"] = json!({"podCIDR": format!("10.244.{number}.0/{mask}")});
                node
            })
        };
        let told = |count: u64| found(&RULE, nodes(count, 24).chain([manager("--node-cidr-mask-size=24")]));
        assert_eq!(
            told(15),
            [
                "15 of the 16 ranges in 10.244.0.0/20 are given out: 1 more nodes get one; at the pace of the last 30 days none is left in 2 days"
            ]
        );
        assert_eq!(told(16), ["16 of the 16 ranges in 10.244.0.0/20 are given out: 0 more nodes get one"]);
        assert_eq!(told(14), [""; 0]);
        assert_eq!(found(&RULE, nodes(15, 24).chain([manager("--node-cidr-mask-size=28")])), [""; 0]);
        assert_eq!(found(&RULE, nodes(15, 24)), [""; 0]);
    }
}
