//! Tables: who may announce, and who does.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

fn node(name: &str, ready: &str, labels: Value) -> Arc<Node> {
    let last = name.len();
    let node = json!({
        "metadata": {"name": name, "labels": labels},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "addresses": [{"type": "InternalIP", "address": format!("192.0.2.{last}")}],
        },
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

fn service(name: &str, policy: &str, change: Value) -> Arc<Service> {
    let mut service = json!({
        "metadata": {"namespace": "d", "name": name, "annotations": {POOL_ANNOTATION: "true"}},
        "spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.40", "ipMode": "VIP"}]}},
    });
    merge(&mut service, &change);
    Arc::new(serde_json::from_value(service).unwrap())
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            change.iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, change) => *into = change.clone(),
    }
}

fn slice(service: &str, endpoints: Value) -> Arc<EndpointSlice> {
    let slice = json!({"metadata": {"namespace": "d", "name": service, "labels": {SERVICE_NAME: service}},
        "addressType": "IPv4", "endpoints": endpoints});
    Arc::new(serde_json::from_value(slice).unwrap())
}

fn endpoint(node: &str, ready: bool, serving: bool) -> Value {
    json!({"addresses": ["10.244.0.1"], "nodeName": node, "conditions": {"ready": ready, "serving": serving}})
}

fn shown(announcers: &BTreeMap<Ipv4Addr, BTreeSet<String>>) -> String {
    let each = announcers.iter().map(|(address, names)| {
        format!("{address}:{}", names.iter().map(String::as_str).collect::<Vec<_>>().join(","))
    });
    each.collect::<Vec<_>>().join(" ")
}

#[test]
fn ready_nodes_announce_and_with_the_local_policy_those_with_endpoints() {
    let nodes = [
        node("a", "True", json!({})),
        node("bb", "True", json!({})),
        node("ccc", "Unknown", json!({})),
        node("dddd", "True", json!({EXCLUDE_LABEL: ""})),
    ];
    let nodes = plan_nodes(&nodes);
    let check = |policy: &str, endpoints: Value, expected: &str| {
        let slices = [slice("web", endpoints.clone()), slice("other", json!([endpoint("a", true, true)]))];
        let announcers = plan_announcers(&[service("web", policy, json!({}))], &slices, &nodes);
        assert_eq!(shown(&announcers), expected, "{policy} {endpoints}");
    };
    check("Cluster", json!([endpoint("bb", true, true)]), "192.0.2.40:a,bb");
    check("Cluster", json!([]), "192.0.2.40:a,bb");
    check("Local", json!([endpoint("bb", true, true)]), "192.0.2.40:bb");
    check("Local", json!([endpoint("ccc", true, true)]), "192.0.2.40:");
    check("Local", json!([]), "192.0.2.40:");
    check("Local", json!([endpoint("a", false, true), endpoint("bb", false, false)]), "192.0.2.40:a");
    check("Local", json!([endpoint("a", false, true), endpoint("bb", true, true)]), "192.0.2.40:bb");
}

#[test]
fn only_addresses_of_the_pool_are_announced() {
    let nodes = plan_nodes(&[node("a", "True", json!({}))]);
    let check = |change: Value, expected: &str| {
        let services = [service("web", "Cluster", change.clone())];
        assert_eq!(shown(&plan_announcers(&services, &[] as &[Arc<EndpointSlice>], &nodes)), expected, "{change}");
    };
    let ingress = |ingress: Value| json!({"status": {"loadBalancer": {"ingress": [ingress]}}});
    check(json!({}), "192.0.2.40:a");
    check(json!({"metadata": {"annotations": null}}), "");
    check(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), "");
    check(json!({"spec": {"type": "NodePort"}}), "");
    check(json!({"spec": {"loadBalancerClass": "example.com/other"}}), "");
    check(ingress(json!({"ip": "192.0.2.40", "ipMode": "Proxy"})), "");
    check(ingress(json!({"ip": "192.0.2.41"})), "192.0.2.41:a");
    check(ingress(json!({"hostname": "example.com"})), "");
    check(ingress(json!({"ip": "fd00::1"})), "");
    // Of a node.
    check(ingress(json!({"ip": "192.0.2.1"})), "");
    check(ingress(json!({"ip": "127.0.0.1"})), "");
    check(ingress(json!({"ip": "224.0.0.1"})), "");
}

#[test]
fn who_shares_an_address_needs_a_node_that_serves_both() {
    let nodes = plan_nodes(&[node("a", "True", json!({})), node("bb", "True", json!({}))]);
    let services = [service("one", "Local", json!({})), service("two", "Local", json!({}))];
    let slices = [
        slice("one", json!([endpoint("a", true, true), endpoint("bb", true, true)])),
        slice("two", json!([endpoint("bb", true, true)])),
    ];
    assert_eq!(shown(&plan_announcers(&services, &slices, &nodes)), "192.0.2.40:bb");
}

#[test]
fn addresses_spread_and_only_those_of_a_lost_node_move() {
    let names = ["node-1", "node-2", "node-3"];
    let addresses: Vec<Ipv4Addr> = (0..240).map(|last| Ipv4Addr::new(192, 0, 2, last)).collect();
    let mut count = BTreeMap::new();
    for address in &addresses {
        let chosen = elect(*address, names).unwrap();
        *count.entry(chosen).or_insert(0) += 1;
        assert_eq!(elect(*address, ["node-3", "node-1", "node-2"]), Some(chosen), "in any order");
        let rest = names.into_iter().filter(|name| *name != "node-2");
        if chosen != "node-2" {
            assert_eq!(elect(*address, rest), Some(chosen), "{address} has no reason to move");
        }
    }
    assert!(count.len() == 3 && count.values().all(|count| (50..=110).contains(count)), "{count:?}");
    assert_eq!(elect(addresses[0], []), None);
}
