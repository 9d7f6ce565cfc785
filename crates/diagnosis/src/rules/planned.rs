//! What people do to a cluster on purpose, while they do it: drains, restarts, upgrades, and what stands beside any
//! trouble and is none. No rule finds anything.

use crate::diagnosis::diagnose;
use crate::finding::Severity;
use crate::rules::fixtures::*;

fn object(value: Value) -> Item {
    Item { place: Place::Cluster, ..on("one", Fact::Object(value)) }
}

fn causes(items: Vec<Item>) -> Vec<(&'static str, Severity)> {
    let diagnosis = diagnose(&Evidence { gathered: now(), items: items.into(), unseen: Vec::new() });
    diagnosis.causes.iter().map(|cause| (cause.id, cause.severity)).collect()
}

fn since(seconds: i64) -> Value {
    json!(Timestamp::from_second(now().as_second() - seconds).expect("a time").to_string())
}

fn machine(name: &str, cordoned: bool, version: &str) -> Value {
    let mut node = node(name, json!([{"type": "Ready", "status": "True", "reason": "KubeletReady"}]));
    node["spec"] = json!({"podCIDR": "10.244.0.0/24", "unschedulable": cordoned});
    node["status"]["nodeInfo"] = json!({"kubeletVersion": version});
    node
}

fn running(namespace: &str, name: &str, node: &str) -> Value {
    let status = json!({
        "phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "c", "restartCount": 0, "ready": true, "state": {"running": {}}}],
    });
    let mut pod = pod(namespace, name, json!({"nodeName": node}), status);
    pod["metadata"]["labels"] = json!({"app": "web"});
    pod
}

