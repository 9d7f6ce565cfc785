//! Probes of every kind, and what follows from what they say.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kedge_e2e::{HostOptions, Node, Server, condition, container, eventually, grpc_serving};
use serde_json::Value;

fn restarts(pod: &Value) -> i64 {
    container(pod, "c")["restartCount"].as_i64().unwrap_or(0)
}

/// Where the health service of gRPC answers on the node.
const HEALTH_PORT: u16 = 18999;
const ALWAYS: &str = "  restartPolicy: Always\n";

/// A pod that is restarted by the kubelet; its first container lives on the script's terms.
fn pod(node: &Node, name: &str, script: &str, probes: &str) {
    let spec = kedge_e2e::script_spec(script, probes, "").replace("  restartPolicy: Never\n", ALWAYS);
    node.pod(name, &spec);
}

const SERVE: &str = "mkdir -p /tmp/www; echo ok > /tmp/www/healthz; httpd -p 8080 -h /tmp/www; ";

#[test]
fn probes_restart_hold_back_and_let_be() {
    let Some(node) = Node::up(HostOptions::default()) else { return };
    let probe = |kind: &str, how: &str, more: &str| {
        format!("    {kind}: {{{how}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 5{more}}}\n")
    };
    let health = "httpGet: {path: /healthz, port: 8080}";
    let file = "exec: {command: [cat, /tmp/health]}";
    let live = "touch /tmp/health; sleep 3600";
    // These go on.
    pod(&node, "exec-good", live, &probe("livenessProbe", file, ", initialDelaySeconds: 2"));
    pod(&node, "http-good", &format!("{SERVE}sleep 3600"), &probe("livenessProbe", health, ", initialDelaySeconds: 2"));
    let named = "    ports: [{name: web, containerPort: 8080}]\n".to_owned()
        + &probe("livenessProbe", "tcpSocket: {port: web}", ", initialDelaySeconds: 2");
    pod(&node, "tcp-good", &format!("{SERVE}sleep 3600"), &named);
    // These are restarted.
    pod(
        &node,
        "exec-bad",
        "touch /tmp/health; sleep 2; rm /tmp/health; sleep 3600",
        &probe("livenessProbe", file, ", initialDelaySeconds: 1"),
    );
    let gone = format!("{SERVE}sleep 2; rm /tmp/www/healthz; sleep 3600");
    pod(&node, "http-bad", &gone, &probe("livenessProbe", health, ", initialDelaySeconds: 1"));
    // The test itself answers on the node.
    let namespace = node.host.namespace().expect("a node has a namespace").to_owned();
    let address = format!("{}:{HEALTH_PORT}", node.host.address()).parse().expect("it is an address");
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let _health = Server::start(&namespace, address, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        grpc_serving()
    });
    let serving = probe("livenessProbe", &format!("grpc: {{port: {HEALTH_PORT}}}"), "");
    let on_host = kedge_e2e::script_spec(live, &serving, "  hostNetwork: true\n");
    node.pod("grpc-good", &on_host.replace("  restartPolicy: Never\n", ALWAYS));
    let grpc = probe("livenessProbe", "grpc: {port: 8080}", ", initialDelaySeconds: 1");
    pod(&node, "grpc-bad", &format!("{SERVE}sleep 3600"), &grpc);
    // Its own grace period is long; the probe's counts.
    let deaf = "trap '' TERM; while true; do sleep 1; done";
    let own = probe("livenessProbe", "exec: {command: ['false']}", ", terminationGracePeriodSeconds: 1");
    node.pod(
        "deaf",
        &kedge_e2e::script_spec(deaf, &own, "").replace("  restartPolicy: Never\n", ALWAYS).replace(
            "terminationGracePeriodSeconds: 1\n  containers",
            "terminationGracePeriodSeconds: 500\n  containers",
        ),
    );
    // These are held back.
    pod(&node, "never-ready", live, &probe("readinessProbe", "exec: {command: ['false']}", ""));
    let late = "sleep 3; touch /tmp/health; sleep 3600";
    let startup = "    startupProbe: {exec: {command: [cat, /tmp/health]}, periodSeconds: 1, failureThreshold: 60}\n"
        .to_owned()
        + &probe("livenessProbe", "exec: {command: [cat, /tmp/health]}", "");
    pod(&node, "starts-late", late, &startup);
    pod(
        &node,
        "ready-late",
        "sleep 3600",
        &probe("readinessProbe", "exec: {command: ['true']}", ", initialDelaySeconds: 4"),
    );
    restarted(&node);
    held_back(&node);
    eventually("several gRPC probes", Duration::from_secs(60), || match asked.load(Ordering::Relaxed) {
        0..4 => Err("too few were asked".to_owned()),
        _ => Ok(()),
    });
    for good in ["exec-good", "http-good", "tcp-good", "grpc-good"] {
        assert_eq!(restarts(&node.ready(good)), 0, "{good}: {}", node.events(good));
        assert!(!node.events(good).contains("Unhealthy"), "{good}: {}", node.events(good));
    }
    node.kubectl.run(&["delete", "pods", "--all", "--grace-period=0", "--force", "--timeout=90s"]);
}

fn restarted(node: &Node) {
    for (bad, text) in [
        ("exec-bad", "Unhealthy Liveness probe failed: cat: can't open '/tmp/health': No such file or directory"),
        ("http-bad", "Unhealthy Liveness probe failed: HTTP probe failed with statuscode: 404"),
        ("grpc-bad", "Unhealthy Liveness probe "),
        ("deaf", "Unhealthy Liveness probe failed:"),
    ] {
        node.event(bad, text);
        node.event(bad, "Killing Container c failed liveness probe, will be restarted");
        node.until(bad, "a restart", |seen| restarts(seen) > 0);
    }
    let mut last = 0;
    eventually("three restarts, counted upwards", Duration::from_secs(90), || {
        let now = restarts(&node.get("pod", "exec-bad"));
        assert!(now >= last, "the count went from {last} to {now}");
        last = now;
        if now >= 3 { Ok(()) } else { Err(now.to_string()) }
    });
}

fn held_back(node: &Node) {
    node.event("never-ready", "Unhealthy Readiness probe failed:");
    let pod = node.get("pod", "never-ready");
    assert_eq!(container(&pod, "c")["ready"], false);
    assert_eq!(restarts(&pod), 0);
    let ready = condition(&pod, "Ready");
    assert_eq!((&ready["status"], &ready["reason"]), (&"False".into(), &"ContainersNotReady".into()));
    assert_eq!(ready["message"], "containers with unready status: [c]");
    let pod = node.ready("starts-late");
    assert_eq!((restarts(&pod), &container(&pod, "c")["started"]), (0, &true.into()));
    let pod = node.ready("ready-late");
    let second = |value: &Value| value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let started = second(&container(&pod, "c")["state"]["running"]["startedAt"]).expect("it runs");
    let ready = second(&condition(&pod, "Ready")["lastTransitionTime"]).expect("it is ready");
    // Both times are cut to whole seconds.
    assert!(ready.as_second() - started.as_second() >= 3, "ready at {ready}, started at {started}");
}
