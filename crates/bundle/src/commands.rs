//! What commands of a machine print, as facts.
//!
//! Pure. Lines that do not have the command's form are passed over.

use kedge_diagnosis::{Fact, FileSystemFact, NetworkFact, UnitFact};

use crate::layout::Command;

/// Settings of the kernel that rules ask for; the thousand others stay out.
const SETTINGS: [&str; 7] = ["net.ipv4.", "net.bridge.", "net.netfilter.", "fs.inotify.", "fs.file", "kernel.", "vm."];

/// The facts in a command's output.
pub(crate) fn read_command(command: Command, text: &str) -> Vec<Fact> {
    match command {
        Command::Sysctl => text.lines().filter_map(setting).collect(),
        Command::DiskFree => disks(text),
        Command::Modules => text.lines().filter_map(module).collect(),
        Command::Units => text.lines().filter_map(unit).collect(),
        Command::Addresses => interfaces(text),
        Command::Routes => text.lines().filter_map(route).collect(),
        Command::Listeners => text.lines().filter_map(listener).collect(),
    }
}

fn setting(line: &str) -> Option<Fact> {
    let (name, value) = line.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let is_wanted = SETTINGS.iter().any(|start| name.starts_with(start)) && !name.contains(' ');
    is_wanted.then(|| Fact::Setting { name: name.to_owned(), value: Some(value.to_owned()) })
}

/// `df`: in 1 KiB blocks, or inodes with `-i`.
fn disks(text: &str) -> Vec<Fact> {
    let mut lines = text.lines();
    let header = lines.find(|line| line.starts_with("Filesystem")).unwrap_or_default();
    let is_inodes = header.contains("IFree");
    // `df -h` rounds too much for a bound of per cent, and its units differ.
    if !is_inodes && !header.contains("1K-blocks") && !header.contains("1024-blocks") {
        return Vec::new();
    }
    let disk = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [.., total, _, free, _, path] = words[..] else { return None };
        let (total, free) = (total.parse::<u64>().ok()?, free.parse::<u64>().ok()?);
        let path = path.to_owned();
        Some(Fact::FileSystem(if is_inodes {
            FileSystemFact { path, size: 0, available: 0, inodes: total, inodes_free: free }
        } else {
            FileSystemFact { path, size: total * 1024, available: free * 1024, inodes: 0, inodes_free: 0 }
        }))
    };
    lines.filter_map(disk).collect()
}

fn module(line: &str) -> Option<Fact> {
    let name = line.split_whitespace().next().filter(|name| *name != "Module")?;
    Some(Fact::Module { name: name.to_owned(), loaded: true })
}

/// `systemctl list-units`: UNIT LOAD ACTIVE SUB DESCRIPTION, a dot before a failed one.
fn unit(line: &str) -> Option<Fact> {
    let mut words = line.trim_start_matches(['\u{25cf}', '*', ' ']).split_whitespace();
    let name = words.next()?.strip_suffix(".service")?;
    let (load, active) = (words.next()?, words.next()?);
    let enabled = if load == "masked" { "masked" } else { "" };
    Some(Fact::Unit(UnitFact { name: name.to_owned(), active: active.to_owned(), enabled: enabled.to_owned() }))
}

fn interfaces(text: &str) -> Vec<Fact> {
    const KINDS: [&str; 8] = ["bridge", "veth", "vxlan", "ipip", "wireguard", "dummy", "vlan", "bond"];
    let mut found: Vec<NetworkFact> = Vec::new();
    for line in text.lines() {
        if line.starts_with(|first: char| first.is_ascii_digit()) {
            found.extend(interface(line));
        } else if let Some(NetworkFact::Interface { kind, addresses, .. }) = found.last_mut() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("inet" | "inet6") => addresses.extend(words.next().map(str::to_owned)),
                Some("link/loopback") => "loopback".clone_into(kind),
                Some("link/ether") if kind.is_empty() => "ethernet".clone_into(kind),
                Some(first) if KINDS.contains(&first) => first.clone_into(kind),
                _ => {}
            }
        }
    }
    found.into_iter().map(Fact::Network).collect()
}

