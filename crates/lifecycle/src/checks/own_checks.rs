//! What kubeadm does not look at and clusters stumble over: each text says what it means.

use std::io::Write;
use std::time::{Duration, Instant};

use super::host_checks::{below, file_content, find, named, read};
use super::{CheckFacts, CheckResult, Role};

const BRIDGE: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
/// Fewer inotify instances than this run out with a few dozen pods.
const FEWEST_INSTANCES: u64 = 512;
const FEWEST_WATCHES: u64 = 65_536;
/// etcd's own advice: the 99th percentile of a sync is below 10 ms.
const SLOW_SYNC: Duration = Duration::from_millis(10);
const SYNCS: usize = 100;
const SYNC_BUDGET: Duration = Duration::from_secs(2);

pub(super) fn bridge(facts: &CheckFacts) -> Vec<CheckResult> {
    let effect = "packets between pods of one node then pass by the rules of Services and NetworkPolicies; mend it with \
                  --fix (module br_netfilter)";
    let wrong = file_content(facts, BRIDGE);
    wrong
        .into_iter()
        .map(|text| CheckResult::new(named("FileContent", BRIDGE)).warning(format!("{text}: {effect}")))
        .collect()
}

pub(super) fn rule_programs(facts: &CheckFacts) -> Vec<CheckResult> {
    let mut programs =
        vec![("nft", "nftables"), ("conntrack", "conntrack"), ("ctr", "containerd"), ("setsid", "util-linux")];
    if facts.role != Role::Worker && facts.etcd_data_dir.is_some() {
        programs.push(("etcd", "etcd-server"));
    }
    let missing = programs.into_iter().filter(|(program, _)| find(facts, program).is_none());
    missing
        .map(|(program, package)| {
            let text = format!("{program} not found in system path; install it (Debian: `apt-get install {package}`)");
            CheckResult::new(format!("FileExisting-{program}")).error(text)
        })
        .collect()
}

pub(super) fn plugins(facts: &CheckFacts) -> Vec<CheckResult> {
    let dirs = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];
    let there =
        dirs.iter().any(|dir| ["bridge", "host-local", "loopback"].iter().all(|p| below(facts, dir).join(p).exists()));
    if there {
        return Vec::new();
    }
    let text = format!(
        "no CNI plugins in {}; pods will get no network (Debian: `apt-get install containernetworking-plugins`)",
        dirs.join(", ")
    );
    vec![CheckResult::new("CNIPlugins").warning(text)]
}

/// Ranges must not overlap, nor hold the node's address or a name server.
pub(super) fn ranges(facts: &CheckFacts) -> Vec<CheckResult> {
    let mut result = CheckResult::new("Ranges");
    for (index, (flag, range)) in facts.ranges.iter().enumerate() {
        if range.contains(&facts.node_ip) {
            result = result.error(format!(
                "{flag} {range} holds the node's address {}: choose a range that the network does not use",
                facts.node_ip
            ));
        }
        for server in nameservers(&read(facts, "/etc/resolv.conf")).filter(|server| range.contains(server)) {
            result = result.error(format!("{flag} {range} holds the name server {server}, which would be cut off"));
        }
        for (other_flag, other) in &facts.ranges[..index] {
            if range.contains(other) || other.contains(range) {
                result = result.error(format!("{flag} {range} and {other_flag} {other} overlap"));
            }
        }
    }
    vec![result]
}

pub(super) fn nameservers(text: &str) -> impl Iterator<Item = std::net::IpAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok())
        .collect::<Vec<_>>()
        .into_iter()
}

pub(super) fn inotify(facts: &CheckFacts) -> Vec<CheckResult> {
    let limits = [("max_user_instances", FEWEST_INSTANCES), ("max_user_watches", FEWEST_WATCHES)];
    let low = limits.into_iter().filter_map(|(name, least)| {
        let value: u64 = read(facts, &format!("/proc/sys/fs/inotify/{name}")).trim().parse().ok()?;
        (value < least).then(|| {
            format!(
                "fs.inotify.{name} is {value}: programs in pods fail with \"too many open files\" \
            soon; {least} and more are advised (--fix)"
            )
        })
    });
    let result = low.fold(CheckResult::new("InotifyLimits"), CheckResult::warning);
    vec![result]
}

/// A machine that was copied with its identity shows up under another one's.
pub(super) fn identity(facts: &CheckFacts) -> Vec<CheckResult> {
    let id = read(facts, "/etc/machine-id");
    match id.trim() {
        "" | "uninitialized" => vec![CheckResult::new("MachineID").warning(
            "/etc/machine-id is empty: machines copied from one image can't be told from each other; make one with \
             `systemd-machine-id-setup`",
        )],
        _ => Vec::new(),
    }
}

