//! In-place resizes of running pods, with their cgroups read on the host.

use std::path::PathBuf;
use std::time::Duration;

use kedge_e2e::{BUSYBOX, HostOptions, Node, Output, condition, container, eventually};
use serde_json::{Value, json};

/// A container's YAML; `resources` are `cpu request/cpu limit/memory request/memory limit`.
fn sleeper(name: &str, resources: &str, restart_for: &[&str]) -> String {
    let policies: Vec<String> =
        restart_for.iter().map(|r| format!("{{resourceName: {r}, restartPolicy: RestartContainer}}")).collect();
    format!(
        "  - name: {name}\n    image: '{BUSYBOX}'\n    command: [sleep, '3600']\n    resources: {}\n    resizePolicy: [{}]\n",
        amounts(resources),
        policies.join(", ")
    )
}

fn amounts(text: &str) -> Value {
    let parts: Vec<&str> = text.split('/').collect();
    let list = |cpu: &str, memory: &str| {
        let pairs = [("cpu", cpu), ("memory", memory)].into_iter().filter(|(_, amount)| *amount != "-");
        pairs.map(|(name, amount)| (name.to_owned(), json!(amount))).collect::<serde_json::Map<_, _>>()
    };
    let mut all = serde_json::Map::new();
    for (name, list) in [("requests", list(parts[0], parts[2])), ("limits", list(parts[1], parts[3]))] {
        if !list.is_empty() {
            all.insert(name.to_owned(), Value::Object(list));
        }
    }
    Value::Object(all)
}

fn resize(node: &Node, pod: &str, containers: &[(&str, &str)]) {
    let answer = try_resize(node, pod, containers);
    assert!(answer.ok, "{}", answer.all());
}

fn try_resize(node: &Node, pod: &str, containers: &[(&str, &str)]) -> Output {
    let list: Vec<Value> =
        containers.iter().map(|(name, text)| json!({ "name": name, "resources": amounts(text) })).collect();
    let patch = json!({ "spec": { "containers": list } }).to_string();
    node.kubectl.try_run(&["patch", "pod", pod, "--subresource=resize", "-p", &patch])
}

/// Asks for more than the node has, which the API server refuses unless the node's status says for a moment that it has it.
fn resize_beyond(node: &Node, pod: &str, containers: &[(&str, &str)]) {
    let refused = try_resize(node, pod, containers);
    let why = "node didn't have enough allocatable resources: cpu, requested: 5000000, allocatable: ";
    assert!(!refused.ok && refused.stderr.contains(why), "{}", refused.all());
    let boast = json!({ "status": { "allocatable": { "cpu": "6000" } } }).to_string();
    eventually("a resize that only the kubelet refuses", Duration::from_secs(30), || {
        node.kubectl.run(&["patch", "node", "node-1", "--subresource=status", "-p", &boast]);
        let answer = try_resize(node, pod, containers);
        if answer.ok { Ok(()) } else { Err(answer.all()) }
    });
}

/// Waits until nothing of a resize is left to do and the containers have the resources.
fn resized(node: &Node, pod: &str, containers: &[(&str, &str)]) -> Value {
    let quiet = |seen: &Value, type_: &str| condition(seen, type_).is_null();
    node.until(pod, "the end of a resize", |seen| {
        let have = containers.iter().all(|(name, text)| container(seen, name)["resources"] == amounts(text));
        let ready = condition(seen, "Ready")["status"] == "True";
        have && ready && quiet(seen, "PodResizePending") && quiet(seen, "PodResizeInProgress")
    })
}

/// A file of a cgroup below the pod's, in whichever version the controllers are.
fn cgroup(pod: &Value, container_name: Option<&str>, legacy: (&str, &str), unified: &str) -> String {
    let class = match pod["status"]["qosClass"].as_str() {
        Some("Guaranteed") => "",
        Some("Burstable") => "burstable/",
        _ => "besteffort/",
    };
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    let id = container_name.and_then(|name| container(pod, name)["containerID"].as_str()?.split_once("://"));
    let path = format!("kubepods/{class}pod{uid}/{}", id.map_or("", |(_, id)| id));
    let root = PathBuf::from("/sys/fs/cgroup");
    let file = match root.join("cgroup.controllers").exists() {
        true => root.join(path).join(unified),
        false => root.join(legacy.0).join(path).join(legacy.1),
    };
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).trim().to_owned()
}

