//! Several nodes on one machine: what crosses from node to node, what goes on without the control plane, and that nothing
//! is left behind.
//!
//! One cluster for all checks, in an order in which each leaves the cluster whole.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kedge_e2e::{BUSYBOX, Cluster, ClusterOptions, condition, eventually};
use serde_json::Value;

#[path = "cluster/scheduling.rs"]
mod scheduling;

const PATIENCE: Duration = Duration::from_secs(90);
/// The control plane waits 40 s before it believes that a node is gone.
const LOST_PATIENCE: Duration = Duration::from_secs(120);
const NODES: u8 = 3;

#[test]
fn a_cluster_of_several_nodes() {
    let options = ClusterOptions { nodes: NODES, flags: Vec::new(), kubelet: None };
    let Some(cluster) = Cluster::up(&options) else { return };
    nodes_are_machines_of_their_own(&cluster);
    a_second_cluster_of_the_name_is_refused(&cluster);
    deploy(&cluster);
    routes_lead_to_the_pods_of_other_nodes(&cluster);
    pods_reach_pods_of_other_nodes(&cluster);
    services_answer_from_every_node(&cluster);
    policies_hold_across_nodes(&cluster);
    volumes_are_made_on_the_node_of_their_pod(&cluster);
    scheduling::pods_run_where_they_fit(&cluster);
    scheduling::the_greater_take_the_place_of_the_lesser(&cluster);
    names_and_services_outlive_the_control_plane(&cluster);
    a_blocked_peer_is_named(&cluster);
    stopping_kedge_on_a_node_keeps_its_pods(&cluster);
    a_node_that_is_cut_off_loses_its_pods_and_heals(&cluster);
    a_node_without_power_comes_back(&cluster);
    nothing_is_left_after_everything_was_killed(cluster);
}

#[test]
fn the_second_of_two_control_planes_takes_over() {
    if !Path::new("/usr/bin/etcd").exists() {
        kedge_skip::skip("the_second_of_two_control_planes_takes_over", "etcd is not installed");
        return;
    }
    let flags = ["--control-planes", "2"].map(str::to_owned).to_vec();
    let Some(cluster) = Cluster::up(&ClusterOptions { nodes: NODES, flags, kubelet: None }) else { return };
    let addresses = || text_of_endpoints(&get(&cluster, &["endpoints", "kubernetes"]));
    eventually("both API servers behind the Service", PATIENCE, || {
        let found = addresses();
        if found == [cluster.address(1), cluster.address(2)] { Ok(()) } else { Err(format!("{found:?}")) }
    });
    let holder = |lease: &str| text(&get(&cluster, &["lease", "-n", "kube-system", lease])["spec"]["holderIdentity"]);
    let leases = ["kube-controller-manager", "kube-scheduler"];
    for lease in leases {
        eventually(&format!("a holder of {lease}"), PATIENCE, || match holder(lease) {
            name if name.contains('_') => Ok(()),
            name => Err(name),
        });
    }
    let leader = holder("kube-scheduler").split('_').next().unwrap_or_default().to_owned();
    deploy(&cluster);
    pods_reach_pods_of_other_nodes(&cluster);
    cluster.node_command(&["stop", &leader]);
    for lease in leases {
        eventually(&format!("another holder of {lease}"), PATIENCE, || match holder(lease) {
            name if name.contains('_') && !name.starts_with(&format!("{leader}_")) => Ok(()),
            name => Err(name),
        });
    }
    // Controllers and scheduler of the other one, through the gateway.
    cluster.kubectl.apply(&format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: later}}\nspec:\n  replicas: 2\n  \
         selector: {{matchLabels: {{app: later}}}}\n  template:\n    metadata: {{labels: {{app: later}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 0\n      nodeSelector: {{kubernetes.io/hostname: {}}}\n      \
         containers: [{{name: c, image: '{BUSYBOX}', command: [sleep, '3600']}}]\n",
        cluster.node(3)
    ));
    cluster.kubectl.run(&["rollout", "status", "deployment/later", "--timeout=90s"]);
    cluster.node_command(&["start", &leader]);
    all_ready(&cluster);
}

fn text_of_endpoints(endpoints: &Value) -> Vec<String> {
    let subsets = endpoints["subsets"].as_array().cloned().unwrap_or_default();
    let lists = subsets.iter().flat_map(|subset| subset["addresses"].as_array().cloned().unwrap_or_default());
    let mut addresses: Vec<String> = lists.map(|address| text(&address["ip"])).collect();
    addresses.sort();
    addresses
}

