//! What looks like trouble in a cluster and is none: no rule finds anything.

use crate::diagnosis::diagnose;
use crate::finding::Severity;
use crate::rules::fixtures::*;

fn object(value: Value) -> Item {
    Item { time: None, place: Place::Cluster, origin: "kubectl get".to_owned(), fact: Fact::Object(value) }
}

fn causes(objects: Vec<Value>) -> Vec<(&'static str, Severity)> {
    let items = objects.into_iter().map(object).collect();
    let diagnosis = diagnose(&Evidence { gathered: now(), items, unseen: Vec::new() });
    diagnosis.causes.iter().map(|cause| (cause.id, cause.severity)).collect()
}

fn ready_node(name: &str) -> Value {
    let mut node = node(
        name,
        json!([
            {"type": "MemoryPressure", "status": "False", "reason": "KubeletHasSufficientMemory"},
            {"type": "DiskPressure", "status": "False", "reason": "KubeletHasNoDiskPressure"},
            {"type": "PIDPressure", "status": "False", "reason": "KubeletHasSufficientPID"},
            {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"},
        ]),
    );
    node["spec"] = json!({"podCIDR": "10.244.0.0/24"});
    node["status"]["addresses"] = json!([{"type": "InternalIP", "address": "192.168.0.10"}]);
    node["status"]["allocatable"] = json!({"pods": "110"});
    node
}

fn running(name: &str, ready: &str) -> Value {
    let status = json!({
        "phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": ready}],
        "containerStatuses": [{"name": "c", "restartCount": 0, "ready": ready == "True", "state": {"running": {}}}],
    });
    pod("a", name, json!({"nodeName": "one"}), status)
}

#[test]
fn a_claim_that_waits_for_its_first_consumer() {
    let message = "waiting for first consumer to be created before binding";
    let claim = json!({"kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "data"},
        "spec": {"storageClassName": "local"}, "status": {"phase": "Pending"}});
    let class =
        json!({"kind": "StorageClass", "metadata": {"name": "local"}, "volumeBindingMode": "WaitForFirstConsumer"});
    let event = event_of("PersistentVolumeClaim", "data", "WaitForFirstConsumer", message);
    assert_eq!(causes(vec![ready_node("one"), old(claim), class, event]), []);
}

