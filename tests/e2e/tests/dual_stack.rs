//! One node with both IP families, and one with IPv6 alone: addresses, Services of each policy and order, names, policies,
//! with real packets.
//!
//! Not about what a family alone does: that is the other suites'. Invariant: a check removes nothing that another one uses.

use std::time::Duration;

use kedge_e2e::{BUSYBOX, HostOptions, Node, Output, eventually};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const FOUR: &str = "198.51.100.2";
const SIX: &str = "fd00:198:51:100::2";
const HTTP: u16 = 8080;

struct Lab {
    node: Node,
}

impl Lab {
    fn up(options: HostOptions) -> Option<Self> {
        let lab = Self { node: Node::up(options)? };
        lab.server("web", "");
        lab.server("other", "    ports: [{containerPort: 8080, hostPort: 8088}]\n");
        for pod in ["web", "other"] {
            lab.node.ready(pod);
        }
        Some(lab)
    }

    /// A pod that tells its name over HTTP, knows its addresses, and is probed.
    fn server(&self, name: &str, container: &str) {
        let script = "mkdir /tmp/w; hostname > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w";
        let field =
            |name: &str, path: &str| format!("{{name: {name}, valueFrom: {{fieldRef: {{fieldPath: {path}}}}}}}");
        let env = [field("POD_IPS", "status.podIPs"), field("HOST_IPS", "status.hostIPs")].join(", ");
        self.node.kubectl.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  \
             terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: '{BUSYBOX}'\n    \
             command: [sh, -c, '{script}']\n    env: [{env}]\n    \
             readinessProbe: {{httpGet: {{port: {HTTP}}}, periodSeconds: 1}}\n{container}"
        ));
    }

    fn service(&self, name: &str, spec: Value) -> Value {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
        self.node.kubectl.apply(&service.to_string());
        self.node.get("service", name)
    }

    fn patch(&self, name: &str, patch: &Value) -> Value {
        self.node.kubectl.run(&["patch", "service", name, "--type=merge", "-p", &patch.to_string()]);
        self.node.get("service", name)
    }

    /// One question from the node, or from a pod.
    fn ask(&self, from: Option<&str>, target: &str) -> Output {
        let url = format!("http://{target}/");
        match from {
            None => self.node.host.run("curl", &["-sS", "--max-time", "3", &url]),
            Some(pod) => self.node.kubectl.try_run(&["exec", pod, "--", "curl", "-sS", "--max-time", "3", &url]),
        }
    }

    /// Waits until the node (or a pod) gets the answer of `web`.
    fn answers(&self, from: Option<&str>, target: &str) {
        eventually(&format!("{target} answers {from:?}"), PATIENCE, || {
            let output = self.ask(from, target);
            if output.ok && output.stdout.trim() == "web" { Ok(()) } else { Err(output.all()) }
        });
    }

    /// Waits until a pod gets none.
    fn is_silent(&self, from: &str, target: &str) {
        eventually(&format!("{target} does not answer {from}"), PATIENCE, || {
            let url = format!("http://{target}/");
            let output = self.node.kubectl.try_run(&["exec", from, "--", "curl", "-sS", "--max-time", "1", &url]);
            if output.ok { Err(output.all()) } else { Ok(()) }
        });
    }

    /// Waits until a name has this answer in a pod.
    fn resolves(&self, question: &str, expected: &str) {
        eventually(&format!("{question} is {expected}"), PATIENCE, || {
            let output = self.node.kubectl.try_run(&["exec", "web", "--", "sh", "-c", &format!("nslookup {question}")]);
            if output.stdout.contains(expected) { Ok(()) } else { Err(output.all()) }
        });
    }
}

