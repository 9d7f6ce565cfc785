//! The Node object: labels, addresses, capacity and what is known of the machine.
//!
//! Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSwapStatus, NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kedge_cri::v1;
use serde_json::{Value, json};

use crate::config::Config;
use crate::machine::{Machine, architecture};

/// What upstream's control planes of 1.36 allow on nodes that declare it only (KEP-5328), as far as this kubelet does it;
/// sorted.
const DECLARED_FEATURES: [&str; 1] = ["InPlacePodLevelResourcesVerticalScaling"];

/// The Node as it is registered.
pub(super) fn new_node(config: &Config, status: NodeStatus) -> Node {
    let mut taints = config.taints.clone();
    // Pods come only after the node lifecycle controller has seen it ready.
    taints.push(Taint {
        key: "node.kubernetes.io/not-ready".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    });
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels(config)),
            annotations: Some(
                [("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned())].into(),
            ),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec { taints: Some(taints), ..NodeSpec::default() }),
        status: Some(status),
    }
}

fn labels(config: &Config) -> BTreeMap<String, String> {
    let mut labels = config.node_labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

/// The merge patch that gives a known Node its labels and annotations; `None` where it has them.
pub(super) fn reconcile(known: &Node, wanted: &Node) -> Option<Value> {
    let missing = |known: Option<&BTreeMap<String, String>>, wanted: Option<&BTreeMap<String, String>>| {
        let differs = |(key, value): &(&String, &String)| known.and_then(|known| known.get(*key)) != Some(*value);
        wanted.into_iter().flatten().filter(differs).map(|(k, v)| (k.clone(), v.clone())).collect::<BTreeMap<_, _>>()
    };
    let labels = missing(known.metadata.labels.as_ref(), wanted.metadata.labels.as_ref());
    let annotations = missing(known.metadata.annotations.as_ref(), wanted.metadata.annotations.as_ref());
    if labels.is_empty() && annotations.is_empty() {
        return None;
    }
    Some(json!({ "metadata": { "labels": labels, "annotations": annotations } }))
}

/// Everything of the status but conditions and images.
pub(super) fn status(config: &Config, machine: &Machine, runtime_version: &str) -> NodeStatus {
    let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    let kibibytes = |bytes: u64| kibibytes(i64::try_from(bytes).unwrap_or(i64::MAX));
    let capacity = (machine.cpu_millis, kibibytes(machine.memory_bytes), kibibytes(machine.disk_bytes));
    let allocatable = (
        machine.allocatable_cpu(config),
        self::kibibytes(machine.allocatable_memory(config)),
        machine.allocatable_storage(config).to_string(),
    );
    let mut addresses: Vec<NodeAddress> =
        config.node_ips().iter().map(|ip| address("InternalIP", ip.to_string())).collect();
    addresses.push(address("Hostname", config.node_name.clone()));
    NodeStatus {
        addresses: Some(addresses),
        capacity: Some(amounts(config, machine, &capacity)),
        allocatable: Some(amounts(config, machine, &allocatable)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(config.port) }),
        }),
        node_info: Some(NodeSystemInfo {
            architecture: architecture().to_owned(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: runtime_version.to_owned(),
            kernel_version: machine.kernel_version.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: kedge_meta::full_version().to_owned(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: machine.os_image.clone(),
            swap: (machine.swap_bytes > 0).then(|| NodeSwapStatus { capacity: i64::try_from(machine.swap_bytes).ok() }),
            system_uuid: machine.system_uuid.clone(),
        }),
        declared_features: Some(DECLARED_FEATURES.map(str::to_owned).to_vec()),
        ..NodeStatus::default()
    }
}

/// What each of the runtime's handlers can do.
pub(super) fn runtime_handlers(handlers: &[v1::RuntimeHandler]) -> Option<Vec<NodeRuntimeHandler>> {
    let one = |handler: &v1::RuntimeHandler| NodeRuntimeHandler {
        name: Some(handler.name.clone()),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(handler.features.is_some_and(|known| known.recursive_read_only_mounts)),
            user_namespaces: Some(handler.features.is_some_and(|known| known.user_namespaces)),
        }),
    };
    (!handlers.is_empty()).then(|| handlers.iter().map(one).collect())
}

/// What the runtime can do, whatever the handler.
pub(super) fn features(features: Option<&v1::RuntimeFeatures>) -> Option<NodeFeatures> {
    let supplemental_groups_policy = Some(features?.supplemental_groups_policy);
    Some(NodeFeatures { supplemental_groups_policy })
}

fn kibibytes(bytes: i64) -> String {
    if bytes != 0 && bytes % 1024 == 0 { format!("{}Ki", bytes / 1024) } else { bytes.to_string() }
}

