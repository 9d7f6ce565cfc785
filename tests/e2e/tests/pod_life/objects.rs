//! What the API says of pods and the objects around them: generations, statuses, classes, collections, leases.

use std::time::Duration;

use kedge_e2e::{ApiProxy, HostOptions, Node, busybox_image, condition, container, eventually, manifest, script_spec};
use serde_json::{Value, json};

#[test]
fn objects_tell_the_life_of_a_pod() {
    let Some(node) = Node::up(HostOptions::default()) else { return };
    lifecycle(&node);
    let api = ApiProxy::start(&node.host);
    generations(&node, &api);
    websockets(&node, &api);
    watched(&node);
    restarted(&node);
    classes(&node);
    status_fields(&node);
    collections(&node);
    templates_and_leases(&node);
}

/// What kubectl shows of the events of a watch on pods.
struct Watch {
    process: std::process::Child,
    file: std::path::PathBuf,
}

impl Watch {
    /// Starts one on the pods with a label; `fields` is a JSONPath template of what is shown of an event.
    fn start(node: &Node, label: &str, fields: &str) -> Self {
        let file = node.host.file(&format!("watch-{label}"));
        let output = std::fs::File::create(&file).expect("a file can be made");
        let path = format!("jsonpath={fields}{{\"\\n\"}}");
        let mut command =
            node.kubectl.command(&["get", "pods", "-l", label, "-w", "--output-watch-events", "-o", &path]);
        let process = command.stdout(output).stderr(std::process::Stdio::null()).spawn().expect("kubectl runs");
        Self { process, file }
    }

    /// Everything that it showed, once `text` is in it; then it ends.
    fn until(mut self, what: &str, text: &str) -> String {
        let seen = eventually(what, Duration::from_secs(30), || {
            let seen = std::fs::read_to_string(&self.file).unwrap_or_default();
            if seen.contains(text) { Ok(seen) } else { Err(seen) }
        });
        self.process.kill().and_then(|()| self.process.wait()).expect("our own child can be ended");
        seen
    }
}

fn generation(pod: &Value) -> i64 {
    pod["metadata"]["generation"].as_i64().unwrap_or(0)
}

