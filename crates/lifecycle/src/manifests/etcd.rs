//! etcd's static pod, and what the API server is told of it.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{ManifestFacts, Pod, Probe, component_pod, directory, flag, http_probe};
use crate::cluster_configuration::{Argument, ClusterConfiguration, Component, LocalEtcd};
use crate::host::HostLayout;

const METRICS_PORT: u16 = 2381;

/// A member of an etcd cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdMember {
    /// Its name: its node's.
    pub name: String,
    /// Where other members reach it.
    pub peer_url: String,
}

/// The pod of a member. `others` are all members, this one among them, of the cluster that it joins; empty for the first.
pub fn etcd_pod(facts: &ManifestFacts, layout: &HostLayout, others: &[EtcdMember]) -> Value {
    let etcd = facts.cluster.local_etcd().unwrap_or_default();
    let pki = format!("{}/etcd", layout.certificates_dir().display());
    let component =
        Component { extra_args: etcd.extra_args.clone(), extra_envs: etcd.extra_envs.clone(), ..Component::default() };
    let loopback = loopback(facts.local.advertise_address);
    let mut pod = component_pod(Pod {
        name: "etcd",
        image: &facts.etcd_image,
        flags: flags(facts, &etcd, &pki, others),
        component: &component,
        cpu: "100m",
        volumes: vec![directory("etcd-data", &etcd.data_dir, false), directory("etcd-certs", &pki, false)],
        port: METRICS_PORT,
        // DIVERGES: upstream asks /livez and /readyz, which Debian's etcd 3.4 does not have.
        liveness: http_probe(&loopback, "/health", "HTTP", Probe::Liveness),
        readiness: Some(http_probe(&loopback, "/health", "HTTP", Probe::Readiness)),
        startup: http_probe(&loopback, "/health", "HTTP", Probe::Startup),
        annotation: Some(("kubeadm.kubernetes.io/etcd.advertise-client-urls", url(facts, 2379))),
    });
    pod["spec"]["containers"][0]["resources"]["requests"]["memory"] = json!("100Mi");
    pod
}

fn flags(facts: &ManifestFacts, etcd: &LocalEtcd, pki: &str, others: &[EtcdMember]) -> Vec<Argument> {
    let (client, peer) = (url(facts, 2379), url(facts, 2380));
    let loopback = std::net::SocketAddr::new(loopback_address(facts.local.advertise_address), 2379);
    let metrics = std::net::SocketAddr::new(loopback.ip(), METRICS_PORT);
    let file = |name: &str| format!("{pki}/{name}");
    let mut flags = vec![
        flag("advertise-client-urls", &client),
        flag("cert-file", file("server.crt")),
        flag("client-cert-auth", true),
        flag("data-dir", &etcd.data_dir),
        // Its name in Debian's etcd; upstream's kubeadm writes `--feature-gates=InitialCorruptCheck=true` for newer ones.
        flag("experimental-initial-corrupt-check", true),
        flag("initial-advertise-peer-urls", &peer),
        flag("key-file", file("server.key")),
        flag("listen-client-urls", format!("https://{loopback},{client}")),
        flag("listen-metrics-urls", format!("http://{metrics}")),
        flag("listen-peer-urls", &peer),
        flag("name", &facts.node_name),
        flag("peer-cert-file", file("peer.crt")),
        flag("peer-client-cert-auth", true),
        flag("peer-key-file", file("peer.key")),
        flag("peer-trusted-ca-file", file("ca.crt")),
        flag("snapshot-count", 10_000),
        flag("trusted-ca-file", file("ca.crt")),
        // Kedge's API server does not compact; upstream's does so every five minutes.
        flag("auto-compaction-retention", "5m"),
    ];
    if others.is_empty() {
        flags.push(flag("initial-cluster", format!("{}={peer}", facts.node_name)));
    } else {
        let members: Vec<String> = others.iter().map(|member| format!("{}={}", member.name, member.peer_url)).collect();
        flags.push(flag("initial-cluster", members.join(",")));
        flags.push(flag("initial-cluster-state", "existing"));
    }
    flags
}

