//! The pods that make a cluster of nodes: the proxy, cluster DNS and the pod network, all from one image.
//!
//! Pure. Names are upstream's where upstream has such an add-on. Invariant: applying them again changes nothing.

mod dns;
mod doctor;
mod network;
mod proxy;

use serde_json::{Value, json};

pub use dns::dns_objects;
pub use doctor::{DOCTOR_NAMESPACE, DOCTOR_USER, doctor_objects, doctor_rights};
pub use network::{NetworkAddon, network_objects};
pub use proxy::proxy_objects;

use crate::node_access::tls_server_name;

const NAMESPACE: &str = "kube-system";

fn service_account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NAMESPACE}})
}

fn cluster_role(name: &str, rules: &Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
        "rules": rules})
}

/// Gives a service account a cluster role.
fn cluster_role_binding(name: &str, role: &str, account: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}],
    })
}

/// A kubeconfig with a service account's token, for those who run before Services work.
fn kubeconfig(endpoint: &str) -> String {
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mut document = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default", "cluster": {
            "certificate-authority": format!("{account}/ca.crt"), "server": format!("https://{endpoint}")}}],
        "contexts": [{"name": "default", "context": {"cluster": "default", "namespace": "default", "user": "default"}}],
        "current-context": "default",
        "users": [{"name": "default", "user": {"tokenFile": format!("{account}/token")}}],
    });
    if let Some(name) = tls_server_name(endpoint) {
        document["clusters"][0]["cluster"]["tls-server-name"] = json!(name);
    }
    serde_yaml::to_string(&document).unwrap_or_default()
}

/// An environment variable with a field of the pod.
fn env(name: &str, field: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}})
}

fn host_path(name: &str, path: &str) -> Value {
    json!({"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Map;

    #[test]
    fn objects_have_names_and_namespaces() {
        let network = NetworkAddon { pod_subnet: "10.244.0.0/16", endpoint: "192.0.2.2:6443", image: "i", flags: &[] };
        let all = [
            dns_objects("10.96.0.10", "cluster.local", "10.244.0.0/16,10.96.0.0/12", "i"),
            network_objects(&network),
            proxy_objects("192.0.2.2:6443", "10.244.0.0/16", "i", &Map::new()),
            doctor_objects("i", 2),
        ]
        .concat();
        for object in &all {
            let kind = object["kind"].as_str().unwrap();
            assert!(object["metadata"]["name"].is_string(), "{object}");
            let global = kind.starts_with("Cluster") || kind == "CustomResourceDefinition";
            assert_eq!(object["metadata"]["namespace"].is_string(), !global, "{object}");
        }
        let kinds = |kind: &str| all.iter().filter(|object| object["kind"] == kind).count();
        assert_eq!((kinds("DaemonSet"), kinds("Deployment"), kinds("Service")), (2, 2, 1));
    }
}
