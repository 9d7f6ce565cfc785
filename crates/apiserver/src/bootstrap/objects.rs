//! The bootstrap objects themselves, apart from the RBAC policy.

use std::net::SocketAddr;

use jiff::Timestamp;
use kedge_meta::format_time;
use serde_json::{Value, json};

use crate::config::Config;
use crate::front_proxy::FrontProxy;

/// Namespaces that every cluster has.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// The range that every cluster has.
pub(super) const SERVICE_CIDR: &str = "kubernetes";

/// Everything but the RBAC policy. Namespaces come first.
pub(super) fn all(config: &Config, client_ca: Option<&str>, proxy: Option<&FrontProxy>, now: Timestamp) -> Vec<Value> {
    let mut objects = indispensable(config);
    objects.extend(priority_classes());
    objects.push(extension_authentication(client_ca, proxy));
    objects.push(service_cidr(config, now));
    objects
}

/// The namespaces and the `kubernetes` Service with its endpoints.
pub(super) fn indispensable(config: &Config) -> Vec<Value> {
    let mut objects: Vec<Value> = NAMESPACES.iter().map(|name| namespace(name)).collect();
    objects.extend(kubernetes_service(config));
    objects
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
}

fn priority_classes() -> [Value; 2] {
    let class = |name: &str, value: i64, description: &str| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": description})
    };
    [
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ]
}

pub(super) fn extension_authentication(client_ca: Option<&str>, proxy: Option<&FrontProxy>) -> Value {
    let mut data = json!({});
    if let Some(client_ca) = client_ca {
        data["client-ca-file"] = json!(client_ca);
    }
    for (key, value) in proxy.into_iter().flat_map(FrontProxy::published) {
        data[key] = json!(value);
    }
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"}, "data": data})
}

fn service_cidr(config: &Config, now: Timestamp) -> Value {
    let ranges: Vec<String> = config.service_cluster_ip_ranges.iter().map(ToString::to_string).collect();
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": SERVICE_CIDR},
        "spec": {"cidrs": ranges},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "",
            "message": "Kubernetes Service CIDR is ready", "lastTransitionTime": format_time(now)}]}})
}

/// The Service through which pods reach the API.
fn kubernetes_service(config: &Config) -> Vec<Value> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let metadata = json!({"name": "kubernetes", "namespace": "default", "labels": labels});
    let range = config.service_cluster_ip_ranges.first();
    let address = range.and_then(|range| range.nth(1)).map(|address| address.to_string());
    let family = if range.is_some_and(|range| range.is_ipv6()) { "IPv6" } else { "IPv4" };
    vec![json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {
        "type": "ClusterIP", "sessionAffinity": "None", "clusterIP": address, "clusterIPs": [address],
        "ipFamilies": [family], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
        "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": config.secure_port}]}})]
}

/// The endpoints of that Service, which no controller keeps: the servers that live, all with one port.
pub(super) fn kubernetes_endpoints(servers: &[SocketAddr]) -> [Value; 2] {
    let family = if servers.iter().any(SocketAddr::is_ipv6) { "IPv6" } else { "IPv4" };
    let port = json!({"name": "https", "port": servers.first().map(SocketAddr::port), "protocol": "TCP"});
    let addresses: Vec<Value> = servers.iter().map(|server| json!({"ip": server.ip()})).collect();
    let endpoint = |server: &SocketAddr| json!({"addresses": [server.ip()], "conditions": {"ready": true}});
    let endpoints: Vec<Value> = servers.iter().map(endpoint).collect();
    let metadata =
        |label: &str, value: &str| json!({"name": "kubernetes", "namespace": "default", "labels": {label: value}});
    [
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata("endpointslice.kubernetes.io/skip-mirror", "true"),
            "subsets": [{"addresses": addresses, "ports": [port]}]}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": metadata("kubernetes.io/service-name", "kubernetes"), "addressType": family,
            "endpoints": endpoints, "ports": [port]}),
    ]
}