/// From processors in thousandths, memory and disk.
fn amounts(
    config: &Config,
    machine: &Machine,
    (cpu_millis, memory, storage): &(i64, String, String),
) -> BTreeMap<String, Quantity> {
    let cpu = if cpu_millis % 1000 == 0 { (cpu_millis / 1000).to_string() } else { format!("{cpu_millis}m") };
    let mut amounts: BTreeMap<String, Quantity> = [
        ("cpu", cpu),
        ("memory", memory.clone()),
        ("ephemeral-storage", storage.clone()),
        ("pods", config.max_pods.to_string()),
    ]
    .into_iter()
    .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
    .collect();
    for (name, bytes) in &machine.hugepages {
        amounts.insert(name.clone(), Quantity(kibibytes(i64::try_from(*bytes).unwrap_or(0))));
    }
    amounts
}

/// Whether two statuses differ in nothing but the time of the report.
pub(super) fn same_but_heartbeat(a: &NodeStatus, b: &NodeStatus) -> bool {
    let strip = |status: &NodeStatus| {
        let mut status = status.clone();
        let clear = |condition: &mut NodeCondition| condition.last_heartbeat_time = None;
        status.conditions.iter_mut().flatten().for_each(clear);
        status
    };
    strip(a) == strip(b)
}

/// Whether the API shows a condition that was reported in another state, or not at all.
pub(super) fn is_overruled(reported: &NodeStatus, api: &NodeStatus) -> bool {
    let shown = |kind: &str| api.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    let is_other =
        |condition: &NodeCondition| shown(&condition.type_).is_none_or(|shown| shown.status != condition.status);
    reported.conditions.iter().flatten().any(is_other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_that_others_set_are_noticed() {
        let status = |list: &[(&str, &str)]| {
            let condition = |&(kind, status): &(&str, &str)| NodeCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                ..NodeCondition::default()
            };
            NodeStatus { conditions: Some(list.iter().map(condition).collect()), ..NodeStatus::default() }
        };
        let reported = status(&[("MemoryPressure", "False"), ("Ready", "True")]);
        let check =
            |api: &[(&str, &str)], expected| assert_eq!(is_overruled(&reported, &status(api)), expected, "{api:?}");
        check(&[("MemoryPressure", "False"), ("Ready", "True")], false);
        check(&[("MemoryPressure", "False"), ("Ready", "True"), ("NetworkUnavailable", "False")], false);
        check(&[("MemoryPressure", "False"), ("Ready", "Unknown")], true);
        check(&[("Ready", "True")], true);
    }

    #[test]
    fn a_node_has_upstreams_labels_and_amounts() {
        let config = Config { node_name: "n1".to_owned(), ..Config::default() };
        let machine = Machine {
            cpu_millis: 2000,
            memory_bytes: 1 << 30,
            disk_bytes: 1 << 30,
            hugepages: vec![("hugepages-2Mi".to_owned(), 0)],
            ..Machine::default()
        };
        let node = new_node(&config, super::status(&config, &machine, "containerd://1.6.20"));
        let labels = node.metadata.labels.as_ref().unwrap();
        assert_eq!(labels.get("kubernetes.io/hostname").map(String::as_str), Some("n1"));
        let capacity = node.status.as_ref().unwrap().capacity.as_ref().unwrap();
        let text: Vec<String> = capacity.iter().map(|(name, amount)| format!("{name}={}", amount.0)).collect();
        assert_eq!(text.join(" "), "cpu=2 ephemeral-storage=1048576Ki hugepages-2Mi=0 memory=1048576Ki pods=110");
        let reserved = crate::config::Reserved { cpu_millis: 150, ..Default::default() };
        let status = super::status(&Config { kube_reserved: reserved, ..config.clone() }, &machine, "");
        let text: Vec<String> =
            status.allocatable.unwrap().iter().map(|(name, amount)| format!("{name}={}", amount.0)).collect();
        assert_eq!(text.join(" "), "cpu=1850m ephemeral-storage=966367640 hugepages-2Mi=0 memory=946176Ki pods=110");
        assert_eq!(reconcile(&node, &node), None);
        assert!(DECLARED_FEATURES.is_sorted());
        assert_eq!(node.status.as_ref().unwrap().declared_features.as_ref().unwrap(), &DECLARED_FEATURES);
        let able = v1::RuntimeHandlerFeatures { user_namespaces: true, ..Default::default() };
        let handlers = [v1::RuntimeHandler { name: "runc".to_owned(), features: Some(able) }];
        let shown = serde_json::to_value(runtime_handlers(&handlers)).unwrap();
        let expected =
            json!([{"name": "runc", "features": {"recursiveReadOnlyMounts": false, "userNamespaces": true}}]);
        assert_eq!((shown, runtime_handlers(&[])), (expected, None));
        let mut bare = node.clone();
        bare.metadata.labels.as_mut().unwrap().remove("kubernetes.io/os");
        let patch = reconcile(&bare, &node).unwrap();
        assert_eq!(patch["metadata"]["labels"], json!({ "kubernetes.io/os": "linux" }));
    }
}
