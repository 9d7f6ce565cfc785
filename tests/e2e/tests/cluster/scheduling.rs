//! Which node gets a pod, with real kubelets: what upstream's conformance tests of `test/e2e/scheduling` ask of several
//! nodes, on the cluster that the other checks share.
//!
//! Not here: the plugins' own tables (crate `scheduler`). Invariant: each check takes down what it made.

use kedge_e2e::{BUSYBOX, Cluster, condition, eventually};
use serde_json::{Value, json};

use super::{NODES, PATIENCE, get, items, text};

/// Given to every node for the checks; no kubelet takes it back.
const SLOT: &str = "example.com/slot";
/// Given to one node.
const SHARE: &str = "example.com/share";
const FINALIZER: &str = "example.com/kept";

/// `SchedulerPredicates`: selectors, CPU that is used up, host ports.
pub(super) fn pods_run_where_they_fit(cluster: &Cluster) {
    a_selector_waits_for_its_label(cluster);
    cpu_is_given_once(cluster);
    a_port_of_all_addresses_excludes_one_address(cluster);
}

/// `SchedulerPreemption`.
pub(super) fn the_greater_take_the_place_of_the_lesser(cluster: &Cluster) {
    apply(cluster, &[class("lesser", 1), class("middle", 10), class("greater", 100)]);
    for node in cluster.nodes() {
        offer(cluster, &node, SLOT, "1");
    }
    offer(cluster, &cluster.node(2), SHARE, "990");
    one_slot_each_and_one_too_few(cluster);
    the_systems_pod_takes_a_slot_of_one_that_lingers(cluster);
    replicas_are_preempted_once_and_only_as_far_as_needed(cluster);
    cluster.kubectl.run(&["delete", "priorityclass/lesser", "priorityclass/middle", "priorityclass/greater"]);
}

fn apply(cluster: &Cluster, objects: &[Value]) {
    cluster.kubectl.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string());
}

fn class(name: &str, value: u32) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
    })
}

/// A pod that does nothing; `spec` is merged into its own.
fn pod(name: &str, resources: Value, spec: Value) -> Value {
    let container = json!({"name": "c", "image": BUSYBOX, "command": ["sleep", "3600"], "resources": resources});
    let mut whole = json!({"terminationGracePeriodSeconds": 0, "containers": [container]});
    for (field, value) in spec.as_object().into_iter().flatten() {
        whole[field] = value.clone();
    }
    json!({
        "apiVersion": "v1", "kind": "Pod", "spec": whole,
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
    })
}

fn limits(resource: &str, amount: &str) -> Value {
    json!({"limits": {(resource): amount}, "requests": {(resource): amount}})
}

/// Adds a resource to a node, to capacity and to what can be allocated, as the conformance tests do it.
fn offer(cluster: &Cluster, node: &str, resource: &str, amount: &str) {
    let pointer = resource.replace('/', "~1");
    let add = |list: &str| json!({"op": "add", "path": format!("/status/{list}/{pointer}"), "value": amount});
    let patch = json!([add("capacity"), add("allocatable")]).to_string();
    cluster.kubectl.run(&["patch", "node", node, "--subresource=status", "--type=json", "-p", &patch]);
    eventually(&format!("{resource} of {node}"), PATIENCE, || {
        let allocatable = get(cluster, &["node", node])["status"]["allocatable"].clone();
        if allocatable[resource] == amount { Ok(()) } else { Err(allocatable.to_string()) }
    });
}

fn is_running_on(cluster: &Cluster, namespace: &str, name: &str) -> String {
    eventually(&format!("{name} being ready"), PATIENCE, || {
        let pod = get(cluster, &["pod", "-n", namespace, name]);
        let is_ready = condition(&pod, "Ready")["status"] == "True";
        if is_ready { Ok(text(&pod["spec"]["nodeName"])) } else { Err(pod.to_string()) }
    })
}

/// Waits until the scheduler said that a pod fits nowhere, in these words.
fn fits_nowhere(cluster: &Cluster, name: &str, why: &str) {
    eventually(&format!("{name} not being scheduled"), PATIENCE, || {
        let pod = get(cluster, &["pod", name]);
        let said = condition(&pod, "PodScheduled");
        assert!(pod["spec"]["nodeName"].is_null(), "{name} was scheduled: {pod}");
        let is_said = said["reason"] == "Unschedulable" && text(&said["message"]).contains(why);
        if is_said { Ok(()) } else { Err(said.to_string()) }
    });
}

