//! Faults of a node: the API server away, containerd killed, the power cut, the disk full, a volume that hangs.
//!
//! Each test says what kept running, what was reported, and that nothing acknowledged was lost.

#[path = "faults/long_outage.rs"]
mod long_outage;

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use kedge_e2e::{Container, Host, HostOptions, Kubectl, NodeAgent, addresses_below, busybox_image, eventually};

const BUSYBOX: &str = "localhost/busybox:test";
const SOON: Duration = Duration::from_secs(60);

/// A control plane and a kubelet, a process each.
fn control_plane_and_node() -> Option<(Host, NodeAgent)> {
    let flags = vec!["--control-plane-only".to_owned()];
    let host = Host::up(HostOptions { flags, ..HostOptions::default() })?;
    let agent = NodeAgent::start(&host, BUSYBOX);
    wait_for_node(&host.kubectl(), "True");
    Some((host, agent))
}

/// Everything in one process, as `kedge up` runs it.
fn one_process() -> Option<Host> {
    let host = Host::up(HostOptions::default())?;
    let archive = host.file("busybox.tar");
    busybox_image(BUSYBOX, &archive);
    let loaded = host.kedge("image", &["load", archive.to_str().expect("text")]);
    assert!(loaded.ok, "{}", loaded.all());
    Some(host)
}

fn wait_for_node(kubectl: &Kubectl, wanted: &str) {
    eventually(&format!("Ready={wanted}"), SOON, || {
        let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        let seen = kubectl.try_run(&["get", "node", "node-1", "-o", path]);
        if seen.stdout == wanted { Ok(()) } else { Err(seen.all()) }
    });
}

fn pod(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n{spec}"
    )
}

fn sleeper(name: &str) -> String {
    pod(name, &format!("  containers: [{{name: c, image: '{BUSYBOX}', command: [sleep, '3600']}}]\n"))
}

