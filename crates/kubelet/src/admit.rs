//! Whether a pod that was assigned to this node can run here at all.
//!
//! Pure. Invariant: static pods and pods that already run are never refused.

use k8s_openapi::api::core::v1::Pod;

use crate::resources;
use crate::spec;
use crate::status::Stop;

/// Sysctls that are namespaced and harm nobody else.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// What the node has for pods.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room {
    pub(crate) max_pods: usize,
    pub(crate) cpu_millis: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral_storage: i64,
    /// By resource name, in bytes.
    pub(crate) hugepages: Vec<(String, i64)>,
    /// Names and prefixes of sysctls that pods may set though they are not known to be safe.
    pub(crate) unsafe_sysctls: Vec<String>,
}

/// Refuses a pod that does not fit beside the `others`.
pub(crate) fn admit(pod: &Pod, others: &[&Pod], room: &Room, labels: &[(String, String)]) -> Result<(), Stop> {
    let stop = |reason: &str, message: String| Err(Stop { reason: reason.to_owned(), message, rejected: true });
    if others.len() + 1 > room.max_pods {
        let text = format!(
            "Node didn't have enough resource: pods, requested: 1, used: {}, capacity: {}",
            others.len(),
            room.max_pods
        );
        return stop("OutOfpods", text);
    }
    let plain = [("cpu", room.cpu_millis), ("memory", room.memory), ("ephemeral-storage", room.ephemeral_storage)];
    let huge = room.hugepages.iter().map(|(name, capacity)| (name.as_str(), *capacity));
    for (resource, capacity) in plain.into_iter().chain(huge) {
        let requested = resources::pod_request(pod, resource);
        let used: i64 = others.iter().map(|other| resources::pod_request(other, resource)).sum();
        if requested > 0 && used.saturating_add(requested) > capacity {
            let text = format!(
                "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            return stop(&format!("OutOf{resource}"), text);
        }
    }
    if let Some(problem) = forbidden_sysctl(pod, &room.unsafe_sysctls) {
        return stop("SysctlForbidden", format!("forbidden sysctl: {problem}"));
    }
    let selector = spec::pod_spec(pod).node_selector.iter().flatten();
    let mut unmatched = selector.filter(|(key, value)| !labels.iter().any(|(k, v)| k == *key && v == *value));
    if unmatched.next().is_some() {
        return stop(
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector".to_owned(),
        );
    }
    let taken: Vec<HostPort> = others.iter().flat_map(|other| host_ports(other)).collect();
    let wanted = host_ports(pod);
    if let Some(port) = wanted.iter().find(|port| taken.iter().any(|other| port.conflicts_with(other))) {
        return stop(
            "NodePorts",
            format!(
                "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports ({})",
                port.number
            ),
        );
    }
    Ok(())
}

/// What is wrong with a pod's sysctls.
fn forbidden_sysctl(pod: &Pod, allowed: &[String]) -> Option<String> {
    let pod_spec = spec::pod_spec(pod);
    let sysctls = pod_spec.security_context.as_ref().and_then(|context| context.sysctls.as_deref());
    sysctls.unwrap_or_default().iter().find_map(|sysctl| {
        let name = sysctl.name.replace('/', ".");
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == *pattern,
        };
        if !SAFE_SYSCTLS.contains(&name.as_str()) && !allowed.iter().any(matches) {
            return Some(format!("{name:?} not allowlisted"));
        }
        // A pod without a namespace of its own would set the host's.
        match namespace_of(&name)? {
            "net" if pod_spec.host_network == Some(true) => Some(format!("{name:?} not allowed with host net enabled")),
            "ipc" if pod_spec.host_ipc == Some(true) => Some(format!("{name:?} not allowed with host ipc enabled")),
            _ => None,
        }
    })
}

/// The namespace that a sysctl, or a pattern of sysctls, belongs to; `None` where it is the whole machine's.
pub(crate) fn namespace_of(sysctl: &str) -> Option<&'static str> {
    let ipc = sysctl == "kernel.sem"
        || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| sysctl.starts_with(prefix));
    match (ipc, sysctl.starts_with("net.")) {
        (true, _) => Some("ipc"),
        (false, true) => Some("net"),
        (false, false) => None,
    }
}

/// A port of the host that a pod asks for.
struct HostPort {
    protocol: String,
    address: String,
    number: i32,
}

