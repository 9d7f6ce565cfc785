//! Processes of the machine that are parts of a cluster or wait in the kernel, and what all of them hold open.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use kedge_diagnosis::{Fact, ProcessFact};

use crate::node::reading::Reading;

/// Programs of a node.
const PROGRAMS: &[&str] = &[
    "kubelet",
    "containerd",
    "crio",
    "dockerd",
    "cri-dockerd",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kedge",
    "k3s",
    "rke2",
    "calico-node",
    "flanneld",
    "cilium-agent",
    "coredns",
    "keepalived",
    "haproxy",
];
/// A busy disk makes processes wait for moments: one that waits in both looks waits longer.
const PAUSE: Duration = Duration::from_millis(250);
/// The search for what is held open ends here, wherever it is.
const PATIENCE: Duration = Duration::from_millis(700);
const MOST_FACTS: usize = 200;
/// Deleted files of less are not worth a word.
const LEAST_HELD: u64 = 256 << 20;

pub(super) fn read() -> Reading {
    let mut reading = Reading::default();
    let first: BTreeMap<u32, ProcessFact> = processes().map(|process| (process.pid, process)).collect();
    if first.is_empty() {
        reading.miss("processes", "/proc has none");
        return reading;
    }
    if first.values().any(|process| process.state == 'D') {
        std::thread::sleep(PAUSE);
    }
    for process in first.into_values().filter(is_of_interest).take(MOST_FACTS) {
        let process = still(process);
        reading.add("ps -eo pid,stat,wchan,cmd", Fact::Process(process));
    }
    held_open(&mut reading);
    reading
}

fn is_of_interest(process: &ProcessFact) -> bool {
    let program = process.command.first().and_then(|word| word.rsplit('/').next()).unwrap_or_default();
    let is_thread = program.starts_with('[');
    process.pid != std::process::id() && ((process.state == 'D' && !is_thread) || PROGRAMS.contains(&program))
}

/// A process as it is now: one that no longer waits is said to run on.
fn still(process: ProcessFact) -> ProcessFact {
    match (process.state, of(process.pid)) {
        ('D', Some(now)) if now.state != 'D' || now.waits_in != process.waits_in => now_awake(now),
        _ => process,
    }
}

fn now_awake(mut process: ProcessFact) -> ProcessFact {
    process.state = 'S';
    process
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn processes() -> impl Iterator<Item = ProcessFact> {
    pids().filter_map(of)
}

fn of(pid: u32) -> Option<ProcessFact> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, state) = parse(&stat)?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut command: Vec<String> = line
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    if command.is_empty() {
        command.push(format!("[{name}]"));
    }
    // Where it waits is asked for only where that matters.
    let waits_in = if state == 'D' {
        std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default()
    } else {
        String::new()
    };
    let waits_in = waits_in.trim().trim_matches('0').to_owned();
    let command = kedge_bundle::redact_arguments(&command);
    Some(ProcessFact { pid, command, state, waits_in })
}

/// The name and the state in `7 (name) S 1 ...`; a name may have brackets of its own.
fn parse(stat: &str) -> Option<(&str, char)> {
    let (head, rest) = stat.rsplit_once(") ")?;
    Some((head.split_once('(')?.1, rest.chars().next()?))
}

/// Watches of files by user, and deleted files by process.
fn held_open(reading: &mut Reading) {
    let start = Instant::now();
    let mut watchers: BTreeMap<u32, u64> = BTreeMap::new();
    let mut was_refused = false;
    for pid in pids() {
        if start.elapsed() > PATIENCE {
            reading.miss("all open files", format!("it took more than {} ms", PATIENCE.as_millis()));
            break;
        }
        let directory = format!("/proc/{pid}/fd");
        let user = std::fs::metadata(&directory).map(|about| about.uid());
        let (Ok(user), Ok(entries)) = (user, std::fs::read_dir(&directory)) else {
            was_refused |= Path::new(&directory).exists();
            continue;
        };
        let mut held = 0;
        for path in entries.flatten().map(|entry| entry.path()) {
            let Ok(target) = std::fs::read_link(&path) else { continue };
            let target = target.to_string_lossy();
            if target == "anon_inode:inotify" {
                *watchers.entry(user).or_default() += 1;
            } else if target.ends_with(" (deleted)") && target.starts_with('/') && !target.starts_with("/memfd:") {
                held += std::fs::metadata(&path).map_or(0, |about| about.blocks() * 512);
            }
        }
        if held >= LEAST_HELD {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            reading.measure("lsof +L1", "deleted_open_bytes", &format!("{} ({pid})", name.trim()), held as f64, None);
        }
    }
    if was_refused {
        reading.miss("open files of other users", "only root may see them");
        return;
    }
    let limit = crate::machine::setting("fs.inotify.max_user_instances").and_then(|text| text.parse().ok());
    for (user, count) in watchers {
        reading.measure(
            "find /proc/*/fd -lname anon_inode:inotify",
            "inotify_instances",
            &format!("user {user}"),
            count as f64,
            limit,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_brackets() {
        assert_eq!(parse("7 (a (b) c) D 1 2"), Some(("a (b) c", 'D')));
        assert_eq!(parse("7 (kubelet) S 1 2"), Some(("kubelet", 'S')));
        assert_eq!(parse("x"), None);
    }

    #[test]
    fn this_process_is_seen_and_passed_over() {
        let own = of(std::process::id()).expect("it runs");
        assert!(!own.command.is_empty() && !is_of_interest(&own));
    }
}