fn wait_for_pods(kubectl: &Kubectl, names: &[&str]) {
    for name in names {
        kubectl.run(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
    }
}

fn field(kubectl: &Kubectl, pod: &str, path: &str) -> String {
    kubectl.try_run(&["get", "pod", pod, "-o", &format!("jsonpath={path}")]).stdout
}

fn restarts(kubectl: &Kubectl, pod: &str) -> String {
    field(kubectl, pod, "{.status.containerStatuses[0].restartCount}")
}

fn one_running(agent: &NodeAgent, pod: &str) -> Container {
    eventually(&format!("one running container of {pod}"), SOON, || match agent.running(pod).as_slice() {
        [one] => Ok(one.clone()),
        other => Err(format!("{other:?}")),
    })
}

/// A new container of the pod runs, instead of the one that was there.
fn restarted(agent: &NodeAgent, before: &Container) -> Container {
    eventually(&format!("a restart of {}", before.pod), SOON, || match agent.running(&before.pod).as_slice() {
        [one] if one.id != before.id => Ok(one.clone()),
        other => Err(format!("{other:?}")),
    })
}

/// Restarts, probes, static pods and logs go on without an API server; the log says why in one line for each cause; what
/// happened meanwhile is in the API within seconds of its return.
#[test]
fn a_node_without_its_api_server_goes_on() {
    let Some((mut host, mut agent)) = control_plane_and_node() else { return };
    let kubectl = host.kubectl();
    kubectl.run(&["create", "configmap", "settings", "--from-literal", "color=blue"]);
    kubectl.apply(&pod(
        "worker",
        &format!(
            "  containers:\n  - name: c\n    image: '{BUSYBOX}'\n    command: [sh, -c, 'echo started as $COLOR; sleep 3600']\n    \
             env: [{{name: COLOR, valueFrom: {{configMapKeyRef: {{name: settings, key: color}}}}}}]\n"
        ),
    ));
    kubectl.apply(&pod(
        "probed",
        &format!(
            "  containers:\n  - name: c\n    image: '{BUSYBOX}'\n    command: [sh, -c, 'touch /tmp/ready; sleep 3600']\n    \
             readinessProbe: {{exec: {{command: [cat, /tmp/ready]}}, periodSeconds: 1}}\n"
        ),
    ));
    std::fs::write(agent.manifest("still"), sleeper("still")).expect("the manifest can be written");
    wait_for_pods(&kubectl, &["worker", "probed", "still-node-1"]);
    let (worker, probed) = (one_running(&agent, "worker"), one_running(&agent, "probed"));
    let still = one_running(&agent, "still-node-1");
    let before = agent.log().len();

    host.kill();
    let away = Instant::now();
    agent.stop_container(&worker.id);
    let worker = restarted(&agent, &worker);
    assert_eq!(worker.attempt, 1);
    assert!(agent.exec(&probed.id, &["rm", "/tmp/ready"]));
    let edited = sleeper("still").replace("3600", "7200");
    std::fs::write(agent.manifest("still"), edited).expect("the manifest can be written");
    let still = restarted(&agent, &still);
    eventually("the log of the restarted container, from the kubelet itself", SOON, || {
        let log = agent.get(&host, "/containerLogs/default/worker/c");
        if log.stdout.trim() == "started as blue" { Ok(()) } else { Err(log.all()) }
    });
    eventually("the failed probe in the kubelet's own pods", SOON, || {
        let pods = agent.get(&host, "/pods");
        if pods.ok { Ok(()) } else { Err(pods.all()) }
    });
    let healthz = host.run("curl", &["-sS", "--max-time", "5", "http://127.0.0.1:10248/healthz"]);
    assert_eq!(healthz.stdout, "ok", "{}", healthz.all());
    // A kubelet that starts without an API server knows its pods.
    agent.kill_kubelet();
    agent.start_kubelet(&host);
    let log = eventually("a kubelet that goes on with what it knew", SOON, || {
        let log = agent.log()[before..].to_owned();
        if log.contains("going on with the last known pods") { Ok(log) } else { Err(log) }
    });
    agent.stop_container(&worker.id);
    let worker = restarted(&agent, &worker);
    assert_eq!(worker.attempt, 2);
    assert_eq!(one_running(&agent, "probed").id, probed.id, "a container was touched: {log}");
    assert_eq!(one_running(&agent, "still-node-1").id, still.id, "a container was touched: {log}");
    one_line_for_each_cause(&agent.log()[before..], away.elapsed());

    host.start();
    let back = Instant::now();
    let wanted = "2 False";
    eventually("what happened meanwhile, in the API", Duration::from_secs(15), || {
        let ready = field(&kubectl, "probed", "{.status.conditions[?(@.type=='Ready')].status}");
        let seen = format!("{} {ready}", restarts(&kubectl, "worker"));
        let command = field(&kubectl, "still-node-1", "{.spec.containers[0].command[1]}");
        if seen == wanted && command == "7200" { Ok(()) } else { Err(format!("{seen} {command}")) }
    });
    wait_for_node(&kubectl, "True");
    println!("the API was right {:.1} s after its return", back.elapsed().as_secs_f64());
    assert_eq!(one_running(&agent, "worker").id, worker.id);
    eventually("the end of the outage in the log", SOON, || {
        let log = agent.log();
        if log.contains("the API server answers again") { Ok(()) } else { Err(log) }
    });
}

/// Two kubelets met the outage: each may name a cause once, with few causes, whatever the time.
fn one_line_for_each_cause(log: &str, lasted: Duration) {
    let told: Vec<&str> = log.lines().filter(|line| line.contains("the API server cannot be reached")).collect();
    let refused = told.iter().filter(|line| line.contains("connection refused")).count();
    assert!((1..=2).contains(&refused), "{told:#?}");
    assert!(told.len() <= 6, "{told:#?}");
    let warnings = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count();
    println!("{warnings} warnings in {:.0} s without an API server", lasted.as_secs_f64());
    assert!(warnings <= 16, "{log}");
}

/// Containers live through it; the node says so while it is away; exec works again after it.
#[test]
fn a_killed_containerd_stops_no_container() {
    let Some((host, mut agent)) = control_plane_and_node() else { return };
    let kubectl = host.kubectl();
    kubectl.apply(&sleeper("one"));
    wait_for_pods(&kubectl, &["one"]);
    let before = one_running(&agent, "one");
    agent.kill_containerd();
    wait_for_node(&kubectl, "False");
    let path =
        "jsonpath={.status.conditions[?(@.type=='Ready')].reason}: {.status.conditions[?(@.type=='Ready')].message}";
    let said = kubectl.run(&["get", "node", "node-1", "-o", path]);
    assert!(said.starts_with("KubeletNotReady: ") && said.contains("container runtime is down"), "{said}");
    agent.start_containerd();
    wait_for_node(&kubectl, "True");
    eventually("exec after the return of containerd", SOON, || {
        let answer = kubectl.try_run(&["exec", "one", "--", "echo", "here"]);
        if answer.stdout == "here\n" { Ok(()) } else { Err(answer.all()) }
    });
    assert_eq!(one_running(&agent, "one"), before);
    assert_eq!(restarts(&kubectl, "one"), "0");
    kubectl.apply(&sleeper("two"));
    wait_for_pods(&kubectl, &["two"]);
}

/// A containerd of Kedge's own is started again by Kedge.
#[test]
fn a_private_containerd_comes_back_by_itself() {
    let Some(host) = one_process() else { return };
    let kubectl = host.kubectl();
    kubectl.apply(&sleeper("one"));
    wait_for_pods(&kubectl, &["one"]);
    let id = field(&kubectl, "one", "{.status.containerStatuses[0].containerID}");
    let processes = processes_of(&host.data_dir());
    let containerd: Vec<_> = processes.iter().filter(|(_, name)| name == "containerd").collect();
    assert_eq!(containerd.len(), 1, "{processes:?}");
    kill_now(&[containerd[0].0]);
    eventually("exec after the kill", SOON, || {
        let answer = kubectl.try_run(&["exec", "one", "--", "echo", "here"]);
        if answer.stdout == "here\n" { Ok(()) } else { Err(answer.all()) }
    });
    assert_eq!(field(&kubectl, "one", "{.status.containerStatuses[0].containerID}"), id);
    assert_eq!(restarts(&kubectl, "one"), "0");
}

/// Everything on the node is killed at once. What was acknowledged is there, pods come back with one restart each, and no
/// address is given out twice or kept.
#[test]
fn a_power_cut_costs_a_restart_and_nothing_else() {
    let Some(mut host) = one_process() else { return };
    let kubectl = host.kubectl();
    kubectl.run(&["create", "configmap", "settings", "--from-literal", "color=blue"]);
    let names = ["one", "two", "three"];
    for name in names {
        kubectl.apply(&pod(
            name,
            &format!(
                "  containers:\n  - name: c\n    image: '{BUSYBOX}'\n    command: [sh, -c, 'echo again >> /scratch/starts; sleep 3600']\n    \
                 volumeMounts: [{{name: scratch, mountPath: /scratch}}, {{name: memory, mountPath: /memory}}, {{name: settings, mountPath: /settings}}]\n  \
                 volumes:\n  - {{name: scratch, emptyDir: {{}}}}\n  - {{name: memory, emptyDir: {{medium: Memory}}}}\n  - {{name: settings, configMap: {{name: settings}}}}\n"
            ),
        ));
    }
    wait_for_pods(&kubectl, &names);
    let mut acknowledged = Vec::new();
    for index in 0..20 {
        let name = format!("written-{index}");
        kubectl.run(&["create", "configmap", &name, "--from-literal", "k=v"]);
        acknowledged.push(name);
    }
    cut_power(&mut host);

    host.start();
    for name in names {
        eventually(&format!("{name} running again"), SOON, || {
            let ready = field(&kubectl, name, "{.status.conditions[?(@.type=='Ready')].status}");
            let seen = format!("{} {ready}", restarts(&kubectl, name));
            if seen == "1 True" { Ok(()) } else { Err(seen) }
        });
        assert_eq!(kubectl.run(&["exec", name, "--", "cat", "/scratch/starts"]), "again\nagain\n");
        assert_eq!(kubectl.run(&["exec", name, "--", "cat", "/settings/color"]), "blue");
        let mounts = kubectl.run(&["exec", name, "--", "grep", " /memory ", "/proc/mounts"]);
        assert!(mounts.contains("tmpfs"), "{mounts}");
    }
    let found = kubectl.run(&["get", "configmaps", "-o", "name"]);
    let found: HashSet<&str> = found.lines().collect();
    let lost: Vec<_> =
        acknowledged.iter().filter(|name| !found.contains(format!("configmap/{name}").as_str())).collect();
    assert!(lost.is_empty(), "{lost:?}");
    eventually("an address for each pod and no other", SOON, || {
        let ips = kubectl.run(&["get", "pods", "-A", "-o", "jsonpath={range .items[*]}{.status.podIP}{\"\\n\"}{end}"]);
        let mut ips: Vec<&str> = ips.lines().collect();
        ips.sort_unstable();
        let given = addresses_below(&host.data_dir().join("cni").join("state"));
        if ips == given && ips.len() == names.len() { Ok(()) } else { Err(format!("{ips:?} {given:?}")) }
    });
}

/// Kills kedge, its containerd, the shims and every process in a container, in this order, so that none can react.
fn cut_power(host: &mut Host) {
    let processes: Vec<i32> = processes_of(&host.data_dir()).into_iter().map(|(pid, _)| pid).collect();
    assert!(processes.len() >= 10, "{processes:?}");
    host.kill();
    kill_now(&processes);
    eventually("the end of every process", SOON, || {
        let left = processes_of(&host.data_dir());
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

/// containerd and shims that name the data directory, and everything below the shims: containerd first.
fn processes_of(data_dir: &Path) -> Vec<(i32, String)> {
    let data_dir = data_dir.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: Vec<(i32, i32, String, String)> = entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let (head, rest) = stat.rsplit_once(')')?;
            let name = head.split_once('(')?.1.to_owned();
            let mut fields = rest.split_whitespace();
            // What is dead and not waited for is no process any more.
            let state = fields.next().filter(|state| *state != "Z" && *state != "X")?;
            let parent = fields.next()?.parse().ok()?;
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            debug_assert!(!state.is_empty());
            Some((pid, parent, name, String::from_utf8_lossy(&command).into_owned()))
        })
        .collect();
    let named = |name: &str| name == "containerd" || name.starts_with("containerd-shim");
    let mut found: Vec<(i32, String)> = all
        .iter()
        .filter(|(_, _, name, command)| named(name) && command.contains(&data_dir))
        .map(|(pid, _, name, _)| (*pid, name.clone()))
        .collect();
    found.sort_by_key(|(_, name)| name != "containerd");
    let mut next = 0;
    while next < found.len() {
        let parent = found[next].0;
        let known: HashSet<i32> = found.iter().map(|(pid, _)| *pid).collect();
        let children = all.iter().filter(|(pid, of, ..)| *of == parent && !known.contains(pid));
        let children: Vec<_> = children.map(|(pid, _, name, _)| (*pid, name.clone())).collect();
        found.extend(children);
        next += 1;
    }
    found
}

fn kill_now(processes: &[i32]) {
    for pid in processes {
        // Those in a container end with the first one of it.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
    }
}

/// A file system of a few megabytes; unmounted when it is dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Self {
        std::fs::create_dir_all(at).expect("a directory can be made");
        let options = format!("size={size}");
        let none = Some("tmpfs");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(none, at, none, flags, Some(options.as_str())).expect("root can mount");
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What stays mounted shows when the directory is removed.
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
        if let Some(parent) = self.0.parent() {
            let _ = std::fs::remove_dir_all(parent);
        }
    }
}

