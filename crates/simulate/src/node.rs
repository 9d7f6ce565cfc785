//! A simulated node's object: as it is made, what a node that somebody else made lacks, and the status it reports.
//!
//! Pure. Invariant: what somebody said about a node (labels, capacity, addresses) stays as it is; only what is missing is
//! added, and the conditions are the simulation's.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kedge_meta::{KUBERNETES_VERSION, format_time};
use serde_json::{Map, Value, json};

use crate::annotations::{NodeScript, SIMULATED};
use crate::config::Config;

const HOSTNAME: &str = "kubernetes.io/hostname";
const ARCH: &str = "kubernetes.io/arch";
const OS: &str = "kubernetes.io/os";
const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";
/// A node whose status stays the same says so again after this long, as the kubelet does.
pub(crate) const REPORT_EVERY: Duration = Duration::from_secs(300);

/// A node of the simulation's own, with the pod range it has.
pub(crate) fn own_node(config: &Config, number: u32, name: &str, pod_cidr: &str) -> Value {
    let zone = format!("zone-{}", number % config.zones.max(1));
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {HOSTNAME: name, ARCH: "amd64", OS: "linux", REGION: "region-0", ZONE: zone},
            "annotations": {SIMULATED: "true"},
        },
        "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr]},
    })
}

/// The merge patch that gives a node the labels that every node has; `None` where it has them.
pub(crate) fn missing_labels(node: &Node) -> Option<Value> {
    let name = node.metadata.name.as_deref()?;
    let has = |key: &str| node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(key));
    let missing: BTreeMap<&str, &str> =
        [(HOSTNAME, name), (ARCH, "amd64"), (OS, "linux")].into_iter().filter(|(key, _)| !has(key)).collect();
    (!missing.is_empty()).then(|| json!({"metadata": {"labels": missing}}))
}

/// The address that a node has said of itself.
pub(crate) fn internal_ip(node: &Node) -> Option<&str> {
    let addresses = node.status.as_ref()?.addresses.as_deref()?;
    addresses.iter().find(|address| address.type_ == "InternalIP").map(|address| address.address.as_str())
}

/// The strategic merge patch of a node's status; `None` where nothing has changed and its last report is not old.
/// `address` is the one it gets where it has none.
pub(crate) fn status_patch(node: &Node, config: &Config, address: &str, now: Timestamp) -> Option<Value> {
    let nothing = NodeStatus::default();
    let status = node.status.as_ref().unwrap_or(&nothing);
    let mut changes = Map::new();
    let is_empty = |amounts: &Option<BTreeMap<_, _>>| amounts.as_ref().is_none_or(BTreeMap::is_empty);
    if is_empty(&status.capacity) {
        changes.insert("capacity".to_owned(), capacity(config));
    }
    if is_empty(&status.allocatable) {
        let said = serde_json::to_value(&status.capacity).ok().filter(|_| !is_empty(&status.capacity));
        changes.insert("allocatable".to_owned(), said.unwrap_or_else(|| capacity(config)));
    }
    if internal_ip(node).is_none() {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let addresses = json!([
            {"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name},
        ]);
        changes.insert("addresses".to_owned(), addresses);
    }
    if status.node_info.as_ref().is_none_or(|info| info.kubelet_version.is_empty()) {
        changes.insert("nodeInfo".to_owned(), node_info(node));
    }
    let conditions = conditions(status, NodeScript::of(node).is_ready, now);
    if conditions.is_some() || !changes.is_empty() {
        changes.extend(conditions.map(|all| ("conditions".to_owned(), all)));
        return Some(json!({ "status": changes }));
    }
    None
}

fn capacity(config: &Config) -> Value {
    json!({
        "cpu": config.cpu, "memory": config.memory, "pods": config.pods_per_node.to_string(),
        "ephemeral-storage": "1Ti", "hugepages-1Gi": "0", "hugepages-2Mi": "0",
    })
}

fn node_info(node: &Node) -> Value {
    let label = |key: &str, other: &str| {
        let labels = node.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(key)).cloned().unwrap_or_else(|| other.to_owned())
    };
    let uid = node.metadata.uid.as_deref().unwrap_or_default();
    json!({
        "architecture": label(ARCH, "amd64"), "operatingSystem": label(OS, "linux"), "osImage": "Kedge simulation",
        "kernelVersion": "simulated", "containerRuntimeVersion": "simulated://0", "kubeletVersion": KUBERNETES_VERSION,
        "kubeProxyVersion": "", "machineID": uid, "systemUUID": uid, "bootID": uid,
    })
}

