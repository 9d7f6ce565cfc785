//! What the conformance suite asks of configMap, secret, downwardAPI, projected, emptyDir and hostPath volumes, with real
//! containers: each combination of source, mode, user and medium in few pods of one cluster.
//!
//! Which test stands for which name of the suite is in `docs/conformance/storage.toml`.

#[path = "volume_conformance/content.rs"]
mod content;
#[path = "volume_conformance/empty_dirs.rs"]
mod empty_dirs;
#[path = "volume_conformance/optional.rs"]
mod optional;
#[path = "volume_conformance/places.rs"]
mod places;

use kedge_e2e::{BUSYBOX, HostOptions, Node};
use serde_json::{Value, json};

/// One cluster for all: making it takes longer than most of the checks.
#[test]
fn volumes_are_what_the_conformance_suite_asks_for() {
    let Some(node) = Node::up(HostOptions::default()) else { return };
    content::make_objects(&node);
    // Pods start while others are looked at.
    optional::start(&node);
    content::start(&node);
    empty_dirs::start(&node);
    places::start(&node);
    optional::change(&node);
    content::check(&node);
    content::change(&node);
    empty_dirs::check(&node);
    places::check(&node);
    optional::immutable_objects_never_change(&node);
    empty_dirs::many_wrapped_volumes_do_not_race(&node);
    // Changes may take most of a minute to show.
    optional::check(&node);
    content::check_changes(&node);
}

/// A pod with these containers and volumes; `security` is the pod's.
fn apply_pod(node: &Node, name: &str, security: Value, containers: Vec<Value>, volumes: Vec<Value>) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"key1": "value1"}, "annotations": {"builder": "bar"}},
        "spec": {"terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "securityContext": security,
                 "containers": containers, "volumes": volumes},
    });
    node.kubectl.apply(&pod.to_string());
}

/// A container that waits, with each of these volumes below `/v`.
fn waiting(name: &str, user: Option<u32>, volumes: &[String]) -> Value {
    let mounts: Vec<Value> =
        volumes.iter().map(|volume| json!({"name": volume, "mountPath": format!("/v/{volume}")})).collect();
    json!({
        "name": name, "image": BUSYBOX, "command": ["sleep", "3600"], "volumeMounts": mounts,
        "securityContext": user.map(|user| json!({"runAsUser": user})).unwrap_or(json!({})),
    })
}

/// What a script in a container prints.
fn run(node: &Node, pod: &str, container: &str, script: &str) -> String {
    node.kubectl.run(&["exec", pod, "-c", container, "--", "sh", "-c", script])
}

/// The names of volumes.
fn names(volumes: &[Value]) -> Vec<String> {
    volumes.iter().map(|volume| volume["name"].as_str().unwrap_or_default().to_owned()).collect()
}
