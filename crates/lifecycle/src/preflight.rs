//! What must be true of the machine before `kedge up` changes anything.
//!
//! Deciding is pure: [`preflight`] looks at the facts it gathered and lists everything that is wrong at once.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The cluster can't work.
    Error,
    /// Something will be missing.
    Warning,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// kubeadm's name of the check, where it has one.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found and what to do.
    pub text: String,
}

/// What the cluster is to have.
#[derive(Debug, Clone)]
pub struct Needs {
    /// The API server's addresses, port included; none where the node joins another's cluster.
    pub api_addresses: Vec<SocketAddr>,
    /// Other addresses that must be free, with the flag that asked for them.
    pub component_addresses: Vec<(&'static str, SocketAddr)>,
    /// Whether a node with containers is to run.
    pub node: bool,
    /// Port of the kubelet, where there is a node.
    pub kubelet_port: u16,
    /// Whether Kedge starts its own container runtime.
    pub private_runtime: bool,
    /// Pod and Service ranges as (network, prefix length).
    pub ranges: Vec<(&'static str, IpAddr, u8)>,
    /// The node's addresses, the primary first.
    pub node_ips: Vec<IpAddr>,
}

/// Looks at the machine and lists everything that is wrong.
pub fn preflight(needs: &Needs) -> Vec<Finding> {
    let mut findings = Vec::new();
    for address in &needs.api_addresses {
        check_port(&mut findings, *address, "--secure-port");
    }
    for (flag, address) in &needs.component_addresses {
        check_port(&mut findings, *address, flag);
    }
    check_ranges(&mut findings, needs, &nameservers(&read("/etc/resolv.conf")));
    if needs.node {
        check_node(&mut findings, needs);
    }
    findings
}

fn check_node(findings: &mut Vec<Finding>, needs: &Needs) {
    let mut error = |check, text: String| findings.push(Finding { check, severity: Severity::Error, text });
    if !nix::unistd::geteuid().is_root() {
        error(
            "IsPrivilegedUser",
            "a node needs root: it makes network interfaces, packet rules and cgroups; run it as root, or run the \
             control plane alone with --control-plane-only"
                .to_owned(),
        );
        return;
    }
    if !has_cgroups(Path::new("/sys/fs/cgroup")) {
        error(
            "SystemVerification",
            "no memory and cpu cgroups under /sys/fs/cgroup: mount them (`mount -t cgroup2 none /sys/fs/cgroup`), or \
             run where they are available"
                .to_owned(),
        );
    }
    findings.extend(missing_programs(&needed_programs(needs.private_runtime)));
    for node_ip in &needs.node_ips {
        check_port(findings, SocketAddr::new(*node_ip, needs.kubelet_port), "the kubelet's");
    }
    if read("/proc/swaps").lines().count() > 1 {
        findings.push(Finding {
            check: "Swap",
            severity: Severity::Warning,
            text: "swap is on: memory limits of pods are not exact; turn it off with `swapoff -a`".to_owned(),
        });
    }
}

/// A finding for each program, named with the Debian package that has it, that is not on the path.
pub fn missing_programs(programs: &[(&str, &str)]) -> Vec<Finding> {
    let missing = programs.iter().filter(|(program, _)| find_program(program).is_none());
    missing
        .map(|(program, package)| Finding {
            check: "FileExisting",
            severity: Severity::Error,
            text: format!("the program {program} is not on the path; install it (Debian: `apt-get install {package}`)"),
        })
        .collect()
}

fn needed_programs(private_runtime: bool) -> Vec<(&'static str, &'static str)> {
    let mut programs = vec![("nft", "nftables"), ("mount", "mount")];
    if private_runtime {
        programs.extend([("containerd", "containerd"), ("ctr", "containerd"), ("runc", "runc")]);
    }
    programs
}

fn check_port(findings: &mut Vec<Finding>, address: SocketAddr, flag: &str) {
    let Err(source) = TcpListener::bind(address) else { return };
    let advice = match source.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "another process has it: see which with `ss -ltnp 'sport = :{}'`, and end it or choose another port",
            address.port()
        ),
        std::io::ErrorKind::AddrNotAvailable => {
            format!("{} is no address of this machine: choose one with --node-ip", address.ip())
        }
        std::io::ErrorKind::PermissionDenied => "ports below 1024 need root: choose another port".to_owned(),
        _ => source.to_string(),
    };
    findings.push(Finding {
        check: "Port",
        severity: Severity::Error,
        text: format!("cannot listen on {address} ({flag} port); {advice}"),
    });
}

