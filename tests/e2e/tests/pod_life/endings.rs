//! How containers and pods end, and begin again: exit codes, messages, restart policies, init containers, sidecars,
//! ephemeral containers and deadlines.

use std::time::Duration;

use kedge_e2e::{BUSYBOX, HostOptions, Node, condition, container, eventually};
use serde_json::{Value, json};

fn terminated<'a>(pod: &'a Value, name: &str) -> &'a Value {
    &container(pod, name)["state"]["terminated"]
}

#[test]
fn containers_end_with_words_and_codes() {
    let Some(node) = Node::up(HostOptions::default()) else { return };
    let fallback = "    terminationMessagePolicy: FallbackToLogsOnError\n";
    node.script("file", "printf DONE > /dev/termination-log", "", "");
    let custom = "    terminationMessagePath: /dev/termination-custom-log\n    securityContext: {runAsUser: 1000}\n";
    node.script("non-root", "printf DONE > /dev/termination-custom-log", custom, "");
    node.script("from-log", "printf DONE; exit 1", fallback, "");
    node.script("no-log", "printf DONE", fallback, "");
    node.script("file-first", "printf LOG; printf OK > /dev/termination-log", fallback, "");
    node.script("fails", "exit 3", "", "");
    node.script("not-there", "true", "    command: [/nope]\n", "");
    let policy = |policy: &str| {
        let script =
            "echo x >> /count/n; n=$(wc -l < /count/n); [ $n -eq 1 ] && exit 1; [ $n -eq 2 ] && exit 0; sleep 3600";
        kedge_e2e::script_spec(
            script,
            "    volumeMounts: [{name: count, mountPath: /count}]\n",
            "  volumes: [{name: count, emptyDir: {}}]\n",
        )
        .replace("restartPolicy: Never", &format!("restartPolicy: {policy}"))
    };
    for (name, wanted) in [("always", "Always"), ("on-failure", "OnFailure"), ("never", "Never")] {
        node.pod(name, &policy(wanted));
    }
    for (pod, phase, code, reason, message) in [
        ("file", "Succeeded", 0, "Completed", json!("DONE")),
        ("non-root", "Succeeded", 0, "Completed", json!("DONE")),
        ("from-log", "Failed", 1, "Error", json!("DONE")),
        ("no-log", "Succeeded", 0, "Completed", Value::Null),
        ("file-first", "Succeeded", 0, "Completed", json!("OK")),
        ("fails", "Failed", 3, "Error", Value::Null),
        ("never", "Failed", 1, "Error", Value::Null),
    ] {
        let seen = node.ended(pod, phase);
        let end = terminated(&seen, "c");
        assert_eq!(
            (&end["exitCode"], &end["reason"], &end["message"]),
            (&json!(code), &json!(reason), &message),
            "{pod}"
        );
        assert_eq!(container(&seen, "c")["restartCount"], 0, "{pod}");
        let ready = condition(&seen, "Ready");
        let why = if phase == "Failed" { "PodFailed" } else { "PodCompleted" };
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!(why)), "{pod}");
    }
    assert_eq!(container(&node.ended("on-failure", "Succeeded"), "c")["restartCount"], 1);
    let running = node.until("always", "its third run", |seen| container(seen, "c")["restartCount"] == 2);
    assert_eq!(running["status"]["phase"], "Running");
    assert_eq!(container(&running, "c")["lastState"]["terminated"]["exitCode"], 0);
    node.event("always", "BackOff Back-off restarting failed container c in pod always_default(");
    for event in ["Created Container created", "Started Container started", "Pulled Container image"] {
        assert!(node.events("always").contains(event), "{}", node.events("always"));
    }
    node.kubectl.run(&["delete", "pod", "fails", "--timeout=30s"]);
    own_policies(&node);
    deadline(&node);
}

/// Containers with restart policies and rules of their own.
fn own_policies(node: &Node) {
    let script = "echo x >> /count/n; n=$(wc -l < /count/n); [ $n -eq 1 ] && exit 42; exit 7";
    let rules = "    restartPolicy: Never
    restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]
    volumeMounts: [{name: count, mountPath: /count}]
";
    node.script("ruled", script, rules, "  volumes: [{name: count, emptyDir: {}}]\n");
    let seen = node.ended("ruled", "Failed");
    assert_eq!((&container(&seen, "c")["restartCount"], &terminated(&seen, "c")["exitCode"]), (&json!(1), &json!(7)));
}

