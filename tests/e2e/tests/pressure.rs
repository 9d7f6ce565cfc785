//! A node that runs short, pods that take too much, and what an operator sets about both, with real containers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kedge_e2e::{Host, HostOptions, Kubectl, busybox_image, eventually};
use kedge_oci::ImageBuilder;

const BUSYBOX: &str = "localhost/busybox:test";
const UNUSED: &str = "localhost/unused:test";
const SOON: Duration = Duration::from_secs(60);
/// Usage is looked at every ten seconds, and the runtime's figures are as old again.
const PATIENCE: Duration = Duration::from_secs(120);

fn node(kubelet: Option<&str>) -> Option<Host> {
    let host = Host::up(HostOptions { kubelet: kubelet.map(str::to_owned), ..HostOptions::default() })?;
    load_busybox(&host);
    Some(host)
}

fn load_busybox(host: &Host) {
    let archive = host.file("busybox.tar");
    busybox_image(BUSYBOX, &archive);
    load(host, &archive);
}

fn load(host: &Host, archive: &Path) {
    let loaded = host.kedge("image", &["load", archive.to_str().expect("text")]);
    assert!(loaded.ok, "{}", loaded.all());
}

/// A pod with one container `c`; `rest` are further fields of its spec, `container` of the container.
fn pod(name: &str, command: &str, container: &str, rest: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         restartPolicy: Never\n{rest}  containers:\n  - name: c\n    image: '{BUSYBOX}'\n    \
         command: [sh, -c, '{command}']\n{container}"
    )
}

fn field(kubectl: &Kubectl, what: &[&str], path: &str) -> String {
    let path = format!("jsonpath={path}");
    let arguments: Vec<&str> = ["get"].iter().chain(what).copied().chain(["-o", path.as_str()]).collect();
    kubectl.try_run(&arguments).stdout
}

fn waits_for(kubectl: &Kubectl, what: &[&str], path: &str, patience: Duration, expected: &str) {
    eventually(&format!("{} {path}={expected:?}", what.join(" ")), patience, || {
        let seen = field(kubectl, what, path);
        let all = || kubectl.try_run(&[&["describe"], what].concat()).all();
        if seen == expected { Ok(()) } else { Err(format!("{seen}\n{}", all())) }
    });
}

fn has_event(kubectl: &Kubectl, object: &str, reason: &str, message: &str) {
    eventually(&format!("the event {reason} of {object}"), SOON, || {
        let selector = format!("involvedObject.name={object},reason={reason}");
        let path = "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}";
        let events = kubectl.run(&["get", "events", "-A", "--field-selector", &selector, "-o", path]);
        if events.contains(message) { Ok(()) } else { Err(events) }
    });
}

