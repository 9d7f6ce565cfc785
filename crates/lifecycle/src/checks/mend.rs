//! `--fix`: mends what a machine lacks, with files that survive a restart.
//!
//! Invariant: what is right stays untouched, and every change is told with how to undo it.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use super::CheckFacts;
use super::host_checks::{below, read};
use crate::Say;

const MODULES_FILE: &str = "/etc/modules-load.d/kedge.conf";
const SYSCTL_FILE: &str = "/etc/sysctl.d/90-kedge.conf";
const MODULES: [&str; 2] = ["overlay", "br_netfilter"];
const SWITCHES: [(&str, u64); 5] = [
    ("net.ipv4.ip_forward", 1),
    ("net.bridge.bridge-nf-call-iptables", 1),
    ("net.bridge.bridge-nf-call-ip6tables", 1),
    ("fs.inotify.max_user_instances", 8192),
    ("fs.inotify.max_user_watches", 524_288),
];

/// Something that was changed, or could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What was done, or what failed.
    pub what: String,
    /// How to undo it; nothing was done where empty.
    pub undo: String,
}

impl Change {
    fn new(what: impl Into<String>, undo: impl Into<String>) -> Self {
        Self { what: what.into(), undo: undo.into() }
    }

    fn failed(what: &str, error: &dyn std::fmt::Display) -> Self {
        Self::new(format!("could not {what}: {error}"), "")
    }
}

/// Mends modules, kernel switches, swap and the hosts file.
pub fn mend(facts: &CheckFacts) -> Vec<Change> {
    let mut changes = modules(facts);
    changes.extend(switches(facts));
    changes.extend(swap(facts));
    changes.extend(hosts(facts));
    changes
}

fn modules(facts: &CheckFacts) -> Vec<Change> {
    let is_there = |module: &str| {
        below(facts, &format!("/sys/module/{module}")).is_dir()
            || (module == "br_netfilter" && below(facts, "/proc/sys/net/bridge").is_dir())
            || (module == "overlay" && read(facts, "/proc/filesystems").contains("overlay"))
    };
    let missing: Vec<&str> = MODULES.into_iter().filter(|module| !is_there(module)).collect();
    let mut changes = Vec::new();
    for module in &missing {
        changes.push(match run("modprobe", &[module]) {
            Ok(()) => Change::new(format!("loaded the kernel module {module}"), format!("modprobe -r {module}")),
            Err(error) => Change::failed(&format!("load the kernel module {module}"), &error),
        });
    }
    if !missing.is_empty() {
        let text: String = MODULES.iter().map(|module| format!("{module}\n")).collect();
        changes.extend(put(facts, MODULES_FILE, &text));
    }
    changes
}

fn switches(facts: &CheckFacts) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut kept = String::new();
    for (name, wanted) in SWITCHES {
        let file = format!("/proc/sys/{}", name.replace('.', "/"));
        let Ok(present) = fs::read_to_string(below(facts, &file)) else { continue };
        let value: u64 = present.trim().parse().unwrap_or_default();
        if value >= wanted {
            continue;
        }
        kept.push_str(&format!("{name} = {wanted}\n"));
        changes.push(match fs::write(below(facts, &file), format!("{wanted}\n")) {
            Ok(()) => Change::new(format!("set {name} to {wanted}"), format!("sysctl -w {name}={}", present.trim())),
            Err(error) => Change::failed(&format!("set {name}"), &error),
        });
    }
    if !kept.is_empty() {
        changes.extend(put(facts, SYSCTL_FILE, &kept));
    }
    changes
}

fn swap(facts: &CheckFacts) -> Vec<Change> {
    let mut changes = Vec::new();
    if read(facts, "/proc/swaps").lines().count() > 1 {
        changes.push(match run("swapoff", &["-a"]) {
            Ok(()) => Change::new("turned swap off", "swapon -a"),
            Err(error) => Change::failed("turn swap off", &error),
        });
    }
    let table = read(facts, "/etc/fstab");
    if let Some(without) = without_swap(&table) {
        let saved = "/etc/fstab.kedge-saved";
        let written =
            fs::write(below(facts, saved), &table).and_then(|()| fs::write(below(facts, "/etc/fstab"), &without));
        changes.push(match written {
            Ok(()) => Change::new("took swap out of /etc/fstab", format!("mv {saved} /etc/fstab && swapon -a")),
            Err(error) => Change::failed("take swap out of /etc/fstab", &error),
        });
    }
    changes
}

