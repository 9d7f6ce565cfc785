//! Where a Service answers: types and their changes, external and load balancer addresses, health checks, host ports.

use kedge_e2e::eventually;
use serde_json::{Value, json};

use super::{Lab, PATIENCE, at, node_port, web};

/// On the node's segment, and nobody's.
const EXTERNAL: &str = "198.51.100.77";
/// What the cluster may give away.
pub(super) const POOL: &str = "198.51.100.80-198.51.100.81";

pub(super) fn types_change_into_one_another(lab: &Lab) {
    let service =
        lab.service("typed", json!({"type": "ExternalName", "externalName": "web.default.svc.cluster.local"}));
    assert!(service["spec"]["clusterIP"].is_null(), "{service}");
    lab.answers_pod("lone", "typed.default.svc.cluster.local", |answer| answer == "one" || answer == "two");
    let to_cluster_ip =
        json!({"spec": {"type": "ClusterIP", "externalName": null, "selector": {"app": "web"}, "ports": web(80)}});
    let service = lab.patch("typed", to_cluster_ip);
    let cluster_ip = at(&service, 80);
    lab.reaches_all("from ExternalName to ClusterIP", &cluster_ip, &["one", "two"]);

    let service = lab.patch("typed", json!({"spec": {"type": "NodePort"}}));
    assert_eq!(at(&service, 80), cluster_ip, "the address stays");
    let port = node_port(&service, 0);
    lab.reaches_all("a node port at loopback", &format!("127.0.0.1:{port}"), &["one", "two"]);
    lab.reaches_all("a node port at the node", &format!("{}:{port}", lab.node.host.address()), &["one", "two"]);
    // Another Service may not have the same port.
    let other = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "thief"}, "spec": {"type": "NodePort",
        "selector": {"app": "web"}, "ports": [{"port": 80, "nodePort": port}]}});
    let refused = lab.node.kubectl.try_run_with(&["create", "-f", "-"], &other.to_string());
    assert!(refused.all().contains("provided port is already allocated"), "{}", refused.all());

    let service = lab.patch("typed", json!({"spec": {"type": "ClusterIP"}}));
    assert!(service["spec"]["ports"][0]["nodePort"].is_null(), "{service}");
    lab.refuses("a node port that is gone", &format!("127.0.0.1:{port}"), "");
    lab.answers("the ClusterIP that stayed", &cluster_ip, |answer| !answer.is_empty());
    let to_name =
        json!({"spec": {"type": "ExternalName", "externalName": "a.example", "clusterIP": null, "clusterIPs": null}});
    let service = lab.patch("typed", to_name);
    assert!(service["spec"]["clusterIP"].is_null(), "{service}");
    lab.refuses("the address of what is ExternalName now", &cluster_ip, "");
    // From the name to a node port at once, and back.
    let to_node_port =
        json!({"spec": {"type": "NodePort", "externalName": null, "selector": {"app": "web"}, "ports": web(80)}});
    let service = lab.patch("typed", to_node_port);
    let port = node_port(&service, 0);
    lab.reaches_all("from ExternalName to NodePort", &at(&service, 80), &["one", "two"]);
    lab.reaches_all("its node port", &format!("{}:{port}", lab.node.host.address()), &["one", "two"]);
    lab.answers_pod("lone", "typed", |answer| answer == "one" || answer == "two");
    let to_name = json!({"spec": {"type": "ExternalName", "externalName": "lone.default.svc.cluster.local",
        "clusterIP": null, "clusterIPs": null, "ports": [{"port": 8080}]}});
    let service = lab.patch("typed", to_name);
    assert!(service["spec"]["clusterIP"].is_null() && service["spec"]["ports"][0]["nodePort"].is_null(), "{service}");
    lab.refuses("the node port of what is ExternalName again", &format!("127.0.0.1:{port}"), "");
    lab.answers_pod("lone", "typed", |answer| answer == "lone");
    lab.delete(&["typed"]);
}

fn set_ingress(lab: &Lab, service: &str, ingress: &Value) {
    let status = json!({"status": {"loadBalancer": {"ingress": ingress}}}).to_string();
    lab.node.kubectl.run(&["patch", "service", service, "--subresource=status", "--type=merge", "-p", &status]);
}

pub(super) fn external_and_load_balancer_addresses(lab: &Lab) {
    let spec = json!({"selector": {"app": "web"}, "ports": web(80), "externalIPs": [EXTERNAL]});
    lab.service("external", spec);
    lab.reaches_all("an external IP", &format!("{EXTERNAL}:80"), &["one", "two"]);
    lab.delete(&["external"]);
    lab.refuses("an external IP that is gone", &format!("{EXTERNAL}:80"), "");

    // A class that is nobody's here: the address is the test's to give.
    let spec = json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/test", "selector": {"app": "web"},
        "ports": web(80), "allocateLoadBalancerNodePorts": false});
    let service = lab.service("balanced", spec);
    assert!(service["spec"]["ports"][0]["nodePort"].is_null(), "{service}");
    set_ingress(lab, "balanced", &json!([{"ip": EXTERNAL, "ipMode": "VIP"}]));
    let target = format!("{EXTERNAL}:80");
    lab.reaches_all("a load balancer's address", &target, &["one", "two"]);
    lab.patch("balanced", json!({"spec": {"loadBalancerSourceRanges": ["203.0.113.0/24"]}}));
    lab.refuses("another source than those allowed", &target, "");
    lab.patch("balanced", json!({"spec": {"loadBalancerSourceRanges": [format!("{}/32", lab.node.host.address())]}}));
    lab.answers("an allowed source", &target, |answer| !answer.is_empty());
    // In the mode Proxy, packets come with the node's address; the load balancer's own is not the node's business.
    set_ingress(lab, "balanced", &json!([{"ip": EXTERNAL, "ipMode": "Proxy"}]));
    lab.refuses("an address in the mode Proxy", &target, "");
    lab.delete(&["balanced"]);
}

