//! Endpoints and EndpointSlices: made for pods, mirrored, written by hand; and how soon they are there.

use kedge_e2e::{BUSYBOX, eventually};
use serde_json::{Value, json};

use super::{Lab, PATIENCE, at};

fn slices(lab: &Lab, service: &str) -> Vec<Value> {
    let selector = format!("kubernetes.io/service-name={service}");
    let listed = lab.node.kubectl.run(&["get", "endpointslices", "-l", &selector, "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap_or_default();
    listed["items"].as_array().cloned().unwrap_or_default()
}

/// `address:port` of every endpoint that a Service has, of Endpoints and of slices.
fn known(lab: &Lab, service: &str) -> (Vec<String>, Vec<String>) {
    let endpoints = lab.node.get("endpoints", service);
    let mut by_endpoints = Vec::new();
    for subset in endpoints["subsets"].as_array().into_iter().flatten() {
        for (address, port) in pairs(&subset["addresses"], &subset["ports"]) {
            by_endpoints.push(format!("{}:{}", address["ip"].as_str().unwrap_or_default(), port["port"]));
        }
    }
    let mut by_slices = Vec::new();
    for slice in slices(lab, service) {
        for (endpoint, port) in pairs(&slice["endpoints"], &slice["ports"]) {
            by_slices.push(format!("{}:{}", endpoint["addresses"][0].as_str().unwrap_or_default(), port["port"]));
        }
    }
    by_endpoints.sort();
    by_slices.sort();
    (by_endpoints, by_slices)
}

fn pairs<'a>(left: &'a Value, right: &'a Value) -> impl Iterator<Item = (&'a Value, &'a Value)> {
    let right = right.as_array().map(Vec::as_slice).unwrap_or_default();
    left.as_array().into_iter().flatten().flat_map(move |one| right.iter().map(move |other| (one, other)))
}

fn wait_known(lab: &Lab, service: &str, expected: &[String]) {
    let mut expected = expected.to_vec();
    expected.sort();
    eventually(&format!("endpoints of {service}: {expected:?}"), PATIENCE, || {
        let seen = known(lab, service);
        if seen == (expected.clone(), expected.clone()) { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

/// A server of two ports, each with a name.
fn pair(lab: &Lab, name: &str, ports: &str) {
    let script = "mkdir /tmp/w; hostname > /tmp/w/index.html; httpd -p 8090 -h /tmp/w; exec httpd -f -p 8080 -h /tmp/w";
    lab.node.kubectl.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: pair}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: '{BUSYBOX}'\n    \
         command: [sh, -c, '{script}']\n    ports: [{ports}]\n"
    ));
}

pub(super) fn endpoints_follow_pods(lab: &Lab) {
    let api = known(lab, "kubernetes");
    let expected = vec![format!("{}:{}", lab.node.host.address(), lab.node.host.port())];
    assert_eq!(api, (expected.clone(), expected), "those of the API server");
    let everywhere = lab.node.kubectl.run(&["get", "services", "-A", "-o", "jsonpath={.items[*].metadata.name}"]);
    assert!(everywhere.split(' ').any(|name| name == "kubernetes"), "{everywhere}");

    // Each port of the Service is another port of the pods, by name, and not every pod has both.
    let ports =
        json!([{"name": "a", "port": 80, "targetPort": "first"}, {"name": "b", "port": 81, "targetPort": "second"}]);
    let service = lab.service("paired", json!({"selector": {"app": "pair"}, "ports": ports}));
    eventually("empty endpoints of a Service without pods", PATIENCE, || {
        let (endpoints, slices) = (lab.node.get("endpoints", "paired"), slices(lab, "paired"));
        let is_there = endpoints["metadata"]["name"] == "paired" && slices.len() == 1;
        if is_there && known(lab, "paired") == (vec![], vec![]) {
            Ok(())
        } else {
            Err(format!("{endpoints} {slices:?}"))
        }
    });
    pair(lab, "pair-1", "{name: first, containerPort: 8080}");
    let first = format!("{}:8080", lab.node.address("pair-1"));
    wait_known(lab, "paired", std::slice::from_ref(&first));
    pair(lab, "pair-2", "{name: second, containerPort: 8090}");
    let second = format!("{}:8090", lab.node.address("pair-2"));
    wait_known(lab, "paired", &[first, second.clone()]);
    lab.answers("the first port", &at(&service, 80), |answer| answer == "pair-1");
    lab.answers("the second port", &at(&service, 81), |answer| answer == "pair-2");
    let reference = slices(lab, "paired")
        .iter()
        .flat_map(|slice| slice["endpoints"].as_array().cloned())
        .flatten()
        .find_map(|endpoint| (endpoint["targetRef"]["name"] == "pair-2").then(|| endpoint["nodeName"].clone()));
    assert_eq!(reference, Some(json!("node-1")));
    lab.node.kubectl.run(&["delete", "pod", "pair-1", "--wait=false"]);
    wait_known(lab, "paired", &[second]);
    lab.refuses("the port that nobody has any more", &at(&service, 80), "");
    lab.node.kubectl.run(&["delete", "pod", "pair-2", "--wait=false"]);
    wait_known(lab, "paired", &[]);
    lab.delete(&["paired"]);
    eventually("no endpoints without their Service", PATIENCE, || {
        let left = (lab.node.get("endpoints", "paired"), slices(lab, "paired"));
        if left == (Value::Null, vec![]) { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

pub(super) fn endpoints_by_hand(lab: &Lab) {
    let kubectl = &lab.node.kubectl;
    pair(lab, "pair-3", "{containerPort: 8080}, {containerPort: 8090}");
    let (three, lone) = (lab.node.address("pair-3"), lab.node.address("lone"));
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    let by_hand = lab.service("by-hand", json!({"ports": ports}));
    let slice = |name: &str, address: &str, port_name: &str, port: u16| {
        let metadata = json!({"name": name, "labels": {"kubernetes.io/service-name": "by-hand"}});
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
            "addressType": "IPv4", "endpoints": [{"addresses": [address]}],
            "ports": [{"name": port_name, "port": port, "protocol": "TCP"}]});
        kubectl.apply(&slice.to_string());
    };
    // One address with two ports, in two slices.
    slice("by-hand-1", &three, "a", 8080);
    slice("by-hand-2", &three, "b", 8090);
    for port in [80, 81] {
        lab.answers("one address, two slices", &at(&by_hand, port), |answer| answer == "pair-3");
        lab.answers_pod("lone", &at(&by_hand, port), |answer| answer == "pair-3");
    }
    // Two addresses with a port each.
    slice("by-hand-2", &lone, "b", 8080);
    lab.answers("another address", &at(&by_hand, 81), |answer| answer == "lone");
    lab.answers("the address that stayed", &at(&by_hand, 80), |answer| answer == "pair-3");
    lab.delete(&["by-hand"]);

    // Endpoints that somebody wrote are mirrored, changed and taken away with theirs.
    let mirrored = lab.service("mirrored", json!({"ports": [{"port": 80}]}));
    let endpoints = |address: &str, port: u16| {
        let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "mirrored"},
            "subsets": [{"addresses": [{"ip": address}], "ports": [{"port": port}]}]});
        kubectl.apply(&endpoints.to_string());
    };
    endpoints(&three, 8080);
    lab.answers("mirrored endpoints", &at(&mirrored, 80), |answer| answer == "pair-3");
    let label = slices(lab, "mirrored")[0]["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"].clone();
    assert_eq!(label, "endpointslicemirroring-controller.k8s.io");
    endpoints(&lone, 8080);
    lab.answers("changed ones", &at(&mirrored, 80), |answer| answer == "lone");
    kubectl.run(&["delete", "endpoints", "mirrored"]);
    eventually("no mirror of what is gone", PATIENCE, || match slices(lab, "mirrored") {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    lab.refuses("endpoints that are gone", &at(&mirrored, 80), "");
    lab.delete(&["mirrored"]);
    kubectl.run(&["delete", "pod", "pair-3", "--wait=false"]);
}

/// A hundred Services of one pod: all have their endpoints long before what upstream allows for one.
pub(super) fn endpoints_are_soon_there(lab: &Lab) {
    let services: Vec<Value> = (0..100)
        .map(|n| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("soon-{n}"), "labels": {"set": "soon"}},
                "spec": {"selector": {"app": "lone"}, "ports": [{"port": 80, "targetPort": 8080}]}})
        })
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": services});
    lab.node.kubectl.apply(&list.to_string());
    let began = std::time::Instant::now();
    let address = lab.node.address("lone");
    eventually("the endpoints of a hundred Services", PATIENCE, || {
        let path = "jsonpath={.items[*].subsets[*].addresses[*].ip}";
        let seen = lab.node.kubectl.run(&["get", "endpoints", "-l", "set=soon", "-o", path]);
        let count = seen.split(' ').filter(|ip| *ip == address).count();
        if count == 100 { Ok(()) } else { Err(format!("{count} after {:?}", began.elapsed())) }
    });
    lab.node.kubectl.run(&["delete", "services", "-l", "set=soon", "--wait=false"]);
}