/// Volumes, layers and logs that outgrow the pod's own limits cost it its life, and others nothing.
#[test]
fn pods_over_their_own_limits_of_storage_are_evicted() {
    let Some(host) = node(None) else { return };
    let kubectl = host.kubectl();
    let volume = |limit: &str| {
        (
            "    volumeMounts: [{name: v, mountPath: /v}]\n",
            format!("  volumes: [{{name: v, emptyDir: {{sizeLimit: {limit}}}}}]\n"),
        )
    };
    let limited = "    resources: {limits: {ephemeral-storage: 1Mi}}\n";
    let fill = |path: &str| format!("dd if=/dev/zero of={path} bs=1M count=3; sleep 3600");
    kubectl.apply(&pod("volume", &fill("/v/file"), volume("1Mi").0, &volume("1Mi").1));
    kubectl.apply(&pod("modest", &fill("/v/file"), volume("8Mi").0, &volume("8Mi").1));
    kubectl.apply(&pod("layer", &fill("/tmp/file"), limited, ""));
    kubectl.apply(&pod("logs", "head -c 3000000 /dev/zero | tr \"\\\\0\" x | fold -w 1000; sleep 3600", limited, ""));
    let of_pod = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ";
    for (name, message) in
        [("volume", "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "), ("layer", of_pod), ("logs", of_pod)]
    {
        waits_for(&kubectl, &["pod", name], "{.status.phase} {.status.reason}", PATIENCE, "Failed Evicted");
        assert_eq!(field(&kubectl, &["pod", name], "{.status.message}"), message);
        has_event(&kubectl, name, "Evicted", message.trim());
        // The pod is to blame itself.
        let disruption = "{.status.conditions[?(@.type==\"DisruptionTarget\")].status}";
        assert_eq!(field(&kubectl, &["pod", name], disruption), "");
    }
    assert_eq!(field(&kubectl, &["pod", "modest"], "{.status.phase}"), "Running");
    let metrics = kubectl.run(&["get", "--raw", "/api/v1/nodes/node-1/proxy/metrics"]);
    for signal in ["emptydirfs.limit\"} 1", "ephemeralpodfs.limit\"} 2"] {
        let line = format!("kubelet_evictions{{eviction_signal=\"{signal}");
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
}

/// A node without memory says so, takes nothing that asked for nothing, and evicts all but what it needs itself.
#[test]
fn a_node_short_of_memory_refuses_and_evicts() {
    // No machine has that much; a soft threshold leaves what is allocatable alone.
    let short = "evictionHard: {nodefs.available: 16Mi}\nevictionSoft: {memory.available: 1000Ti}\n\
                 evictionSoftGracePeriod: {memory.available: 1s}\nevictionMaxPodGracePeriod: 1\n";
    let Some(host) = node(Some(short)) else { return };
    let kubectl = host.kubectl();
    let condition = "{.status.conditions[?(@.type==\"MemoryPressure\")]['status','reason','message']}";
    let expected = "True KubeletHasInsufficientMemory kubelet has insufficient memory available";
    waits_for(&kubectl, &["node", "node-1"], condition, SOON, expected);
    let taints = "{.spec.taints[?(@.key==\"node.kubernetes.io/memory-pressure\")].effect}";
    waits_for(&kubectl, &["node", "node-1"], taints, SOON, "NoSchedule");

    let here = "  nodeName: node-1\n";
    let asks = "    resources: {requests: {memory: 64Ki}}\n";
    kubectl.apply(&pod("best-effort", "sleep 3600", "", here));
    waits_for(&kubectl, &["pod", "best-effort"], "{.status.phase} {.status.reason}", SOON, "Failed Evicted");
    let refused = "Pod was rejected: The node had condition: [MemoryPressure]. ";
    assert_eq!(field(&kubectl, &["pod", "best-effort"], "{.status.message}"), refused);

    let critical = pod("critical", "sleep 3600", asks, &format!("{here}  priorityClassName: system-node-critical\n"));
    kubectl.apply(&critical.replace("metadata: {", "metadata: {namespace: kube-system, "));
    kubectl.apply(&pod("burstable", "sleep 3600", asks, here));
    waits_for(&kubectl, &["pod", "burstable"], "{.status.phase} {.status.reason}", PATIENCE, "Failed Evicted");
    let message = field(&kubectl, &["pod", "burstable"], "{.status.message}");
    let start = "The node was low on resource: memory. Threshold quantity: 1000Ti, available: ";
    assert!(message.starts_with(start), "{message}");
    let disruption = "{.status.conditions[?(@.type==\"DisruptionTarget\")]['status','reason','message']}";
    let expected = format!("True TerminationByKubelet {message}");
    assert_eq!(field(&kubectl, &["pod", "burstable"], disruption), expected);
    has_event(&kubectl, "node-1", "EvictionThresholdMet", "Attempting to reclaim memory");
    has_event(&kubectl, "burstable", "Evicted", start);
    let phase = field(&kubectl, &["pod", "critical", "-n", "kube-system"], "{.status.phase}");
    assert_eq!(phase, "Running");
}

/// A disk that fills up costs the unused images first, then the pod that filled it, and nobody else.
#[test]
fn a_full_disk_costs_unused_images_and_the_pod_that_filled_it() {
    let settings = "evictionHard: {memory.available: 10Mi, nodefs.available: 300Mi}\n\
                    evictionPressureTransitionPeriod: 15s\nimageGCHighThresholdPercent: 100\nimageMinimumGCAge: 1s\n";
    let options = HostOptions { kubelet: Some(settings.to_owned()), ..HostOptions::default() };
    let Some(mut host) = Host::prepare(options) else { return };
    let disk = Disk::mount(&host.data_dir(), "1600m");
    host.start();
    load_busybox(&host);
    let unused = host.file("unused.tar");
    let built = ImageBuilder::new(UNUSED).expect("the name is one").bytes("/file", vec![7; 1000], 0o644).cmd(["/file"]);
    built.write_to(&unused).expect("the image can be written");
    load(&host, &unused);
    // What is there when the kubelet starts is not new.
    assert!(host.terminate(), "{}", host.log());
    host.start();
    let kubectl = host.kubectl();
    kubectl.apply(&pod("modest", "sleep 3600", "", ""));
    waits_for(&kubectl, &["pod", "modest"], "{.status.phase}", SOON, "Running");
    let images = "{.status.images[*].names[*]}";
    eventually("both images on the node", SOON, || {
        let seen = field(&kubectl, &["node", "node-1"], images);
        if seen.contains(UNUSED) { Ok(()) } else { Err(seen) }
    });
    let megabytes = disk.available() / (1 << 20) - 150;
    let fill = format!("dd if=/dev/zero of=/v/file bs=1M count={megabytes}; sleep 3600");
    let volume = "    volumeMounts: [{name: v, mountPath: /v}]\n";
    kubectl.apply(&pod("greedy", &fill, volume, "  volumes: [{name: v, emptyDir: {}}]\n"));
    let condition = "{.status.conditions[?(@.type==\"DiskPressure\")]['status','reason']}";
    waits_for(&kubectl, &["node", "node-1"], condition, PATIENCE, "True KubeletHasDiskPressure");
    waits_for(&kubectl, &["pod", "greedy"], "{.status.phase} {.status.reason}", PATIENCE, "Failed Evicted");
    let message = field(&kubectl, &["pod", "greedy"], "{.status.message}");
    let start = "The node was low on resource: ephemeral-storage. Threshold quantity: 300Mi, available: ";
    assert!(message.starts_with(start), "{message}");
    has_event(&kubectl, "node-1", "EvictionThresholdMet", "Attempting to reclaim ephemeral-storage");
    waits_for(&kubectl, &["node", "node-1"], condition, PATIENCE, "False KubeletHasNoDiskPressure");
    eventually("the end of the unused image", SOON, || {
        let seen = field(&kubectl, &["node", "node-1"], images);
        if !seen.contains(UNUSED) && seen.contains(BUSYBOX) { Ok(()) } else { Err(seen) }
    });
    assert_eq!(field(&kubectl, &["pod", "modest"], "{.status.phase}"), "Running");
    drop(host);
    drop(disk);
}

/// A small file system in memory.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path, size: &str) -> Self {
        std::fs::create_dir_all(path).expect("a directory can be made");
        let text = path.to_str().expect("paths of tests are text");
        let options = format!("size={size},mode=0755");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs", text]).status();
        assert!(mounted.is_ok_and(|status| status.success()), "a tmpfs can be mounted at {text}");
        Self(path.to_owned())
    }

    /// Free bytes.
    fn available(&self) -> u64 {
        let output = Command::new("df").args(["-B1", "--output=avail"]).arg(&self.0).output().expect("df runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().nth(1).and_then(|line| line.trim().parse().ok()).expect("df prints a number")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What still uses it is ended by the host's own clean-up.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Limits of memory, processes and logs, and what is reserved on the node.
#[test]
fn limits_and_reservations_are_kept() {
    let settings = "maxPods: 30\npodPidsLimit: 40\nkubeReserved: {cpu: 100m, memory: 64Mi}\n\
                    systemReserved: {memory: 64Mi}\nevictionHard: {memory.available: 10Mi, nodefs.available: 16Mi}\n\
                    containerLogMaxSize: 20Ki\ncontainerLogMaxFiles: 3\ncontainerLogMonitorInterval: 1s\n\
                    allowedUnsafeSysctls: ['kernel.msg*']\n";
    let Some(host) = node(Some(settings)) else { return };
    let kubectl = host.kubectl();
    let memory = "    resources: {limits: {memory: 24Mi}}\n";
    kubectl.apply(&pod("hog", "exec tail /dev/zero", memory, ""));
    kubectl.apply(&pod("child", "tail /dev/zero; sleep 2; exit 7", memory, ""));
    kubectl.apply(&pod("forks", "for i in $(seq 60); do sleep 1000 & done; sleep 1000", "", ""));
    kubectl.apply(&pod("chatty", "while true; do seq 200; usleep 100000; done", "", ""));
    let sysctl = |name: &str| format!("  securityContext: {{sysctls: [{{name: {name}, value: \"4096\"}}]}}\n");
    kubectl.apply(&pod("tuned", "cat /proc/sys/kernel/msgmax", "", &sysctl("kernel.msgmax")));
    kubectl.apply(&pod("forbidden", "true", "", &format!("  nodeName: node-1\n{}", sysctl("kernel.sem"))));

    the_node_keeps_its_share(&kubectl);
    let ended = "{.status.containerStatuses[0].state.terminated['reason','exitCode']}";
    waits_for(&kubectl, &["pod", "hog"], ended, SOON, "OOMKilled 137");
    waits_for(&kubectl, &["pod", "child"], ended, SOON, "OOMKilled 7");
    eventually("a fork that fails", SOON, || {
        let log = kubectl.try_run(&["logs", "forks"]);
        if log.all().contains("fork") { Ok(()) } else { Err(log.all()) }
    });
    waits_for(&kubectl, &["pod", "tuned"], "{.status.phase}", SOON, "Succeeded");
    assert_eq!(kubectl.run(&["logs", "tuned"]), "4096\n");
    waits_for(&kubectl, &["pod", "forbidden"], "{.status.phase} {.status.reason}", SOON, "Failed SysctlForbidden");
    let message = field(&kubectl, &["pod", "forbidden"], "{.status.message}");
    assert_eq!(message, "Pod was rejected: forbidden sysctl: \"kernel.sem\" not allowlisted");
    eventually("rotated logs", SOON, || {
        let files = log_files(&host.data_dir(), "default_chatty_");
        let compressed = files.iter().any(|file| file.ends_with(".gz"));
        if compressed && files.len() <= 3 { Ok(()) } else { Err(format!("{files:?}")) }
    });
}

fn the_node_keeps_its_share(kubectl: &Kubectl) {
    let amounts =
        |list: &str| field(kubectl, &["node", "node-1"], &format!("{{.status.{list}['cpu','memory','pods']}}"));
    let read = |text: &str| -> (i64, i64, String) {
        let words: Vec<&str> = text.split(' ').collect();
        let cpu = words[0].strip_suffix('m').map_or_else(|| words[0].parse().map(|cpu: i64| cpu * 1000), str::parse);
        let memory = words[1].strip_suffix("Ki").expect("kibibytes").parse().expect("a number");
        (cpu.expect("a number"), memory, words[2].to_owned())
    };
    let (capacity, allocatable) = (read(&amounts("capacity")), read(&amounts("allocatable")));
    assert_eq!(capacity.0 - allocatable.0, 100, "CPU");
    assert_eq!(capacity.1 - allocatable.1, (64 + 64 + 10) * 1024, "memory");
    assert_eq!(allocatable.2, "30");
}

/// The files in the log directory of a pod's only container.
fn log_files(data_dir: &Path, pod: &str) -> Vec<String> {
    let list = |path: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let pods = list(&data_dir.join("logs/pods"));
    let own =
        pods.into_iter().filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(pod)));
    own.flat_map(|directory| list(&directory.join("c"))).map(|file| file.display().to_string()).collect()
}
