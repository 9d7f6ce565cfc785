//! What a file of a bundle holds, by where it lies: each tool has its own tree, and none says so in the file.
//!
//! Pure. Known are `kubectl cluster-info dump`, the troubleshoot.sh bundle, must-gather, and trees like sosreport's.

use kedge_diagnosis::LogSource;

use crate::text::component_of;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hint {
    /// The log of something.
    Log(LogSource),
    /// A file of the directory of static pods of a machine, with its path there.
    Manifest(String),
    /// A certificate of a machine, with its path there.
    Certificate(String),
    /// A configuration file of a machine: the name of its kind, and its path there.
    Document(&'static str, String),
    /// What a command printed.
    Command(Command),
    /// The name of the machine that the files come from.
    HostName,
    /// Objects, tables or anything else: its content says.
    Unknown,
}

/// Commands whose output is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Sysctl,
    DiskFree,
    Modules,
    Units,
    Addresses,
    Routes,
    Listeners,
}

/// What the file at a path of a bundle holds.
pub(crate) fn hint(path: &str) -> Hint {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    container_log(&parts).or_else(|| of_the_machine(path, &parts)).unwrap_or(Hint::Unknown)
}

fn container(namespace: &str, pod: &str, container: &str, previous: bool) -> Hint {
    let own = |text: &str| text.to_owned();
    Hint::Log(LogSource::Container { namespace: own(namespace), pod: own(pod), container: own(container), previous })
}

fn container_log(parts: &[&str]) -> Option<Hint> {
    match *parts {
        // must-gather: namespaces/NS/pods/POD/CONTAINER/CONTAINER/logs/current.log
        [.., "namespaces", namespace, "pods", pod, name, _, "logs", file] if file.ends_with(".log") => {
            Some(container(namespace, pod, name, file.starts_with("previous")))
        }
        // The machine's own: /var/log/pods/NS_POD_UID/CONTAINER/N.log
        [.., "log", "pods", pod, name, file] if file.contains(".log") => {
            let mut words = pod.split('_');
            Some(container(words.next()?, words.next()?, name, false))
        }
        // troubleshoot.sh: cluster-resources/pods/logs/NS/POD/CONTAINER.log
        [.., "pods", "logs", namespace, pod, file] => {
            let name = file.strip_suffix(".log")?;
            let previous = name.strip_suffix("-previous");
            Some(container(namespace, pod, previous.unwrap_or(name), previous.is_some()))
        }
        // kubectl cluster-info dump: NS/POD/logs.txt
        [.., namespace, pod, "logs.txt"] => Some(container(namespace, pod, component_of(pod), false)),
        _ => None,
    }
}

fn of_the_machine(path: &str, parts: &[&str]) -> Option<Hint> {
    let file = parts.last()?;
    let below = |root: &str| path.find(root).map(|at| path[at..].to_owned());
    if let Some(manifest) = below("/etc/kubernetes/manifests/").or_else(|| with_root(path, "etc/kubernetes/manifests/"))
    {
        return Some(Hint::Manifest(manifest));
    }
    if file.ends_with(".crt") {
        let there = below("/etc/kubernetes/").or_else(|| with_root(path, "etc/kubernetes/"));
        return Some(Hint::Certificate(there.unwrap_or_else(|| path.to_owned())));
    }
    if let Some(found) = document(path) {
        return Some(found);
    }
    if *file == "hostname" {
        return Some(Hint::HostName);
    }
    unit_log(file).map(Hint::Log).or_else(|| command(parts).map(Hint::Command))
}

fn document(path: &str) -> Option<Hint> {
    const KNOWN: [(&str, &str); 6] = [
        ("etc/containerd/config.toml", "containerd"),
        ("etc/hosts", "hosts"),
        ("etc/multipath.conf", "multipath"),
        ("etc/resolv.conf", "resolv.conf"),
        ("var/lib/kubelet/config.yaml", "kubelet"),
        ("var/lib/kubelet/kubeadm-flags.env", "kubelet-flags"),
    ];
    KNOWN
        .into_iter()
        .find(|(there, _)| path.ends_with(there))
        .map(|(there, name)| Hint::Document(name, format!("/{there}")))
}

fn with_root(path: &str, start: &str) -> Option<String> {
    path.starts_with(start).then(|| format!("/{path}"))
}

/// Logs of services, by the names that tools give them: `kubelet_service.log`, `journalctl_--unit_kubelet`, `k8s-kubelet.log`.
fn unit_log(file: &str) -> Option<LogSource> {
    const UNITS: [&str; 6] = ["kubelet", "containerd", "crio", "etcd", "kube-proxy", "kedge"];
    if file.starts_with("dmesg") || file == "kern.log" || file.ends_with("_dmesg") {
        return Some(LogSource::Kernel);
    }
    let is_log = file.ends_with(".log") || file.contains("journal") || file.ends_with(".txt");
    let unit = UNITS.into_iter().find(|unit| file.contains(unit));
    match unit {
        Some(unit) if is_log => Some(LogSource::Unit(unit.to_owned())),
        _ => None,
    }
}

fn command(parts: &[&str]) -> Option<Command> {
    let file = *parts.last()?;
    let name = file.trim_end_matches(".txt").trim_end_matches(".log");
    match name {
        "sysctl_-a" | "sysctl" => Some(Command::Sysctl),
        "lsmod" | "proc-modules" => Some(Command::Modules),
        "ip_-d_address" | "ip_address" | "ip-addr" => Some(Command::Addresses),
        "ip_route_show_table_all" | "ip_route" | "ip-route" => Some(Command::Routes),
        _ if name == "df" || name.starts_with("df_") => Some(Command::DiskFree),
        _ if name.starts_with("systemctl_list-units") => Some(Command::Units),
        _ if name.starts_with("ss_") || name.starts_with("netstat_") => Some(Command::Listeners),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_has_its_tree() {
        let check = |path: &str, wanted: Hint| assert_eq!(hint(path), wanted, "{path}");
        let log = |namespace: &str, pod: &str, name: &str, previous| container(namespace, pod, name, previous);
        check("dump/kube-system/etcd-one/logs.txt", log("kube-system", "etcd-one", "etcd", false));
        check("b/cluster-resources/pods/logs/a/web-1/app-previous.log", log("a", "web-1", "app", true));
        check("m/namespaces/a/pods/web-1/app/app/logs/current.log", log("a", "web-1", "app", false));
        check("var/log/pods/a_web-1_0c1f/app/3.log", log("a", "web-1", "app", false));
        let manifest = "/etc/kubernetes/manifests/etcd.yaml";
        check("sos/etc/kubernetes/manifests/etcd.yaml", Hint::Manifest(manifest.to_owned()));
        check("etc/kubernetes/manifests/etcd.yaml", Hint::Manifest(manifest.to_owned()));
        check("etc/kubernetes/pki/ca.crt", Hint::Certificate("/etc/kubernetes/pki/ca.crt".to_owned()));
        check("host_service_logs/masters/kubelet_service.log", Hint::Log(LogSource::Unit("kubelet".to_owned())));
        check("sos_commands/kernel/dmesg", Hint::Log(LogSource::Kernel));
        check("sos_commands/kernel/sysctl_-a", Hint::Command(Command::Sysctl));
        check("sos_commands/filesys/df_-al_-x_autofs", Hint::Command(Command::DiskFree));
        check("x/etc/resolv.conf", Hint::Document("resolv.conf", "/etc/resolv.conf".to_owned()));
        check("kube-system/pods.json", Hint::Unknown);
    }
}
