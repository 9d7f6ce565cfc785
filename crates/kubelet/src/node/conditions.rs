//! The conditions of the node, with upstream's reasons and messages.
//!
//! Pure. Invariant: a transition time moves only with the condition's status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeCondition, NodeStatus};
use kedge_cri::v1;

use super::find;
use crate::status::time;

/// What was found out about the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    /// Why the runtime does not work.
    pub(crate) runtime: Option<String>,
    /// Why pods have no network.
    pub(crate) network: Option<String>,
    /// Whether the runtime's state is known.
    pub(crate) listed: Result<(), String>,
    pub(crate) memory_pressure: bool,
    pub(crate) disk_pressure: bool,
    pub(crate) pid_pressure: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            runtime: None,
            network: None,
            listed: Ok(()),
            memory_pressure: false,
            disk_pressure: false,
            pid_pressure: false,
        }
    }
}

impl Health {
    /// Takes what the runtime says of itself.
    pub(crate) fn read_runtime(&mut self, status: Option<&v1::RuntimeStatus>) {
        let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
        let problem = |type_: &str| {
            let condition = conditions.iter().find(|condition| condition.r#type == type_);
            match condition {
                None => Some(format!("{type_}=false reason: message:")),
                Some(condition) if !condition.status => {
                    Some(format!("{type_}=false reason:{} message:{}", condition.reason, condition.message))
                }
                Some(_) => None,
            }
        };
        self.runtime = problem("RuntimeReady").map(|problem| format!("container runtime is not ready: {problem}"));
        self.network = problem("NetworkReady").map(|problem| format!("container runtime network not ready: {problem}"));
    }

    /// Why the node is not ready.
    pub(crate) fn not_ready(&self) -> Option<String> {
        let mut problems: Vec<&str> = Vec::new();
        problems.extend(self.runtime.as_deref());
        problems.extend(self.network.as_deref());
        problems.extend(self.listed.as_ref().err().map(String::as_str));
        match problems.as_slice() {
            [] => None,
            [one] => Some((*one).to_owned()),
            many => Some(format!("[{}]", many.join(", "))),
        }
    }
}

/// All conditions, in upstream's order.
pub(super) fn conditions(health: &Health, known: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let pressure = |type_: &str, under: bool, what: &str, yes: &str, no: &str| {
        let (reason, message) = match under {
            true => (yes, format!("kubelet has {}", what.replace("sufficient", "insufficient"))),
            false => (no, format!("kubelet has {what}")),
        };
        (type_.to_owned(), under, reason.to_owned(), message)
    };
    let not_ready = health.not_ready();
    let disk = match health.disk_pressure {
        true => ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        false => ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    };
    let drafts = [
        pressure(
            "MemoryPressure",
            health.memory_pressure,
            "sufficient memory available",
            "KubeletHasInsufficientMemory",
            "KubeletHasSufficientMemory",
        ),
        ("DiskPressure".to_owned(), health.disk_pressure, disk.0.to_owned(), disk.1.to_owned()),
        pressure(
            "PIDPressure",
            health.pid_pressure,
            "sufficient PID available",
            "KubeletHasInsufficientPID",
            "KubeletHasSufficientPID",
        ),
        match &not_ready {
            None => ("Ready".to_owned(), true, "KubeletReady".to_owned(), "kubelet is posting ready status".to_owned()),
            Some(message) => ("Ready".to_owned(), false, "KubeletNotReady".to_owned(), message.clone()),
        },
    ];
    drafts
        .into_iter()
        .map(|(type_, holds, reason, message)| {
            let status = if holds { "True" } else { "False" };
            let same = find(known, &type_).filter(|known| known.status == status);
            let transition = same.and_then(|same| same.last_transition_time.clone());
            NodeCondition {
                status: status.to_owned(),
                reason: Some(reason),
                message: Some(message),
                last_heartbeat_time: Some(time(now)),
                last_transition_time: transition.or_else(|| Some(time(now))),
                type_,
            }
        })
        .collect()
}

/// The events that follow from conditions that changed: reason and message.
pub(super) fn changes(node: &str, before: Option<&[NodeCondition]>, after: &NodeStatus) -> Vec<(String, String)> {
    let name = |reason: &str| reason.trim_start_matches("Kubelet").to_owned();
    let mut events = Vec::new();
    for condition in after.conditions.iter().flatten() {
        let known = find(before.unwrap_or_default(), &condition.type_);
        if known.is_some_and(|known| known.status == condition.status) {
            continue;
        }
        let reason = match (condition.type_.as_str(), condition.status.as_str()) {
            ("Ready", "True") => "NodeReady".to_owned(),
            ("Ready", _) if known.is_none() => continue,
            ("Ready", _) => "NodeNotReady".to_owned(),
            _ => format!("Node{}", name(condition.reason.as_deref().unwrap_or_default())),
        };
        let message = is_now(node, &reason);
        events.push((reason, message));
    }
    events
}

/// The event of a node that takes pods from now on, or does not any more; nothing where that is as it was.
pub(super) fn schedulable(before: bool, after: bool) -> Option<&'static str> {
    match (before, after) {
        (true, false) => Some("NodeNotSchedulable"),
        (false, true) => Some("NodeSchedulable"),
        _ => None,
    }
}

