//! Static pods: files in a directory become pods, changes follow, broken files are named and harm nobody.

use std::path::PathBuf;
use std::time::Duration;

use kedge_e2e::{HostOptions, Node, eventually, manifest, script_spec};
use serde_json::Value;

fn file(node: &Node, name: &str) -> PathBuf {
    let directory = node.host.data_dir().join("manifests");
    std::fs::create_dir_all(&directory).expect("a directory can be made");
    directory.join(name)
}

fn put(node: &Node, name: &str, text: &str) {
    std::fs::write(file(node, name), text).expect("a manifest can be written");
}

fn pod(name: &str, script: &str) -> String {
    manifest(name, &script_spec(script, "", "").replace("restartPolicy: Never", "restartPolicy: Always"))
}

fn node_event(node: &Node, text: &str) {
    eventually(&format!("an event of the node with {text:?}"), Duration::from_secs(30), || {
        let selector = "involvedObject.kind=Node";
        let path = "jsonpath={range .items[*]}{.reason} {.message}{\"\\n\"}{end}";
        let seen = node.kubectl.run(&["get", "events", "-A", "--field-selector", selector, "-o", path]);
        if seen.contains(text) { Ok(()) } else { Err(seen) }
    });
}

const FOREVER: &str = "trap 'exit 0' TERM; while true; do sleep 0.2; done";

#[test]
fn files_become_pods_and_changes_follow() {
    let Some(node) = Node::up(HostOptions::default()) else { return };
    put(&node, "one.yaml", &pod("one", FOREVER));
    let json: Value = serde_yaml::from_str(&pod("two", FOREVER)).expect("it is YAML");
    put(&node, "two.json", &json.to_string());
    put(&node, "broken.yaml", "kind: [");
    put(&node, "other.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n");
    let one = node.ready("one-node-1");
    node.ready("two-node-1");
    node_event(&node, "FailedStaticPodManifest static pod manifest ");
    node_event(&node, "broken.yaml: couldn't parse as pod:");
    node_event(&node, "it is a \"Service\" of apiVersion \"v1\"");
    assert!(node.host.log().contains("a static pod manifest is not used"), "{}", node.host.log());
    mirrors(&node, &one);
    // A change is a new pod; the API's object follows.
    put(&node, "one.yaml", &pod("one", "echo changed; trap 'exit 0' TERM; while true; do sleep 0.2; done"));
    node.until("one-node-1", "its replacement", |seen| {
        let hash = |pod: &Value| pod["metadata"]["annotations"]["kubernetes.io/config.hash"].clone();
        hash(seen) != hash(&one) && seen["status"]["phase"] == "Running"
    });
    eventually("the new pod's words", Duration::from_secs(30), || {
        let seen = node.kubectl.try_run(&["logs", "one-node-1"]);
        if seen.stdout == "changed\n" { Ok(()) } else { Err(seen.all()) }
    });
    // A second file with the same pod waits until the first is gone.
    put(&node, "twin.yaml", &pod("two", "echo twin; trap 'exit 0' TERM; while true; do sleep 0.2; done"));
    std::fs::rename(file(&node, "two.json"), node.host.file("away.json")).expect("a file can be moved");
    eventually("the twin's words", Duration::from_secs(60), || {
        let seen = node.kubectl.try_run(&["logs", "two-node-1"]);
        if seen.stdout == "twin\n" { Ok(()) } else { Err(seen.all()) }
    });
    std::fs::remove_file(file(&node, "twin.yaml")).expect("a file can be removed");
    node.gone("two-node-1");
    assert_eq!(node.get("pod", "one-node-1")["status"]["phase"], "Running");
}

/// A mirror that is deleted comes back, and its containers do not notice.
fn mirrors(node: &Node, one: &Value) {
    let id = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    node.kubectl.run(&["delete", "pod", "one-node-1", "--grace-period=0", "--force"]);
    let again = node.until("one-node-1", "its return", |seen| {
        seen["metadata"]["uid"] != one["metadata"]["uid"] && seen["status"]["phase"] == "Running"
    });
    assert_eq!(id(&again), id(one));
    assert_eq!(again["metadata"]["ownerReferences"][0]["kind"], "Node");
    let refused =
        node.kubectl.try_run(&["debug", "one-node-1", "--image=localhost/busybox:test", "-c", "d", "--", "true"]);
    assert!(refused.stderr.contains("static pods do not support ephemeral containers"), "{}", refused.all());
}
