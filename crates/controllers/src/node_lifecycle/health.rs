//! Whether a node is well, from what its kubelet last said and when, and which conditions and taints follow.
//!
//! Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::taints::taints_of;

pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions and the NoSchedule taint that each gives while it is True.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
/// The conditions that a silent kubelet leaves unknown.
const KUBELET_CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// A node's Ready condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    True,
    False,
    Unknown,
}

/// A condition of a node by its type.
pub(crate) fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// What the node's Ready condition says; a node that has none has never been heard of.
pub(crate) fn readiness(node: &Node) -> Readiness {
    match condition(node, "Ready").map(|ready| ready.status.as_str()) {
        Some("True") => Readiness::True,
        Some("False") => Readiness::False,
        _ => Readiness::Unknown,
    }
}

/// How long the node may stay silent yet; `None` where it has been silent for too long.
pub(crate) fn time_left(
    node: &Node,
    heard: Timestamp,
    grace: Duration,
    startup_grace: Duration,
    now: Timestamp,
) -> Option<Duration> {
    let grace = if condition(node, "Ready").is_some() { grace } else { startup_grace };
    let silent = now.duration_since(heard);
    let left = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX) - silent;
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}

/// The conditions of a node that fell silent; `None` where they say so already.
pub(crate) fn plan_silence(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let before = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut conditions = before.clone();
    for type_ in KUBELET_CONDITIONS {
        match conditions.iter_mut().find(|condition| condition.type_ == type_) {
            None => conditions.push(NodeCondition {
                type_: type_.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
            Some(condition) if condition.status != "Unknown" => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(Time(now));
            }
            Some(_) => {}
        }
    }
    (conditions != before).then_some(conditions)
}

/// Whether pods are to be driven off a node that is not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// Taint it.
    Allowed,
    /// Not now: a taint that is there stays, none is added.
    Held,
    /// All nodes are silent, so that the fault is ours: take such taints away.
    Suspended,
}