fn get(cluster: &Cluster, arguments: &[&str]) -> Value {
    let output = cluster.kubectl.try_run(&[&["get", "-o", "json"][..], arguments].concat());
    serde_json::from_str(&output.stdout).unwrap_or(Value::Null)
}

fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().cloned().unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The running pods of a label: node and address.
fn pods(cluster: &Cluster, selector: &str) -> Vec<(String, String)> {
    let list = get(cluster, &["pods", "-l", selector, "--field-selector", "status.phase=Running"]);
    let living = items(&list).into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let mut pods: Vec<_> = living.map(|pod| (text(&pod["spec"]["nodeName"]), text(&pod["status"]["podIP"]))).collect();
    pods.sort();
    pods
}

/// The name of the pod of the daemon set `web` on a node.
fn web_on(cluster: &Cluster, node: &str) -> String {
    let field = format!("spec.nodeName={node}");
    let list = get(cluster, &["pods", "-l", "app=web", "--field-selector", &field]);
    let living = items(&list).into_iter().find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    living.map(|pod| text(&pod["metadata"]["name"])).unwrap_or_default()
}

fn nodes_are_machines_of_their_own(cluster: &Cluster) {
    let list = items(&get(cluster, &["nodes"]));
    assert_eq!(list.len(), usize::from(NODES));
    let field = |path: &dyn Fn(&Value) -> String| {
        let mut values: Vec<String> = list.iter().map(path).collect();
        values.sort();
        values.dedup();
        values
    };
    assert_eq!(field(&|node| text(&condition(node, "Ready")["status"])), ["True"]);
    for (what, values) in [
        ("pod ranges", field(&|node| text(&node["spec"]["podCIDR"]))),
        ("machine ids", field(&|node| text(&node["status"]["nodeInfo"]["machineID"]))),
        ("boot ids", field(&|node| text(&node["status"]["nodeInfo"]["bootID"]))),
    ] {
        assert_eq!(values.len(), usize::from(NODES), "{what}: {values:?}");
    }
    let node = cluster.node(2);
    assert_eq!(cluster.exec(&node, "hostname; cat /etc/hostname"), format!("{node}\n{node}\n"));
    let shown = cluster
        .exec(&node, "ip -o -4 address show dev eth0; ip route show default; ls /sys/class/net; cat /proc/1/comm");
    assert!(shown.contains(&cluster.address(2)) && !shown.contains("default"), "{shown}");
    cluster.exec(&node, "touch /etc/made-on-a-node /var/lib/made-on-a-node /tmp/made-on-a-node /run/made-on-a-node");
    for directory in ["/etc", "/var/lib", "/tmp", "/run"] {
        assert!(!Path::new(directory).join("made-on-a-node").exists(), "{directory} is the machine's");
        let other = cluster.try_exec(&cluster.node(3), &format!("test ! -e {directory}/made-on-a-node"));
        assert!(other.ok, "{directory} is shared by nodes");
    }
    let failed = cluster.try_exec(&node, "exit 3");
    assert!(!failed.ok);
}

fn a_second_cluster_of_the_name_is_refused(cluster: &Cluster) {
    let again = cluster.kedge(&["create", "--kubeconfig", "/dev/null", cluster.name()]);
    assert!(!again.ok && again.stderr.contains("already (nothing was changed)"), "{}", again.all());
    let wrong = cluster.kedge(&["create", "--kubeconfig", "/dev/null", "Not_a_name"]);
    assert!(!wrong.ok && wrong.stderr.contains("lower-case letters"), "{}", wrong.all());
    let missing = cluster.try_exec(&cluster.node(9), "true");
    assert!(!missing.ok && missing.stderr.contains("has no node"), "{}", missing.all());
    let listed = cluster.kedge(&["list"]);
    assert_eq!(listed.stdout.matches(" running ").count(), usize::from(NODES), "{}", listed.all());
}