/// What is in any cluster and is no trouble, with names that no other fixture has.
pub(crate) fn bystanders() -> Vec<Item> {
    let over = json!({"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False", "reason": "PodCompleted"}],
        "containerStatuses": [{"name": "c", "restartCount": 0, "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]});
    let claim = json!({"kind": "PersistentVolumeClaim", "metadata": {"namespace": "calm", "name": "later"},
        "spec": {"storageClassName": "calm"}, "status": {"phase": "Pending"}});
    let class =
        json!({"kind": "StorageClass", "metadata": {"name": "calm"}, "volumeBindingMode": "WaitForFirstConsumer"});
    let mut waits = event_of(
        "PersistentVolumeClaim",
        "later",
        "WaitForFirstConsumer",
        "waiting for first consumer to be created before binding",
    );
    waits["involvedObject"]["namespace"] = json!("calm");
    let job = json!({"kind": "Job", "metadata": {"namespace": "calm", "name": "once"}, "status": {"succeeded": 1}});
    let done = old(pod("calm", "once-1", json!({"nodeName": "calm"}), over));
    let objects = [running("calm", "web-1", "calm"), done, old(claim), class, waits, job];
    objects.into_iter().map(object).collect()
}

#[test]
fn what_stands_beside_a_trouble_is_none() {
    assert_eq!(causes(bystanders()), []);
}

#[test]
fn a_drain_in_the_middle() {
    let budget = json!({"kind": "PodDisruptionBudget", "metadata": {"namespace": "a", "name": "web"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
        "status": {"disruptionsAllowed": 0, "expectedPods": 3, "currentHealthy": 2, "desiredHealthy": 2,
            "conditions": [{"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "lastTransitionTime": since(5)}]}});
    let mut leaving = running("a", "web-1", "one");
    leaving["metadata"]["deletionTimestamp"] = since(2);
    let starting = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [{"name": "c", "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}]});
    let new = pod("a", "web-4", json!({"nodeName": "two"}), starting);
    let drain = |budget: &Value| {
        let pods = [leaving.clone(), new.clone(), running("a", "web-2", "one"), running("a", "web-3", "two")];
        let nodes = [machine("one", true, "v1.36.0"), machine("two", false, "v1.36.0")];
        nodes.into_iter().chain(pods).chain([budget.clone()]).map(object).collect::<Vec<_>>()
    };
    assert_eq!(causes(drain(&budget)), []);
    // A pod was let go a moment ago, and its budget still counts it as healthy.
    let mut taken = budget.clone();
    taken["status"]["currentHealthy"] = json!(3);
    taken["status"]["disruptedPods"] = json!({"web-1": since(1)});
    assert_eq!(causes(drain(&taken)), []);
    // One that lets nobody go although all are well, and one whose pods do not come back.
    let mut strict = budget.clone();
    strict["status"]["currentHealthy"] = json!(3);
    assert_eq!(causes(drain(&strict)), [("H10", Severity::Failure)]);
    let mut stuck = budget;
    stuck["status"]["conditions"][0]["lastTransitionTime"] = since(900);
    assert_eq!(causes(drain(&stuck)), [("H10", Severity::Failure)]);
}

#[test]
fn a_machine_that_was_drained_and_restarted() {
    let event = |reason: &str, seconds: i64| {
        ago(object(event_of("Node", "one", reason, "Node one has been rebooted, boot id: 1f0c")), seconds)
    };
    let told =
        [event("NodeNotSchedulable", 300), event("Starting", 110), event("Rebooted", 100), event("NodeReady", 95)];
    let back = |cordoned: bool| object(machine("one", cordoned, "v1.36.0"));
    assert_eq!(causes([vec![back(true)], told.to_vec()].concat()), []);
    assert_eq!(causes([vec![back(false), event("NodeSchedulable", 60)], told.to_vec()].concat()), []);
}

#[test]
fn an_upgrade_in_the_middle() {
    let component = |name: &str, version: &str| {
        let mut pod = running("kube-system", &format!("{name}-one"), "one");
        pod["metadata"]["labels"] = json!({"component": name, "tier": "control-plane"});
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        pod["spec"]["containers"] =
            json!([{"name": name, "image": format!("registry.k8s.io/{name}:{version}"), "command": [name]}]);
        // It was started anew with its new manifest.
        pod["status"]["containerStatuses"][0]["restartCount"] = json!(1);
        pod["status"]["containerStatuses"][0]["lastState"] =
            json!({"terminated": {"reason": "Completed", "exitCode": 0}});
        object(pod)
    };
    let words = [
        line_of("etcd", r#"{"level":"info","msg":"received signal; shutting down","signal":"terminated"}"#),
        line_of(
            "kube-scheduler",
            r#"I0722 10:00:00.0 1 leaderelection.go:271] successfully acquired lease kube-system/kube-scheduler"#,
        ),
    ];
    let mut items = vec![
        object(machine("one", true, "v1.36.0")),
        object(machine("two", false, "v1.35.4")),
        component("kube-apiserver", "v1.36.0"),
        component("kube-controller-manager", "v1.36.0"),
        component("kube-scheduler", "v1.35.4"),
        component("etcd", "3.6.4-0"),
    ];
    items.extend(words.map(|line| ago(line, 20)));
    assert_eq!(causes(items), []);
}

#[test]
fn a_store_that_somebody_ends_is_never_the_cause() {
    let ends = |count: i64| {
        let text = r#"{"level":"info","msg":"received signal; shutting down","signal":"terminated"}"#;
        (0..count).map(move |number| ago(line_of("etcd", text), 10 + number))
    };
    assert_eq!(causes(ends(2).collect()), []);
    let drivers = [
        document("kubelet", json!({"cgroupDriver": "systemd", "staticPodPath": "/etc/kubernetes/manifests"})),
        document(
            "containerd",
            json!({"plugins": {"io.containerd.grpc.v1.cri": {"containerd": {"runtimes": {"runc": {
            "runtime_type": "io.containerd.runc.v2", "options": {"SystemdCgroup": false}}}}}}, "version": 2}),
        ),
        measured("cgroup_version", "machine", 2.0, None),
    ];
    let found = causes(ends(5).chain(drivers).collect());
    assert!(found.first().is_some_and(|(id, _)| *id != "B13"), "{found:?}");
}
