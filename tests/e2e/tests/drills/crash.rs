//! What is begun is taken back by another process: after `kill -9` of the tool, and after the cluster itself broke down.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use kedge_e2e::{Cluster, eventually, kedge_binary};
use serde_json::Value;

use super::test_hosts::NODES;

pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// `kedge drill` on a cluster of test hosts; what it printed, whatever came of it.
pub(super) fn drill(cluster: &Cluster, state: &Path, words: &[&str]) -> String {
    let output = command(cluster, state, words).output().expect("it runs");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn command(cluster: &Cluster, state: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(kedge_binary().expect("there is one"));
    command.arg("drill").args(words).arg("--state-dir").arg(state);
    command.env("KEDGE_CLUSTERS_DIR", cluster.clusters()).stdin(Stdio::null());
    command
}

/// What it says of why it does not do something.
fn refusal(cluster: &Cluster, state: &Path, words: &[&str]) -> String {
    let output = command(cluster, state, words).output().expect("it runs");
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether a node's cable is out.
fn is_cut(cluster: &Cluster, node: &str, wanted: bool) -> Result<(), String> {
    let listed = cluster.kedge(&["list"]);
    let is = listed.stdout.lines().any(|line| line.contains(node) && line.contains(" cut "));
    if is == wanted { Ok(()) } else { Err(listed.all()) }
}

pub(super) fn of_the_tool_is_taken_back(cluster: &Cluster, state: &Path) {
    let mut started = command(cluster, state, &["start", "node-cut-off"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let worker = cluster.node(NODES);
    eventually("a pulled cable", PATIENCE, || is_cut(cluster, &worker, true));
    let busy = refusal(cluster, state, &["stop"]);
    assert!(busy.contains("another `kedge drill` is at work"), "{busy}");
    started.kill().expect("our own child can be killed");
    started.wait().expect("our own child can be waited for");
    let second = refusal(cluster, state, &["start", "quota"]);
    assert!(second.contains("node-cut-off is going on"), "{second}");
    let stopped = drill(cluster, state, &["stop"]);
    assert!(stopped.contains("everything is as it was; it was E2"), "{stopped}");
    is_cut(cluster, &worker, false).unwrap_or_else(|shown| panic!("the cable is still out:\n{shown}"));
    let history = drill(cluster, state, &["history", "--output", "json"]);
    let history: Vec<Value> = serde_json::from_str(&history).expect("it is JSON");
    assert!(history.len() == 1 && history[0]["score"] == 0, "{history:?}");
}

/// The control plane loses its power while something is broken.
pub(super) fn of_the_cluster_is_taken_back(cluster: &Cluster, state: &Path) {
    let started = drill(cluster, state, &["start", "no-storage-class"]);
    assert!(started.contains("is broken"), "{started}");
    let claims = ["get", "persistentvolumeclaims", "-A", "-o", "name"];
    assert!(cluster.kubectl.run(&claims).contains("data"));
    cluster.node_command(&["stop", "--power", &cluster.node(1)]);
    let stopped = drill(cluster, state, &["stop"]);
    assert!(stopped.contains("everything is as it was; it was I1"), "{stopped}");
    assert_eq!(cluster.kubectl.run(&claims), "");
    cluster.kubectl.run(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=90s"]);
    cluster.kubectl.run(&["rollout", "status", "deployment/bystander", "--timeout=90s"]);
}