fn both(second: &str) -> HostOptions {
    let flags = [
        "--node-ip",
        &format!("{FOUR},{SIX}"),
        "--pod-network-cidr",
        "10.244.0.0/16,fd00:10:244::/56",
        "--service-cidr",
        "10.96.0.0/16,fd00:10:96::/112",
        "--load-balancer-pool",
        "203.0.113.0/28,fd00:203::/124",
    ];
    HostOptions {
        flags: flags.map(str::to_owned).to_vec(),
        addresses: vec![format!("{second}/64")],
        ..HostOptions::default()
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
}

fn port(number: u16) -> Value {
    json!([{"port": number, "targetPort": HTTP}])
}

/// Where something answers: an address of any family, and a port.
fn at(address: &str, port: u64) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn addresses_of_nodes_and_pods(lab: &Lab) {
    let node = lab.node.get("node", "node-1");
    assert_eq!(strings(&node["spec"]["podCIDRs"]), ["10.244.0.0/24", "fd00:10:244::/64"]);
    let internal: Vec<&Value> = node["status"]["addresses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|address| address["type"] == "InternalIP")
        .map(|address| &address["address"])
        .collect();
    assert_eq!(internal, [FOUR, SIX]);
    let pod = lab.node.get("pod", "web");
    let ips: Vec<&str> =
        pod["status"]["podIPs"].as_array().unwrap().iter().filter_map(|ip| ip["ip"].as_str()).collect();
    assert!(ips.len() == 2 && ips[0].starts_with("10.244.0.") && ips[1].starts_with("fd00:10:244::"), "{ips:?}");
    assert_eq!(pod["status"]["podIP"], ips[0]);
    assert_eq!(pod["status"]["hostIPs"], json!([{"ip": FOUR}, {"ip": SIX}]));
    let told = lab.node.exec("web", "echo $POD_IPS $HOST_IPS; grep web /etc/hosts");
    assert!(told.starts_with(&format!("{},{} {FOUR},{SIX}", ips[0], ips[1])), "{told}");
    for ip in &ips {
        assert!(told.contains(&format!("{ip}\tweb")), "{told}");
        lab.answers(None, &at(ip, HTTP.into()));
        lab.answers(Some("other"), &at(ip, HTTP.into()));
    }
    let own = format!("https://{}/livez", at(SIX, 6443));
    let health = lab.node.host.run("curl", &["-sSk", "--max-time", "3", &own]);
    assert_eq!(health.stdout, "ok", "the API server listens on both: {}", health.all());
    for address in [FOUR, SIX] {
        eventually(&format!("the host port on {address}"), PATIENCE, || {
            let output = lab.ask(Some("web"), &at(address, 8088));
            if output.stdout.trim() == "other" { Ok(()) } else { Err(output.all()) }
        });
    }
}

fn services_of_each_policy(lab: &Lab) {
    let check = |name: &str, spec: Value, families: &[&str], policy: &str| {
        let mut full = json!({"selector": {"app": "web"}, "ports": port(80), "type": "NodePort"});
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let service = lab.service(name, full);
        let spec = &service["spec"];
        assert_eq!(strings(&spec["ipFamilies"]), families, "{name}");
        assert_eq!(spec["ipFamilyPolicy"], policy, "{name}");
        assert_eq!(strings(&spec["clusterIPs"]).len(), families.len(), "{name}");
        carries(lab, &service);
    };
    check("plain", json!({}), &["IPv4"], "SingleStack");
    check("six", json!({"ipFamilies": ["IPv6"]}), &["IPv6"], "SingleStack");
    check("prefer", json!({"ipFamilyPolicy": "PreferDualStack"}), &["IPv4", "IPv6"], "PreferDualStack");
    let require = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]});
    check("require", require, &["IPv6", "IPv4"], "RequireDualStack");
    let wrong = json!({"spec": {"ipFamilies": ["IPv4", "IPv6"]}}).to_string();
    let refused = lab.node.kubectl.try_run(&["patch", "service", "plain", "--type=merge", "-p", &wrong]);
    assert!(refused.all().contains("must be 'RequireDualStack' or 'PreferDualStack'"), "{}", refused.all());
    let slices = |name: &str| {
        let selector = format!("kubernetes.io/service-name={name}");
        let path = "jsonpath={range .items[*]}{.addressType} {end}";
        let mut types: Vec<String> = lab
            .node
            .kubectl
            .run(&["get", "endpointslices", "-l", &selector, "-o", path])
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        types.sort();
        types
    };
    assert_eq!(slices("require"), ["IPv4", "IPv6"]);
    let endpoints = lab.node.get("endpoints", "require");
    let first = endpoints["subsets"][0]["addresses"][0]["ip"].as_str().unwrap_or_default().to_owned();
    assert!(first.starts_with("fd00:10:244::"), "Endpoints have the primary family: {endpoints}");

    let grown = lab.patch("plain", &json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}}));
    assert_eq!(strings(&grown["spec"]["ipFamilies"]), ["IPv4", "IPv6"]);
    carries(lab, &grown);
    let second = strings(&grown["spec"]["clusterIPs"])[1].clone();
    assert!(!lab.node.get("ipaddress", &second).is_null(), "{second} is noted");
    let shrunk = lab.patch("plain", &json!({"spec": {"ipFamilyPolicy": "SingleStack"}}));
    assert_eq!(strings(&shrunk["spec"]["clusterIPs"]), [strings(&grown["spec"]["clusterIPs"])[0].clone()]);
    assert!(lab.node.get("ipaddress", &second).is_null(), "{second} is given back");
    eventually("the slice of the second family goes", PATIENCE, || {
        let found = slices("plain");
        if found == ["IPv4"] { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

/// Every address of a Service, and its node port on the node's address of the same family, answers.
fn carries(lab: &Lab, service: &Value) {
    let node_port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    for ip in strings(&service["spec"]["clusterIPs"]) {
        lab.answers(None, &at(&ip, 80));
        lab.answers(Some("other"), &at(&ip, 80));
        let node = if ip.contains(':') { SIX } else { FOUR };
        lab.answers(None, &at(node, node_port));
        lab.answers(Some("other"), &at(node, node_port));
    }
}

fn load_balancers_of_both(lab: &Lab) {
    lab.service(
        "balanced",
        json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": port(81),
            "ipFamilyPolicy": "RequireDualStack"}),
    );
    let ingress = eventually("addresses of both families", PATIENCE, || {
        let seen = lab.node.get("service", "balanced");
        let listed = seen["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        if listed.len() == 2 { Ok(listed) } else { Err(seen.to_string()) }
    });
    for one in ingress {
        lab.answers(Some("other"), &at(one["ip"].as_str().unwrap(), 81));
    }
}

fn names_of_both(lab: &Lab) {
    let prefer = strings(&lab.node.get("service", "prefer")["spec"]["clusterIPs"]);
    let name = "prefer.default.svc.cluster.local";
    lab.resolves(&format!("-type=a {name}"), &prefer[0]);
    lab.resolves(&format!("-type=aaaa {name}"), &prefer[1]);
    lab.resolves(&prefer[1], name);
    lab.service(
        "headless",
        json!({"clusterIP": "None", "selector": {"app": "web"}, "ports": port(HTTP),
        "ipFamilyPolicy": "PreferDualStack"}),
    );
    let pod = lab.node.get("pod", "web");
    for (kind, index) in [("a", 0), ("aaaa", 1)] {
        let ip = pod["status"]["podIPs"][index]["ip"].as_str().unwrap();
        lab.resolves(&format!("-type={kind} headless.default.svc.cluster.local"), ip);
    }
    let dns = ["get", "service", "kube-dns", "-n", "kube-system", "-o", "json"];
    let dns: Value = serde_json::from_str(&lab.node.kubectl.run(&dns)).expect("kubectl writes JSON");
    let dns = strings(&dns["spec"]["clusterIPs"]);
    assert_eq!(dns, ["10.96.0.10", "fd00:10:96::a"]);
    for server in dns {
        lab.resolves(&format!("-type=aaaa {name} {server}"), &prefer[1]);
    }
    lab.answers(Some("other"), "prefer");
}

fn policies_of_both(lab: &Lab) {
    let targets = strings(&lab.node.get("service", "prefer")["spec"]["clusterIPs"]).into_iter();
    let targets: Vec<String> = targets.map(|ip| at(&ip, 80)).collect();
    let policy = |ingress: Value| {
        let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "guard"},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], "ingress": ingress}});
        lab.node.kubectl.apply(&policy.to_string());
    };
    policy(json!([]));
    targets.iter().for_each(|target| lab.is_silent("other", target));
    lab.answers(None, &targets[1]);
    policy(json!([{"from": [{"ipBlock": {"cidr": "fd00:10:244::/56"}}]}]));
    lab.answers(Some("other"), &targets[1]);
    lab.is_silent("other", &targets[0]);
    policy(json!([{"from": [{"podSelector": {"matchLabels": {"app": "other"}}}]}]));
    targets.iter().for_each(|target| lab.answers(Some("other"), target));
    assert_eq!(lab.node.get("pod", "web")["status"]["containerStatuses"][0]["ready"], true, "probes are the node's");
    lab.node.kubectl.run(&["delete", "networkpolicy", "guard"]);
}