/// Ranges must not hold the node's address or a name server, and must not overlap.
fn check_ranges(findings: &mut Vec<Finding>, needs: &Needs, nameservers: &[IpAddr]) {
    let mut error = |text: String| findings.push(Finding { check: "Ranges", severity: Severity::Error, text });
    for (flag, network, length) in &needs.ranges {
        for node_ip in needs.node_ips.iter().filter(|node_ip| contains(*network, *length, **node_ip)) {
            error(format!(
                "{flag} {network}/{length} holds the node's address {node_ip}: choose a range that the network does not use"
            ));
        }
        for server in nameservers.iter().filter(|server| contains(*network, *length, **server)) {
            error(format!(
                "{flag} {network}/{length} holds the name server {server} of /etc/resolv.conf, which would be cut off: \
                 choose a range that the network does not use"
            ));
        }
    }
    for (index, (flag, network, length)) in needs.ranges.iter().enumerate() {
        for (other_flag, other, other_length) in &needs.ranges[..index] {
            if contains(*network, *length, *other) || contains(*other, *other_length, *network) {
                error(format!("{flag} {network}/{length} and {other_flag} {other}/{other_length} overlap"));
            }
        }
    }
}

fn contains(network: IpAddr, length: u8, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            u32::from(network) & mask == u32::from(address) & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            u128::from(network) & mask == u128::from(address) & mask
        }
        _ => false,
    }
}

fn nameservers(resolv_conf: &str) -> Vec<IpAddr> {
    let lines = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.trim().parse().ok()).collect()
}

/// cgroup v2 with controllers, or v1 with the memory controller.
fn has_cgroups(root: &Path) -> bool {
    let v2 = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    (v2.contains("memory") && v2.contains("cpu")) || root.join("memory").is_dir()
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let directories = path.split(':').chain(["/usr/sbin", "/sbin"]);
    directories.map(|directory| Path::new(directory).join(name)).find(|candidate| candidate.is_file())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(ranges: Vec<(&'static str, IpAddr, u8)>) -> Needs {
        Needs {
            api_addresses: Vec::new(),
            component_addresses: Vec::new(),
            node: false,
            kubelet_port: 0,
            private_runtime: false,
            ranges,
            node_ips: vec!["192.0.2.2".parse().unwrap(), "2001:db8::2".parse().unwrap()],
        }
    }

    #[test]
    fn ranges_that_hide_something_are_refused() {
        let range = |flag, text: &str, length| (flag, text.parse::<IpAddr>().unwrap(), length);
        for (ranges, servers, expected) in [
            (vec![range("--pod-network-cidr", "10.244.0.0", 16), range("--service-cidr", "10.96.0.0", 12)], "", ""),
            (
                vec![range("--service-cidr", "10.0.0.0", 8), range("--pod-network-cidr", "10.244.0.0", 16)],
                "",
                "overlap",
            ),
            (
                vec![range("--service-cidr", "10.96.0.0", 12)],
                "nameserver 10.96.0.53",
                "holds the name server 10.96.0.53",
            ),
            (vec![range("--pod-network-cidr", "192.0.2.0", 24)], "", "holds the node's address 192.0.2.2"),
            (vec![range("--pod-network-cidr", "2001:db8::", 56)], "", "holds the node's address 2001:db8::2"),
            (
                vec![range("--service-cidr", "fd00:10::", 32), range("--pod-network-cidr", "fd00:10:244::", 56)],
                "",
                "overlap",
            ),
            (
                vec![range("--service-cidr", "fd00:10:96::", 112), range("--pod-network-cidr", "10.244.0.0", 16)],
                "nameserver fd00:10:95::a",
                "",
            ),
        ] {
            let mut findings = Vec::new();
            check_ranges(&mut findings, &needs(ranges), &nameservers(servers));
            match expected {
                "" => assert_eq!(findings, []),
                text => assert!(findings.iter().any(|finding| finding.text.contains(text)), "{findings:?}"),
            }
        }
    }

    #[test]
    fn a_port_in_use_is_named() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut findings = Vec::new();
        check_port(&mut findings, held.local_addr().unwrap(), "--secure-port");
        assert!(findings[0].text.contains("another process has it"), "{findings:?}");
    }
}