/// `2: eth0@if3: <BROADCAST,UP> mtu 1500 ...`
fn interface(line: &str) -> Option<NetworkFact> {
    let mut parts = line.splitn(3, ": ");
    let name = parts.nth(1)?.split('@').next()?.to_owned();
    let rest = parts.next()?;
    let mut words = rest.split_whitespace().skip_while(|word| *word != "mtu");
    let mtu = words.nth(1)?.parse().ok()?;
    let flags = rest.trim_start_matches('<').split('>').next()?;
    let up = flags.split(',').any(|flag| flag == "UP");
    Some(NetworkFact::Interface { name, mtu, kind: String::new(), up, addresses: Vec::new() })
}

fn route(line: &str) -> Option<Fact> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |name: &str| words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1));
    let is_local = matches!(words.first(), Some(&("local" | "broadcast" | "multicast" | "unreachable" | "blackhole")));
    let (to, interface) = (words.first().filter(|_| !is_local)?, after("dev")?);
    let via = after("via").map(|via| (*via).to_owned());
    Some(Fact::Network(NetworkFact::Route { to: (*to).to_owned(), via, interface: (*interface).to_owned() }))
}

/// `ss -ltnp` and `netstat -tlnp`: the address is the first word after LISTEN's that ends with a port.
fn listener(line: &str) -> Option<Fact> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if !words.contains(&"LISTEN") {
        return None;
    }
    let has_port = |word: &&&str| word.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = words.iter().find(has_port)?;
    let process = line.split("((\"").nth(1).and_then(|rest| rest.split('"').next());
    let process = process.or_else(|| words.last()?.split_once('/').map(|(_, name)| name));
    Some(Fact::Listener { address: (*address).to_owned(), process: process.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(command: Command, text: &str) -> Vec<String> {
        read_command(command, text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_command_is_read() {
        let sysctl = "net.ipv4.ip_forward = 0\ndev.cdrom.info = x\nsysctl: permission denied\n";
        assert_eq!(shown(Command::Sysctl, sysctl), ["net.ipv4.ip_forward = 0"]);
        let df = "Filesystem     1K-blocks Used Available Use% Mounted on\n/dev/vda 100 90 10 90% /\n";
        assert_eq!(shown(Command::DiskFree, df), ["/: 10240 of 102400 bytes free"]);
        assert_eq!(
            shown(Command::DiskFree, "Filesystem Size Used Avail Use% Mounted on\n/dev/vda 1G 1G 1G 1% /"),
            [""; 0]
        );
        assert_eq!(shown(Command::Modules, "Module Size Used by\nbr_netfilter 32768 0\n"), ["br_netfilter: loaded"]);
        let units =
            "  kubelet.service loaded active running The kubelet\n\u{25cf} containerd.service loaded failed failed x\n";
        assert_eq!(shown(Command::Units, units), ["kubelet: active ", "containerd: failed "]);
        let address = "1: lo: <LOOPBACK,UP> mtu 65536 qdisc x\n    link/loopback 00\n    inet 127.0.0.1/8 scope host lo\n\
            2: eth0@if3: <BROADCAST,UP> mtu 1500 qdisc x\n    link/ether 00\n    inet 10.0.0.1/24 brd x\n";
        assert_eq!(shown(Command::Addresses, address), ["lo: mtu 65536 127.0.0.1/8", "eth0: mtu 1500 10.0.0.1/24"]);
        let routes = "default via 10.0.0.254 dev eth0\n10.0.0.0/24 dev eth0 proto kernel\nlocal 10.0.0.1 dev eth0\n";
        assert_eq!(shown(Command::Routes, routes), ["default via 10.0.0.254 dev eth0", "10.0.0.0/24 dev eth0"]);
        let ss = "LISTEN 0 4096 *:6443 *:* users:((\"kube-apiserver\",pid=1,fd=3))\n";
        assert_eq!(shown(Command::Listeners, ss), ["*:6443 kube-apiserver"]);
        let netstat = "tcp 0 0 127.0.0.1:2379 0.0.0.0:* LISTEN 812/etcd\n";
        assert_eq!(shown(Command::Listeners, netstat), ["127.0.0.1:2379 etcd"]);
    }
}
