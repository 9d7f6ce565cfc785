//! The pod network: CNI configuration, routes between nodes and NetworkPolicies, by an agent on every node.

use serde_json::{Value, json};

use super::{NAMESPACE, cluster_role, cluster_role_binding, env, host_path, kubeconfig, service_account};

const NAME: &str = "kedge-network";
const HEALTH_PORT: u16 = 9098;

/// What the network is told.
#[derive(Debug, Clone)]
pub struct NetworkAddon<'a> {
    /// Ranges of pods.
    pub pod_subnet: &'a str,
    /// `host:port` of the API.
    pub endpoint: &'a str,
    /// The image.
    pub image: &'a str,
    /// Further flags of the agent.
    pub flags: &'a [String],
}

/// All objects.
pub fn network_objects(addon: &NetworkAddon<'_>) -> Vec<Value> {
    let read = json!(["get", "list", "watch"]);
    let rules = json!([
        {"apiGroups": [""], "resources": ["nodes", "pods", "namespaces", "services"], "verbs": read},
        {"apiGroups": [""], "resources": ["nodes", "nodes/status"], "verbs": ["patch", "update"]},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies", "servicecidrs"], "verbs": read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
    ]);
    vec![
        service_account(NAME),
        cluster_role(&format!("kedge:{NAME}"), &rules),
        cluster_role_binding(&format!("kedge:{NAME}"), &format!("kedge:{NAME}"), NAME),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "namespace": NAMESPACE},
            "data": {"kubeconfig.conf": kubeconfig(addon.endpoint)}}),
        daemon_set(addon),
    ]
}

fn daemon_set(addon: &NetworkAddon<'_>) -> Value {
    let labels = json!({"k8s-app": NAME});
    let mut command = vec![
        "/usr/local/bin/kedge".to_owned(),
        "network-agent".to_owned(),
        "--kubeconfig=/etc/kedge-network/kubeconfig.conf".to_owned(),
        format!("--pod-network-cidr={}", addon.pod_subnet),
        format!("--health-address=127.0.0.1:{HEALTH_PORT}"),
    ];
    command.extend(addon.flags.iter().cloned());
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "priorityClassName": "system-node-critical",
                    "containers": [{
                        "name": NAME,
                        "image": addon.image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": command,
                        "env": [env("NODE_NAME", "spec.nodeName"), env("NODE_IP", "status.hostIP")],
                        // The text that names the missing peers becomes the event's; of HTTP only the status would.
                        "readinessProbe": {
                            "exec": {"command": [
                                "/usr/local/bin/kedge", "network-ready", format!("--health-address=127.0.0.1:{HEALTH_PORT}"),
                            ]},
                            "initialDelaySeconds": 2,
                            "periodSeconds": 10,
                            "timeoutSeconds": 10,
                        },
                        "securityContext": {"privileged": true},
                        "volumeMounts": [
                            {"mountPath": "/etc/kedge-network", "name": "config"},
                            {"mountPath": "/etc/cni/net.d", "name": "cni-config"},
                            {"mountPath": "/opt/cni/bin", "name": "cni-bin", "readOnly": true},
                            {"mountPath": "/usr/lib/cni", "name": "cni-lib", "readOnly": true},
                            {"mountPath": "/var/lib/cni", "name": "cni-state"},
                            {"mountPath": "/var/lib/kedge/network", "name": "state"},
                        ],
                    }],
                    "hostNetwork": true,
                    "serviceAccountName": NAME,
                    "terminationGracePeriodSeconds": 5,
                    "volumes": [
                        {"name": "config", "configMap": {"name": NAME}},
                        host_path("cni-config", "/etc/cni/net.d"),
                        host_path("cni-bin", "/opt/cni/bin"),
                        host_path("cni-lib", "/usr/lib/cni"),
                        host_path("cni-state", "/var/lib/cni"),
                        host_path("state", "/var/lib/kedge/network"),
                    ],
                    "tolerations": [{"operator": "Exists"}],
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                },
            },
        },
    })
}
