//! Which endpoint answers: ports, names of ports, readiness, affinity, policies.

use std::collections::BTreeSet;

use serde_json::json;

use super::{HTTP, Lab, at, web};

pub(super) fn endpoints_ports_and_their_changes(lab: &Lab) {
    let service = lab.service("web", json!({"selector": {"app": "web"}, "ports": web(80)}));
    lab.reaches_all("a ClusterIP", &at(&service, 80), &["one", "two"]);
    lab.answers_pod("lone", "web.default.svc.cluster.local", |answer| answer == "one" || answer == "two");
    // A pod that is its Service's only endpoint reaches itself.
    let lone = lab.service("lone", json!({"selector": {"app": "lone"}, "ports": web(80)}));
    lab.answers_pod("lone", &at(&lone, 80), |answer| answer == "lone");

    lab.patch("web", json!({"spec": {"ports": [{"port": 81, "targetPort": HTTP}]}}));
    lab.answers("another port", &at(&service, 81), |answer| answer == "one" || answer == "two");
    lab.refuses("the former port", &at(&service, 80), "Failed to connect");
    lab.patch("web", json!({"spec": {"selector": {"app": "lone"}}}));
    lab.answers("another selector", &at(&service, 81), |answer| answer == "lone");
    lab.patch("web", json!({"spec": {"selector": {"app": "nobody"}}}));
    lab.refuses("no endpoints", &at(&service, 81), "Failed to connect");
    lab.patch("web", json!({"spec": {"selector": {"app": "web"}, "ports": web(80)}}));

    let ports: Vec<_> =
        (0..60).map(|n| json!({"name": format!("p{n}"), "port": 7000 + n, "targetPort": HTTP})).collect();
    let many = lab.service("many", json!({"selector": {"app": "lone"}, "ports": ports}));
    lab.answers("the first of many ports", &at(&many, 7000), |answer| answer == "lone");
    lab.answers("the last of many ports", &at(&many, 7059), |answer| answer == "lone");

    // Somebody else's, and ours again.
    let label =
        |value: serde_json::Value| json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": value}}});
    lab.patch("many", label("other".into()));
    lab.refuses("another proxy's Service", &at(&many, 7000), "");
    lab.patch("many", label(serde_json::Value::Null));
    lab.answers("our Service again", &at(&many, 7000), |answer| answer == "lone");
    lab.delete(&["many"]);
}

pub(super) fn affinity_and_policies(lab: &Lab) {
    let sticky =
        json!({"selector": {"app": "web"}, "type": "NodePort", "ports": web(80), "sessionAffinity": "ClientIP"});
    let service = lab.service("sticky", sticky);
    let target = at(&service, 80);
    lab.answers("a Service with affinity", &target, |answer| !answer.is_empty());
    let answers = || -> BTreeSet<String> { (0..12).map(|_| lab.ask(&target).stdout.trim().to_owned()).collect() };
    assert_eq!(answers().len(), 1, "one client stays with one endpoint");
    let node_port = format!("127.0.0.1:{}", super::node_port(&service, 0));
    let by_port: BTreeSet<String> = (0..12).map(|_| lab.ask(&node_port).stdout.trim().to_owned()).collect();
    assert_eq!(by_port.len(), 1, "one client stays with one endpoint of a node port");
    lab.patch("sticky", json!({"spec": {"sessionAffinity": "None"}}));
    lab.reaches_all("affinity switched off", &target, &["one", "two"]);
    lab.reaches_all("affinity switched off, node port", &node_port, &["one", "two"]);
    lab.patch("sticky", json!({"spec": {"sessionAffinity": "ClientIP"}}));
    kedge_e2e::eventually("affinity switched on again", super::PATIENCE, || match answers().len() {
        1 => Ok(()),
        more => Err(format!("{more} endpoints answered")),
    });
    let by_port: BTreeSet<String> = (0..12).map(|_| lab.ask(&node_port).stdout.trim().to_owned()).collect();
    assert_eq!(by_port.len(), 1, "the node port's affinity is on again too");
    // The only node has every endpoint, so that Local changes nothing but the way through the table.
    lab.patch(
        "sticky",
        json!({"spec": {"sessionAffinity": "None", "internalTrafficPolicy": "Local",
        "externalTrafficPolicy": "Local"}}),
    );
    lab.reaches_all("local policies, ClusterIP", &target, &["one", "two"]);
    lab.reaches_all("local policies, node port", &node_port, &["one", "two"]);
    lab.delete(&["sticky"]);

    lab.service("near", json!({"selector": {"app": "web"}, "ports": web(80), "trafficDistribution": "PreferSameNode"}));
    kedge_e2e::eventually("hints for this node", super::PATIENCE, || {
        let selector = "kubernetes.io/service-name=near";
        let path = "jsonpath={.items[*].endpoints[*].hints.forNodes[*].name}";
        let hints = lab.node.kubectl.run(&["get", "endpointslices", "-l", selector, "-o", path]);
        if hints.split_whitespace().count() == 2 { Ok(()) } else { Err(hints) }
    });
    let near = lab.node.get("service", "near");
    lab.reaches_all("preferred endpoints", &at(&near, 80), &["one", "two"]);
    lab.delete(&["near"]);
}

pub(super) fn readiness_decides_unless_it_is_published(lab: &Lab) {
    lab.server("shy", "app: shy", "    readinessProbe: {exec: {command: ['false']}, periodSeconds: 1}\n");
    lab.node.until("shy", "running", |pod| pod["status"]["phase"] == "Running");
    let strict = lab.service("strict", json!({"selector": {"app": "shy"}, "ports": web(80)}));
    let open = json!({"selector": {"app": "shy"}, "ports": web(80), "publishNotReadyAddresses": true});
    let open = lab.service("open", open);
    lab.answers("a pod that is not ready, published", &at(&open, 80), |answer| answer == "shy");
    lab.refuses("a pod that is not ready", &at(&strict, 80), "Failed to connect");
    // An endpoint that ends is gone from the Service, and clients are refused.
    lab.node.kubectl.run(&["delete", "pod", "shy", "--wait=false"]);
    lab.refuses("an endpoint that is gone", &at(&open, 80), "Failed to connect");
    lab.delete(&["strict", "open"]);
}
