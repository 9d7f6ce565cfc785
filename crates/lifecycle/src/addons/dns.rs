//! Cluster DNS under upstream's names: the Deployment `coredns` behind the Service `kube-dns`.

use serde_json::{Value, json};

use super::{NAMESPACE, cluster_role, cluster_role_binding, env, service_account};

/// All objects.
pub fn dns_objects(cluster_ip: &str, domain: &str, ranges: &str, image: &str) -> Vec<Value> {
    let rules = json!([
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]);
    vec![
        service_account("coredns"),
        cluster_role("system:coredns", &rules),
        cluster_role_binding("system:coredns", "system:coredns", "coredns"),
        corefile_role(),
        corefile_role_binding(),
        deployment(domain, ranges, image),
        service(cluster_ip),
    ]
}

/// The Corefile is followed through the API, where there is one: by its name, in all namespaces.
fn corefile_role() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "kedge:corefile"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["coredns"],
            "verbs": ["get", "list", "watch"]}],
    })
}

fn corefile_role_binding() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "kedge:corefile"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "kedge:corefile"},
        "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": NAMESPACE}],
    })
}

fn service(cluster_ip: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": NAMESPACE,
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "clusterIP": cluster_ip,
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
            "selector": {"k8s-app": "kube-dns"},
        },
    })
}

fn deployment(domain: &str, ranges: &str, image: &str) -> Value {
    let labels = json!({"k8s-app": "kube-dns"});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "coredns", "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": 2,
            // DIVERGES: upstream lets one go. While a cluster is upgraded a new pod may land on a node that has no image of it
            // yet; until it has, all old ones go on.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": "coredns",
                    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
                        "weight": 100,
                        "podAffinityTerm": {
                            "labelSelector": {"matchExpressions": [
                                {"key": "k8s-app", "operator": "In", "values": ["kube-dns"]},
                            ]},
                            "topologyKey": "kubernetes.io/hostname",
                        },
                    }]}},
                    "tolerations": [
                        {"key": "CriticalAddonsOnly", "operator": "Exists"},
                        {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
                    ],
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "containers": [container(domain, ranges, image)],
                    "dnsPolicy": "Default",
                },
            },
        },
    })
}

fn container(domain: &str, ranges: &str, image: &str) -> Value {
    json!({
        "name": "coredns",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/usr/local/bin/kedge", "dns"],
        "args": [
            "--listen=$(POD_IP):53",
            format!("--cluster-domain={domain}"),
            format!("--cluster-cidr={ranges}"),
            "--health-address=$(POD_IP):8181",
            // Upstream's Corefile has it, and there is none here.
            "--lameduck=5s",
        ],
        "env": [env("POD_IP", "status.podIP")],
        "resources": {"limits": {"memory": "170Mi"}, "requests": {"cpu": "100m", "memory": "70Mi"}},
        "ports": [
            {"containerPort": 53, "name": "dns", "protocol": "UDP"},
            {"containerPort": 53, "name": "dns-tcp", "protocol": "TCP"},
            {"containerPort": 8181, "name": "readiness-probe", "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "readiness-probe", "scheme": "HTTP"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        },
    })
}