fn lifecycle(node: &Node) {
    node.script("life", "sleep 3600", "", "");
    node.ready("life");
    node.kubectl.run(&["patch", "pod", "life", "-p", r#"{"metadata":{"labels":{"patched":"yes"}}}"#]);
    let patch = r#"{"status":{"conditions":[{"type":"example.org/Mine","status":"True"}]}}"#;
    node.kubectl.run(&["patch", "pod", "life", "--subresource=status", "-p", patch]);
    let seen = node.get("pod", "life");
    assert_eq!(condition(&seen, "example.org/Mine")["status"], "True");
    assert_eq!(seen["metadata"]["labels"]["patched"], "yes");
    // The node's own reports leave others' conditions alone.
    node.kubectl.run(&["label", "pod", "life", "again=1"]);
    assert_eq!(condition(&node.ready("life"), "example.org/Mine")["status"], "True");
    node.kubectl.run(&["delete", "pod", "life", "--timeout=60s"]);
    assert!(node.events("life").contains("Killing Stopping container c"));
}

/// Commands and logs for clients that speak WebSocket, as browsers do.
fn websockets(node: &Node, api: &ApiProxy) {
    node.script("spoken", "echo container is alive; sleep 3600", "", "");
    node.ready("spoken");
    let pod = "/api/v1/namespaces/default/pods/spoken";
    let query = "stdout=1&stderr=1&command=echo&command=remote+execution+test";
    let (protocol, messages) = api.websocket(&format!("{pod}/exec?{query}"), "channel.k8s.io");
    let (channels, text): (Vec<u8>, Vec<u8>) = messages
        .iter()
        .filter_map(|message| Some((message.first()?, &message[1..])))
        .fold((Vec::new(), Vec::new()), |(mut channels, mut text), (channel, rest)| {
            if !rest.is_empty() {
                channels.push(*channel);
                text.extend(rest);
            }
            (channels, text)
        });
    assert_eq!(
        (protocol.as_str(), String::from_utf8_lossy(&text).as_ref()),
        ("channel.k8s.io", "remote execution test\n")
    );
    assert!(channels.iter().all(|channel| *channel == 1), "{channels:?}");
    let logs = |protocol: &str| {
        eventually("the log over a WebSocket", Duration::from_secs(30), || {
            let (chosen, messages) = api.websocket(&format!("{pod}/log?container=c"), protocol);
            let text = messages.concat();
            if text.is_empty() {
                Err("nothing".to_owned())
            } else {
                Ok((chosen, String::from_utf8_lossy(&text).into_owned()))
            }
        })
    };
    let text = "container is alive\n";
    assert_eq!(logs("binary.k8s.io"), ("binary.k8s.io".to_owned(), text.to_owned()));
    let encoded = ("base64.binary.k8s.io".to_owned(), "Y29udGFpbmVyIGlzIGFsaXZlCg==".to_owned());
    assert_eq!(logs("base64.binary.k8s.io"), encoded);
}

/// A watch shows a pod's life to its end, and its status can be replaced.
fn watched(node: &Node) {
    let watch = Watch::start(
        node,
        "time=now",
        "{.type} {.object.metadata.name} {.object.status.phase} {.object.metadata.deletionTimestamp}",
    );
    let spec = script_spec("trap 'exit 0' TERM; while true; do sleep 0.1; done", "", "");
    node.kubectl.apply(&manifest("seen", &spec).replace("{app: seen}", "{app: seen, time: now}"));
    let mut pod = node.ready("seen");
    pod["status"]["conditions"] = json!([{"type": "example.org/Put", "status": "True"}]);
    let raw = "/api/v1/namespaces/default/pods/seen/status";
    // The node writes the status too.
    eventually("the status being replaced", Duration::from_secs(30), || {
        pod["metadata"]["resourceVersion"] = node.get("pod", "seen")["metadata"]["resourceVersion"].clone();
        let put = node.kubectl.try_run_with(&["replace", "--raw", raw, "-f", "-"], &pod.to_string());
        let answer: Value = serde_json::from_str(&put.stdout).unwrap_or_default();
        let replaced = condition(&answer, "example.org/Put")["status"] == "True";
        if replaced && condition(&answer, "Ready").is_null() { Ok(()) } else { Err(put.all()) }
    });
    node.kubectl.run(&["delete", "pod", "seen", "--timeout=60s"]);
    let seen = watch.until("the watch's end of the pod", "DELETED seen");
    let first = seen.lines().next().unwrap_or_default();
    assert!(first.starts_with("ADDED seen Pending"), "{seen}");
    let marked =
        seen.lines().any(|line| line.starts_with("MODIFIED seen") && line.split(' ').count() == 4 && line.len() > 25);
    assert!(seen.contains("MODIFIED seen Running") && marked, "{seen}");
    let list = node.kubectl.run(&["get", "pods", "-l", "time=now", "-o", "name"]);
    assert_eq!(list, "");
}

/// A container that takes another image is started again at once, and its pod is never seen unready for that.
fn restarted(node: &Node) {
    const OTHER: &str = "localhost/busybox:other";
    let archive = node.host.file("other.tar");
    busybox_image(OTHER, &archive);
    let loaded = node.host.kedge("image", &["load", archive.to_str().expect("paths of tests are text")]);
    assert!(loaded.ok, "{}", loaded.all());
    let watch = Watch::start(
        node,
        "app=again",
        "{.object.status.containerStatuses[0].restartCount} {.object.status.conditions[?(@.type==\"Ready\")].status}",
    );
    node.script("again", "trap 'exit 0' TERM; while true; do sleep 0.1; done", "", "");
    node.ready("again");
    let patch = json!({"spec": {"containers": [{"name": "c", "image": OTHER}]}});
    node.kubectl.run(&["patch", "pod", "again", "-p", &patch.to_string()]);
    let seen = watch.until("the restart", "1 True");
    let states: Vec<&str> = seen.lines().skip_while(|line| *line != "0 True").collect();
    assert!(!states.is_empty() && states.iter().all(|line| line.ends_with("True")), "{seen}");
    let pod = node.get("pod", "again");
    assert_eq!(container(&pod, "c")["lastState"]["terminated"]["exitCode"], 0, "{pod:#}");
    node.kubectl.run(&["delete", "pod", "again", "--timeout=60s"]);
}

fn generations(node: &Node, api: &ApiProxy) {
    let spec = script_spec("sleep 3600", "", "  activeDeadlineSeconds: 5000\n");
    node.kubectl.apply(&manifest("counted", &spec).replace("{name: counted,", "{name: counted, generation: 100,"));
    let seen = node.ready("counted");
    assert_eq!(generation(&seen), 1);
    let observed = |seen: &Value| {
        let own = seen["status"]["observedGeneration"].as_i64().unwrap_or(0);
        let all = seen["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let kubelets = all.iter().filter(|condition| condition["type"] != "PodScheduled");
        own == generation(seen) && kubelets.into_iter().all(|c| c["observedGeneration"].as_i64() == Some(own))
    };
    node.until("counted", "its generation being observed", observed);
    node.kubectl.run(&["annotate", "pod", "counted", "a=b"]);
    assert_eq!(generation(&node.get("pod", "counted")), 1);
    let one = |seconds: i32| {
        format!(
            "url = http://localhost/api/v1/namespaces/default/pods/counted\nrequest = PATCH\noutput = /dev/null\n\
             header = \"content-type: application/merge-patch+json\"\n\
             data = \"{{\\\"spec\\\":{{\\\"activeDeadlineSeconds\\\":{seconds}}}}}\"\n"
        )
    };
    let all: Vec<String> = (0..499).map(|index| one(4000 - index)).collect();
    let patched = api.curl_each(&all);
    assert!(patched.ok, "{}", patched.all());
    let seen = node.until("counted", "the last generation being observed", observed);
    assert_eq!(generation(&seen), 500);
    node.kubectl.run(&["delete", "pod", "counted", "--wait=false", "--grace-period=20"]);
    let seen = node.get("pod", "counted");
    assert!(seen.is_null() || generation(&seen) == 501, "{seen}");
    node.kubectl.run(&["delete", "pod", "counted", "--grace-period=0", "--force", "--ignore-not-found"]);
}

fn classes(node: &Node) {
    let resources = |text: &str| format!("    resources: {text}\n");
    let both = resources("{requests: {cpu: 10m, memory: 8Mi}, limits: {cpu: 10m, memory: 8Mi}}");
    for (name, container, class) in [
        ("guaranteed", both, "Guaranteed"),
        ("burstable", resources("{requests: {cpu: 10m}}"), "Burstable"),
        ("best-effort", String::new(), "BestEffort"),
    ] {
        node.script(name, "sleep 3600", &container, "");
        assert_eq!(node.get("pod", name)["status"]["qosClass"], class);
    }
}

fn status_fields(node: &Node) {
    let container_yaml =
        "    volumeMounts: [{name: work, mountPath: /work, readOnly: true}]\n    resources: {requests: {cpu: 10m}}\n";
    node.script("full", "sleep 3600", container_yaml, "  volumes: [{name: work, emptyDir: {}}]\n");
    let seen = node.ready("full");
    let types: Vec<&str> = seen["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|condition| condition["type"].as_str())
        .collect();
    let mut sorted = types.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["ContainersReady", "Initialized", "PodReadyToStartContainers", "PodScheduled", "Ready"]);
    let status = container(&seen, "c");
    let mount = json!({"name": "work", "mountPath": "/work", "readOnly": true, "recursiveReadOnly": "Disabled"});
    let mounts = status["volumeMounts"].as_array().cloned().unwrap_or_default();
    assert!(mounts.contains(&mount), "{mounts:?}");
    assert!(mounts.iter().any(|mount| mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"));
    assert_eq!(status["allocatedResources"], json!({"cpu": "10m"}));
    assert_eq!(status["resources"], json!({"requests": {"cpu": "10m"}}));
    assert_eq!(
        (&status["started"], &status["ready"], &status["restartCount"]),
        (&json!(true), &json!(true), &json!(0))
    );
    assert!(status["imageID"].as_str().is_some_and(|id| id.contains("sha256:")), "{status}");
    assert_eq!(seen["status"]["allocatedResources"], json!({"cpu": "10m"}));
    assert_eq!(seen["status"]["resources"]["requests"], json!({"cpu": "10m"}));
}

fn collections(node: &Node) {
    for name in ["many-1", "many-2", "many-3"] {
        node.script(name, "sleep 3600", "", "");
        node.kubectl.run(&["label", "pod", name, "type=many"]);
    }
    node.kubectl.run(&["delete", "pods", "-l", "type=many", "--timeout=60s"]);
    for name in ["many-1", "many-2", "many-3"] {
        node.gone(name);
    }
}

fn templates_and_leases(node: &Node) {
    let template = "apiVersion: v1\nkind: PodTemplate\nmetadata: {name: t, labels: {set: a}}\ntemplate: {metadata: {labels: {tier: web}}, spec: {containers: [{name: c, image: i}]}}\n";
    node.kubectl.apply(template);
    node.kubectl.run(&["patch", "podtemplate", "t", "-p", r#"{"metadata":{"labels":{"patched":"yes"}}}"#]);
    let mut seen = node.get("podtemplate", "t");
    assert_eq!(seen["metadata"]["labels"]["patched"], "yes");
    seen["metadata"]["annotations"] = json!({"updated": "true"});
    let replaced = node.kubectl.try_run_with(&["replace", "-f", "-"], &seen.to_string());
    assert!(replaced.ok, "{}", replaced.all());
    assert_eq!(node.get("podtemplate", "t")["metadata"]["annotations"]["updated"], "true");
    node.kubectl.run(&["delete", "podtemplates", "-l", "set=a"]);
    assert!(node.get("podtemplate", "t").is_null());
    let lease = |node: &Node| {
        let path = "jsonpath={.spec.holderIdentity} {.spec.renewTime}";
        node.kubectl.run(&["get", "lease", "node-1", "-n", "kube-node-lease", "-o", path])
    };
    let before = lease(node);
    assert!(before.starts_with("node-1 "), "{before}");
    eventually("the node's lease being renewed", Duration::from_secs(40), || {
        let now = lease(node);
        if now == before { Err(now) } else { Ok(()) }
    });
}
