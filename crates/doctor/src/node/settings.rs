//! Settings of the kernel, the files that set them, and modules.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kedge_diagnosis::Fact;
use serde_json::Value;

use crate::machine::setting;
use crate::node::reading::Reading;

const SETTINGS: &[&str] = &[
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.default.rp_filter",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "vm.max_map_count",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
    "kernel.pid_max",
    "kernel.hostname",
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
    "fs.file-max",
    "net.netfilter.nf_conntrack_max",
];
/// Where files of settings lie; a name in an earlier directory hides that of a later one.
const DIRECTORIES: &[&str] =
    &["etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d"];
const MODULES: &[&str] = &[
    "br_netfilter",
    "overlay",
    "nf_conntrack",
    "nf_tables",
    "ip_tables",
    "vxlan",
    "geneve",
    "wireguard",
    "ipip",
    "ip_vs",
    "iscsi_tcp",
    "nfs",
    "dm_multipath",
];
/// A file of settings is larger than this by mistake only.
const MOST_BYTES: u64 = 1 << 20;

pub(super) fn read() -> Reading {
    let mut reading = Reading::default();
    for name in SETTINGS {
        reading.add(format!("sysctl {name}"), Fact::Setting { name: (*name).to_owned(), value: setting(name) });
    }
    files(Path::new("/"), &mut reading);
    modules(&mut reading);
    reading
}

/// Files in the order in which they are read: by their names alone, whichever directory they lie in.
fn files(root: &Path, reading: &mut Reading) {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for directory in DIRECTORIES {
        let entries = std::fs::read_dir(root.join(directory)).into_iter().flatten().flatten();
        for path in
            entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ending| ending == "conf"))
        {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.entry(name).or_insert(path);
        }
    }
    // The old file comes last, unless a link in the directory gives it another place.
    let old = root.join("etc/sysctl.conf");
    let is_linked = found.values().any(|path| std::fs::canonicalize(path).is_ok_and(|target| target == old));
    let old = (!is_linked && old.exists()).then_some(old);
    for path in found.into_values().chain(old) {
        let shown = path.display().to_string();
        match std::fs::metadata(&path).map(|about| about.len()) {
            Ok(size) if size <= MOST_BYTES => match std::fs::read_to_string(&path) {
                Ok(text) => reading.document("sysctl", &shown, Ok(parse(&text))),
                Err(error) => reading.miss(shown, error),
            },
            // A link to /dev/null switches a file of the system off.
            _ => {}
        }
    }
}

/// `name = value` lines, with names in sysctl's notation.
fn parse(text: &str) -> Value {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    let settings = lines.filter_map(|line| line.trim_start_matches('-').split_once('='));
    let name = |name: &str| {
        let name = name.trim();
        // The first separator says which notation it is.
        let is_path = name.find(['/', '.']).is_some_and(|at| name.as_bytes()[at] == b'/');
        if is_path { name.replace('/', ".") } else { name.to_owned() }
    };
    settings.map(|(key, value)| (name(key), Value::from(value.trim()))).collect::<serde_json::Map<_, _>>().into()
}

/// Modules that are there, loaded or built in, and those that this kernel does not have at all. One that only needs to be
/// loaded is neither.
fn modules(reading: &mut Reading) {
    let release = setting("kernel.osrelease").unwrap_or_default();
    let directory = Path::new("/lib/modules").join(&release);
    let list = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap_or_default();
    let (builtin, loadable) = (list("modules.builtin"), list("modules.dep"));
    let file_systems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for name in MODULES {
        let has = |list: &str| list.lines().any(|line| is_module(line, name));
        let is_loaded = Path::new("/sys/module").join(name).exists()
            || has(&builtin)
            || file_systems.lines().any(|line| line.split_whitespace().last() == Some(name))
            || (*name == "nf_conntrack" && Path::new("/proc/sys/net/netfilter").exists());
        let is_known_absent = !is_loaded && !loadable.is_empty() && !has(&loadable);
        if is_loaded || is_known_absent {
            reading.add(format!("modinfo {name}"), Fact::Module { name: (*name).to_owned(), loaded: is_loaded });
        }
    }
}

/// Whether a line of a list of modules is a module's: `kernel/net/vxlan/vxlan.ko.zst: ...`.
fn is_module(line: &str, name: &str) -> bool {
    let path = line.split(':').next().unwrap_or_default();
    let file = path.rsplit('/').next().unwrap_or_default();
    file.split(".ko").next().is_some_and(|module| module.replace('-', "_") == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_the_order_of_their_names() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("it is made");
            std::fs::write(path, text).expect("it is written");
        };
        write("etc/sysctl.d/90-k8s.conf", "# ours\nnet.ipv4.ip_forward = 1\n");
        write("usr/lib/sysctl.d/50-default.conf", "-net.ipv4.conf.all.rp_filter=2\nnet/ipv4/ip_forward=0");
        write("usr/lib/sysctl.d/90-k8s.conf", "net.ipv4.ip_forward=0");
        write("etc/sysctl.conf", "");
        write("etc/sysctl.d/README", "x=1");
        let mut reading = Reading::default();
        files(root.path(), &mut reading);
        let documents: Vec<_> = reading
            .facts()
            .filter_map(|(_, fact)| match fact {
                Fact::Document { path, content: Ok(content), .. } => {
                    let path = path.trim_start_matches(&*root.path().to_string_lossy()).to_owned();
                    Some((path, content["net.ipv4.ip_forward"].as_str().unwrap_or_default().to_owned()))
                }
                _ => None,
            })
            .collect();
        let own = |path: &str, value: &str| (path.to_owned(), value.to_owned());
        assert_eq!(
            documents,
            [
                own("/usr/lib/sysctl.d/50-default.conf", "0"),
                own("/etc/sysctl.d/90-k8s.conf", "1"),
                own("/etc/sysctl.conf", "")
            ]
        );
    }

    #[test]
    fn modules_are_known_by_their_files() {
        assert!(is_module("kernel/net/bridge/br_netfilter.ko.xz: kernel/net/bridge/bridge.ko.xz", "br_netfilter"));
        assert!(is_module("kernel/drivers/net/vxlan/vxlan.ko", "vxlan"));
        assert!(!is_module("kernel/x/y.ko: kernel/drivers/net/vxlan/vxlan.ko", "vxlan"));
    }
}