/// Writes are refused with the reason, reads go on, and writes go on by themselves once there is room; nothing acknowledged
/// is lost, not by a kill either.
#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let test = "a_full_disk_refuses_writes_until_there_is_room";
    if kedge_skip::skipped_without_root(test) {
        return;
    }
    let Some(mut host) = Host::prepare(HostOptions { control_plane_only: true, ..HostOptions::default() }) else {
        return;
    };
    let disk = SmallDisk::mount(&host.data_dir(), "32m");
    host.start();
    let kubectl = host.kubectl();
    let pid = host.pid();
    let filler = host.data_dir().join("filler");
    let mut acknowledged = Vec::new();
    let value = format!("--from-literal=k={}", "x".repeat(100_000));
    let create = |index: usize| kubectl.try_run(&["create", "configmap", &format!("written-{index}"), &value]);
    for index in 0..5 {
        assert!(create(index).ok);
        acknowledged.push(format!("configmap/written-{index}"));
    }
    fill(&filler);
    let refused = eventually("a write that is refused", SOON, || {
        let index = acknowledged.len();
        let answer = create(index);
        if !answer.ok {
            return Ok(answer.all());
        }
        acknowledged.push(format!("configmap/written-{index}"));
        Err("it was taken".to_owned())
    });
    assert!(refused.contains("No space left on device"), "{refused}");
    let found = kubectl.run(&["get", "configmaps", "-o", "name"]);
    assert!(acknowledged.iter().all(|name| found.contains(name.as_str())), "reads go on: {found}");
    eventually("the store's report", SOON, || {
        // A full disk may have room for something small, and for nothing more after it.
        let index = acknowledged.len();
        if create(index).ok {
            acknowledged.push(format!("configmap/written-{index}"));
        }
        let status = host.kedge("status", &[]).all();
        if status.contains("StorageFailed") { Ok(()) } else { Err(status) }
    });
    std::fs::remove_file(&filler).expect("the file can be removed");
    eventually("a write that is taken again", SOON, || {
        let answer = kubectl.try_run(&["create", "configmap", "after"]);
        if answer.ok { Ok(()) } else { Err(answer.all()) }
    });
    assert_eq!(host.pid(), pid, "no restart was needed");
    eventually("the store's report", SOON, || {
        let status = host.kedge("status", &[]).all();
        if status.contains("StorageFailed") { Err(status) } else { Ok(()) }
    });
    acknowledged.push("configmap/after".to_owned());
    host.kill();
    host.start();
    let found = kubectl.run(&["get", "configmaps", "-o", "name"]);
    let lost: Vec<_> = acknowledged.iter().filter(|name| !found.lines().any(|line| line == name.as_str())).collect();
    assert!(lost.is_empty(), "{lost:?}");
    drop(host);
    drop(disk);
}