fn url(facts: &ManifestFacts, port: u16) -> String {
    format!("https://{}", std::net::SocketAddr::new(facts.local.advertise_address, port))
}

fn loopback_address(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(_) => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
    }
}

fn loopback(like: IpAddr) -> String {
    loopback_address(like).to_string()
}

/// By which flags the API server finds etcd.
pub(super) fn client_flags(facts: &ManifestFacts, pki: &str) -> Vec<Argument> {
    let Some(external) = &facts.cluster.etcd.external else {
        let server = std::net::SocketAddr::new(loopback_address(facts.local.advertise_address), 2379);
        return vec![
            flag("etcd-cafile", format!("{pki}/etcd/ca.crt")),
            flag("etcd-certfile", format!("{pki}/apiserver-etcd-client.crt")),
            flag("etcd-keyfile", format!("{pki}/apiserver-etcd-client.key")),
            flag("etcd-servers", format!("https://{server}")),
        ];
    };
    let mut flags = vec![flag("etcd-servers", external.endpoints.join(","))];
    let files = [
        ("etcd-cafile", &external.ca_file),
        ("etcd-certfile", &external.cert_file),
        ("etcd-keyfile", &external.key_file),
    ];
    flags.extend(files.into_iter().filter(|(_, file)| !file.is_empty()).map(|(name, file)| flag(name, file)));
    flags
}

/// The directories of an external etcd's certificates that are not below the cluster's own.
pub(super) fn client_volumes(cluster: &ClusterConfiguration, pki: &str) -> Vec<(Value, Value)> {
    let Some(external) = &cluster.etcd.external else { return Vec::new() };
    let files = [&external.ca_file, &external.cert_file, &external.key_file];
    let parents = files.into_iter().filter_map(|file| std::path::Path::new(file).parent());
    let mut parents: Vec<String> = parents.map(|parent| parent.display().to_string()).collect();
    parents.retain(|parent| !parent.is_empty() && !parent.starts_with(pki) && !parent.starts_with("/etc/ssl/certs"));
    parents.sort();
    parents.dedup();
    parents.iter().enumerate().map(|(i, parent)| directory(&format!("etcd-certs-{i}"), parent, true)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_configuration::ExternalEtcd;
    use crate::manifests::tests::facts;

    #[test]
    fn the_first_member_starts_a_cluster_and_others_join_one() {
        let text = |others: &[EtcdMember]| etcd_pod(&facts(), &HostLayout::default(), others).to_string();
        let first = text(&[]);
        assert!(first.contains("--initial-cluster=n1=https://192.0.2.2:2380"), "{first}");
        assert!(!first.contains("initial-cluster-state"), "{first}");
        let other = EtcdMember { name: "n0".to_owned(), peer_url: "https://192.0.2.1:2380".to_owned() };
        let own = EtcdMember { name: "n1".to_owned(), peer_url: "https://192.0.2.2:2380".to_owned() };
        let joined = text(&[other, own]);
        assert!(joined.contains("n0=https://192.0.2.1:2380,n1=https://192.0.2.2:2380"), "{joined}");
        assert!(joined.contains("--initial-cluster-state=existing"), "{joined}");
    }

    #[test]
    fn an_etcd_elsewhere_is_named() {
        let mut facts = facts();
        facts.cluster.etcd.external = Some(ExternalEtcd {
            endpoints: vec!["https://e1:2379".to_owned(), "https://e2:2379".to_owned()],
            ca_file: "/srv/etcd/ca.crt".to_owned(),
            ..ExternalEtcd::default()
        });
        let flags = client_flags(&facts, "/etc/kubernetes/pki");
        assert_eq!(flags[0].value, "https://e1:2379,https://e2:2379");
        assert_eq!(flags.len(), 2);
        assert_eq!(client_volumes(&facts.cluster, "/etc/kubernetes/pki").len(), 1);
    }
}