/// The taints that a node's conditions give; `None` where it has them already.
pub(crate) fn plan_taints(node: &Node, eviction: Eviction, now: Timestamp) -> Option<Vec<Taint>> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    let unwell = match readiness(node) {
        Readiness::True => None,
        Readiness::False => Some(NOT_READY),
        Readiness::Unknown => Some(UNREACHABLE),
    };
    wanted.extend(unwell.map(|key| (key, "NoSchedule")));
    for (type_, key) in PRESSURES {
        if condition(node, type_).is_some_and(|condition| condition.status == "True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let current = taints_of(node);
    let is_executing =
        |taint: &Taint| taint.effect == "NoExecute" && (taint.key == NOT_READY || taint.key == UNREACHABLE);
    let was_executing = current.iter().any(is_executing);
    if let Some(key) = unwell
        && (eviction == Eviction::Allowed || eviction == Eviction::Held && was_executing)
    {
        wanted.push((key, "NoExecute"));
    }
    let is_ours = |taint: &Taint| {
        let managed = taint.key == NOT_READY
            || taint.key == UNREACHABLE
            || taint.key == UNSCHEDULABLE
            || PRESSURES.iter().any(|(_, key)| *key == taint.key);
        managed && taint.effect == "NoSchedule" || is_executing(taint)
    };
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<Taint> = current.iter().filter(|taint| !is_ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in &wanted {
        if !taints.iter().any(|taint| taint.key == *key && taint.effect == *effect) {
            taints.push(Taint {
                key: (*key).to_owned(),
                effect: (*effect).to_owned(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    (taints != current).then_some(taints)
}

/// Whether a node still lacks the taint that drives its pods off.
pub(crate) fn needs_eviction(node: &Node) -> bool {
    let key = match readiness(node) {
        Readiness::True => return false,
        Readiness::False => NOT_READY,
        Readiness::Unknown => UNREACHABLE,
    };
    !taints_of(node).iter().any(|taint| {
        taint.effect == "NoExecute" && (taint.key == key || taint.key == NOT_READY || taint.key == UNREACHABLE)
    })
}

#[cfg(test)]
pub(crate) mod fixtures {
    //! Nodes as tests need them.

    use super::*;

    /// A node with a Ready condition of the given status, or none.
    pub(crate) fn node(name: &str, ready: Option<&str>) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some(name.to_owned());
        node.metadata.uid = Some(name.to_owned());
        if let Some(status) = ready {
            node.status.get_or_insert_default().conditions = Some(vec![NodeCondition {
                type_: "Ready".to_owned(),
                status: status.to_owned(),
                ..NodeCondition::default()
            }]);
        }
        node
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::node;
    use super::*;
    use crate::taints::fixtures::taint;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn show(taints: Option<Vec<Taint>>) -> Option<String> {
        let one = |taint: &Taint| format!("{}:{}", taint.key.replace("node.kubernetes.io/", ""), taint.effect);
        taints.map(|taints| taints.iter().map(one).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn taints_follow_conditions() {
        let check = |node: Node, eviction: Eviction, expected: Option<&str>| {
            assert_eq!(show(plan_taints(&node, eviction, NOW)).as_deref(), expected);
        };
        let tainted = |mut node: Node, taints: &[Taint]| {
            node.spec.get_or_insert_default().taints = Some(taints.to_vec());
            node
        };
        check(node("a", Some("True")), Eviction::Allowed, None);
        check(node("a", Some("False")), Eviction::Allowed, Some("not-ready:NoSchedule not-ready:NoExecute"));
        check(node("a", Some("Unknown")), Eviction::Held, Some("unreachable:NoSchedule"));
        let unreachable = [taint(UNREACHABLE, "NoSchedule"), taint(UNREACHABLE, "NoExecute")];
        check(tainted(node("a", Some("Unknown")), &unreachable), Eviction::Held, None);
        check(tainted(node("a", Some("Unknown")), &unreachable), Eviction::Suspended, Some("unreachable:NoSchedule"));
        check(
            tainted(node("a", Some("False")), &unreachable),
            Eviction::Held,
            Some("not-ready:NoSchedule not-ready:NoExecute"),
        );
        let foreign = [unreachable[0].clone(), taint("mine", "NoExecute")];
        check(tainted(node("a", Some("True")), &foreign), Eviction::Allowed, Some("mine:NoExecute"));
        let mut cordoned = node("a", Some("True"));
        cordoned.spec.get_or_insert_default().unschedulable = Some(true);
        check(cordoned, Eviction::Allowed, Some("unschedulable:NoSchedule"));
    }

    #[test]
    fn silence_makes_conditions_unknown_once() {
        let silent = plan_silence(&node("a", Some("True")), NOW).unwrap();
        let show: Vec<String> = silent
            .iter()
            .map(|condition| {
                format!("{} {} {}", condition.type_, condition.status, condition.reason.as_deref().unwrap())
            })
            .collect();
        assert_eq!(
            show,
            [
                "Ready Unknown NodeStatusUnknown",
                "MemoryPressure Unknown NodeStatusNeverUpdated",
                "DiskPressure Unknown NodeStatusNeverUpdated",
                "PIDPressure Unknown NodeStatusNeverUpdated",
            ]
        );
        let mut known = node("a", None);
        known.status.get_or_insert_default().conditions = Some(silent);
        assert_eq!(plan_silence(&known, NOW), None);
    }

    #[test]
    fn new_nodes_may_be_silent_for_longer() {
        let check = |node: &Node, silent: i64, left: Option<u64>| {
            let (grace, startup) = (Duration::from_secs(50), Duration::from_secs(60));
            let now = Timestamp::from_second(silent).unwrap();
            assert_eq!(time_left(node, NOW, grace, startup, now), left.map(Duration::from_secs));
        };
        check(&node("a", Some("True")), 0, Some(50));
        check(&node("a", Some("True")), 50, None);
        check(&node("a", None), 50, Some(10));
    }
}