/// A web server on every node, and its Service.
fn deploy(cluster: &Cluster) {
    cluster.kubectl.apply(&format!(
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: web}}\nspec:\n  selector: {{matchLabels: {{app: web}}}}\n  \
         template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      \
         containers:\n      - name: c\n        image: '{BUSYBOX}'\n        \
         command: [sh, -c, 'mkdir /www; hostname > /www/index.html; httpd -f -p 8080 -h /www']\n        \
         readinessProbe: {{httpGet: {{port: 8080, path: /}}, periodSeconds: 1}}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  type: NodePort\n  \
         selector: {{app: web}}\n  ports: [{{port: 80, targetPort: 8080, nodePort: 30180}}]\n"
    ));
    eventually("a web server on every node", PATIENCE, || {
        let status = get(cluster, &["daemonset", "web"])["status"].clone();
        if status["numberReady"] == NODES { Ok(()) } else { Err(status.to_string()) }
    });
}

fn routes_lead_to_the_pods_of_other_nodes(cluster: &Cluster) {
    let ranges: Vec<(String, String)> = items(&get(cluster, &["nodes"]))
        .iter()
        .map(|node| (text(&node["metadata"]["name"]), text(&node["spec"]["podCIDR"])))
        .collect();
    for node in cluster.nodes() {
        eventually(&format!("the routes of {node}"), PATIENCE, || {
            let routes = cluster.exec(&node, "ip route");
            let has = |(other, range): &&(String, String)| {
                let number: u8 = other.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default();
                routes.contains(&format!("{range} via {} dev eth0", cluster.address(number)))
            };
            let missing = ranges.iter().filter(|(other, _)| *other != node).find(|other| !has(other));
            if missing.is_none() { Ok(()) } else { Err(routes) }
        });
    }
}

fn pods_reach_pods_of_other_nodes(cluster: &Cluster) {
    let addresses = pods(cluster, "app=web");
    assert_eq!(addresses.len(), usize::from(NODES));
    for node in cluster.nodes() {
        let pod = web_on(cluster, &node);
        for (other, address) in &addresses {
            let url = format!("http://{address}:8080/");
            let asked = cluster.kubectl.try_run(&["exec", &pod, "--", "curl", "-sS", "--max-time", "5", &url]);
            assert!(asked.ok && asked.stdout.starts_with("web-"), "{node} to {other}: {}", asked.all());
        }
    }
}

fn services_answer_from_every_node(cluster: &Cluster) {
    let cluster_ip = text(&get(cluster, &["service", "web"])["spec"]["clusterIP"]);
    for node in cluster.nodes() {
        let pod = web_on(cluster, &node);
        for url in [
            "http://web/".to_owned(),
            "http://web.default.svc.cluster.local/".to_owned(),
            format!("http://{cluster_ip}/"),
        ] {
            let asked = cluster.kubectl.try_run(&["exec", &pod, "--", "curl", "-sS", "--max-time", "5", &url]);
            assert!(asked.ok && asked.stdout.starts_with("web-"), "a pod of {node} to {url}: {}", asked.all());
        }
        for port in 1..=NODES {
            let url = format!("http://{}:30180/", cluster.address(port));
            let asked = cluster.try_exec(&node, &format!("curl -sS --max-time 5 {url}"));
            assert!(asked.ok && asked.stdout.starts_with("web-"), "{node} to {url}: {}", asked.all());
        }
        let asked = cluster.try_exec(&node, &format!("curl -sS --max-time 5 http://{cluster_ip}/"));
        assert!(asked.ok && asked.stdout.starts_with("web-"), "{node} to {cluster_ip}: {}", asked.all());
    }
}

fn policies_hold_across_nodes(cluster: &Cluster) {
    let pod = |name: &str, node: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  nodeName: {node}\n  \
             terminationGracePeriodSeconds: 0\n  \
             containers: [{{name: c, image: '{BUSYBOX}', command: [sleep, '3600']}}]\n"
        )
    };
    cluster.kubectl.apply(&pod("friend", &cluster.node(2)));
    cluster.kubectl.apply(&pod("stranger", &cluster.node(3)));
    cluster.kubectl.apply(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web}\nspec:\n  \
         podSelector: {matchLabels: {app: web}}\n  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]\n",
    );
    let target = pods(cluster, "app=web").into_iter().find(|(node, _)| *node == cluster.node(1));
    let url = format!("http://{}:8080/", target.expect("every node has one").1);
    for (name, wanted) in [("stranger", false), ("friend", true)] {
        eventually(&format!("{name} gets an answer: {wanted}"), PATIENCE, || {
            let asked = cluster.kubectl.try_run(&["exec", name, "--", "curl", "-sS", "--max-time", "2", &url]);
            // A pod that does not run yet gets no answer either.
            let was_run = asked.ok || asked.stderr.contains("curl:");
            if was_run && asked.ok == wanted { Ok(()) } else { Err(asked.all()) }
        });
    }
    cluster.kubectl.run(&["delete", "networkpolicy/web", "pod/friend", "pod/stranger", "--wait=true"]);
}

