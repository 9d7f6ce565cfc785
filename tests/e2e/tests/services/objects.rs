//! The objects about Services: addresses and their ranges, statuses, collections, the Service of the API.

use kedge_e2e::eventually;
use serde_json::{Value, json};

use super::{Lab, PATIENCE, at, web};

pub(super) fn addresses_and_their_ranges(lab: &Lab) {
    let kubectl = &lab.node.kubectl;
    let range = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"},
        "spec": {"cidrs": ["10.97.200.0/24"]}});
    kubectl.apply(&range.to_string());
    kubectl.run(&["wait", "--for=condition=Ready", "servicecidr/more", "--timeout=60s"]);
    let spec = json!({"selector": {"app": "web"}, "ports": web(80), "clusterIP": "10.97.200.9"});
    let service = lab.service("ranged", spec);
    lab.reaches_all("an address of another range", &at(&service, 80), &["one", "two"]);
    let record = lab.node.get("ipaddress", "10.97.200.9");
    assert_eq!(record["spec"]["parentRef"], json!({"resource": "services", "namespace": "default", "name": "ranged"}));
    assert_eq!(record["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"], "IPv4");
    lab.delete(&["ranged"]);
    assert_eq!(lab.node.get("ipaddress", "10.97.200.9"), Value::Null);
    kubectl.run(&["delete", "servicecidr", "more", "--timeout=60s"]);
}

pub(super) fn statuses_and_collections(lab: &Lab) {
    let kubectl = &lab.node.kubectl;
    for name in ["first", "second"] {
        lab.service(name, json!({"selector": {"app": "web"}, "ports": web(80)}));
        kubectl.run(&["label", "service", name, "set=both"]);
    }
    let condition = json!({"status": {"conditions": [{"type": "StatusPatched", "status": "True", "reason": "E2E",
        "message": "Set by the test", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let patch = ["patch", "service", "first", "--subresource=status", "--type=merge", "-p", &condition.to_string()];
    kubectl.run(&patch);
    assert_eq!(lab.node.get("service", "first")["status"]["conditions"][0]["reason"], "E2E");
    kubectl.run(&["delete", "services", "-l", "set=both"]);
    eventually("both Services and their endpoints being gone", PATIENCE, || {
        let names = "kubernetes.io/service-name in (first, second)";
        let services = kubectl.run(&["get", "services", "-l", "set=both", "-o", "name"]);
        let slices = kubectl.run(&["get", "endpointslices", "-l", names, "-o", "name"]);
        if services.is_empty() && slices.is_empty() { Ok(()) } else { Err(services + &slices) }
    });
    let api = lab.node.get("service", "kubernetes");
    assert_eq!((&api["spec"]["ports"][0]["name"], &api["spec"]["ports"][0]["port"]), (&json!("https"), &json!(443)));
    let slice = lab.node.get("endpointslice", "kubernetes");
    assert_eq!(slice["endpoints"][0]["addresses"][0], lab.node.host.address());
}