pub(super) fn a_pool_gives_load_balancers_addresses(lab: &Lab) {
    lab.service("pooled", json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": web(80)}));
    let status = |name: &str| lab.node.get("service", name)["status"]["loadBalancer"]["ingress"].clone();
    let target = "198.51.100.80:80";
    lab.reaches_all("an address of the pool", target, &["one", "two"]);
    lab.node.event("pooled", "EnsuredLoadBalancer Ensured load balancer");
    assert_eq!(status("pooled"), json!([{"ip": "198.51.100.80", "ipMode": "VIP"}]));
    wishes_and_shared_addresses(lab);
    let service = lab.patch("pooled", json!({"spec": {"type": "ClusterIP"}}));
    lab.refuses("an address that was given back", target, "");
    lab.answers("what is a ClusterIP again", &at(&service, 80), |answer| !answer.is_empty());
    lab.node.event("pooled", "DeletedLoadBalancer Deleted load balancer");
    lab.delete(&["pooled"]);
}

/// A wished address by annotation, and two Services at one address, each with its own port. The node announces both.
fn wishes_and_shared_addresses(lab: &Lab) {
    for (name, port) in [("wished", 80), ("sharing", 81)] {
        let annotations = json!({"kedge.dev/load-balancer-ips": "198.51.100.81",
            "kedge.dev/load-balancer-sharing-key": "test"});
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "annotations": annotations},
            "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": web(port)}});
        lab.node.kubectl.apply(&service.to_string());
    }
    lab.reaches_all("a wished address", "198.51.100.81:80", &["one", "two"]);
    lab.reaches_all("the same for another Service", "198.51.100.81:81", &["one", "two"]);
    eventually("the node announces addresses of the pool", PATIENCE, || {
        let log = lab.node.host.log();
        let told = |address: &str| log.lines().any(|line| line.contains("announces") && line.contains(address));
        if told("198.51.100.80") && told("198.51.100.81") { Ok(()) } else { Err(log) }
    });
    lab.delete(&["wished", "sharing"]);
    lab.refuses("an address that nobody shares any more", "198.51.100.81:81", "");
}

pub(super) fn health_checks_answer_load_balancers(lab: &Lab) {
    let spec = json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/test", "selector": {"app": "web"},
        "ports": web(80), "externalTrafficPolicy": "Local"});
    let service = lab.service("checked", spec);
    let port = service["spec"]["healthCheckNodePort"].as_u64().unwrap_or_default();
    assert!(port > 0, "{service}");
    let expect = |what: &str, endpoints: u64, code: &str| {
        eventually(what, PATIENCE, || {
            let url = format!("http://127.0.0.1:{port}/healthz");
            let output = lab.node.host.run("curl", &["-sS", "--max-time", "3", "-w", "\n%{http_code}", &url]);
            let (body, seen) = output.stdout.rsplit_once('\n').unwrap_or_default();
            let body: Value = serde_json::from_str(body).unwrap_or_default();
            let is_right = body["service"] == json!({"namespace": "default", "name": "checked"})
                && body["localEndpoints"] == endpoints
                && body["serviceProxyHealthy"] == true;
            if is_right && seen == code { Ok(()) } else { Err(output.all()) }
        });
    };
    expect("a health check with endpoints", 2, "200");
    lab.patch("checked", json!({"spec": {"selector": {"app": "nobody"}}}));
    expect("a health check without endpoints", 0, "503");
    lab.delete(&["checked"]);
    lab.refuses("the health check of a Service that is gone", &format!("127.0.0.1:{port}"), "Failed to connect");
}

pub(super) fn host_ports(lab: &Lab) {
    let ports = |ip: &str| {
        format!("    ports: [{{name: web, containerPort: 8080, hostPort: 18080, hostIP: {ip}, protocol: TCP}}]\n")
    };
    let address = lab.node.host.address();
    // The same port at another address is no conflict; at the same one it is.
    for (name, ip) in [("hosted", "127.0.0.1"), ("hosted-too", address), ("hosted-not", address)] {
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
             containers:\n  - name: c\n    image: '{}'\n    command: [sh, -c, 'mkdir /tmp/w; hostname > /tmp/w/index.html; \
             exec httpd -f -p 8080 -h /tmp/w']\n{}",
            super::BUSYBOX,
            ports(ip)
        );
        lab.node.kubectl.apply(&manifest);
        if name == "hosted-not" {
            lab.node.event(name, "FailedScheduling");
        } else {
            lab.node.ready(name);
        }
    }
    lab.answers("a host port at loopback", "127.0.0.1:18080", |answer| answer == "hosted");
    lab.answers("a host port at the node", &format!("{address}:18080"), |answer| answer == "hosted-too");
    lab.node.kubectl.run(&["delete", "pod", "hosted", "hosted-too", "hosted-not", "--wait=false"]);
    lab.refuses("a host port that is gone", "127.0.0.1:18080", "");
}