fn volumes_are_made_on_the_node_of_their_pod(cluster: &Cluster) {
    cluster.kubectl.apply(&format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: kept}}\nspec:\n  accessModes: [ReadWriteOnce]\n  \
         resources: {{requests: {{storage: 1Mi}}}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: writer}}\nspec:\n  restartPolicy: Never\n  \
         nodeSelector: {{kubernetes.io/hostname: {}}}\n  volumes: [{{name: v, persistentVolumeClaim: {{claimName: kept}}}}]\n  \
         containers: [{{name: c, image: '{BUSYBOX}', command: [sh, -c, 'echo here > /v/file'], \
         volumeMounts: [{{name: v, mountPath: /v}}]}}]\n",
        cluster.node(3)
    ));
    eventually("the end of the writer", PATIENCE, || {
        let pod = get(cluster, &["pod", "writer"]);
        if pod["status"]["phase"] == "Succeeded" { Ok(()) } else { Err(pod["status"].to_string()) }
    });
    let found = cluster.exec(&cluster.node(3), "find /var/lib/kedge/local-path -name file | xargs cat");
    assert_eq!(found, "here\n");
    cluster.kubectl.run(&["delete", "pod/writer", "pvc/kept", "--wait=true"]);
}

/// Runs a shell script in the network of the pod of `web` on a node, without asking the API server.
fn in_pod_network(cluster: &Cluster, node: &str, address: &str, script: &str) -> kedge_e2e::Output {
    let find = format!(
        "for namespace in /run/netns/cni-*; do \
         if nsenter --net=$namespace ip -o address show dev eth0 | grep -qF ' {address}/'; then \
         exec nsenter --net=$namespace sh -c '{script}'; fi; done; echo no namespace has {address}; exit 1"
    );
    cluster.try_exec(node, &find)
}

fn names_and_services_outlive_the_control_plane(cluster: &Cluster) {
    let addresses = pods(cluster, "app=web");
    let cluster_ip = text(&get(cluster, &["service", "web"])["spec"]["clusterIP"]);
    let first = cluster.node(1);
    cluster.node_command(&["stop", &first]);
    assert!(
        !cluster.kubectl.try_run(&["get", "--raw", "/readyz", "--request-timeout=3s"]).ok,
        "the control plane is stopped"
    );
    for (node, address) in &addresses {
        let name = "web.default.svc.cluster.local";
        let asked = in_pod_network(cluster, node, address, &format!("busybox nslookup {name} 10.96.0.10"));
        // On the first node, nobody answers for it: its server was in the process that was stopped.
        if *node == first {
            continue;
        }
        assert!(asked.ok && asked.stdout.contains(&cluster_ip), "a pod of {node}: {}", asked.all());
        let url = format!("http://{cluster_ip}/");
        for _ in 0..4 {
            let asked = in_pod_network(cluster, node, address, &format!("curl -sS --max-time 5 {url}"));
            assert!(asked.ok && asked.stdout.starts_with("web-"), "a pod of {node}: {}", asked.all());
        }
    }
    let second = cluster.node(2);
    cluster.node_command(&["stop", &second]);
    cluster.node_command(&["start", &second]);
    let routes = cluster.exec(&second, "ip route");
    assert!(routes.contains(&cluster.address(3)), "routes are kept:\n{routes}");
    cluster.node_command(&["start", &first]);
    all_ready(cluster);
}

fn all_ready(cluster: &Cluster) {
    eventually("every node being ready", LOST_PATIENCE, || {
        let list = items(&get(cluster, &["nodes"]));
        let is_ready = |node: &Value| condition(node, "Ready")["status"] == "True";
        let seen: Vec<String> = list.iter().map(|node| condition(node, "Ready").to_string()).collect();
        if list.len() == usize::from(NODES) && list.iter().all(is_ready) { Ok(()) } else { Err(seen.join("\n")) }
    });
}