fn deadline(node: &Node) {
    node.script("limited", "sleep 3600", "", "  activeDeadlineSeconds: 3600\n");
    node.ready("limited");
    node.kubectl.run(&["patch", "pod", "limited", "-p", r#"{"spec":{"activeDeadlineSeconds":1}}"#]);
    let seen = node.ended("limited", "Failed");
    assert_eq!(seen["status"]["reason"], "DeadlineExceeded");
    assert_eq!(seen["status"]["message"], "Pod was active on the node longer than the specified deadline");
}

fn init(name: &str, script: &str, more: &str) -> String {
    format!("  - name: {name}\n    image: '{BUSYBOX}'\n    command: [sh, -c, '{script}']\n{more}")
}

fn with_inits(policy: &str, inits: &str, script: &str) -> String {
    format!(
        "  restartPolicy: {policy}\n  terminationGracePeriodSeconds: 1\n  initContainers:\n{inits}  containers:\n{}",
        init("app", script, "")
    )
}

#[test]
fn init_containers_sidecars_and_ephemeral_containers() {
    let Some(node) = Node::up(HostOptions::default()) else { return };
    let good = init("one", "true", "") + &init("two", "true", "");
    let bad = init("one", "false", "") + &init("two", "true", "");
    node.pod("never-good", &with_inits("Never", &good, "true"));
    node.pod("always-good", &with_inits("Always", &good, "sleep 3600"));
    node.pod("never-bad", &with_inits("Never", &bad, "true"));
    node.pod("always-bad", &with_inits("Always", &bad, "true"));
    let sidecar = init("side", "sleep 3600", "    restartPolicy: Always\n") + &init("late", "true", "");
    node.pod("job", &with_inits("Never", &sidecar, "sleep 2"));
    let seen = node.ended("never-good", "Succeeded");
    for name in ["one", "two"] {
        assert_eq!((&terminated(&seen, name)["exitCode"], &container(&seen, name)["ready"]), (&json!(0), &json!(true)));
    }
    let initialized = condition(&seen, "Initialized");
    assert_eq!((&initialized["status"], &initialized["reason"]), (&json!("True"), &json!("PodCompleted")));
    let seen = node.ready("always-good");
    assert_eq!(condition(&seen, "Initialized")["status"], "True");
    let seen = node.ended("never-bad", "Failed");
    assert_eq!(terminated(&seen, "one")["exitCode"], 1);
    assert_eq!(container(&seen, "app")["state"]["waiting"]["reason"], "PodInitializing");
    let initialized = condition(&seen, "Initialized");
    assert_eq!(
        (&initialized["status"], &initialized["reason"], &initialized["message"]),
        (&json!("False"), &json!("ContainersNotInitialized"), &json!("containers with incomplete status: [one two]"))
    );
    let seen = node.until("always-bad", "two restarts", |seen| container(seen, "one")["restartCount"] == 2);
    assert_eq!(seen["status"]["phase"], "Pending");
    assert_eq!(container(&seen, "app")["state"]["waiting"]["reason"], "PodInitializing");
    // A sidecar does not keep its pod from succeeding.
    let seen = node.ended("job", "Succeeded");
    assert_eq!(container(&seen, "side")["restartCount"], 0);
    assert!(!terminated(&seen, "side").is_null(), "{}", seen["status"]);
    ephemeral(&node);
}

fn ephemeral(node: &Node) {
    let debug =
        ["debug", "always-good", "--image", BUSYBOX, "--target=app", "-c", "dbg", "--", "sh", "-c", "ps; sleep 3600"];
    node.kubectl.run(&debug);
    let running =
        node.until("always-good", "the debugger", |seen| !container(seen, "dbg")["state"]["running"].is_null());
    assert!(!container(&running, "dbg")["containerID"].is_null());
    eventually("the target's processes in the debugger's list", Duration::from_secs(20), || {
        let seen = node.logs("always-good", Some("dbg"));
        if seen.contains("sleep 3600") { Ok(()) } else { Err(seen) }
    });
    let exec = node.kubectl.run(&["exec", "always-good", "-c", "dbg", "--", "echo", "inside"]);
    assert_eq!(exec, "inside\n");
    // A second one, through the API, beside the first.
    let more =
        format!(r#"{{"spec":{{"ephemeralContainers":[{{"name":"more","image":"{BUSYBOX}","command":["true"]}}]}}}}"#);
    node.kubectl.run(&["patch", "pod", "always-good", "--subresource=ephemeralcontainers", "-p", &more]);
    let over = node.until("always-good", "the second's end", |seen| !terminated(seen, "more").is_null());
    assert_eq!(terminated(&over, "more")["exitCode"], 0);
    assert_eq!(over["status"]["phase"], "Running");
    assert_eq!(container(&over, "app")["restartCount"], 0);
}