pub(super) fn mtu(facts: &CheckFacts) -> Vec<CheckResult> {
    let interfaces = std::fs::read_dir(below(facts, "/sys/class/net")).into_iter().flatten().flatten();
    let small = interfaces.filter_map(|interface| {
        let name = interface.file_name().to_string_lossy().into_owned();
        let mtu: u32 = std::fs::read_to_string(interface.path().join("mtu")).ok()?.trim().parse().ok()?;
        let is_up = std::fs::read_to_string(interface.path().join("operstate")).is_ok_and(|state| state.trim() == "up");
        (is_up && name != "lo" && mtu < 1330).then(|| {
            format!(
                "{name} takes packets of {mtu} bytes: less than 1280 are left for pods where nodes are tunnelled to"
            )
        })
    });
    vec![small.fold(CheckResult::new("MTU"), CheckResult::warning)]
}

/// containerd gives containers scores that only this capability allows; without it, it must be told.
pub(super) fn resources(facts: &CheckFacts) -> Vec<CheckResult> {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = read(facts, "/proc/self/status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX);
    let is_told = read(facts, "/etc/containerd/config.toml").contains("restrict_oom_score_adj = true");
    if effective & (1 << CAP_SYS_RESOURCE) != 0 || is_told {
        return Vec::new();
    }
    vec![CheckResult::new("CapSysResource").warning(
        "CAP_SYS_RESOURCE is missing here: pods do not start unless containerd has `restrict_oom_score_adj = true`",
    )]
}

/// How long a sync takes where etcd will write.
pub(super) fn disk(facts: &CheckFacts) -> Vec<CheckResult> {
    if facts.role == Role::Worker {
        return Vec::new();
    }
    let dir = below(facts, "/var/lib");
    let Ok(Some(p99)) = measure(&dir) else { return Vec::new() };
    if p99 <= SLOW_SYNC {
        return Vec::new();
    }
    let text = format!(
        "a sync in {} takes up to {:.1} ms (99th percentile, 10 ms are advised): leases may be lost under load, and \
         whoever leads with them",
        dir.display(),
        p99.as_secs_f64() * 1000.0
    );
    vec![CheckResult::new("DiskSync").warning(text)]
}

fn measure(dir: &std::path::Path) -> std::io::Result<Option<Duration>> {
    if !dir.is_dir() {
        return Ok(None);
    }
    let mut file = tempfile::tempfile_in(dir)?;
    let began = Instant::now();
    let mut took = Vec::with_capacity(SYNCS);
    while took.len() < SYNCS && began.elapsed() < SYNC_BUDGET {
        let start = Instant::now();
        file.write_all(&[0; 2048])?;
        file.sync_data()?;
        took.push(start.elapsed());
    }
    took.sort();
    Ok(took.get((took.len() * 99).div_ceil(100).saturating_sub(1)).copied())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn facts(root: &Path) -> CheckFacts {
        CheckFacts {
            role: Role::Init,
            node_name: "n1".to_owned(),
            node_ip: "192.0.2.2".parse().unwrap(),
            api_port: 6443,
            api_host: None,
            cri_socket: None,
            etcd_data_dir: None,
            ranges: vec![
                ("--service-cidr", "10.96.0.0/12".parse().unwrap()),
                ("--pod-network-cidr", "10.100.0.0/16".parse().unwrap()),
            ],
            root: root.to_owned(),
        }
    }

    fn put(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn what_kubeadm_lacks_is_said_with_its_effect() {
        let dir = tempfile::tempdir().unwrap();
        let facts = facts(dir.path());
        let warns = |check: fn(&CheckFacts) -> Vec<CheckResult>, text: &str| {
            let results = check(&facts);
            let texts: Vec<&String> = results.iter().flat_map(|r| r.warnings.iter().chain(&r.errors)).collect();
            assert!(texts.iter().any(|found| found.contains(text)), "{text} is not in {texts:?}");
        };
        warns(bridge, "bridge-nf-call-iptables does not exist: packets between pods");
        warns(rule_programs, "nft not found in system path; install it");
        warns(plugins, "no CNI plugins in");
        warns(ranges, "overlap");
        warns(identity, "can't be told from each other");
        put(dir.path(), "proc/sys/fs/inotify/max_user_instances", "128\n");
        warns(inotify, "fs.inotify.max_user_instances is 128");
        put(dir.path(), "proc/self/status", "CapEff:\t000001fffeffffff\n");
        warns(resources, "restrict_oom_score_adj");
        put(dir.path(), "sys/class/net/eth0/mtu", "1300\n");
        put(dir.path(), "sys/class/net/eth0/operstate", "up\n");
        warns(mtu, "eth0 takes packets of 1300 bytes");
    }

    #[test]
    fn a_sync_is_measured() {
        assert!(measure(tempfile::tempdir().unwrap().path()).unwrap().is_some());
    }
}