/// All conditions, where one of them changes or the last report is old.
fn conditions(status: &NodeStatus, is_ready: bool, now: Timestamp) -> Option<Value> {
    let ready = match is_ready {
        true => ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        false => ("Ready", "False", "KubeletNotReady", "the annotation says that the node is not ready"),
    };
    let wanted = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ready,
    ];
    let known = |type_: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == type_);
    let is_current = |(type_, value, reason, _): &(&str, &str, &str, &str)| {
        known(type_).is_some_and(|condition| {
            let heartbeat = condition.last_heartbeat_time.as_ref();
            let is_fresh = heartbeat.is_some_and(|time| now < time.0 + REPORT_EVERY);
            condition.status == *value && condition.reason.as_deref() == Some(reason) && is_fresh
        })
    };
    if wanted.iter().all(is_current) {
        return None;
    }
    let made = wanted.map(|(type_, value, reason, message)| {
        let before = known(type_).filter(|condition| condition.status == value);
        let since = before.and_then(|condition| condition.last_transition_time.as_ref()).map_or(now, |time| time.0);
        json!({
            "type": type_, "status": value, "reason": reason, "message": message,
            "lastHeartbeatTime": format_time(now), "lastTransitionTime": format_time(since),
        })
    });
    Some(Value::from(made.to_vec()))
}

/// When a node's status is to be reported again, at the latest.
pub(crate) fn report_due(node: &Node) -> Option<Timestamp> {
    let conditions = node.status.as_ref()?.conditions.as_deref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some(ready.last_heartbeat_time.as_ref()?.0 + REPORT_EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The node after its own patch.
    fn patched(mut node: Value, now: i64) -> Value {
        let typed: Node = serde_json::from_value(node.clone()).unwrap();
        if let Some(patch) = status_patch(&typed, &Config::default(), "198.18.0.1", at(now)) {
            for (field, value) in patch["status"].as_object().unwrap() {
                node["status"][field] = value.clone();
            }
        }
        node
    }

    #[test]
    fn a_bare_node_gets_everything_once() {
        let node = patched(json!({"metadata": {"name": "n"}}), 1000);
        assert_eq!(node["status"]["capacity"]["cpu"], "32");
        assert_eq!(node["status"]["allocatable"], node["status"]["capacity"]);
        assert_eq!(node["status"]["addresses"][0]["address"], "198.18.0.1");
        assert_eq!(node["status"]["conditions"][3]["status"], "True");
        assert_eq!(patched(node.clone(), 1299), node, "nothing is said twice");
        let later = patched(node.clone(), 1300);
        assert_eq!(later["status"]["conditions"][3]["lastHeartbeatTime"], "1970-01-01T00:21:40Z");
        assert_eq!(later["status"]["conditions"][3]["lastTransitionTime"], "1970-01-01T00:16:40Z");
    }

    #[test]
    fn what_somebody_said_stays() {
        let status = json!({"capacity": {"cpu": "2", "example.com/gpu": "4"},
            "addresses": [{"type": "InternalIP", "address": "192.0.2.9"}]});
        let node = patched(json!({"metadata": {"name": "n", "labels": {ARCH: "arm64"}}, "status": status}), 1000);
        assert_eq!(node["status"]["allocatable"], json!({"cpu": "2", "example.com/gpu": "4"}));
        assert_eq!(node["status"]["addresses"].as_array().unwrap().len(), 1);
        assert_eq!(node["status"]["nodeInfo"]["architecture"], "arm64");
        let typed: Node = serde_json::from_value(node).unwrap();
        assert_eq!(missing_labels(&typed), Some(json!({"metadata": {"labels": {HOSTNAME: "n", OS: "linux"}}})));
    }

    #[test]
    fn an_annotation_makes_it_not_ready() {
        let mut node = patched(json!({"metadata": {"name": "n"}}), 1000);
        node["metadata"]["annotations"] = json!({crate::annotations::READY: "false"});
        let node = patched(node, 1010);
        let ready = &node["status"]["conditions"][3];
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("KubeletNotReady")));
        assert_eq!(ready["lastTransitionTime"], "1970-01-01T00:16:50Z");
    }

    #[test]
    fn nodes_of_its_own_are_spread_over_zones() {
        let zones: Vec<String> = (0..4)
            .map(|number| {
                own_node(&Config::default(), number, "n", "100.64.0.0/24")["metadata"]["labels"][ZONE].to_string()
            })
            .collect();
        assert_eq!(zones, ["\"zone-0\"", "\"zone-1\"", "\"zone-2\"", "\"zone-0\""]);
    }
}
