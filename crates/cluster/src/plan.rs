//! What runs on a node: its command line, its environment, and the files that name it.
//!
//! Pure.

use std::fmt::Write as _;

use crate::addresses::{API_PORT, DOMAIN, GATEWAY, POD_NETWORK, POD_NETWORK_V6, SERVICE_NETWORK, SERVICE_NETWORK_V6};
use crate::command::PATH;
use crate::etcd::plan_flags;
use crate::layout::{NODE_DATA, NODE_PROGRAM};
use crate::mounts::EtcFiles;
use crate::name::NodeName;
use crate::record::{ClusterRecord, NodeRecord, Role};

/// A program to run on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) path: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

/// The name of the kubelet's configuration in a node's data directory.
pub(crate) const KUBELET_CONFIG: &str = "kubelet.yaml";

/// kedge, as it runs on a node.
pub(crate) fn plan_program(record: &ClusterRecord, node: &NodeRecord) -> Program {
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
    let address = node.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let (pods, services) = match node.second_address {
        None => (POD_NETWORK.to_owned(), SERVICE_NETWORK.to_owned()),
        Some(_) => (format!("{POD_NETWORK},{POD_NETWORK_V6}"), format!("{SERVICE_NETWORK},{SERVICE_NETWORK_V6}")),
    };
    let name = node.name.to_string();
    add(&[if node.role == Role::ControlPlane { "up" } else { "node" }]);
    add(&["--data-dir", NODE_DATA, "--node-name", &name, "--node-ip", &address, "--output", "json"]);
    add(&["--pod-network-cidr", &pods, "--service-cidr", &services, "--service-dns-domain", DOMAIN]);
    if record.kubelet_config.is_some() {
        add(&["--kubelet-config", &format!("{NODE_DATA}/{KUBELET_CONFIG}")]);
    }
    if node.role == Role::ControlPlane {
        add(&["--kubeconfig", &format!("{NODE_DATA}/kubeconfig")]);
        arguments.extend(plan_flags(record));
        arguments.extend(record.control_plane_flags.iter().cloned());
    }
    arguments.extend(record.node_flags.iter().cloned());
    Program { path: NODE_PROGRAM.to_owned(), arguments, environment: environment(&record.log) }
}

/// The environment of whatever runs on a node.
pub(crate) fn environment(log: &str) -> Vec<(String, String)> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![
        pair("PATH", &format!("/run/kedge:{PATH}")),
        pair("HOME", "/root"),
        pair("KEDGE_LOG", log),
        pair("KUBECONFIG", &format!("{NODE_DATA}/admin.conf")),
    ]
}

/// The URL of the API server as nodes reach it: the only one's own, or the gateway's before several.
pub(crate) fn server(record: &ClusterRecord) -> String {
    let mut control_planes = record.control_planes();
    match (control_planes.next(), control_planes.next()) {
        (Some(only), None) => format!("https://{}:{API_PORT}", only.address),
        _ => format!("https://{GATEWAY}:{API_PORT}"),
    }
}

/// The files that name a node and the others.
pub(crate) fn etc_files(record: &ClusterRecord, node: &NodeName) -> EtcFiles {
    let mut hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for other in &record.nodes {
        // Writing to a string does not fail.
        for address in other.addresses() {
            let _ = writeln!(hosts, "{address}\t{}", other.name);
        }
    }
    EtcFiles { hostname: node.to_string(), hosts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn a_node_runs_what_its_role_says() {
        let mut record = record(1, 2);
        (record.control_plane_flags, record.node_flags) = (vec!["--demo".to_owned()], vec!["--x=y".to_owned()]);
        let line = |index: usize| plan_program(&record, &record.nodes[index]).arguments.join(" ");
        let common = "--pod-network-cidr 10.244.0.0/16 --service-cidr 10.96.0.0/12 --service-dns-domain cluster.local";
        assert_eq!(
            line(0),
            format!(
                "up --data-dir /var/lib/kedge --node-name demo-1 --node-ip 172.20.0.11 --output json {common} \
                 --kubeconfig /var/lib/kedge/kubeconfig --demo --x=y"
            )
        );
        assert_eq!(
            line(1),
            format!(
                "node --data-dir /var/lib/kedge --node-name demo-2 --node-ip 172.20.0.12 --output json {common} --x=y"
            )
        );
    }

    #[test]
    fn a_node_with_both_families_is_told_both() {
        let mut record = record(1, 0);
        record.nodes[0].second_address = Some(crate::addresses::second_node_address(1));
        let line = plan_program(&record, &record.nodes[0]).arguments.join(" ");
        for part in [
            "--node-ip 172.20.0.11,fd00:172:20::11 ",
            "--pod-network-cidr 10.244.0.0/16,fd00:10:244::/56 ",
            "--service-cidr 10.96.0.0/12,fd00:10:96::/112 ",
        ] {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn several_control_planes_are_behind_the_gateway() {
        assert_eq!(server(&record(1, 2)), "https://172.20.0.11:6443");
        assert_eq!(server(&record(2, 1)), "https://172.20.0.1:6443");
    }
}
