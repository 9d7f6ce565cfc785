//! What people do to a cluster on purpose is no trouble: `kedge doctor` finds nothing before it, while they do it, and after.

use std::process::Command;

use kedge_e2e::{BUSYBOX, Cluster, eventually, kedge_binary, names_only, output_of};
use serde_json::Value;

use super::crash::PATIENCE;
use super::test_hosts::NODES;

fn nothing_alarms(cluster: &Cluster, during: &str) {
    let mut command = Command::new(kedge_binary().expect("the cluster was made with it"));
    command.args(["doctor", "--output", "json", "--kubeconfig"]).arg(&cluster.kubectl.kubeconfig);
    names_only(&output_of(command), during, &[]);
}

pub(super) fn a_rollout_and_a_drain_are_no_trouble(cluster: &Cluster) {
    nothing_alarms(cluster, "nothing");
    cluster.kubectl.apply(&format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: moved}}\nspec:\n  replicas: 3\n  \
         selector: {{matchLabels: {{app: moved}}}}\n  template:\n    metadata: {{labels: {{app: moved}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 1\n      \
         containers: [{{name: c, image: '{BUSYBOX}', command: [sleep, '3600']}}]\n\
         ---\napiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {{name: moved}}\nspec:\n  \
         maxUnavailable: 1\n  selector: {{matchLabels: {{app: moved}}}}\n"
    ));
    is_rolled_out(cluster, "a first rollout");
    cluster.kubectl.run(&["rollout", "restart", "deployment/moved"]);
    is_rolled_out(cluster, "a rollout");
    let node = cluster.node(NODES);
    let words = ["drain", &node, "--pod-selector=app=moved", "--ignore-daemonsets", "--timeout=90s"];
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| cluster.kubectl.try_run(&words));
        loop {
            nothing_alarms(cluster, "a drain");
            if drain.is_finished() {
                break;
            }
        }
        let drained = drain.join().expect("it ends");
        assert!(drained.ok, "{}", drained.all());
    });
    nothing_alarms(cluster, "a maintenance");
    cluster.kubectl.run(&["uncordon", &node]);
    cluster.kubectl.run(&["delete", "deployment/moved", "poddisruptionbudget/moved"]);
}

/// Waits for it, and looks all the while.
fn is_rolled_out(cluster: &Cluster, during: &str) {
    eventually(during, PATIENCE, || {
        nothing_alarms(cluster, during);
        let found = cluster.kubectl.run(&["get", "deployment", "moved", "-o", "json"]);
        let found: Value = serde_json::from_str(&found).expect("it is JSON");
        let status = &found["status"];
        let is_over = status["observedGeneration"] == found["metadata"]["generation"]
            && ["updatedReplicas", "availableReplicas", "replicas"].iter().all(|field| status[field] == 3);
        if is_over { Ok(()) } else { Err(status.to_string()) }
    });
}