/// Both names about node selectors: no node has the label; then one has.
fn a_selector_waits_for_its_label(cluster: &Cluster) {
    apply(cluster, &[pod("choosy", json!({}), json!({"nodeSelector": {"example.com/kind": "rare"}}))]);
    fits_nowhere(cluster, "choosy", "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.");
    let third = cluster.node(3);
    cluster.kubectl.run(&["label", "node", &third, "example.com/kind=rare"]);
    assert_eq!(is_running_on(cluster, "default", "choosy"), third);
    cluster.kubectl.run(&["delete", "pod/choosy", "--wait=true"]);
    cluster.kubectl.run(&["label", "node", &third, "example.com/kind-"]);
}

/// Seven tenths of the CPU of every node are taken; half a node fits nowhere until one of them goes.
fn cpu_is_given_once(cluster: &Cluster) {
    let cores: Vec<u64> = items(&get(cluster, &["nodes"]))
        .iter()
        .map(|node| text(&node["status"]["allocatable"]["cpu"]).parse().expect("whole cores"))
        .collect();
    let fillers: Vec<Value> = (1..=NODES)
        .zip(&cores)
        .map(|(number, cores)| {
            let spec = json!({"affinity": on(&cluster.node(number))});
            pod(&format!("filler-{number}"), limits("cpu", &format!("{}m", cores * 700)), spec)
        })
        .collect();
    apply(cluster, &fillers);
    for number in 1..=NODES {
        assert_eq!(is_running_on(cluster, "default", &format!("filler-{number}")), cluster.node(number));
    }
    let half = format!("{}m", cores.iter().max().expect("there are nodes") * 500);
    apply(cluster, &[pod("one-more", limits("cpu", &half), json!({}))]);
    fits_nowhere(cluster, "one-more", "0/3 nodes are available: 3 Insufficient cpu.");
    cluster.kubectl.run(&["delete", "pod/filler-2", "--wait=true"]);
    assert_eq!(is_running_on(cluster, "default", "one-more"), cluster.node(2));
    cluster.kubectl.run(&["delete", "pod/filler-1", "pod/filler-3", "pod/one-more", "--wait=true"]);
}

/// Required affinity to a node by its name, as daemon pods have it.
fn on(node: &str) -> Value {
    let by_name = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": by_name}]}}})
}

fn a_port_of_all_addresses_excludes_one_address(cluster: &Cluster) {
    let with_port = |name: &str, address: &str| {
        let mut whole = pod(name, json!({}), json!({"affinity": on(&cluster.node(1))}));
        let port = json!({"containerPort": 5555, "hostPort": 54322, "protocol": "TCP", "hostIP": address});
        whole["spec"]["containers"][0]["ports"] = json!([port]);
        whole
    };
    apply(cluster, &[with_port("all-addresses", "0.0.0.0")]);
    assert_eq!(is_running_on(cluster, "default", "all-addresses"), cluster.node(1));
    apply(cluster, &[with_port("one-address", &cluster.address(1))]);
    fits_nowhere(cluster, "one-address", "1 node(s) didn't have free ports for the requested pod ports");
    cluster.kubectl.run(&["delete", "pod/all-addresses", "--wait=true"]);
    assert_eq!(is_running_on(cluster, "default", "one-address"), cluster.node(1));
    cluster.kubectl.run(&["delete", "pod/one-address", "--wait=true"]);
}

/// `validates basic preemption works`. Leaves a slot of each node taken.
fn one_slot_each_and_one_too_few(cluster: &Cluster) {
    let slot = |name: &str, class: &str| pod(name, limits(SLOT, "1"), json!({"priorityClassName": class}));
    let mut kept = slot("slot-2", "middle");
    kept["metadata"]["finalizers"] = json!([FINALIZER]);
    apply(cluster, &[slot("slot-1", "lesser"), kept, slot("slot-3", "greater")]);
    let mut nodes = ["slot-1", "slot-2", "slot-3"].map(|name| is_running_on(cluster, "default", name)).to_vec();
    let victims_node = nodes[0].clone();
    nodes.sort();
    assert_eq!(nodes, cluster.nodes(), "one slot on each node");
    apply(cluster, &[slot("slot-4", "greater")]);
    assert_eq!(is_running_on(cluster, "default", "slot-4"), victims_node);
    assert_eq!(get(cluster, &["pod", "slot-1"]), Value::Null);
    for name in ["slot-2", "slot-3"] {
        let spared = get(cluster, &["pod", name]);
        assert!(spared["metadata"]["deletionTimestamp"].is_null(), "{spared}");
    }
}

