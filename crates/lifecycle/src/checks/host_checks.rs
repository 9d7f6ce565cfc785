//! kubeadm's checks, with its names and texts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};

use super::{CheckFacts, CheckResult, Role};
use crate::host::{KUBERNETES_DIR, MANIFESTS_DIR};
use crate::manifests::CONTROL_PLANE;

const FEWEST_CPUS: usize = 2;
const LEAST_MEMORY_MB: u64 = 1700;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn privileged_user(_: &CheckFacts) -> Vec<CheckResult> {
    let result = CheckResult::new("IsPrivilegedUser");
    match nix::unistd::geteuid().is_root() {
        true => vec![result],
        false => vec![result.error("user is not running as root")],
    }
}

pub(super) fn cpus(facts: &CheckFacts) -> Vec<CheckResult> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if facts.role == Role::Worker || cpus >= FEWEST_CPUS {
        return Vec::new();
    }
    let text = format!("the number of available CPUs {cpus} is less than the required {FEWEST_CPUS}");
    vec![CheckResult::new("NumCPU").error(text)]
}

pub(super) fn memory(facts: &CheckFacts) -> Vec<CheckResult> {
    if facts.role == Role::Worker {
        return Vec::new();
    }
    let megabytes = total_memory(&read(facts, "/proc/meminfo")) / 1024;
    if megabytes >= LEAST_MEMORY_MB {
        return Vec::new();
    }
    let text = format!("the system RAM ({megabytes} MB) is less than the minimum {LEAST_MEMORY_MB} MB");
    vec![CheckResult::new("Mem").error(text)]
}

/// Kilobytes of memory in the text of `/proc/meminfo`.
fn total_memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

pub(super) fn ports(facts: &CheckFacts) -> Vec<CheckResult> {
    let mut ports = vec![10250];
    if facts.role != Role::Worker {
        ports.extend([facts.api_port, 10259, 10257]);
        ports.extend(facts.etcd_data_dir.iter().flat_map(|_| [2379, 2380]));
    }
    let any: IpAddr = match facts.node_ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let is_taken = |port: &u16| TcpListener::bind(SocketAddr::new(any, *port)).is_err();
    let result = |port: u16| CheckResult::new(format!("Port-{port}")).error(format!("Port {port} is in use"));
    ports.into_iter().filter(is_taken).map(result).collect()
}

pub(super) fn files(facts: &CheckFacts) -> Vec<CheckResult> {
    let kubeconfigs = ["kubelet.conf", "bootstrap-kubelet.conf"].map(|name| format!("{KUBERNETES_DIR}/{name}"));
    let manifests = CONTROL_PLANE.iter().chain(&["etcd"]).map(|name| format!("{MANIFESTS_DIR}/{name}.yaml"));
    let files: Vec<String> = match facts.role {
        Role::Init => manifests.collect(),
        Role::ControlPlane => manifests.chain(kubeconfigs).collect(),
        Role::Worker => kubeconfigs.into_iter().chain([format!("{KUBERNETES_DIR}/pki/ca.crt")]).collect(),
    };
    let there = files.into_iter().filter(|file| below(facts, file).exists());
    there.map(|file| CheckResult::new(named("FileAvailable", &file)).error(format!("{file} already exists"))).collect()
}

pub(super) fn etcd_directory(facts: &CheckFacts) -> Vec<CheckResult> {
    let Some(dir) = facts.etcd_data_dir.as_ref().map(|dir| dir.display().to_string()) else { return Vec::new() };
    let is_empty = std::fs::read_dir(below(facts, &dir)).map_or(true, |mut entries| entries.next().is_none());
    match is_empty {
        true => Vec::new(),
        false => vec![CheckResult::new(named("DirAvailable", &dir)).error(format!("{dir} is not empty"))],
    }
}

pub(super) fn swap(facts: &CheckFacts) -> Vec<CheckResult> {
    let result = CheckResult::new("Swap");
    if read(facts, "/proc/swaps").lines().count() < 2 {
        return match super::mend::without_swap(&read(facts, "/etc/fstab")) {
            Some(_) => vec![result.warning(
                "swap is off, but /etc/fstab turns it on at the next start of the machine; take it out there, or use --fix",
            )],
            None => Vec::new(),
        };
    }
    vec![result.warning(
        "swap is supported for cgroup v2 only. The kubelet must be properly configured to use swap. Please refer to \
         https://kubernetes.io/docs/concepts/architecture/nodes/#swap-memory, or disable swap on the node",
    )]
}

