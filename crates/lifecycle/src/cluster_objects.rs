//! Objects that phases put into the cluster: made, or brought up to date.
//!
//! Invariant: an object is applied as a whole by one manager, so that what others set on other fields stays.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kedge_client::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Say;
use crate::cluster_configuration::ClusterConfiguration;
use crate::init::{PhaseError, failed};

/// The manager of the fields; upstream's.
const MANAGER: &str = "kubeadm";

const NODE_PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// Why an object is not there.
#[derive(Debug, thiserror::Error)]
#[error("cannot apply {kind} {name}")]
pub struct ApplyError {
    /// The object's kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Why.
    pub source: Box<kube::Error>,
}

/// The kubelet registers its node when it has found the API server.
pub(crate) async fn wait_for_node(client: &Client, name: &str) -> Result<(), PhaseError> {
    let nodes: Api<Node> = Api::all(client.clone());
    let deadline = Instant::now() + NODE_PATIENCE;
    loop {
        match nodes.get_opt(name).await {
            Ok(Some(_)) => return Ok(()),
            _ if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            Ok(None) => {
                let seconds = NODE_PATIENCE.as_secs();
                return Err(PhaseError::Missing(format!(
                    "the kubelet has not registered the node {name} within {seconds} s"
                )));
            }
            Err(source) => return Err(failed("Node", name, source)),
        }
    }
}

/// Applies an object.
pub async fn apply_object(client: &Client, object: &Value) -> Result<(), ApplyError> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let namespace = text("/metadata/namespace");
    let api: Api<DynamicObject> = match namespace.is_empty() {
        true => Api::all_with(client.clone(), &resource),
        false => Api::namespaced_with(client.clone(), &namespace, &resource),
    };
    let params = PatchParams::apply(MANAGER).force();
    let applied = api.patch(&name, &params, &Patch::Apply(object)).await;
    applied.map(|_| ()).map_err(|source| ApplyError { kind, name, source: Box::new(source) })
}

/// Applies objects in their order.
pub async fn apply_objects(client: &Client, objects: &[Value]) -> Result<(), ApplyError> {
    for object in objects {
        apply_object(client, object).await?;
    }
    Ok(())
}

/// Keeps the cluster's configuration in the cluster, for those who join and for upgrades.
pub async fn upload_cluster_configuration(
    client: &Client,
    cluster: &ClusterConfiguration,
    say: Say<'_>,
) -> Result<(), ApplyError> {
    say(
        "[upload-config] Storing the configuration used in ConfigMap \"kubeadm-config\" in the \"kube-system\" Namespace",
    );
    let mut objects = vec![config_map("kubeadm-config", "ClusterConfiguration", &cluster.to_yaml())];
    objects.extend(readers("kubeadm:nodes-kubeadm-config", "kubeadm-config"));
    apply_objects(client, &objects).await
}

/// Keeps the kubelets' configuration in the cluster, for those who join.
pub async fn upload_kubelet_configuration(client: &Client, document: &Value, say: Say<'_>) -> Result<(), ApplyError> {
    say("[kubelet] Creating a ConfigMap \"kubelet-config\" in namespace kube-system with the configuration for the \
         kubelets in the cluster");
    let text = serde_yaml::to_string(document).unwrap_or_default();
    let mut objects = vec![config_map("kubelet-config", "kubelet", &text)];
    objects.extend(readers("kubeadm:kubelet-config", "kubelet-config"));
    apply_objects(client, &objects).await
}

fn config_map(name: &str, key: &str, text: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "kube-system"},
        "data": {key: text},
    })
}

/// Lets nodes, and those who join with a token, read a ConfigMap.
fn readers(name: &str, config_map: &str) -> [Value; 2] {
    let group = |name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name});
    [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": name, "namespace": "kube-system"},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": [config_map]}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": "kube-system"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [group("system:bootstrappers:kubeadm:default-node-token"), group("system:nodes")],
        }),
    ]
}

/// The labels of a control plane's node.
const LABELS: [&str; 2] =
    ["node-role.kubernetes.io/control-plane", "node.kubernetes.io/exclude-from-external-load-balancers"];

/// The taint of a control plane's node, where nobody chose others.
pub fn control_plane_taint() -> Value {
    json!({"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"})
}

/// Labels and taints the node of a control plane.
pub async fn mark_control_plane(
    client: &Client,
    node_name: &str,
    taints: &[Value],
    say: Say<'_>,
) -> Result<(), ApplyError> {
    say(&format!(
        "[mark-control-plane] Marking the node {node_name} as control-plane by adding the labels: [{}]",
        LABELS.join(" ")
    ));
    if !taints.is_empty() {
        let texts: Vec<String> = taints.iter().map(taint_text).collect();
        say(&format!(
            "[mark-control-plane] Marking the node {node_name} as control-plane by adding the taints [{}]",
            texts.join(" ")
        ));
    }
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(client.clone());
    let wrap = |source| ApplyError { kind: "Node".to_owned(), name: node_name.to_owned(), source: Box::new(source) };
    let node = nodes.get(node_name).await.map_err(wrap)?;
    let present = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    let present: Vec<Value> = present.iter().filter_map(|taint| serde_json::to_value(taint).ok()).collect();
    let same = |a: &Value, b: &Value| a["key"] == b["key"] && a["effect"] == b["effect"];
    let mut wanted = taints.to_vec();
    wanted.extend(present.into_iter().filter(|taint| !taints.iter().any(|new| same(new, taint))));
    let labels: serde_json::Map<String, Value> = LABELS.iter().map(|label| ((*label).to_owned(), json!(""))).collect();
    let patch = json!({"metadata": {"labels": labels}, "spec": {"taints": wanted}});
    nodes.patch(node_name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ()).map_err(wrap)
}

fn taint_text(taint: &Value) -> String {
    let text = |key: &str| taint[key].as_str().unwrap_or_default();
    match text("value") {
        "" => format!("{}:{}", text("key"), text("effect")),
        value => format!("{}={value}:{}", text("key"), text("effect")),
    }
}
