//! Lifecycle hooks and the end of pods: what runs after the start and before the stop, and in which order things end.

use std::time::Duration;

use kedge_e2e::{BUSYBOX, HostOptions, Node, container, eventually, manifest, script_spec};

/// A pod that answers on port 8080 and prints what it is asked for.
fn listener(node: &Node, name: &str) -> String {
    let script = "cd /tmp && mkdir www && touch www/post-exec www/pre-exec www/post-http www/pre-http && exec httpd -f -vv -p 8080 -h /tmp/www 2>&1";
    node.script(name, script, "    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}\n", "");
    node.address(name)
}

fn asked(node: &Node, listener: &str, path: &str) {
    eventually(&format!("a request for {path}"), Duration::from_secs(30), || {
        let seen = node.logs(listener, None);
        if seen.contains(path) { Ok(()) } else { Err(seen) }
    });
}

#[test]
fn hooks_run_after_the_start_and_before_the_stop() {
    let Some(node) = Node::up(HostOptions::default()) else { return };
    let address = listener(&node, "listener");
    let get = |path: &str| format!("{{httpGet: {{host: {address}, port: 8080, path: \"/{path}\"}}}}");
    let exec = |path: &str| format!("{{exec: {{command: [curl, -sS, 'http://{address}:8080/{path}']}}}}");
    let hooked = |post: &str, pre: &str| format!("    lifecycle: {{postStart: {post}, preStop: {pre}}}\n");
    let forever = "trap 'exit 0' TERM; while true; do sleep 0.2; done";
    node.script("by-exec", forever, &hooked(&exec("post-exec"), &exec("pre-exec")), "");
    node.script("by-http", forever, &hooked(&get("post-http"), &get("pre-http")), "");
    node.script("by-sleep", forever, &hooked("{sleep: {seconds: 1}}", "{sleep: {seconds: 1}}"), "");
    let failing = "    lifecycle: {postStart: {exec: {command: ['false']}}}\n";
    node.script("failing", forever, failing, "");
    for pod in ["by-exec", "by-http", "by-sleep"] {
        node.ready(pod);
    }
    for path in ["post-exec", "post-http"] {
        asked(&node, "listener", path);
    }
    node.event("failing", "FailedPostStartHook PostStartHook failed");
    node.event("failing", "Killing FailedPostStartHook");
    node.kubectl.run(&["delete", "pod", "by-exec", "by-http", "by-sleep", "failing", "--timeout=60s"]);
    for path in ["pre-exec", "pre-http"] {
        asked(&node, "listener", path);
    }
    node.event("by-exec", "Killing Stopping container c");
    order(&node);
    signals(&node);
}

/// The spec's own signal ends a container, and not the one that runtimes send by themselves.
fn signals(node: &Node) {
    let ends = node.host.file("signals");
    std::fs::create_dir_all(&ends).expect("a directory can be made");
    let script = "trap 'echo usr1 > /ends/$HOSTNAME; exit 0' USR1; trap 'echo term > /ends/$HOSTNAME; exit 0' TERM; while true; do sleep 0.1; done";
    let mount = "    volumeMounts: [{name: ends, mountPath: /ends}]\n";
    let pod = format!("  os: {{name: linux}}\n  volumes: [{{name: ends, hostPath: {{path: {}}}}}]\n", ends.display());
    let own = format!("    lifecycle: {{stopSignal: SIGUSR1}}\n{mount}");
    // Long enough to be heard.
    let patient = |spec: String| spec.replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 30");
    node.pod("own-signal", &patient(script_spec(script, &own, &pod)));
    node.pod("usual-signal", &patient(script_spec(script, mount, &pod)));
    let seen = node.ready("own-signal");
    assert_eq!(container(&seen, "c")["stopSignal"], "SIGUSR1", "{}", seen["status"]);
    node.ready("usual-signal");
    // SIGUSR1 on a container that does not listen ends it too, but never within its grace.
    node.script(
        "deaf",
        "trap '' USR1 TERM; while true; do sleep 0.1; done",
        "    lifecycle: {stopSignal: SIGUSR1}\n",
        "  os: {name: linux}\n",
    );
    node.ready("deaf");
    node.kubectl.run(&["delete", "pod", "own-signal", "usual-signal", "deaf", "--timeout=60s"]);
    for (pod, signal) in [("own-signal", "usr1\n"), ("usual-signal", "term\n")] {
        assert_eq!(std::fs::read_to_string(ends.join(pod)).expect("the container wrote it"), signal, "{pod}");
    }
    let unnamed = manifest("no-os", &script_spec("true", "    lifecycle: {stopSignal: SIGUSR1}\n", ""));
    let refused = node.kubectl.try_run_with(&["create", "-f", "-"], &unnamed);
    assert!(refused.stderr.contains("may not be set for containers with empty `spec.os.name`"), "{}", refused.all());
}

/// The sidecar's preStop hook runs at once, its signal comes after the app container's end.
fn order(node: &Node) {
    let ends = node.host.file("ends");
    std::fs::create_dir_all(&ends).expect("a directory can be made");
    let mount = "volumeMounts: [{name: ends, mountPath: /ends}]";
    let on_term = |text: &str, delay: &str| {
        format!("trap 'sleep {delay}; echo {text} >> /ends/log; exit 0' TERM; while true; do sleep 0.1; done")
    };
    let sidecar = |name: &str, hook: &str| {
        format!(
            "  - name: {name}\n    image: '{BUSYBOX}'\n    restartPolicy: Always\n    command: [sh, -c, \"{}\"]\n    {mount}\n{hook}",
            on_term(name, "0")
        )
    };
    let hook = "    lifecycle: {preStop: {exec: {command: [sh, -c, 'echo hook >> /ends/log']}}}\n";
    let spec = format!(
        "  terminationGracePeriodSeconds: 30\n  initContainers:\n{}{}  containers:\n  - name: app\n    image: '{BUSYBOX}'\n    command: [sh, -c, \"{}\"]\n    {mount}\n  volumes: [{{name: ends, hostPath: {{path: {}}}}}]\n",
        sidecar("first", hook),
        sidecar("second", ""),
        on_term("app", "1"),
        ends.display()
    );
    node.kubectl.apply(&manifest("ordered", &spec));
    let ready = node.ready("ordered");
    assert_eq!(container(&ready, "first")["started"], true);
    node.kubectl.run(&["delete", "pod", "ordered", "--timeout=60s"]);
    let log = std::fs::read_to_string(ends.join("log")).expect("the containers wrote it");
    assert_eq!(log, "hook\napp\nsecond\nfirst\n");
}