pub(super) fn programs(facts: &CheckFacts) -> Vec<CheckResult> {
    let missing = |program: &&str| find(facts, program).is_none();
    let text = |program: &str| format!("{program} not found in system path");
    let result = |program: &str| CheckResult::new(format!("FileExisting-{program}"));
    let needed = ["losetup", "mount", "cp"].into_iter().filter(missing);
    let wanted = ["tc", "ethtool"].into_iter().filter(missing);
    let needed = needed.map(|program| result(program).error(text(program)));
    needed.chain(wanted.map(|program| result(program).warning(text(program)))).collect()
}

/// The kernel's control groups and its age.
pub(super) fn system(facts: &CheckFacts) -> Vec<CheckResult> {
    let mut result = CheckResult::new("SystemVerification");
    let v2 = read(facts, "/sys/fs/cgroup/cgroup.controllers");
    for controller in ["cpu", "memory", "pids"] {
        let v1 = below(facts, &format!("/sys/fs/cgroup/{controller}")).is_dir();
        if !v1 && !v2.split_whitespace().any(|found| found == controller) {
            result = result.error(format!("missing required cgroups: {controller}"));
        }
    }
    let release = read(facts, "/proc/sys/kernel/osrelease");
    if kernel_version(&release).is_some_and(|version| version < (4, 19)) {
        result = result.error(format!("unsupported kernel release: {}", release.trim()));
    }
    vec![result]
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.trim().split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

pub(super) fn hostname(facts: &CheckFacts) -> Vec<CheckResult> {
    let name = &facts.node_name;
    let result = CheckResult::new("Hostname");
    let resolved = (name.as_str(), 0u16).to_socket_addrs();
    match resolved.map(|mut addresses| addresses.next()) {
        Ok(Some(_)) => Vec::new(),
        Ok(None) => vec![result.warning(format!("hostname \"{name}\" could not be reached"))],
        Err(error) => vec![result.warning(format!("hostname \"{name}\" could not be reached")).warning(format!(
            "hostname \"{name}\": lookup {name}{}: {}",
            asked_whom(facts),
            reason(&error)
        ))],
    }
}

/// The name server, as Go's resolver names it.
fn asked_whom(facts: &CheckFacts) -> String {
    let first = super::own_checks::nameservers(&read(facts, "/etc/resolv.conf")).next();
    first.map(|server| format!(" on {}", SocketAddr::new(server, 53))).unwrap_or_default()
}

fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.contains("not known") || text.contains("No address") {
        true => "no such host".to_owned(),
        false => text.trim_start_matches("failed to lookup address information: ").to_owned(),
    }
}

pub(super) fn forwarding(facts: &CheckFacts) -> Vec<CheckResult> {
    let file = match facts.node_ip {
        IpAddr::V4(_) => "/proc/sys/net/ipv4/ip_forward",
        IpAddr::V6(_) => "/proc/sys/net/ipv6/conf/default/forwarding",
    };
    file_content(facts, file).into_iter().map(|text| CheckResult::new(named("FileContent", file)).error(text)).collect()
}