fn a_restart_keeps_both(mut lab: Lab) {
    let services = ["prefer", "require"].map(|name| lab.node.get("service", name));
    let targets: Vec<String> =
        services.iter().flat_map(|service| strings(&service["spec"]["clusterIPs"])).map(|ip| at(&ip, 80)).collect();
    lab.node.host.kill();
    for target in &targets {
        let output = lab.ask(None, target);
        assert_eq!(output.stdout.trim(), "web", "without the process: {target}: {}", output.all());
    }
    lab.node.host.start();
    targets.iter().for_each(|target| lab.answers(Some("other"), target));
    let after = ["prefer", "require"].map(|name| lab.node.get("service", name)["spec"].clone());
    assert_eq!(after, services.map(|service| service["spec"].clone()));
    lab.server("late", "");
    let late = lab.node.ready("late");
    assert_eq!(late["status"]["podIPs"].as_array().map(Vec::len), Some(2));
}

#[test]
fn both_families_carry_everything() {
    let Some(lab) = Lab::up(both(SIX)) else { return };
    addresses_of_nodes_and_pods(&lab);
    services_of_each_policy(&lab);
    load_balancers_of_both(&lab);
    names_of_both(&lab);
    policies_of_both(&lab);
    a_restart_keeps_both(lab);
}

#[test]
fn ipv6_alone_is_enough() {
    let flags = ["--pod-network-cidr", "fd00:10:244::/56", "--service-cidr", "fd00:10:96::/112"];
    let options = HostOptions {
        flags: flags.map(str::to_owned).to_vec(),
        addresses: vec![format!("{SIX}/64")],
        without_ipv4: true,
        ..HostOptions::default()
    };
    let Some(lab) = Lab::up(options) else { return };
    let pod = lab.node.get("pod", "web");
    assert_eq!(pod["status"]["podIPs"].as_array().map(Vec::len), Some(1));
    assert_eq!(pod["status"]["hostIP"], SIX);
    let service = lab.service("plain", json!({"selector": {"app": "web"}, "ports": port(80), "type": "NodePort"}));
    assert_eq!(strings(&service["spec"]["ipFamilies"]), ["IPv6"]);
    carries(&lab, &service);
    lab.answers(Some("other"), "plain");
    let refused = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "four"},
        "spec": {"ports": port(80), "ipFamilies": ["IPv4"]}});
    let refused = lab.node.kubectl.try_run_with(&["apply", "-f", "-"], &refused.to_string());
    assert!(refused.all().contains("not configured on this cluster"), "{}", refused.all());
}