/// `validates lower priority pod preemption by critical pod`, and `validates pod disruption condition is added to the
/// preempted pod`: the victim's object stays for its finalizer, and its slot is free once its containers have ended.
fn the_systems_pod_takes_a_slot_of_one_that_lingers(cluster: &Cluster) {
    let node = text(&get(cluster, &["pod", "slot-2"])["spec"]["nodeName"]);
    let mut critical = pod("critical", limits(SLOT, "1"), json!({"priorityClassName": "system-cluster-critical"}));
    critical["metadata"]["namespace"] = json!("kube-system");
    apply(cluster, &[critical]);
    assert_eq!(is_running_on(cluster, "kube-system", "critical"), node);
    let victim = get(cluster, &["pod", "slot-2"]);
    let told = condition(&victim, "DisruptionTarget");
    assert_eq!((&told["status"], &told["reason"]), (&json!("True"), &json!("PreemptionByScheduler")), "{victim}");
    assert!(text(&told["message"]).contains("preempting to accommodate a higher priority pod"), "{told}");
    assert!(!victim["metadata"]["deletionTimestamp"].is_null(), "{victim}");
    cluster.kubectl.run(&["patch", "pod", "slot-2", "--type=merge", "-p", r#"{"metadata": {"finalizers": null}}"#]);
    cluster.kubectl.run(&["delete", "-n", "kube-system", "pod/critical", "--wait=true"]);
    cluster.kubectl.run(&["delete", "pod/slot-3", "pod/slot-4", "--wait=true"]);
    cluster.kubectl.run(&["wait", "--for=delete", "--timeout=90s", "pod/slot-2"]);
}

/// `runs ReplicaSets to verify preemption running path`.
fn replicas_are_preempted_once_and_only_as_far_as_needed(cluster: &Cluster) {
    let here = json!({"kubernetes.io/hostname": cluster.node(2)});
    let replicas = |name: &str, class: &str, amount: &str| {
        let whole = pod(name, limits(SHARE, amount), json!({"priorityClassName": class, "nodeSelector": here}));
        let labels = whole["metadata"]["labels"].clone();
        let template = json!({"metadata": {"labels": labels}, "spec": whole["spec"]});
        json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name, "namespace": "default"},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        })
    };
    let names = ["share-200", "share-300", "share-450"];
    apply(
        cluster,
        &[
            replicas(names[0], "lesser", "200"),
            replicas(names[1], "lesser", "300"),
            replicas(names[2], "middle", "450"),
        ],
    );
    let first = names.map(|name| a_ready_pod_of(cluster, name));
    apply(
        cluster,
        &[pod("share-500", limits(SHARE, "500"), json!({"priorityClassName": "greater", "nodeSelector": here}))],
    );
    assert_eq!(is_running_on(cluster, "default", "share-500"), cluster.node(2));
    // Two were needed and the third was not: the others of each set wait, where the first of them were.
    for (name, first) in names.iter().zip(&first).take(2) {
        eventually(&format!("a successor of {first}"), PATIENCE, || {
            let uids = pods_of(cluster, name);
            let is_other = uids.len() == 1 && !uids.contains(first);
            if is_other { Ok(()) } else { Err(format!("{uids:?}")) }
        });
    }
    assert_eq!(pods_of(cluster, names[2]), [first[2].clone()]);
    // The events come a moment after the pods.
    let made = eventually("the events of all pods that were made", PATIENCE, || {
        let made = made_by(cluster, &names);
        if made.iter().sum::<u64>() >= 5 { Ok(made) } else { Err(format!("{made:?}")) }
    });
    assert_eq!(made, [2, 2, 1], "pods made by each set");
    cluster.kubectl.run(&["delete", "pod/share-500", "--wait=true"]);
    let sets = names.map(|name| format!("replicaset/{name}"));
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    cluster.kubectl.run(&[&["delete", "--cascade=foreground", "--wait=true"][..], &sets].concat());
}

/// The uids of the pods of a label.
fn pods_of(cluster: &Cluster, app: &str) -> Vec<String> {
    let list = get(cluster, &["pods", "-l", &format!("app={app}")]);
    items(&list).iter().map(|pod| text(&pod["metadata"]["uid"])).collect()
}

fn a_ready_pod_of(cluster: &Cluster, app: &str) -> String {
    eventually(&format!("a pod of {app}"), PATIENCE, || {
        let list = items(&get(cluster, &["pods", "-l", &format!("app={app}")]));
        let ready = list.iter().find(|pod| condition(pod, "Ready")["status"] == "True");
        ready.map(|pod| text(&pod["metadata"]["uid"])).ok_or_else(|| format!("{list:?}"))
    })
}

/// How many pods each ReplicaSet made, by its events.
fn made_by(cluster: &Cluster, names: &[&str]) -> Vec<u64> {
    let made = |name: &&str| {
        let select = format!("involvedObject.kind=ReplicaSet,involvedObject.name={name},reason=SuccessfulCreate");
        let events = items(&get(cluster, &["events", "--field-selector", &select]));
        events.iter().map(|event| event["count"].as_u64().unwrap_or(1)).sum()
    };
    names.iter().map(made).collect()
}