/// What is told of a machine that was started anew since its node was last reported.
pub(super) fn reboot(node: &str, before: Option<&NodeStatus>, after: &NodeStatus) -> Option<String> {
    let boot = |status: &NodeStatus| status.node_info.as_ref().map(|info| info.boot_id.clone()).unwrap_or_default();
    let (known, now) = (before.map(boot).unwrap_or_default(), boot(after));
    (!known.is_empty() && known != now).then(|| format!("Node {node} has been rebooted, boot id: {now}"))
}

/// The message of all events that tell of a state of the node.
pub(super) fn is_now(node: &str, reason: &str) -> String {
    format!("Node {node} status is now: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::NodeSystemInfo;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn text(conditions: &[NodeCondition], type_: &str) -> String {
        let condition = find(conditions, type_).unwrap();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{} {}: {}", condition.status, text(&condition.reason), text(&condition.message))
    }

    #[test]
    fn reasons_and_messages_are_upstreams() {
        let fine = conditions(&Health::default(), &[], at(1));
        assert_eq!(
            text(&fine, "MemoryPressure"),
            "False KubeletHasSufficientMemory: kubelet has sufficient memory available"
        );
        assert_eq!(text(&fine, "DiskPressure"), "False KubeletHasNoDiskPressure: kubelet has no disk pressure");
        assert_eq!(text(&fine, "PIDPressure"), "False KubeletHasSufficientPID: kubelet has sufficient PID available");
        assert_eq!(text(&fine, "Ready"), "True KubeletReady: kubelet is posting ready status");
        let bad = Health { memory_pressure: true, ..Health::default() };
        let bad = conditions(&bad, &[], at(1));
        assert_eq!(
            text(&bad, "MemoryPressure"),
            "True KubeletHasInsufficientMemory: kubelet has insufficient memory available"
        );
    }

    #[test]
    fn a_node_without_a_network_is_not_ready() {
        let condition = |type_: &str, status: bool, reason: &str, message: &str| v1::RuntimeCondition {
            r#type: type_.to_owned(),
            status,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        let mut health = Health::default();
        health.read_runtime(Some(&v1::RuntimeStatus {
            conditions: vec![
                condition("RuntimeReady", true, "", ""),
                condition(
                    "NetworkReady",
                    false,
                    "NetworkPluginNotReady",
                    "Network plugin returns error: cni plugin not initialized",
                ),
            ],
        }));
        assert_eq!(
            health.not_ready().as_deref(),
            Some(
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized"
            )
        );
    }

    #[test]
    fn times_and_events_follow_changes() {
        let before = conditions(&Health { network: Some("no".to_owned()), ..Health::default() }, &[], at(1));
        let after = conditions(&Health::default(), &before, at(5));
        let transition = |conditions: &[NodeCondition], type_: &str| {
            find(conditions, type_).unwrap().last_transition_time.clone().unwrap().0.as_second()
        };
        assert_eq!((transition(&after, "Ready"), transition(&after, "DiskPressure")), (5, 1));
        let status = NodeStatus { conditions: Some(after), ..NodeStatus::default() };
        assert_eq!(
            changes("one", Some(&before), &status),
            [("NodeReady".to_owned(), "Node one status is now: NodeReady".to_owned())]
        );
        let first: Vec<String> = changes("one", None, &status).into_iter().map(|(reason, _)| reason).collect();
        assert_eq!(first, ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"]);
    }

    #[test]
    fn cordons_and_reboots_are_told_once() {
        assert_eq!(schedulable(true, false), Some("NodeNotSchedulable"));
        assert_eq!(schedulable(false, true), Some("NodeSchedulable"));
        assert_eq!([schedulable(true, true), schedulable(false, false)], [None, None]);
        let booted = |id: &str| {
            let node_info = NodeSystemInfo { boot_id: id.to_owned(), ..NodeSystemInfo::default() };
            NodeStatus { node_info: Some(node_info), ..NodeStatus::default() }
        };
        let told = reboot("one", Some(&booted("a")), &booted("b"));
        assert_eq!(told.as_deref(), Some("Node one has been rebooted, boot id: b"));
        for before in [None, Some(&NodeStatus::default()), Some(&booted("b"))] {
            assert_eq!(reboot("one", before, &booted("b")), None);
        }
    }
}