fn a_blocked_peer_is_named(cluster: &Cluster) {
    let (first, third) = (cluster.node(1), cluster.node(3));
    eventually("all sessions", PATIENCE, || peers(cluster, &first, "Running"));
    let table = "table ip blocked { chain in { type filter hook input priority -10; tcp dport 179 drop; tcp sport 179 drop; }; }";
    cluster.exec(&third, &format!("nft '{table}'"));
    let complaint = eventually("a complaint about the blocked peer", PATIENCE, || peers(cluster, &first, "Degraded"));
    assert!(complaint.contains("BGPPeersNotEstablished") && complaint.contains(&cluster.address(3)), "{complaint}");
    let route = format!("via {} dev eth0", cluster.address(3));
    let kept = cluster.exec(&first, "ip route");
    cluster.exec(&third, "nft delete table ip blocked");
    eventually("the session again", PATIENCE, || peers(cluster, &first, "Running"));
    let healed = cluster.exec(&first, "ip route");
    assert!(healed.contains(&route), "before:\n{kept}\nafter:\n{healed}");
}

fn peers(cluster: &Cluster, node: &str, state: &str) -> Result<String, String> {
    let report = cluster.component(node, "kedge-bgp");
    if report["state"] == state { Ok(report.to_string()) } else { Err(report.to_string()) }
}

fn stopping_kedge_on_a_node_keeps_its_pods(cluster: &Cluster) {
    let node = cluster.node(2);
    let pod = web_on(cluster, &node);
    let container = |pod: &str| text(&get(cluster, &["pod", pod])["status"]["containerStatuses"][0]["containerID"]);
    let before = container(&pod);
    cluster.node_command(&["stop", &node]);
    let listed = cluster.kedge(&["list"]);
    assert!(listed.stdout.lines().any(|line| line.contains(&node) && line.contains("stopped")), "{}", listed.all());
    let (_, address) = pods(cluster, "app=web").into_iter().find(|(on, _)| *on == node).expect("it is there");
    let asked = cluster.try_exec(&cluster.node(1), &format!("curl -sS --max-time 5 http://{address}:8080/"));
    assert!(asked.ok && asked.stdout.starts_with("web-"), "{}", asked.all());
    cluster.node_command(&["start", &node]);
    all_ready(cluster);
    assert_eq!(web_on(cluster, &node), pod);
    assert_eq!(container(&pod), before);
}

fn a_node_that_is_cut_off_loses_its_pods_and_heals(cluster: &Cluster) {
    let (first, third) = (cluster.node(1), cluster.node(3));
    cluster.kubectl.apply(&format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: moving}}\nspec:\n  replicas: 1\n  \
         selector: {{matchLabels: {{app: moving}}}}\n  template:\n    metadata: {{labels: {{app: moving}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 0\n      affinity: {{nodeAffinity: \
         {{preferredDuringSchedulingIgnoredDuringExecution: [{{weight: 100, preference: {{matchExpressions: \
         [{{key: kubernetes.io/hostname, operator: In, values: [{third}]}}]}}}}]}}}}\n      \
         tolerations: [{{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}}]\n      \
         containers: [{{name: c, image: '{BUSYBOX}', command: [sleep, '3600']}}]\n"
    ));
    let on = |node: &str| {
        let found = pods(cluster, "app=moving");
        if found.iter().any(|(on, _)| on == node) { Ok(()) } else { Err(format!("{found:?}")) }
    };
    eventually("the pod on the third node", PATIENCE, || on(&third));
    cluster.node_command(&["cut", &third]);
    let listed = cluster.kedge(&["list"]);
    assert!(listed.stdout.lines().any(|line| line.contains(&third) && line.contains(" cut ")), "{}", listed.all());
    let complaint = eventually("a complaint about the lost peer", PATIENCE, || peers(cluster, &first, "Degraded"));
    assert!(complaint.contains(&cluster.address(3)), "{complaint}");
    eventually("the node being unknown", LOST_PATIENCE, || {
        let node = get(cluster, &["node", &third]);
        let taints = node["spec"]["taints"].to_string();
        let is_tainted = taints.contains("node.kubernetes.io/unreachable") && taints.contains("NoExecute");
        let is_unknown = condition(&node, "Ready")["status"] == "Unknown";
        if is_unknown && is_tainted { Ok(()) } else { Err(format!("{taints} {}", condition(&node, "Ready"))) }
    });
    eventually("the pod on another node", LOST_PATIENCE, || {
        let found = pods(cluster, "app=moving");
        if found.iter().any(|(on, _)| *on != third) { Ok(()) } else { Err(format!("{found:?}")) }
    });
    cluster.node_command(&["heal", &third]);
    eventually("the session again", PATIENCE, || peers(cluster, &first, "Running"));
    all_ready(cluster);
    eventually("the third node without taints", PATIENCE, || {
        let taints = get(cluster, &["node", &third])["spec"]["taints"].clone();
        if taints.is_null() { Ok(()) } else { Err(taints.to_string()) }
    });
    cluster.kubectl.run(&["delete", "deployment/moving", "--wait=true"]);
    pods_reach_pods_of_other_nodes(cluster);
}

