//! `kedge up` with real containers, real kubectl and nftables, in a network namespace.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kedge_e2e::{Host, HostOptions, Kubectl, busybox_image, eventually};

const BUSYBOX: &str = "localhost/busybox:test";

fn node(demo: bool) -> Option<Host> {
    let flags = if demo { vec!["--demo".to_owned()] } else { Vec::new() };
    Host::up(HostOptions { flags, ..HostOptions::default() })
}

fn load_busybox(host: &Host) {
    let archive = host.file("busybox.tar");
    busybox_image(BUSYBOX, &archive);
    let loaded = host.kedge("image", &["load", archive.to_str().expect("text")]);
    assert!(loaded.ok, "{}", loaded.all());
}

fn wait_for_pod(kubectl: &Kubectl, name: &str) {
    kubectl.run(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
}

fn busybox_pod(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n{spec}")
}

fn sleeper(name: &str) -> String {
    busybox_pod(
        name,
        &format!(
            "  terminationGracePeriodSeconds: 1\n  containers: [{{name: c, image: '{BUSYBOX}', command: [sleep, '3600']}}]\n"
        ),
    )
}

/// What a user does on the first day, in one go.
#[test]
fn the_demo_and_a_day_with_kubectl() {
    let Some(host) = node(true) else { return };
    let kubectl = host.kubectl();
    let nodes = kubectl.run(&["get", "nodes"]);
    assert!(nodes.lines().any(|line| line.starts_with("node-1") && line.contains(" Ready ")), "{nodes}");
    let wide = kubectl.run(&["get", "pods", "-A", "-o", "wide"]);
    assert_eq!(wide.matches("kedge-demo-").count(), 3, "{wide}");
    for target in ["127.0.0.1", host.address()] {
        let answer = host.run("curl", &["-sS", "--max-time", "5", &format!("http://{target}:30090/get")]);
        assert!(answer.ok && answer.stdout.contains("\"url\""), "NodePort on {target}: {}", answer.all());
    }
    load_busybox(&host);
    kubectl.apply(&sleeper("client"));
    wait_for_pod(&kubectl, "client");
    let from_pod = |url: &str| kubectl.run(&["exec", "client", "--", "curl", "-sS", "--max-time", "5", url]);
    let cluster_ip = kubectl.run(&["get", "service", "kedge-demo", "-o", "jsonpath={.spec.clusterIP}"]);
    assert!(from_pod(&format!("http://{cluster_ip}/hostname")).contains("kedge-demo-"));
    assert!(from_pod("http://kedge-demo.default.svc.cluster.local/hostname").contains("kedge-demo-"));
    assert!(from_pod("http://kedge-demo/hostname").contains("kedge-demo-"));
    let requests = kubectl.run(&["logs", "-l", "app=kedge-demo", "--prefix", "--tail=-1"]);
    assert!(requests.contains("GET /hostname"), "{requests}");
    assert!(!requests.contains("/healthz"), "{requests}");
    logs_exec_and_copies(&host, &kubectl);
    rollouts(&kubectl);
    nodes_are_marked_and_drained(&kubectl);
}

fn logs_exec_and_copies(host: &Host, kubectl: &Kubectl) {
    assert!(kubectl.run(&["describe", "pod", "client"]).contains("Successfully assigned default/client to node-1"));
    kubectl.apply(&busybox_pod(
        "talker",
        &format!("  containers: [{{name: c, image: '{BUSYBOX}', command: [sh, -c, 'echo hello; sleep 3600']}}]\n"),
    ));
    wait_for_pod(kubectl, "talker");
    assert_eq!(kubectl.run(&["logs", "talker"]), "hello\n");
    let echoed = kubectl.try_run_with(&["exec", "-i", "client", "--", "cat"], "through\n");
    assert_eq!(echoed.stdout, "through\n", "{}", echoed.all());
    let failed = kubectl.try_run(&["exec", "client", "--", "sh", "-c", "exit 3"]);
    assert!(failed.stderr.contains("exit code 3"), "{}", failed.all());
    let file = host.file("note.txt");
    std::fs::write(&file, "carried").expect("the file can be written");
    kubectl.run(&["cp", file.to_str().expect("text"), "client:/tmp/note.txt"]);
    assert_eq!(kubectl.run(&["exec", "client", "--", "cat", "/tmp/note.txt"]), "carried");
    let mut forward = Background(
        kubectl
            .command(&["port-forward", "service/kedge-demo", "18080:80"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("kubectl runs"),
    );
    eventually("an answer through port-forward", Duration::from_secs(15), || {
        let answer = host.run("curl", &["-sS", "--max-time", "2", "http://127.0.0.1:18080/hostname"]);
        if answer.stdout.contains("kedge-demo-") { Ok(()) } else { Err(answer.all()) }
    });
    forward.end();
}

fn rollouts(kubectl: &Kubectl) {
    kubectl.run(&["scale", "deployment", "kedge-demo", "--replicas=2"]);
    kubectl.run(&["rollout", "status", "deployment/kedge-demo", "--timeout=60s"]);
    kubectl.run(&["rollout", "restart", "deployment/kedge-demo"]);
    kubectl.run(&["rollout", "status", "deployment/kedge-demo", "--timeout=90s"]);
    kubectl.run(&["rollout", "undo", "deployment/kedge-demo"]);
    kubectl.run(&["rollout", "status", "deployment/kedge-demo", "--timeout=90s"]);
    assert!(kubectl.run(&["rollout", "history", "deployment/kedge-demo"]).contains("REVISION"));
}

fn nodes_are_marked_and_drained(kubectl: &Kubectl) {
    kubectl.run(&["label", "node", "node-1", "disk=fast"]);
    kubectl.run(&["taint", "node", "node-1", "dedicated=x:NoSchedule"]);
    kubectl.run(&["taint", "node", "node-1", "dedicated-"]);
    kubectl.run(&["cordon", "node-1"]);
    assert!(kubectl.run(&["get", "nodes"]).contains("SchedulingDisabled"));
    kubectl.run(&["drain", "node-1", "--force", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=90s"]);
    eventually("pods that wait for a node", Duration::from_secs(30), || {
        let pods = kubectl.run(&["get", "pods", "-l", "app=kedge-demo"]);
        if pods.matches("Pending").count() == 2 { Ok(()) } else { Err(pods) }
    });
    let described = kubectl.run(&["describe", "pods", "-l", "app=kedge-demo"]);
    assert!(described.contains("0/1 nodes are available: 1 node(s) were unschedulable"), "{described}");
    kubectl.run(&["uncordon", "node-1"]);
    kubectl.run(&["rollout", "status", "deployment/kedge-demo", "--timeout=60s"]);
}

/// Containers and the NodePort do not notice that kedge dies; no acknowledged write is lost.
#[test]
fn a_kill_under_load_loses_nothing_and_stops_no_container() {
    let Some(mut host) = node(true) else { return };
    let kubectl = host.kubectl();
    let containers = |kubectl: &Kubectl| {
        let path = "jsonpath={range .items[*]}{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
        let mut ids: Vec<String> =
            kubectl.run(&["get", "pods", "-l", "app=kedge-demo", "-o", path]).lines().map(str::to_owned).collect();
        ids.sort();
        ids
    };
    let before = containers(&kubectl);
    assert_eq!(before.len(), 3, "{before:?}");
    let mut acknowledged = Vec::new();
    let mut requests = 0;
    let ask = |host: &Host| {
        let answer = host.run("curl", &["-sS", "--max-time", "3", "-o", "/dev/null", "http://127.0.0.1:30090/get"]);
        assert!(answer.ok, "the NodePort failed: {}", answer.all());
    };
    for round in 0..2 {
        let writer_kubectl = kubectl.clone();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let writer = std::thread::spawn(move || {
            let mut written = Vec::new();
            for index in 0.. {
                let name = format!("written-{round}-{index}");
                if !writer_kubectl.try_run(&["create", "configmap", &name, "--from-literal", "k=v"]).ok {
                    return written;
                }
                written.push(name);
                counted.fetch_add(1, Ordering::Relaxed);
            }
            written
        });
        let until = Instant::now() + Duration::from_secs(2);
        // A busy machine writes little in two seconds.
        while Instant::now() < until || count.load(Ordering::Relaxed) < 3 && !writer.is_finished() {
            ask(&host);
            requests += 1;
        }
        host.kill();
        acknowledged.extend(writer.join().expect("the writer ends by itself"));
        for _ in 0..20 {
            ask(&host);
            requests += 1;
        }
        host.start();
        ask(&host);
    }
    assert!(acknowledged.len() > 4 && requests > 40, "{} writes, {requests} requests", acknowledged.len());
    let found = kubectl.run(&["get", "configmaps", "-o", "name"]);
    let found: std::collections::HashSet<&str> = found.lines().collect();
    for name in &acknowledged {
        assert!(found.contains(format!("configmap/{name}").as_str()), "{name} is lost");
    }
    assert_eq!(containers(&kubectl), before, "containers were restarted");
    kubectl.run(&["scale", "deployment", "kedge-demo", "--replicas=4"]);
    kubectl.run(&["rollout", "status", "deployment/kedge-demo", "--timeout=60s"]);
}

/// Pods that can't run say why in upstream's words, and nothing else suffers.
#[test]
fn bad_workloads_say_what_is_wrong() {
    let Some(host) = node(false) else { return };
    let kubectl = host.kubectl();
    load_busybox(&host);
    kubectl.apply(&sleeper("good"));
    kubectl.apply(&busybox_pod("no-image", "  containers: [{name: c, image: 'localhost:1/none:1'}]\n"));
    kubectl.apply(&busybox_pod(
        "no-command",
        &format!("  containers: [{{name: c, image: '{BUSYBOX}', command: [no-such-thing]}}]\n"),
    ));
    kubectl.apply(&busybox_pod(
        "crashes",
        &format!("  containers: [{{name: c, image: '{BUSYBOX}', command: ['false']}}]\n"),
    ));
    let waits_with = |pod: &str, reasons: &[&str]| {
        eventually(&format!("{pod} with {reasons:?}"), Duration::from_secs(60), || {
            let path = "jsonpath={.status.containerStatuses[0].state.waiting.reason}";
            let reason = kubectl.run(&["get", "pod", pod, "-o", path]);
            if reasons.contains(&reason.as_str()) { Ok(()) } else { Err(reason) }
        });
    };
    let has_event = |pod: &str, text: &str| {
        eventually(&format!("an event of {pod} with {text:?}"), Duration::from_secs(60), || {
            let selector = format!("involvedObject.name={pod}");
            let events = kubectl.run(&["get", "events", "--field-selector", &selector]);
            if events.contains(text) { Ok(()) } else { Err(events) }
        });
    };
    waits_with("no-image", &["ErrImagePull", "ImagePullBackOff"]);
    has_event("no-image", "Failed to pull image \"localhost:1/none:1\"");
    waits_with("no-image", &["ImagePullBackOff"]);
    has_event("no-image", "Back-off pulling image \"localhost:1/none:1\"");
    waits_with("no-command", &["RunContainerError", "CrashLoopBackOff"]);
    has_event("no-command", "executable file not found");
    waits_with("crashes", &["CrashLoopBackOff"]);
    has_event("crashes", "Back-off restarting failed container c in pod crashes_default");
    let exit = "jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}";
    assert_eq!(kubectl.run(&["get", "pod", "crashes", "-o", exit]), "1");
    let start_error = "jsonpath={.status.containerStatuses[0].lastState.terminated.reason} {.status.containerStatuses[0].lastState.terminated.exitCode}";
    eventually("the start error", Duration::from_secs(30), || {
        let seen = kubectl.run(&["get", "pod", "no-command", "-o", start_error]);
        if seen == "StartError 128" { Ok(()) } else { Err(seen) }
    });
    let service = |name: &str| {
        let ports = "ports: [{port: 80, nodePort: 30123}]";
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{type: NodePort, selector: {{app: x}}, {ports}}}\n"
        )
    };
    kubectl.apply(&service("first"));
    let taken = kubectl.try_run_with(&["create", "-f", "-"], &service("second"));
    assert!(taken.stderr.contains("provided port is already allocated"), "{}", taken.all());
    wait_for_pod(&kubectl, "good");
    assert_eq!(kubectl.run(&["get", "pod", "good", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"]), "0");
}

/// Configuration, secrets, tokens, probes, init containers and static pods.
#[test]
fn pods_get_what_they_ask_for() {
    let Some(host) = node(false) else { return };
    let kubectl = host.kubectl();
    load_busybox(&host);
    kubectl.run(&["create", "configmap", "settings", "--from-literal", "color=blue"]);
    kubectl.run(&["create", "secret", "generic", "keys", "--from-literal", "token=hidden"]);
    let spec = format!(
        "  terminationGracePeriodSeconds: 1
  initContainers: [{{name: i, image: '{BUSYBOX}', command: [sh, -c, 'echo from-init > /scratch/init'], volumeMounts: [{{name: scratch, mountPath: /scratch}}]}}]
  containers:
  - name: c
    image: '{BUSYBOX}'
    command: [sh, -c, 'touch /scratch/ready; sleep 3600']
    env:
    - {{name: COLOR, valueFrom: {{configMapKeyRef: {{name: settings, key: color}}}}}}
    - {{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
    - {{name: BOTH, value: '$(COLOR)-$(POD)'}}
    readinessProbe: {{exec: {{command: [cat, /scratch/ready]}}, periodSeconds: 1}}
    resources: {{limits: {{memory: 32Mi, cpu: 100m}}}}
    volumeMounts:
    - {{name: scratch, mountPath: /scratch}}
    - {{name: settings, mountPath: /settings}}
    - {{name: keys, mountPath: /keys}}
    - {{name: info, mountPath: /info}}
  volumes:
  - {{name: scratch, emptyDir: {{}}}}
  - {{name: settings, configMap: {{name: settings}}}}
  - {{name: keys, secret: {{secretName: keys}}}}
  - {{name: info, downwardAPI: {{items: [{{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}]}}}}
"
    );
    kubectl.apply(&busybox_pod("full", &spec));
    wait_for_pod(&kubectl, "full");
    let cat = |path: &str| kubectl.run(&["exec", "full", "--", "cat", path]);
    assert_eq!(cat("/scratch/init"), "from-init\n");
    assert_eq!(cat("/settings/color"), "blue");
    assert_eq!(cat("/keys/token"), "hidden");
    assert_eq!(cat("/info/labels"), "app=\"full\"");
    assert!(cat("/var/run/secrets/kubernetes.io/serviceaccount/token").starts_with("ey"));
    assert_eq!(cat("/var/run/secrets/kubernetes.io/serviceaccount/namespace"), "default");
    assert!(kubectl.run(&["exec", "full", "--", "env"]).contains("BOTH=blue-full"));
    assert_eq!(kubectl.run(&["get", "pod", "full", "-o", "jsonpath={.status.qosClass}"]), "Burstable");
    static_pods(&host, &kubectl);
}

fn static_pods(host: &Host, kubectl: &Kubectl) {
    let manifest = host.data_dir().join("manifests").join("still.yaml");
    std::fs::create_dir_all(manifest.parent().expect("it has one")).expect("the directory can be made");
    std::fs::write(&manifest, sleeper("still")).expect("the manifest can be written");
    eventually("the mirror pod", Duration::from_secs(30), || {
        let pod = kubectl.try_run(&["get", "pod", "still-node-1", "-o", "jsonpath={.status.phase}"]);
        if pod.stdout == "Running" { Ok(()) } else { Err(pod.all()) }
    });
    std::fs::remove_file(&manifest).expect("the manifest can be removed");
    eventually("the end of the static pod", Duration::from_secs(60), || {
        let pod = kubectl.try_run(&["get", "pod", "still-node-1"]);
        if pod.stderr.contains("not found") { Ok(()) } else { Err(pod.all()) }
    });
}

/// `kedge down` removes what kedge made, and only that.
#[test]
fn down_leaves_the_machine_as_it_was() {
    let Some(mut host) = Host::prepare(HostOptions::default()) else { return };
    let state = |host: &Host| {
        ["nft list ruleset", "ip -o link", "ip -4 route show table all", "ls /etc/cni/net.d"].map(|command| {
            let words: Vec<&str> = command.split(' ').collect();
            let output = host.run(words[0], &words[1..]);
            // Counters of interfaces and cache lines change by themselves.
            output.stdout.lines().filter(|line| !line.contains("expires")).map(str::to_owned).collect::<Vec<_>>()
        })
    };
    let before = state(&host);
    host.start();
    load_busybox(&host);
    let kubectl = host.kubectl();
    kubectl.apply(&sleeper("one"));
    wait_for_pod(&kubectl, "one");
    assert_ne!(state(&host), before, "a running node shows in the ruleset and the links");
    let down = host.kedge("down", &[]);
    assert!(down.ok, "{}", down.all());
    assert_eq!(state(&host), before);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let data_dir = host.data_dir();
    let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&*data_dir.to_string_lossy())).collect();
    assert!(left.is_empty(), "{left:?}");
    host.kill();
    host.start();
    wait_for_pod(&kubectl, "one");
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