/// What is wrong with a file that should hold `1`.
pub(super) fn file_content(facts: &CheckFacts, file: &str) -> Option<String> {
    match std::fs::read_to_string(below(facts, file)) {
        Ok(text) if text.trim() == "1" => None,
        Ok(_) => Some(format!("{file} contents are not set to 1")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(format!("{file} does not exist")),
        Err(_) => Some(format!("{file} could not be read")),
    }
}

/// A check's name for a path: `FileContent--proc-sys-net-ipv4-ip_forward`.
pub(super) fn named(check: &str, path: &str) -> String {
    format!("{check}-{}", path.replace('/', "-"))
}

pub(super) fn below(facts: &CheckFacts, path: &str) -> PathBuf {
    facts.root.join(path.trim_start_matches('/'))
}

pub(super) fn read(facts: &CheckFacts, path: &str) -> String {
    std::fs::read_to_string(below(facts, path)).unwrap_or_default()
}

pub(super) fn find(facts: &CheckFacts, program: &str) -> Option<PathBuf> {
    PATH.split(':').map(|dir| below(facts, dir).join(program)).find(|path: &PathBuf| Path::is_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(root: &Path, role: Role) -> CheckFacts {
        CheckFacts {
            role,
            node_name: "n1".to_owned(),
            node_ip: "192.0.2.2".parse().unwrap(),
            api_port: 6443,
            api_host: None,
            cri_socket: None,
            etcd_data_dir: Some("/var/lib/etcd".into()),
            ranges: Vec::new(),
            root: root.to_owned(),
        }
    }

    fn put(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn texts(results: Vec<CheckResult>) -> Vec<String> {
        let line = |kind: &str, name: &str, text: &String| format!("{kind} {name}: {text}");
        let of = |result: CheckResult| {
            let warnings = result.warnings.iter().map(|text| line("W", &result.name, text)).collect::<Vec<_>>();
            let errors = result.errors.iter().map(|text| line("E", &result.name, text)).collect::<Vec<_>>();
            [warnings, errors].concat()
        };
        results.into_iter().flat_map(of).collect()
    }

    #[test]
    fn texts_are_kubeadms() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let facts = facts(root, Role::Init);
        let check = |check: fn(&CheckFacts) -> Vec<CheckResult>, expected: &[&str]| {
            assert_eq!(texts(check(&facts)), expected);
        };
        check(
            forwarding,
            &["E FileContent--proc-sys-net-ipv4-ip_forward: /proc/sys/net/ipv4/ip_forward does not exist"],
        );
        put(root, "proc/sys/net/ipv4/ip_forward", "0\n");
        check(
            forwarding,
            &["E FileContent--proc-sys-net-ipv4-ip_forward: /proc/sys/net/ipv4/ip_forward contents are not set to 1"],
        );
        put(root, "proc/sys/net/ipv4/ip_forward", "1\n");
        check(forwarding, &[]);
        check(files, &[]);
        put(root, "etc/kubernetes/manifests/etcd.yaml", "");
        check(
            files,
            &[
                "E FileAvailable--etc-kubernetes-manifests-etcd.yaml: /etc/kubernetes/manifests/etcd.yaml already exists",
            ],
        );
        check(swap, &[]);
        put(root, "etc/fstab", "/dev/b none swap sw 0 0\n");
        check(
            swap,
            &[
                "W Swap: swap is off, but /etc/fstab turns it on at the next start of the machine; take it out there, or use \
                 --fix",
            ],
        );
        put(root, "etc/resolv.conf", "nameserver 192.0.2.53\n");
        assert_eq!(asked_whom(&facts), " on 192.0.2.53:53");
        check(etcd_directory, &[]);
        put(root, "var/lib/etcd/member", "");
        check(etcd_directory, &["E DirAvailable--var-lib-etcd: /var/lib/etcd is not empty"]);
        put(root, "proc/meminfo", "MemTotal:        1048576 kB\n");
        check(memory, &["E Mem: the system RAM (1024 MB) is less than the minimum 1700 MB"]);
        put(root, "usr/bin/mount", "");
        check(
            programs,
            &[
                "E FileExisting-losetup: losetup not found in system path",
                "E FileExisting-cp: cp not found in system path",
                "W FileExisting-tc: tc not found in system path",
                "W FileExisting-ethtool: ethtool not found in system path",
            ],
        );
        put(root, "sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
        check(system, &["E SystemVerification: missing required cgroups: pids"]);
        assert_eq!(kernel_version("6.18.0-rc1"), Some((6, 18)));
    }

    #[test]
    fn a_worker_needs_less() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "proc/meminfo", "MemTotal:        1048576 kB\n");
        put(dir.path(), "etc/kubernetes/pki/ca.crt", "");
        let facts = facts(dir.path(), Role::Worker);
        assert_eq!(memory(&facts), []);
        assert_eq!(
            texts(files(&facts)),
            ["E FileAvailable--etc-kubernetes-pki-ca.crt: /etc/kubernetes/pki/ca.crt already exists",]
        );
    }
}