fn a_node_without_power_comes_back(cluster: &Cluster) {
    let node = cluster.node(2);
    let pod = web_on(cluster, &node);
    let boot = |node: &str| text(&get(cluster, &["node", node])["status"]["nodeInfo"]["bootID"]);
    let before = boot(&node);
    cluster.node_command(&["stop", "--power", &node]);
    let off = cluster.try_exec(&node, "true");
    assert!(!off.ok && off.stderr.contains("is off"), "{}", off.all());
    cluster.node_command(&["start", &node]);
    eventually("another boot id", PATIENCE, || if boot(&node) == before { Err(before.clone()) } else { Ok(()) });
    eventually("the pod's containers again", PATIENCE, || {
        let found = get(cluster, &["pod", &pod]);
        let status = &found["status"]["containerStatuses"][0];
        let is_ready = condition(&found, "Ready")["status"] == "True";
        if is_ready && status["restartCount"] == 1 { Ok(()) } else { Err(found["status"].to_string()) }
    });
    all_ready(cluster);
    eventually("its routes", PATIENCE, || {
        let routes = cluster.exec(&node, "ip route");
        if routes.contains(&cluster.address(1)) && routes.contains(&cluster.address(3)) { Ok(()) } else { Err(routes) }
    });
    pods_reach_pods_of_other_nodes(cluster);
}

fn nothing_is_left_after_everything_was_killed(cluster: Cluster) {
    let name = cluster.name().to_owned();
    let listed = cluster.kedge(&["list", "--output", "json"]);
    let views: Value = serde_json::from_str(&listed.stdout).expect("a list is JSON");
    let inits: Vec<String> =
        views[0]["nodes"].as_array().into_iter().flatten().map(|node| node["init"].to_string()).collect();
    assert_eq!(inits.len(), usize::from(NODES), "{}", listed.all());
    let gateway = std::fs::read(cluster.clusters().join(&name).join("gateway.json")).expect("it runs");
    let gateway: Value = serde_json::from_slice(&gateway).expect("it is JSON");
    let killed = Command::new("kill").arg("-9").args(&inits).arg(gateway["pid"].to_string()).status();
    assert!(killed.is_ok_and(|status| status.success()), "{inits:?}");
    eventually("all nodes being off", PATIENCE, || {
        let listed = cluster.kedge(&["list"]);
        if listed.stdout.matches(" off ").count() == usize::from(NODES) { Ok(()) } else { Err(listed.all()) }
    });
    let deleted = cluster.kedge(&["delete", &name]);
    assert!(deleted.ok, "{}", deleted.all());
    assert!(!cluster.clusters().join(&name).exists());
    assert!(!Path::new("/run/netns").join(format!("kedge-{name}")).exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("it can be read");
    assert!(!mounts.contains(&name), "{mounts}");
    let cgroups = Command::new("find").args(["/sys/fs/cgroup", "-name", &format!("{name}*")]).output();
    assert_eq!(String::from_utf8_lossy(&cgroups.expect("find runs").stdout), "");
    let processes = Command::new("ps").args(["-A", "-o", "args"]).output().expect("ps runs");
    let processes = String::from_utf8_lossy(&processes.stdout).into_owned();
    assert!(!processes.contains(&name), "{processes}");
    let config = std::fs::read_to_string(&cluster.kubectl.kubeconfig).unwrap_or_default();
    assert!(!config.contains(&name), "{config}");
    let again = cluster.kedge(&["delete", &name]);
    assert!(again.ok && again.stdout.contains("nothing to do"), "{}", again.all());
}
