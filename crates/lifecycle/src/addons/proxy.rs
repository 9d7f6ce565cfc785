//! kube-proxy: upstream's DaemonSet, ConfigMap and account.

use serde_json::{Map, Value, json};

use super::{NAMESPACE, cluster_role_binding, env, host_path, kubeconfig, service_account};

/// All objects. `user` has fields of the configuration that win over the usual ones.
pub fn proxy_objects(endpoint: &str, pod_subnet: &str, image: &str, user: &Map<String, Value>) -> Vec<Value> {
    let mut configuration = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf"},
        "clusterCIDR": pod_subnet,
        "mode": "nftables",
    });
    for (field, value) in user {
        configuration[field] = value.clone();
    }
    let configuration = serde_yaml::to_string(&configuration).unwrap_or_default();
    let labels = json!({"app": "kube-proxy"});
    vec![
        service_account("kube-proxy"),
        cluster_role_binding("kubeadm:node-proxier", "system:node-proxier", "kube-proxy"),
        json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "kube-proxy", "namespace": NAMESPACE, "labels": labels},
            "data": {"config.conf": configuration, "kubeconfig.conf": kubeconfig(endpoint)}}),
        daemon_set(image),
    ]
}

fn daemon_set(image: &str) -> Value {
    let labels = json!({"k8s-app": "kube-proxy"});
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "kube-proxy", "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "priorityClassName": "system-node-critical",
                    "containers": [{
                        "name": "kube-proxy",
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": [
                            "/usr/local/bin/kube-proxy",
                            "--config=/var/lib/kube-proxy/config.conf",
                            "--hostname-override=$(NODE_NAME)",
                        ],
                        "env": [env("NODE_NAME", "spec.nodeName")],
                        "securityContext": {"privileged": true},
                        "volumeMounts": [
                            {"mountPath": "/var/lib/kube-proxy", "name": "kube-proxy"},
                            {"mountPath": "/var/lib/kedge/proxy", "name": "state"},
                        ],
                    }],
                    "hostNetwork": true,
                    "serviceAccountName": "kube-proxy",
                    "volumes": [
                        {"name": "kube-proxy", "configMap": {"name": "kube-proxy"}},
                        // What kernel switches were before, for `kedge reset`.
                        host_path("state", "/var/lib/kedge/proxy"),
                    ],
                    "tolerations": [{"operator": "Exists"}],
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                },
            },
        },
    })
}