/// Writes until the disk takes no more.
fn fill(file: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(file).expect("a file can be made");
    let mut size = 1 << 20;
    while size >= 512 {
        if file.write_all(&vec![0; size]).is_err() {
            size /= 2;
        }
    }
}

/// A file system whose daemon never answers; whoever looks at it waits until it is dropped.
struct StuckMount {
    at: std::path::PathBuf,
    device: Option<std::fs::File>,
}

impl StuckMount {
    fn mount(at: &Path) -> Option<Self> {
        use std::os::fd::AsRawFd;
        std::fs::create_dir_all(at).expect("a directory can be made");
        let device = std::fs::File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("stuck"), at, Some("fuse"), flags, Some(options.as_str())).ok()?;
        Some(Self { at: at.to_owned(), device: Some(device) })
    }
}

impl Drop for StuckMount {
    fn drop(&mut self) {
        // The end of the daemon is an error for all that wait.
        self.device = None;
        let _ = nix::mount::umount2(&self.at, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Pods with a volume that hangs wait and say so; all others live as if nothing was.
#[test]
fn a_volume_that_hangs_is_its_own_pods_affair() {
    let Some(host) = one_process() else { return };
    let test = "a_volume_that_hangs_is_its_own_pods_affair";
    let Some(stuck) = StuckMount::mount(&host.file("stuck")) else {
        kedge_skip::skip(test, "the kernel has no FUSE");
        return;
    };
    let kubectl = host.kubectl();
    // More than the process has threads; the volume hangs when it is checked, or when a part of it is looked for.
    let hanging = ["h1", "h2", "h3", "h4", "h5", "h6", "sub1", "sub2", "sub3", "sub4", "sub5", "sub6"];
    for name in hanging {
        let (type_, sub_path) = if name.starts_with('h') { ("Directory", "") } else { ("", "part") };
        kubectl.apply(&pod(
            name,
            &format!(
                "  containers:\n  - name: c\n    image: '{BUSYBOX}'\n    command: [sleep, '3600']\n    \
                 volumeMounts: [{{name: v, mountPath: /v, subPath: '{sub_path}'}}]\n  \
                 volumes: [{{name: v, hostPath: {{path: {}, type: '{type_}'}}}}]\n",
                host.file("stuck").display()
            ),
        ));
    }
    eventually("the pods that hang on the node", SOON, || {
        let started = kubectl.run(&["get", "pods", "-o", "jsonpath={.items[*].status.startTime}"]);
        if started.split_whitespace().count() == hanging.len() { Ok(()) } else { Err(started) }
    });
    kubectl.apply(&sleeper("fine"));
    wait_for_pods(&kubectl, &["fine"]);
    assert_eq!(kubectl.run(&["exec", "fine", "--", "echo", "here"]), "here\n");
    kubectl.run(&["delete", "pod", "fine", "--timeout=60s"]);
    for name in hanging {
        assert_eq!(field(&kubectl, name, "{.status.phase}"), "Pending", "{name}");
    }
    eventually("an event about the part of the volume", SOON, || {
        let events = kubectl.run(&["get", "events", "--field-selector", "reason=Failed"]);
        let text = "failed to prepare subPath for volumeMount \"v\" of container \"c\": context deadline exceeded";
        if events.contains(text) { Ok(()) } else { Err(events) }
    });
    eventually("an event about the volume", Duration::from_secs(150), || {
        let events = kubectl.run(&["get", "events", "--field-selector", "reason=FailedMount"]);
        if events.contains("context deadline exceeded") { Ok(()) } else { Err(events) }
    });
    wait_for_node(&kubectl, "True");
    kubectl.run(&["delete", "pod", "h1", "sub1", "--timeout=60s"]);
    drop(stuck);
    kubectl.run(&["delete", "pods", "--all", "--timeout=90s"]);
}