fn quota(pod: &Value, name: Option<&str>) -> String {
    let text = cgroup(pod, name, ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn memory(pod: &Value, name: Option<&str>) -> String {
    cgroup(pod, name, ("memory", "memory.limit_in_bytes"), "memory.max")
}

const MIB: u64 = 1 << 20;

#[test]
fn running_pods_get_other_resources() {
    let Some(node) = Node::up(HostOptions::default()) else { return };
    let first = [("a", "100m/100m/32Mi/32Mi"), ("b", "200m/200m/64Mi/64Mi")];
    let spec: String = first.iter().map(|(name, text)| sleeper(name, text, &[])).collect();
    node.pod("guaranteed", &format!("  terminationGracePeriodSeconds: 1\n  containers:\n{spec}"));
    let started = node.ready("guaranteed");
    assert_eq!((quota(&started, None), memory(&started, None)), ("30000".to_owned(), (96 * MIB).to_string()));
    // One up, one down, more in total; then back, which is less in total.
    let other = [("a", "400m/400m/96Mi/96Mi"), ("b", "150m/150m/48Mi/48Mi")];
    for (wanted, cpu, bytes) in
        [(other, ["55000", "40000", "15000"], [144, 96, 48]), (first, ["30000", "10000", "20000"], [96, 32, 64])]
    {
        resize(&node, "guaranteed", &wanted);
        let seen = resized(&node, "guaranteed", &wanted);
        for (index, name) in [None, Some("a"), Some("b")].into_iter().enumerate() {
            assert_eq!(quota(&seen, name), cpu[index], "{name:?}");
            assert_eq!(memory(&seen, name), (bytes[index] * MIB).to_string(), "{name:?}");
        }
        for (name, text) in wanted {
            assert_eq!(container(&seen, name)["allocatedResources"], amounts(text)["requests"]);
            assert_eq!(container(&seen, name)["restartCount"], 0);
        }
        assert_eq!(seen["status"]["observedGeneration"], seen["metadata"]["generation"]);
    }
    let events = node.events("guaranteed");
    assert!(events.contains("ResizeStarted Pod resize started: {\"containers\":[{\"name\":\"a\""), "{events}");
    assert!(events.contains("ResizeCompleted Pod resize completed: {"), "{events}");
    node.kubectl.run(&["delete", "pod", "guaranteed", "--timeout=60s"]);
    several(&node);
    burstable(&node);
    restarts(&node);
    shrinking(&node);
    refusals(&node);
}

/// Runs a pod, gives its containers other resources, and looks at every cgroup.
fn changed(node: &Node, name: &str, before: &[(&str, &str)], after: &[(&str, &str)]) {
    let spec: String = before.iter().map(|(name, text)| sleeper(name, text, &[])).collect();
    node.pod(name, &format!("  terminationGracePeriodSeconds: 1\n  containers:\n{spec}"));
    node.ready(name);
    resize(node, name, after);
    let seen = resized(node, name, after);
    let (mut millis, mut mebibytes) = (Some(0), Some(0));
    for (name, text) in after {
        let parts: Vec<&str> = text.split('/').collect();
        let (cpu, bytes) = (parts[1].strip_suffix('m'), parts[3].strip_suffix("Mi"));
        let (cpu, bytes) =
            (cpu.and_then(|cpu| cpu.parse::<u64>().ok()), bytes.and_then(|bytes| bytes.parse::<u64>().ok()));
        let hundredths = |cpu: u64| (cpu * 100).to_string();
        if let Some(cpu) = cpu {
            assert_eq!(quota(&seen, Some(name)), hundredths(cpu), "{name}");
        }
        if let Some(bytes) = bytes {
            assert_eq!(memory(&seen, Some(name)), (bytes * MIB).to_string(), "{name}");
        }
        millis = millis.zip(cpu).map(|(all, one)| all + one);
        mebibytes = mebibytes.zip(bytes).map(|(all, one)| all + one);
        assert_eq!(container(&seen, name)["restartCount"], 0, "{name}");
    }
    if let (Some(millis), Some(mebibytes)) = (millis, mebibytes) {
        assert_eq!(quota(&seen, None), (millis * 100).to_string());
        assert_eq!(memory(&seen, None), (mebibytes * MIB).to_string());
    }
    node.kubectl.run(&["delete", "pod", name, "--timeout=60s"]);
}

/// More in total, less in total, and each its own way; and six that have, get and keep different things.
fn several(node: &Node) {
    let three = [("c1", "100m/100m/32Mi/32Mi"), ("c2", "100m/100m/32Mi/32Mi"), ("c3", "100m/100m/32Mi/32Mi")];
    let after = |one: &'static str, two: &'static str, three: &'static str| [("c1", one), ("c2", two), ("c3", three)];
    changed(node, "more", &three, &after("150m/150m/48Mi/48Mi", "150m/150m/48Mi/48Mi", "80m/80m/24Mi/24Mi"));
    changed(node, "less", &three, &after("120m/120m/40Mi/40Mi", "60m/60m/20Mi/20Mi", "60m/60m/20Mi/20Mi"));
    changed(node, "mixed", &three, &after("150m/150m/32Mi/32Mi", "60m/60m/40Mi/40Mi", "150m/150m/40Mi/40Mi"));
    let before = [
        ("c1", "50m/-/-/-"),
        ("c2", "50m/100m/-/-"),
        ("c3", "-/-/24Mi/-"),
        ("c4", "-/-/24Mi/32Mi"),
        ("c5", "50m/-/24Mi/-"),
        ("c6", "50m/100m/24Mi/32Mi"),
    ];
    let after = [
        ("c1", "60m/120m/24Mi/40Mi"),
        ("c2", "40m/80m/-/-"),
        ("c3", "30m/-/32Mi/48Mi"),
        ("c4", "60m/60m/24Mi/40Mi"),
        ("c5", "60m/90m/32Mi/40Mi"),
        ("c6", "60m/120m/24Mi/40Mi"),
    ];
    changed(node, "six", &before, &after);
}

fn burstable(node: &Node) {
    let spec = sleeper("a", "100m/-/32Mi/-", &[]);
    node.pod("burstable", &format!("  terminationGracePeriodSeconds: 1\n  containers:\n{spec}"));
    node.ready("burstable");
    resize(node, "burstable", &[("a", "250m/500m/32Mi/128Mi")]);
    let seen = resized(node, "burstable", &[("a", "250m/500m/32Mi/128Mi")]);
    assert_eq!((quota(&seen, Some("a")), memory(&seen, Some("a"))), ("50000".to_owned(), (128 * MIB).to_string()));
    // Shares in version 1 of cgroups, a weight in version 2.
    let shares = cgroup(&seen, Some("a"), ("cpu", "cpu.shares"), "cpu.weight");
    assert!(["256", "10"].contains(&shares.as_str()), "{shares}");
    // The same amounts in other words are no resize.
    resize(node, "burstable", &[("a", "0.25/0.5/32768Ki/131072Ki")]);
    let seen = node.until("burstable", "seeing the equal amounts", |seen| {
        seen["status"]["observedGeneration"] == seen["metadata"]["generation"]
    });
    assert_eq!(container(&seen, "a")["restartCount"], 0);
    // Through the replace endpoint.
    let mut pod = node.get("pod", "burstable");
    pod["spec"]["containers"][0]["resources"] = amounts("300m/500m/48Mi/128Mi");
    let path = "/api/v1/namespaces/default/pods/burstable/resize";
    let put = node.kubectl.try_run_with(&["replace", "--raw", path, "-f", "-"], &pod.to_string());
    assert!(put.ok, "{}", put.all());
    resized(node, "burstable", &[("a", "300m/500m/48Mi/128Mi")]);
    let read =
        |path: &str| -> Value { serde_json::from_str(&node.kubectl.run(&["get", "--raw", path])).expect("it is JSON") };
    assert_eq!(read(path), read("/api/v1/namespaces/default/pods/burstable"));
    // Not through the pod itself.
    let direct = r#"{"spec":{"containers":[{"name":"a","resources":{"requests":{"cpu":"1"}}}]}}"#;
    let refused = node.kubectl.try_run(&["patch", "pod", "burstable", "-p", direct]);
    assert!(refused.stderr.contains("pod updates may not change fields other than"), "{}", refused.all());
}

fn restarts(node: &Node) {
    let spec = sleeper("a", "100m/200m/32Mi/64Mi", &["memory"]) + &sleeper("b", "100m/200m/32Mi/64Mi", &[]);
    node.pod("restarts", &format!("  terminationGracePeriodSeconds: 1\n  containers:\n{spec}"));
    node.ready("restarts");
    let wanted = [("a", "100m/200m/32Mi/96Mi"), ("b", "150m/250m/32Mi/64Mi")];
    resize(node, "restarts", &wanted);
    let seen = resized(node, "restarts", &wanted);
    assert_eq!(container(&seen, "a")["restartCount"], 1);
    assert_eq!(container(&seen, "b")["restartCount"], 0);
    assert_eq!((memory(&seen, Some("a")), quota(&seen, Some("b"))), ((96 * MIB).to_string(), "25000".to_owned()));
    node.event("restarts", "Killing Container a resize requires restart");
}

/// A memory limit below what is used is not set, and the condition says so until it can be.
fn shrinking(node: &Node) {
    let eater = format!(
        "  - name: a\n    image: '{BUSYBOX}'\n    command: [sh, -c, 'dd if=/dev/zero of=/mem/x bs=1M count=40; sleep 3600']\n    resources: {}\n    volumeMounts: [{{name: mem, mountPath: /mem}}]\n",
        amounts("-/-/64Mi/128Mi")
    );
    let volumes = "  volumes: [{name: mem, emptyDir: {medium: Memory}}]\n";
    node.pod("eater", &format!("  terminationGracePeriodSeconds: 1\n  containers:\n{eater}{volumes}"));
    node.ready("eater");
    eventually("40 MiB in use", Duration::from_secs(30), || {
        let size = node.exec("eater", "stat -c %s /mem/x || true");
        if size.trim() == (40 * MIB).to_string() { Ok(()) } else { Err(size) }
    });
    resize(node, "eater", &[("a", "-/-/16Mi/20Mi")]);
    let seen = node
        .until("eater", "an error of the resize", |seen| condition(seen, "PodResizeInProgress")["reason"] == "Error");
    let message = condition(&seen, "PodResizeInProgress")["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("memory limit (20971520) below current usage"), "{message}");
    assert_eq!(memory(&seen, Some("a")), (128 * MIB).to_string());
    assert_eq!(container(&seen, "a")["resources"]["limits"]["memory"], "128Mi");
    node.event("eater", "ResizeError Pod resize error: {");
    node.exec("eater", "rm /mem/x");
    let seen = resized(node, "eater", &[("a", "-/-/16Mi/20Mi")]);
    assert_eq!(memory(&seen, Some("a")), (20 * MIB).to_string());
}

fn refusals(node: &Node) {
    let spec = sleeper("a", "100m/-/32Mi/-", &[]);
    node.pod("greedy", &format!("  terminationGracePeriodSeconds: 1\n  containers:\n{spec}"));
    node.ready("greedy");
    // Of the node as it says itself.
    let allocatable = node.get("node", "node-1")["status"]["allocatable"]["cpu"].clone();
    resize_beyond(node, "greedy", &[("a", "5000/-/32Mi/-")]);
    let seen =
        node.until("greedy", "being infeasible", |seen| condition(seen, "PodResizePending")["reason"] == "Infeasible");
    let pending = condition(&seen, "PodResizePending");
    let text = pending["message"].as_str().unwrap_or_default();
    assert!(text.starts_with("Node didn't have enough capacity: cpu, requested: 5000000, capacity: "), "{text}");
    assert_eq!(pending["observedGeneration"], seen["metadata"]["generation"]);
    assert_eq!(container(&seen, "a")["allocatedResources"]["cpu"], "100m");
    node.event("greedy", "ResizeInfeasible Pod resize Infeasible: {");
    let whole: u64 = allocatable.as_str().and_then(|text| text.parse().ok()).expect("whole CPUs");
    // All of the node's CPUs: the other pods have some of them.
    resize(node, "greedy", &[("a", &format!("{whole}/-/32Mi/-"))]);
    node.until("greedy", "being deferred", |seen| condition(seen, "PodResizePending")["reason"] == "Deferred");
    node.event("greedy", "ResizeDeferred Pod resize Deferred: {");
    node.kubectl.run(&["delete", "pods", "burstable", "restarts", "eater", "--timeout=60s"]);
    let whole = whole.to_string();
    node.until("greedy", "getting what it waited for", |seen| {
        let granted = container(seen, "a")["allocatedResources"]["cpu"] == whole.as_str();
        granted && condition(seen, "PodResizePending").is_null()
    });
}

/// What was granted outlives the kubelet.
#[test]
fn resizes_survive_a_restart_of_kedge() {
    let Some(mut node) = Node::up(HostOptions::default()) else { return };
    node.pod(
        "kept",
        &format!("  terminationGracePeriodSeconds: 1\n  containers:\n{}", sleeper("a", "100m/200m/32Mi/64Mi", &[])),
    );
    node.ready("kept");
    resize(&node, "kept", &[("a", "150m/300m/32Mi/96Mi")]);
    let before = resized(&node, "kept", &[("a", "150m/300m/32Mi/96Mi")]);
    resize_beyond(&node, "kept", &[("a", "5000/5000/32Mi/96Mi")]);
    node.until("kept", "being infeasible", |seen| condition(seen, "PodResizePending")["reason"] == "Infeasible");
    node.host.kill();
    node.host.start();
    let after = node.until("kept", "being infeasible again", |seen| {
        condition(seen, "PodResizePending")["reason"] == "Infeasible" && condition(seen, "Ready")["status"] == "True"
    });
    assert_eq!(container(&after, "a")["containerID"], container(&before, "a")["containerID"]);
    assert_eq!(container(&after, "a")["resources"], amounts("150m/300m/32Mi/96Mi"));
    assert_eq!(quota(&after, Some("a")), "30000");
    resize(&node, "kept", &[("a", "50m/100m/32Mi/96Mi")]);
    let seen = resized(&node, "kept", &[("a", "50m/100m/32Mi/96Mi")]);
    assert_eq!(
        (quota(&seen, Some("a")), container(&seen, "a")["restartCount"].clone()),
        ("10000".to_owned(), json!(0))
    );
}