/// The text of `/etc/fstab` with lines of swap as comments, where it has some.
pub(super) fn without_swap(table: &str) -> Option<String> {
    let line = |line: &str| {
        let is_swap = !line.trim_start().starts_with('#') && line.split_whitespace().nth(2) == Some("swap");
        if is_swap { format!("#{line}\n") } else { format!("{line}\n") }
    };
    let without: String = table.lines().map(line).collect();
    without.lines().ne(table.lines()).then_some(without)
}

fn hosts(facts: &CheckFacts) -> Vec<Change> {
    use std::net::ToSocketAddrs;
    let name = &facts.node_name;
    let table = read(facts, "/etc/hosts");
    let is_named = table.lines().any(|line| {
        let words = line.split('#').next().unwrap_or_default().split_whitespace();
        words.skip(1).any(|word| word == name)
    });
    if is_named || (name.as_str(), 0u16).to_socket_addrs().is_ok_and(|mut found| found.next().is_some()) {
        return Vec::new();
    }
    let line = format!("{} {name}", facts.node_ip);
    let separator = if table.is_empty() || table.ends_with('\n') { "" } else { "\n" };
    vec![match fs::write(below(facts, "/etc/hosts"), format!("{table}{separator}{line}\n")) {
        Ok(()) => Change::new(format!("added \"{line}\" to /etc/hosts"), format!("sed -i '/^{line}$/d' /etc/hosts")),
        Err(error) => Change::failed("add the node to /etc/hosts", &error),
    }]
}

/// Writes a file of Kedge's own.
fn put(facts: &CheckFacts, file: &str, text: &str) -> Vec<Change> {
    let path = below(facts, file);
    if fs::read_to_string(&path).is_ok_and(|present| present == text) {
        return Vec::new();
    }
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
    vec![match written {
        Ok(()) => Change::new(format!("wrote {file}, so that it stays so after a restart"), format!("rm {file}")),
        Err(error) => Change::failed(&format!("write {file}"), &error),
    }]
}

fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Mends what can be mended, and says each change with how to undo it.
pub(crate) fn mend_aloud(facts: &CheckFacts, say: Say<'_>) {
    for change in mend(facts) {
        let undo = if change.undo.is_empty() { String::new() } else { format!(" (undo: {})", change.undo) };
        say(&format!("[preflight] --fix: {}{undo}", change.what));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checks::Role;

    fn put_file(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn switches_are_set_and_stay() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        put_file(root, "proc/sys/net/ipv4/ip_forward", "0\n");
        put_file(root, "proc/sys/fs/inotify/max_user_watches", "1000000\n");
        put_file(root, "etc/hosts", "127.0.0.1 localhost");
        let facts = CheckFacts {
            role: Role::Init,
            node_name: "no-such-host.invalid".to_owned(),
            node_ip: "192.0.2.2".parse().unwrap(),
            api_port: 6443,
            api_host: None,
            cri_socket: None,
            etcd_data_dir: None,
            ranges: Vec::new(),
            root: root.to_owned(),
        };
        let changes: Vec<Change> = [switches(&facts), hosts(&facts)].concat();
        let undo: Vec<&str> = changes.iter().map(|change| change.undo.as_str()).collect();
        assert_eq!(
            undo,
            [
                "sysctl -w net.ipv4.ip_forward=0",
                "rm /etc/sysctl.d/90-kedge.conf",
                "sed -i '/^192.0.2.2 no-such-host.invalid$/d' /etc/hosts",
            ]
        );
        assert_eq!(fs::read_to_string(root.join("proc/sys/net/ipv4/ip_forward")).unwrap(), "1\n");
        assert_eq!(fs::read_to_string(root.join("etc/sysctl.d/90-kedge.conf")).unwrap(), "net.ipv4.ip_forward = 1\n");
        assert_eq!([switches(&facts), hosts(&facts)].concat(), [], "once is enough");
    }

    #[test]
    fn swap_becomes_a_comment() {
        let table = "/dev/a / ext4 defaults 0 1\n/dev/b none swap sw 0 0\n# /dev/c none swap sw 0 0\n";
        let without = "/dev/a / ext4 defaults 0 1\n#/dev/b none swap sw 0 0\n# /dev/c none swap sw 0 0\n";
        assert_eq!(without_swap(table).as_deref(), Some(without));
        assert_eq!((without_swap(without), without_swap("")), (None, None));
    }
}
