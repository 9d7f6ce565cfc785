//! What those who join may do: kubeadm's roles and bindings, by its names.
//!
//! The lists are data. Invariant: nothing here gives a bootstrap token more than asking for a node's certificate and reading
//! what a joining machine needs.

use kedge_client::Client;
use serde_json::{Value, json};

use crate::error::BootstrapError;
use crate::objects::put;

/// The group of the tokens with which nodes join.
pub(crate) const NODE_TOKEN_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";
const NODES: &str = "system:nodes";
const API: &str = "rbac.authorization.k8s.io";

/// Ensures all that joining nodes and those that rotate their certificates need.
pub async fn ensure_node_bootstrap_rbac(client: &Client) -> Result<(), BootstrapError> {
    put_all(client, node_bootstrap()).await
}

/// Ensures that the group `kubeadm:cluster-admins` may do everything.
pub async fn ensure_cluster_admins(client: &Client) -> Result<(), BootstrapError> {
    let admins = group("kubeadm:cluster-admins");
    put_all(client, vec![binding("", "kubeadm:cluster-admins", "cluster-admin", &[admins])]).await
}

/// Ensures that joining control planes may read the certificates that were uploaded.
pub(crate) async fn ensure_certs_rbac(client: &Client) -> Result<(), BootstrapError> {
    put_all(
        client,
        reader("kube-system", "kubeadm:kubeadm-certs", "secrets", "kubeadm-certs", &[group(NODE_TOKEN_GROUP)]),
    )
    .await
}

/// Ensures that anybody may read `cluster-info`.
pub(crate) async fn ensure_cluster_info_rbac(client: &Client) -> Result<(), BootstrapError> {
    let anybody = user("system:anonymous");
    let name = "kubeadm:bootstrap-signer-clusterinfo";
    put_all(client, reader("kube-public", name, "configmaps", "cluster-info", &[anybody])).await
}

/// Ensures that nodes may read it as themselves, also where nobody else may.
pub(crate) async fn ensure_nodes_read_cluster_info(client: &Client) -> Result<(), BootstrapError> {
    let name = "kedge:nodes-read-cluster-info";
    put_all(client, reader("kube-public", name, "configmaps", "cluster-info", &[group(NODES)])).await
}

async fn put_all(client: &Client, objects: Vec<Value>) -> Result<(), BootstrapError> {
    for object in objects {
        put(client, object).await?;
    }
    Ok(())
}

fn node_bootstrap() -> Vec<Value> {
    let tokens = || vec![group(NODE_TOKEN_GROUP)];
    let readers = || vec![group(NODE_TOKEN_GROUP), group(NODES)];
    let get_nodes = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]}]);
    let list_nodes = json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["nodes"]}]);
    let mut objects = vec![
        // DIVERGES: kubeadm lets them get a node by its name only. A machine that joins compares itself with those there.
        role("", "kedge:compare-nodes", list_nodes),
        binding("", "kedge:compare-nodes", "kedge:compare-nodes", &tokens()),
        role("", "kubeadm:get-nodes", get_nodes),
        binding("", "kubeadm:get-nodes", "kubeadm:get-nodes", &tokens()),
        binding("", "kubeadm:kubelet-bootstrap", "system:node-bootstrapper", &tokens()),
        binding(
            "",
            "kubeadm:node-autoapprove-bootstrap",
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            &tokens(),
        ),
        binding(
            "",
            "kubeadm:node-autoapprove-certificate-rotation",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            &[group(NODES)],
        ),
        binding(
            "",
            "kubeadm:apiserver-kubelet-client",
            "system:kubelet-api-admin",
            &[user("kube-apiserver-kubelet-client")],
        ),
    ];
    for (name, config_map) in
        [("kubeadm:nodes-kubeadm-config", "kubeadm-config"), ("kubeadm:kubelet-config", "kubelet-config")]
    {
        objects.extend(reader("kube-system", name, "configmaps", config_map, &readers()));
    }
    objects.extend(api_servers());
    objects
}

/// Nodes see which API servers there are, for the balancers through which they reach them.
fn api_servers() -> Vec<Value> {
    let rules = json!([{
        "verbs": ["get", "list", "watch"], "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"],
        "resourceNames": ["kubernetes"],
    }]);
    let (namespace, name) = ("default", "kedge:api-servers");
    vec![role(namespace, name, rules), binding(namespace, name, name, &[group(NODES)])]
}

fn subject(kind: &str, name: &str) -> Value {
    json!({"kind": kind, "apiGroup": API, "name": name})
}

fn group(name: &str) -> Value {
    subject("Group", name)
}

fn user(name: &str) -> Value {
    subject("User", name)
}

fn metadata(namespace: &str, name: &str) -> Value {
    match namespace {
        "" => json!({"name": name}),
        namespace => json!({"name": name, "namespace": namespace}),
    }
}

fn role(namespace: &str, name: &str, rules: Value) -> Value {
    let kind = if namespace.is_empty() { "ClusterRole" } else { "Role" };
    json!({"apiVersion": format!("{API}/v1"), "kind": kind, "metadata": metadata(namespace, name), "rules": rules})
}

fn binding(namespace: &str, name: &str, role: &str, subjects: &[Value]) -> Value {
    let kind = if namespace.is_empty() { "ClusterRole" } else { "Role" };
    json!({
        "apiVersion": format!("{API}/v1"), "kind": format!("{kind}Binding"), "metadata": metadata(namespace, name),
        "roleRef": {"apiGroup": API, "kind": kind, "name": role}, "subjects": subjects,
    })
}

/// A role that reads one object, and who has it.
fn reader(namespace: &str, name: &str, resource: &str, object: &str, subjects: &[Value]) -> Vec<Value> {
    let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": [resource], "resourceNames": [object]}]);
    vec![role(namespace, name, rules), binding(namespace, name, name, subjects)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_kubeadms() {
        let names: Vec<String> = node_bootstrap()
            .iter()
            .map(|object| {
                format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
            })
            .collect();
        assert_eq!(
            names,
            [
                "ClusterRole kedge:compare-nodes",
                "ClusterRoleBinding kedge:compare-nodes",
                "ClusterRole kubeadm:get-nodes",
                "ClusterRoleBinding kubeadm:get-nodes",
                "ClusterRoleBinding kubeadm:kubelet-bootstrap",
                "ClusterRoleBinding kubeadm:node-autoapprove-bootstrap",
                "ClusterRoleBinding kubeadm:node-autoapprove-certificate-rotation",
                "ClusterRoleBinding kubeadm:apiserver-kubelet-client",
                "Role kubeadm:nodes-kubeadm-config",
                "RoleBinding kubeadm:nodes-kubeadm-config",
                "Role kubeadm:kubelet-config",
                "RoleBinding kubeadm:kubelet-config",
                "Role kedge:api-servers",
                "RoleBinding kedge:api-servers",
            ]
        );
    }
}
