//! `kedge up --control-plane-only --simulate` with real kubectl: no root, no containers.

use std::time::Duration;

use kedge_e2e::{Host, HostOptions, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

const NODE: &str = r#"
apiVersion: v1
kind: Node
metadata:
  name: edge-1
  labels: {site: edge}
  annotations: {kedge.dev/simulated: "true"}
status: {capacity: {cpu: "2", memory: 4Gi, pods: "10", example.com/camera: "1"}}
"#;

const JOB: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: report}
spec:
  completions: 3
  parallelism: 3
  template:
    metadata:
      annotations: {kedge.dev/simulated-run-time: 2s}
    spec:
      restartPolicy: Never
      nodeSelector: {site: edge}
      containers: [{name: main, image: example/report:1, resources: {requests: {cpu: 500m}}}]
"#;

fn simulated(what: &str) -> Option<Host> {
    let flags = vec!["--simulate".to_owned(), what.to_owned()];
    Host::up(HostOptions { control_plane_only: true, flags, ..HostOptions::default() })
}

#[test]
fn a_cluster_without_machines_lives() {
    let Some(mut host) = simulated("nodes=20,pods=200,zones=2") else { return };
    let kubectl = host.kubectl();
    eventually("20 nodes to be ready", PATIENCE, || {
        let nodes = kubectl.run(&["get", "nodes", "--no-headers"]);
        let ready = nodes.lines().filter(|line| line.split_whitespace().nth(1) == Some("Ready")).count();
        if ready == 20 { Ok(()) } else { Err(nodes) }
    });
    let running = || {
        let pods = kubectl.run(&["get", "pods", "-n", "simulated", "--no-headers"]);
        let count = pods.lines().filter(|line| line.contains("1/1") && line.contains("Running")).count();
        if count == 200 { Ok(()) } else { Err(pods) }
    };
    eventually("200 pods to run", PATIENCE, running);
    let described = kubectl.run(&["describe", "node", "sim-00003"]);
    assert!(described.contains("topology.kubernetes.io/zone=zone-1"), "{described}");
    assert!(described.contains("Non-terminated Pods:          (10 in total)"), "{described}");

    kubectl.run(&["create", "deployment", "web", "--image", "example/web:1", "--replicas", "30"]);
    kubectl.run(&["rollout", "status", "deployment/web", "--timeout", "60s"]);
    kubectl.run(&["set", "image", "deployment/web", "web=example/web:2"]);
    kubectl.run(&["rollout", "status", "deployment/web", "--timeout", "60s"]);

    // A restart finds everything as it was.
    assert!(host.terminate());
    host.start();
    let kubectl = host.kubectl();
    eventually("everything is still there", PATIENCE, || {
        let pods = kubectl.run(&["get", "pods", "-A", "--no-headers"]);
        let count = pods.lines().filter(|line| line.contains("Running") && line.split_whitespace().nth(4) == Some("0"));
        if count.count() == 230 { Ok(()) } else { Err(pods) }
    });
}

#[test]
fn nodes_are_scripted_with_kubectl() {
    let Some(host) = simulated("") else { return };
    let kubectl = host.kubectl();
    kubectl.apply(NODE);
    kubectl.run(&["wait", "node/edge-1", "--for", "condition=Ready", "--timeout", "60s"]);
    let camera = "jsonpath={.status.allocatable.example\\.com/camera}";
    assert_eq!(kubectl.run(&["get", "node", "edge-1", "-o", camera]), "1");
    kubectl.apply(JOB);
    kubectl.run(&["wait", "job/report", "--for", "condition=Complete", "--timeout", "60s"]);

    kubectl.run(&["run", "web", "--image", "example/web:1"]);
    kubectl.run(&["wait", "pod/web", "--for", "condition=Ready", "--timeout", "60s"]);
    kubectl.run(&["annotate", "pod", "web", "kedge.dev/simulated-ready=false"]);
    kubectl.run(&["wait", "pod/web", "--for", "condition=Ready=false", "--timeout", "60s"]);
    kubectl.run(&["annotate", "pod", "web", "kedge.dev/simulated-restarts=2"]);
    let restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
    eventually("the restarts", PATIENCE, || {
        let count = kubectl.run(&["get", "pod", "web", "-o", restarts]);
        if count == "2" { Ok(()) } else { Err(count) }
    });
    kubectl.run(&["delete", "pod", "web", "--timeout", "60s"]);
    kubectl.run(&["annotate", "node", "edge-1", "kedge.dev/simulated-ready=false"]);
    kubectl.run(&["wait", "node/edge-1", "--for", "condition=Ready=false", "--timeout", "60s"]);
}

#[test]
fn what_cannot_be_simulated_is_named() {
    let options = |flags: &[&str]| HostOptions {
        control_plane_only: true,
        flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
        ..HostOptions::default()
    };
    let Some(host) = Host::prepare(options(&[])) else { return };
    let refused = host.kedge("up", &["--control-plane-only", "--simulate", "nodes=1,pods=1000"]);
    assert!(!refused.ok && refused.stderr.contains("1000 pods do not fit on 1 nodes"), "{}", refused.all());
    let refused = host.kedge("up", &["--simulate", "nodes=1"]);
    assert!(!refused.ok && refused.stderr.contains("--control-plane-only"), "{}", refused.all());
}
