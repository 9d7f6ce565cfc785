//! What a node says of itself and lets people do, with real containers and kubectl: figures, logs, exec, attach, debug,
//! port-forward, and who is turned away.

use std::io::{Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use kedge_e2e::{Host, HostOptions, Kubectl, busybox_image, eventually};

const BUSYBOX: &str = "localhost/busybox:test";
const PATIENCE: Duration = Duration::from_secs(90);

fn node() -> Option<(Host, Kubectl)> {
    let host = Host::up(HostOptions::default())?;
    let archive = host.file("busybox.tar");
    busybox_image(BUSYBOX, &archive);
    let loaded = host.kedge("image", &["load", archive.to_str().expect("text")]);
    assert!(loaded.ok, "{}", loaded.all());
    let kubectl = host.kubectl();
    Some((host, kubectl))
}

fn pod(name: &str, containers: &[(&str, &str)]) -> String {
    let container = |(name, script): &(&str, &str)| {
        format!("  - {{name: {name}, image: '{BUSYBOX}', stdin: {}, command: [sh, -c, '{script}']}}\n", *name == "in")
    };
    let containers: String = containers.iter().map(container).collect();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\n\
         spec:\n  terminationGracePeriodSeconds: 1\n  containers:\n{containers}"
    )
}

fn run_pod(kubectl: &Kubectl, name: &str, containers: &[(&str, &str)]) {
    kubectl.apply(&pod(name, containers));
    let ready = kubectl.try_run(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=90s"]);
    assert!(ready.ok, "{}\n{}", ready.all(), kubectl.try_run(&["describe", "pod", name]).all());
}

/// `kubectl top`, the metrics API, and every document of figures that a node has.
#[test]
fn a_node_says_what_is_used() {
    let Some((_host, kubectl)) = node() else { return };
    run_pod(&kubectl, "busy", &[("spin", "while true; do true; done"), ("idle", "sleep 3600")]);
    let top = eventually("figures of the pod", PATIENCE, || {
        let top = kubectl.try_run(&["top", "pod", "busy", "--containers"]);
        if top.ok && top.stdout.contains("spin") { Ok(top.stdout) } else { Err(top.all()) }
    });
    assert!(top.starts_with("POD") && top.contains("idle"), "{top}");
    let cores = |line: &str| -> u64 {
        let word = line.split_whitespace().find(|word| word.ends_with('m')).unwrap_or("0m");
        word.trim_end_matches('m').parse().expect("a number of millicores")
    };
    let spin = top.lines().find(|line| line.contains("spin")).map(cores).expect("the container is listed");
    let idle = top.lines().find(|line| line.contains("idle")).map(cores).expect("the container is listed");
    assert!(spin > 100 && idle < spin, "{top}");
    let nodes = eventually("figures of the node", PATIENCE, || {
        let top = kubectl.try_run(&["top", "node"]);
        if top.ok { Ok(top.stdout) } else { Err(top.all()) }
    });
    assert!(nodes.contains("node-1") && nodes.contains('%'), "{nodes}");
    the_metrics_api(&kubectl);
    documents_of_figures(&kubectl);
}

fn the_metrics_api(kubectl: &Kubectl) {
    let services = kubectl.run(&["get", "apiservices", "v1beta1.metrics.k8s.io"]);
    assert!(services.contains("Local") && services.contains("True"), "{services}");
    let listed = kubectl.run(&["api-resources", "--api-group=metrics.k8s.io"]);
    assert!(listed.contains("NodeMetrics") && listed.contains("PodMetrics"), "{listed}");
    let table = kubectl.run(&["get", "podmetrics"]);
    assert!(table.starts_with("NAME") && table.contains("busy"), "{table}");
    let raw = kubectl.run(&["get", "--raw", "/apis/metrics.k8s.io/v1beta1/pods?labelSelector=app%3Dnone"]);
    assert!(raw.contains("\"items\":[]"), "{raw}");
    let may = || kubectl.try_run(&["auth", "can-i", "list", "pods.metrics.k8s.io", "--as=jane"]).stdout;
    assert_eq!(may().trim(), "no");
    kubectl.run(&["create", "rolebinding", "jane", "--clusterrole=view", "--user=jane"]);
    eventually("the aggregated role", PATIENCE, || {
        let answer = may();
        if answer.trim() == "yes" { Ok(()) } else { Err(answer) }
    });
}

fn documents_of_figures(kubectl: &Kubectl) {
    let raw = |path: &str| kubectl.run(&["get", "--raw", &format!("/api/v1/nodes/node-1/proxy/{path}")]);
    let summary: serde_json::Value = serde_json::from_str(&raw("stats/summary")).expect("it is JSON");
    let node = &summary["node"];
    for field in ["/cpu/usageNanoCores", "/memory/workingSetBytes", "/fs/capacityBytes", "/runtime/imageFs/usedBytes"] {
        assert!(node.pointer(field).is_some_and(|value| value.as_u64() > Some(0)), "{field} in {node:#}");
    }
    let pods = summary["pods"].as_array().expect("it has pods");
    let busy = pods.iter().find(|pod| pod["podRef"]["name"] == "busy").expect("the pod is there");
    for field in [
        "/cpu/usageCoreNanoSeconds",
        "/network/rxBytes",
        "/ephemeral-storage/usedBytes",
        "/process_stats/process_count",
    ] {
        assert!(busy.pointer(field).is_some_and(|value| value.as_u64() > Some(0)), "{field} in {busy:#}");
    }
    assert_eq!(busy["containers"].as_array().map(Vec::len), Some(2));
    assert!(busy["containers"][0]["rootfs"]["usedBytes"].is_u64(), "{busy:#}");
    let short: serde_json::Value =
        serde_json::from_str(&raw("stats/summary?only_cpu_and_memory=true")).expect("it is JSON");
    assert!(short["pods"][0]["memory"]["workingSetBytes"].is_u64(), "{short:#}");
    let has = |path: &str, lines: &[&str]| {
        let text = raw(path);
        for line in lines {
            assert!(text.lines().any(|known| known.starts_with(line)), "{line} in {path}:\n{text}");
        }
    };
    has(
        "metrics/resource",
        &[
            "node_cpu_usage_seconds_total ",
            "container_memory_working_set_bytes{container=\"spin\"",
            "resource_scrape_error 0",
        ],
    );
    has(
        "metrics/cadvisor",
        &[
            "container_cpu_usage_seconds_total{container=\"spin\",cpu=\"total\",id=\"/kubepods/besteffort/pod",
            "container_cpu_usage_seconds_total{container=\"\",cpu=\"total\",id=\"/\"",
            "container_memory_working_set_bytes{container=\"idle\"",
            "container_network_receive_bytes_total{container=\"\"",
            "container_fs_usage_bytes{container=\"spin\"",
            "machine_cpu_cores{",
        ],
    );
    has(
        "metrics",
        &[
            "kubelet_running_pods ",
            "kubelet_running_containers{container_state=\"running\"} ",
            "kubelet_runtime_operations_total{operation_type=\"run_podsandbox\"} ",
            "kubelet_pleg_relist_duration_seconds_count ",
            "kubelet_pod_start_duration_seconds_count ",
            "kubelet_pod_worker_duration_seconds_count{operation_type=\"sync\"} ",
            "kubelet_node_name{node=\"node-1\"} 1",
        ],
    );
}

/// Health, configuration, pods, and the machine's logs.
#[test]
fn a_node_shows_its_state_and_its_logs() {
    let Some((host, kubectl)) = node() else { return };
    run_pod(&kubectl, "one", &[("c", "sleep 3600")]);
    let raw = |path: &str| kubectl.run(&["get", "--raw", &format!("/api/v1/nodes/node-1/proxy/{path}")]);
    assert_eq!(raw("healthz"), "ok");
    assert_eq!(raw("healthz/syncloop"), "ok");
    let config: serde_json::Value = serde_json::from_str(&raw("configz")).expect("it is JSON");
    assert_eq!(config["kubeletconfig"]["kind"], "KubeletConfiguration");
    assert!(raw("pods").contains("\"name\":\"one\""));
    assert!(raw("runningpods/").contains("\"name\":\"one\""));
    let name = format!("kedge-e2e-{}", std::process::id());
    let file = format!("/var/log/{name}.log");
    std::fs::write(&file, "a line of the machine\n").expect("the log directory can be written to");
    let results = [
        "logs/".to_owned(),
        format!("logs/{name}.log"),
        format!("logs/?query={name}"),
        "logs/?query=kedge-none".to_owned(),
    ]
    .map(|path| raw(&path));
    let outside = kubectl.try_run(&["get", "--raw", "/api/v1/nodes/node-1/proxy/logs/..%2f..%2fetc/passwd"]);
    std::fs::remove_file(&file).expect("it is our own");
    assert!(results[0].contains(&format!("<a href=\"{name}.log\">")), "{}", results[0]);
    assert_eq!(results[1], "a line of the machine\n");
    assert_eq!(results[2], "a line of the machine\n");
    assert!(results[3].contains("log not found for kedge-none"), "{}", results[3]);
    assert!(!outside.ok && !outside.stdout.contains("root:"), "{}", outside.all());
    let mut proxy = Background(
        kubectl
            .command(&["proxy", "--port=18001"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs"),
    );
    eventually("an answer through kubectl proxy", PATIENCE, || {
        let url = "http://127.0.0.1:18001/api/v1/nodes/node-1/proxy/healthz";
        let answer = host.run("curl", &["-sS", "--max-time", "5", url]);
        if answer.stdout == "ok" { Ok(()) } else { Err(answer.all()) }
    });
    proxy.end();
}

/// Who asks the node itself is authenticated and authorized.
#[test]
fn strangers_are_turned_away() {
    let Some((host, kubectl)) = node() else { return };
    run_pod(&kubectl, "one", &[("c", "sleep 3600")]);
    let ask = |token: &str, path: &str| {
        let url = format!("https://{}:10250/{path}", host.address());
        let header = format!("Authorization: Bearer {token}");
        let mut arguments = vec!["-sSk", "--max-time", "10", "-w", " %{http_code}", url.as_str()];
        if !token.is_empty() {
            arguments.extend(["-H", &header]);
        }
        host.run("curl", &arguments).stdout
    };
    let url = format!("https://{}:10250/pods", host.address());
    let version = host.run("curl", &["-sSk", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_version}", &url]);
    // Upstream's API server loses the last bytes of a log over a WebSocket where a kubelet speaks HTTP/1.1 only.
    assert_eq!(version.stdout, "2");
    assert_eq!(ask("", "pods"), "Unauthorized 401");
    assert_eq!(ask("no-token", "pods"), "Unauthorized 401");
    kubectl.run(&["create", "serviceaccount", "reader"]);
    let token = kubectl.run(&["create", "token", "reader"]);
    let user = "system:serviceaccount:default:reader";
    let forbidden = |verb: &str, list: &str| {
        format!("Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{list}])\n 403")
    };
    assert_eq!(ask(&token, "pods"), forbidden("get", "pods proxy"));
    assert_eq!(ask(&token, "metrics/cadvisor"), forbidden("get", "metrics"));
    assert_eq!(ask(&token, "logs/"), forbidden("get", "log"));
    for (resource, path) in [
        ("nodes/metrics", "metrics/resource"),
        ("nodes/configz", "configz"),
        ("nodes/healthz", "healthz"),
        ("nodes/pods", "pods"),
    ] {
        let name = format!("reads-{}", resource.replace('/', "-"));
        // Another path, so that no refusal of before is remembered.
        kubectl.run(&["create", "serviceaccount", &name]);
        let token = kubectl.run(&["create", "token", &name]);
        kubectl.run(&["create", "clusterrole", &name, "--verb=get", &format!("--resource={resource}")]);
        let account = format!("--serviceaccount=default:{name}");
        kubectl.run(&["create", "clusterrolebinding", &name, &format!("--clusterrole={name}"), &account]);
        let answer = ask(&token, path);
        assert!(answer.ends_with(" 200"), "{resource}: {answer}");
        assert!(ask(&token, "run/default/one/c").ends_with(" 403"));
    }
    assert!(ask(&token, "debug/pprof/").ends_with(" 403"), "also what is not there asks for rights");
}

/// Every option of `kubectl logs`, also while the file is rotated under a reader.
#[test]
fn logs_with_every_option() {
    let Some((host, kubectl)) = node() else { return };
    // The runtime reads the two streams one beside the other: only time puts their lines in order.
    let script = "echo first; sleep 2; echo problem >&2; sleep 2; echo last; sleep 3600";
    run_pod(&kubectl, "talker", &[("a", script), ("b", "echo from-b; sleep 3600")]);
    eventually("the last line", PATIENCE, || {
        let log = kubectl.run(&["logs", "talker", "-c", "a"]);
        if log.contains("last") { Ok(()) } else { Err(log) }
    });
    let logs = |arguments: &[&str]| kubectl.run(&[&["logs", "talker"], arguments].concat());
    assert_eq!(logs(&["-c", "b"]), "from-b\n");
    assert_eq!(logs(&["-c", "a", "--tail=1"]), "last\n");
    assert_eq!(logs(&["-c", "a", "--limit-bytes=3"]), "fir");
    let stamped = logs(&["-c", "a", "--timestamps", "--tail=1"]);
    let (time, rest) = stamped.split_once(' ').expect("a time and a line");
    assert_eq!(rest, "last\n");
    assert_eq!(logs(&["-c", "a", &format!("--since-time={time}")]), "last\n");
    assert_eq!(logs(&["-c", "a", "--since=1h"]).lines().count(), 3);
    assert!(
        kubectl.run(&["logs", "-l", "app=talker", "--all-containers", "--prefix"]).contains("[pod/talker/b] from-b")
    );
    let unnamed = kubectl.try_run(&["logs", "talker", "-c", "none"]);
    assert!(unnamed.stderr.contains("container none is not valid for pod talker"), "{}", unnamed.all());
    previous_logs(&kubectl);
    follow_over_a_rotation(&host, &kubectl);
}

fn previous_logs(kubectl: &Kubectl) {
    kubectl.apply(&pod("again", &[("c", "echo run; sleep 1; exit 3")]));
    eventually("the log before the restart", PATIENCE, || {
        let log = kubectl.try_run(&["logs", "again", "--previous"]);
        if log.stdout == "run\n" { Ok(()) } else { Err(log.all()) }
    });
}

/// Lines come once and in order while the kubelet moves the file away beneath: it does so at 10 MiB. The container
/// waits for its reader, as one who comes after the first rotation sees only what was written since.
fn follow_over_a_rotation(host: &Host, kubectl: &Kubectl) {
    let script = "echo ready; until [ -e /go ]; do sleep 0.1; done; seq 1 250000; i=0; while true; do i=$((i+1)); echo tick-$i; sleep 0.2; done";
    run_pod(kubectl, "counter", &[("c", script)]);
    let mut follow = Background(
        kubectl
            .command(&["logs", "-f", "counter"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs"),
    );
    let mut reader = Lines::of(follow.0.stdout.take().expect("it is piped"));
    reader.until("ready\n");
    kubectl.run(&["exec", "counter", "--", "touch", "/go"]);
    let uid = kubectl.run(&["get", "pod", "counter", "-o", "jsonpath={.metadata.uid}"]);
    let logs = find(&host.data_dir(), &format!("default_counter_{uid}")).expect("the pod has logs").join("c");
    let ticks = eventually("a rotated log", PATIENCE, || {
        reader.take_what_is_there();
        let names: Vec<String> = std::fs::read_dir(&logs)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        let rotated = names.iter().any(|name| name.starts_with("0.log."));
        let ticks = reader.text().matches("tick-").count();
        if rotated { Ok(ticks) } else { Err(format!("{names:?}, {ticks} ticks")) }
    });
    let last = ticks + 20;
    reader.until(&format!("tick-{last}\n"));
    follow.end();
    let text = reader.text();
    let expected = (1..=250_000).map(|n: u32| n.to_string()).chain((1..=last).map(|tick| format!("tick-{tick}")));
    for (index, (line, expected)) in text.lines().skip(1).zip(expected).enumerate() {
        assert_eq!(line, expected, "line {index}");
    }
}

/// A file or directory of this name below a directory.
fn find(directory: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy() == name {
                return Some(entry.path());
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(entry.path());
            }
        }
    }
    None
}

/// Exec and port-forward over both protocols, attach, and ephemeral containers.
#[test]
fn people_get_into_containers() {
    let Some((host, kubectl)) = node() else { return };
    run_pod(&kubectl, "target", &[("in", "while read line; do echo got $line; done"), ("c", "sleep 3600")]);
    for websockets in ["true", "false"] {
        let mut command = kubectl.command(&["exec", "-i", "target", "-c", "c", "--", "cat"]);
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets);
        assert_eq!(piped(command, "through\n"), "through\n", "websockets={websockets}");
        forward(&host, &kubectl, websockets);
    }
    attach(&kubectl);
    debug(&kubectl);
    terminal(&kubectl);
}

fn piped(mut command: Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn forward(host: &Host, kubectl: &Kubectl, websockets: &str) {
    let serve = "while true; do echo hello | nc -l -p 8080; done";
    let name = format!("server-{websockets}");
    run_pod(kubectl, &name, &[("c", serve)]);
    let mut command = kubectl.command(&["port-forward", &format!("pod/{name}"), "18080:8080"]);
    command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = Background(command.spawn().expect("it runs"));
    eventually("an answer through port-forward", PATIENCE, || {
        let answer = host.run("curl", &["-sS", "--http0.9", "--max-time", "3", "http://127.0.0.1:18080/"]);
        if answer.stdout.contains("hello") { Ok(()) } else { Err(answer.all()) }
    });
    child.end();
}

fn attach(kubectl: &Kubectl) {
    let mut command = kubectl.command(&["attach", "-i", "target", "-c", "in"]);
    let mut child = Background(
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it runs"),
    );
    let mut input = child.0.stdin.take().expect("it is piped");
    let mut reader = Lines::of(child.0.stdout.take().expect("it is piped"));
    input.write_all(b"word\n").expect("it reads");
    reader.until("got word\n");
    child.end();
    assert!(kubectl.run(&["logs", "target", "-c", "in"]).contains("got word"));
}

fn debug(kubectl: &Kubectl) {
    let image = format!("--image={BUSYBOX}");
    let command = ["debug", "target", "-c", "look", &image, "--target=c", "--image-pull-policy=Never"];
    kubectl.run(&[&command[..], &["--", "sh", "-c", "ps; sleep 3600"]].concat());
    eventually("the ephemeral container", PATIENCE, || {
        let log = kubectl.try_run(&["logs", "target", "-c", "look"]);
        // It shares the processes of its target.
        if log.stdout.contains("sleep 3600") && log.stdout.contains("PID") { Ok(()) } else { Err(log.all()) }
    });
    let command = ["debug", "node/node-1", &image, "--image-pull-policy=Never", "--profile=general"];
    let made = kubectl.run(&[&command[..], &["--", "sh", "-c", "ls /host; sleep 3600"]].concat());
    assert!(made.contains("Creating debugging pod"), "{made}");
    let name = made.split_whitespace().find(|word| word.starts_with("node-debugger-")).expect("it is named").to_owned();
    eventually("the files of the node", PATIENCE, || {
        let log = kubectl.try_run(&["logs", &name]);
        if log.stdout.lines().any(|line| line == "etc") { Ok(()) } else { Err(log.all()) }
    });
}

/// A terminal of its own, made by `script`, because kubectl wants one.
fn terminal(kubectl: &Kubectl) {
    let command =
        kubectl.command(&["exec", "-it", "target", "-c", "c", "--", "sh", "-c", "test -t 0 && echo a-terminal"]);
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let output = Command::new("script")
        .args(["-qec", &words.join(" "), "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .expect("script runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("a-terminal"), "{text}");
}

/// Reads what a process prints, up to some text.
struct Lines {
    chunks: std::sync::mpsc::Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

impl Lines {
    fn of(mut stdout: ChildStdout) -> Self {
        let (send, chunks) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = stdout.read(&mut buffer) {
                if length == 0 || send.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { chunks, seen: Vec::new() }
    }

    fn take_what_is_there(&mut self) {
        self.seen.extend(self.chunks.try_iter().flatten());
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    fn until(&mut self, wanted: &str) {
        while !self.text().contains(wanted) {
            match self.chunks.recv_timeout(PATIENCE) {
                Ok(chunk) => self.seen.extend(chunk),
                Err(_) => panic!("{wanted:?} did not come; seen:\n{}", self.text()),
            }
        }
    }
}

struct Background(Child);

impl Background {
    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end();
    }
}