impl HostPort {
    /// The wildcard address takes all.
    fn conflicts_with(&self, other: &Self) -> bool {
        let is_wildcard = |address: &str| matches!(address, "" | "0.0.0.0" | "::");
        let same_address = self.address == other.address || is_wildcard(&self.address) || is_wildcard(&other.address);
        self.protocol == other.protocol && self.number == other.number && same_address
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let ports = spec::containers(pod).iter().flat_map(|container| container.ports.iter().flatten());
    let host = ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some(HostPort { protocol, address: port.host_ip.clone().unwrap_or_default(), number })
    });
    host.collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{
        Container, ContainerPort, PodSecurityContext, PodSpec, ResourceRequirements, Sysctl,
    };
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;

    fn pod(cpu: &str, port: Option<i32>) -> Pod {
        let requests = [("cpu".to_owned(), Quantity(cpu.to_owned()))].into();
        let container = Container {
            resources: Some(ResourceRequirements { requests: Some(requests), ..ResourceRequirements::default() }),
            ports: port.map(|host_port| vec![ContainerPort { host_port: Some(host_port), ..ContainerPort::default() }]),
            ..Container::default()
        };
        Pod { spec: Some(PodSpec { containers: vec![container], ..PodSpec::default() }), ..Pod::default() }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let room = Room { max_pods: 2, cpu_millis: 1000, memory: 1, ephemeral_storage: 1, ..Room::default() };
        let running = pod("600m", Some(80));
        let check = |wanted: Pod, others: &[&Pod], expected: Option<&str>| {
            let refused = admit(&wanted, others, &room, &[]).err();
            assert_eq!(refused.as_ref().map(|stop| stop.reason.as_str()), expected);
        };
        check(pod("400m", None), &[&running], None);
        check(pod("500m", None), &[&running], Some("OutOfcpu"));
        check(pod("0", Some(80)), &[&running], Some("NodePorts"));
        let at = |address: &str| {
            let mut pod = pod("0", Some(80));
            for port in
                pod.spec.iter_mut().flat_map(|spec| &mut spec.containers).flat_map(|c| c.ports.iter_mut().flatten())
            {
                port.host_ip = Some(address.to_owned());
            }
            pod
        };
        check(at("192.0.2.1"), &[&at("192.0.2.2")], None);
        check(at("192.0.2.1"), &[&at("192.0.2.1")], Some("NodePorts"));
        check(at("192.0.2.1"), &[&at("0.0.0.0")], Some("NodePorts"));
        check(pod("0", None), &[&running, &running], Some("OutOfpods"));
        let mut tuned = pod("0", None);
        let sysctl = Sysctl { name: "kernel.msgmax".to_owned(), value: "1".to_owned() };
        let context = PodSecurityContext { sysctls: Some(vec![sysctl]), ..PodSecurityContext::default() };
        tuned.spec.as_mut().unwrap().security_context = Some(context);
        check(tuned, &[], Some("SysctlForbidden"));
        let mut picky = pod("0", None);
        picky.spec.as_mut().unwrap().node_selector = Some([("disk".to_owned(), "ssd".to_owned())].into());
        assert_eq!(admit(&picky, &[], &room, &[]).err().map(|stop| stop.reason), Some("NodeAffinity".to_owned()));
        assert_eq!(admit(&picky, &[], &room, &[("disk".to_owned(), "ssd".to_owned())]), Ok(()));
    }

    #[test]
    fn sysctls_need_a_namespace_and_permission() {
        let check = |name: &str, host_network: bool, allowed: &[&str], expected: Option<&str>| {
            let mut pod = pod("0", None);
            let spec = pod.spec.as_mut().unwrap();
            let sysctl = Sysctl { name: name.to_owned(), value: "1".to_owned() };
            spec.host_network = Some(host_network);
            spec.security_context =
                Some(PodSecurityContext { sysctls: Some(vec![sysctl]), ..PodSecurityContext::default() });
            let allowed: Vec<String> = allowed.iter().map(|pattern| (*pattern).to_owned()).collect();
            assert_eq!(forbidden_sysctl(&pod, &allowed).as_deref(), expected, "{name}");
        };
        check("kernel.shm_rmid_forced", true, &[], None);
        check("net.ipv4.tcp_syncookies", false, &[], None);
        let host = Some("\"net.ipv4.tcp_syncookies\" not allowed with host net enabled");
        check("net/ipv4/tcp_syncookies", true, &[], host);
        check("kernel.msgmax", false, &[], Some("\"kernel.msgmax\" not allowlisted"));
        check("kernel.msgmax", false, &["kernel.msg*"], None);
        check("net.core.somaxconn", false, &["net.core.somaxconn"], None);
        check("net.core.somaxconn2", false, &["net.core.somaxconn"], Some("\"net.core.somaxconn2\" not allowlisted"));
    }

    #[test]
    fn huge_pages_run_out_too() {
        let room = Room { max_pods: 9, hugepages: vec![("hugepages-2Mi".to_owned(), 4 << 20)], ..Room::default() };
        let mut wanted = pod("0", None);
        let resources = wanted.spec.as_mut().unwrap().containers[0].resources.as_mut().unwrap();
        resources.requests = Some([("hugepages-2Mi".to_owned(), Quantity("4Mi".to_owned()))].into());
        assert_eq!(admit(&wanted, &[], &room, &[]), Ok(()));
        let reason = admit(&wanted, &[&wanted], &room, &[]).err().map(|stop| stop.reason);
        assert_eq!(reason.as_deref(), Some("OutOfhugepages-2Mi"));
    }
}