#[test]
fn a_rollout_in_the_middle() {
    let set = |name: &str, replicas: u64| {
        json!({"kind": "ReplicaSet", "metadata": {"namespace": "a", "name": name, "creationTimestamp": now().to_string()},
            "spec": {"replicas": replicas}, "status": {"replicas": replicas, "readyReplicas": replicas - 1}})
    };
    let deployment = json!({
        "kind": "Deployment", "metadata": {"namespace": "a", "name": "web", "generation": 2}, "spec": {"replicas": 3},
        "status": {"observedGeneration": 2, "replicas": 4, "updatedReplicas": 2, "readyReplicas": 3, "unavailableReplicas": 1,
            "conditions": [{"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}]},
    });
    let creating = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [{"name": "c", "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}]});
    let mut ending = running("web-3", "False");
    ending["metadata"]["deletionTimestamp"] = json!(now().to_string());
    let probe = event_of(
        "Pod",
        "web-3",
        "Unhealthy",
        "Readiness probe failed: dial tcp 10.244.0.9:80: connect: connection refused",
    );
    let slice = json!({"kind": "EndpointSlice", "metadata": {"namespace": "a", "name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"nodeName": "one", "conditions": {"ready": false, "terminating": true}}, {"nodeName": "one", "conditions": {"ready": true}}]});
    let budget = json!({"kind": "PodDisruptionBudget", "metadata": {"namespace": "a", "name": "web"}, "spec": {"maxUnavailable": 1},
        "status": {"disruptionsAllowed": 0, "expectedPods": 3, "currentHealthy": 2, "desiredHealthy": 2}});
    let objects = vec![
        ready_node("one"),
        deployment,
        set("web-1", 2),
        set("web-2", 2),
        running("web-1", "True"),
        running("web-2", "False"),
        ending,
        pod("a", "web-4", json!({"nodeName": "one"}), creating),
        probe,
        slice,
        budget,
    ];
    assert_eq!(causes(objects), []);
}

#[test]
fn jobs_that_are_over() {
    let over = |name: &str, phase: &str, code: u64| {
        let status = json!({"phase": phase, "conditions": [{"type": "Ready", "status": "False", "reason": "PodCompleted"}],
            "containerStatuses": [{"name": "c", "restartCount": 0, "ready": false, "state": {"terminated": {"reason": "Completed", "exitCode": code}}}]});
        old(pod("a", name, json!({"nodeName": "one"}), status))
    };
    let job = json!({"kind": "Job", "metadata": {"namespace": "a", "name": "once"}, "status": {"succeeded": 1, "failed": 1,
        "conditions": [{"type": "Complete", "status": "True"}]}});
    assert_eq!(causes(vec![ready_node("one"), job, over("once-1", "Succeeded", 0), over("once-0", "Failed", 1)]), []);
}

#[test]
fn conditions_that_nobody_knows() {
    let mut node = ready_node("one");
    for condition in [
        json!({"type": "KernelDeadlock", "status": "False"}),
        json!({"type": "RackPowered", "status": "True", "message": "ok"}),
        json!({"type": "CorruptDockerOverlay2", "status": "Unknown"}),
    ] {
        node["status"]["conditions"].as_array_mut().expect("a list").push(condition);
    }
    assert_eq!(causes(vec![node]), []);
}

#[test]
fn dns_that_waits_for_the_first_network() {
    let message = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized";
    let fresh =
        node("one", json!([{"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": message}]));
    let refused = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 node(s) had untolerated taint(s). no new claims to deallocate."}]);
    let mut dns = old(pod("kube-system", "coredns-1", json!({}), json!({"phase": "Pending", "conditions": refused})));
    dns["metadata"]["labels"] = json!({"k8s-app": "kube-dns"});
    // What is to be done next, as a warning, and nothing about the DNS.
    assert_eq!(causes(vec![fresh, dns]), [("D15", Severity::Warning)]);
}

#[test]
fn events_of_what_is_over() {
    let mut event = object(event_of(
        "Pod",
        "web-1",
        "FailedMount",
        "MountVolume.SetUp failed for volume \"c\" : configmap \"x\" not found",
    ));
    event.time = Timestamp::from_second(now().as_second() - 60).ok();
    let items = [object(ready_node("one")), object(running("web-1", "True")), event].into_iter().collect();
    assert!(diagnose(&Evidence { gathered: now(), items, unseen: Vec::new() }).causes.is_empty());
}

#[test]
fn a_machine_that_is_as_it_should_be() {
    let items = [
        setting("net.ipv4.ip_forward", Some("1")),
        setting("net.bridge.bridge-nf-call-iptables", Some("1")),
        interface("lo", 65536, "loopback", &["127.0.0.1/8"]),
        interface("eth0", 1500, "ethernet", &["192.168.0.10/24"]),
        interface("flannel.1", 1450, "vxlan", &["10.244.0.0/32"]),
        interface("cni0", 1450, "bridge", &["10.244.0.1/24"]),
        route("default", Some("192.168.0.1"), "eth0"),
        route("192.168.0.0/24", None, "eth0"),
        route("10.244.0.0/24", None, "cni0"),
        route("10.244.1.0/24", Some("10.244.1.0"), "flannel.1"),
        probe("two", "tcp", 179, Some("Connection refused (os error 111)")),
        probe("two", "tcp", 10250, None),
        document("resolv.conf", json!("nameserver 192.168.0.1\nsearch example.com\n")),
        document("cni", json!({"name": "cbr0", "plugins": [{"type": "flannel"}, {"type": "portmap"}]})),
        document("multipath", json!({"maps": []})),
        process("kubelet", 'S', ""),
        object(ready_node("one")),
    ];
    let evidence = Evidence { gathered: now(), items: items.into_iter().collect(), unseen: Vec::new() };
    let diagnosis = diagnose(&evidence);
    assert!(diagnosis.causes.is_empty(), "{:?}", diagnosis.causes);
}
