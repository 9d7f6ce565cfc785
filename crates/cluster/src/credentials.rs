//! Certificates and kubeconfigs of a cluster's nodes, made by its authority before anything runs.
//!
//! It is what TLS bootstrap will take the place of for nodes that join over a network: here whoever creates the nodes holds
//! the authority anyway. Invariant: every node has its own identity; nothing that exists and still serves is replaced.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use kedge_lifecycle::Layout;
use kedge_pki::{CertificateAuthority, ClusterNames, ClusterPki, KubeconfigEntry, LeafRequest, merge_kubeconfig};

use crate::addresses::{DOMAIN, GATEWAY};
use crate::error::Error;
use crate::etcd;
use crate::layout::ClusterLayout;
use crate::plan::server;
use crate::record::{ClusterRecord, NodeRecord, Role};

/// The group of the components that run on a node beside the kubelet.
const AGENTS: &str = "system:kedge-nodes";
/// What all control planes of a cluster have in common.
const SHARED: [&str; 6] = ["ca.crt", "ca.key", "sa.key", "sa.pub", "admin.crt", "admin.key"];

/// Makes the credentials of all nodes, and the administrator's kubeconfig for the machine.
pub(crate) fn ensure(layout: &ClusterLayout, record: &ClusterRecord) -> Result<(), Error> {
    let mut first: Option<PathBuf> = None;
    for node in record.control_planes() {
        let pki = data(layout, node).pki();
        if let Some(first) = &first {
            copy_shared(first, &pki)?;
        }
        let made = ClusterPki::ensure(&pki, &names(node))?;
        first.get_or_insert(made.dir.clone());
    }
    ensure_store(layout, record)?;
    let Some(first) = first else { return Ok(()) };
    let authority = CertificateAuthority::ensure(&first, "ca", "kubernetes")?;
    for node in record.nodes.iter().filter(|node| node.role == Role::Worker) {
        ensure_worker(&data(layout, node), &authority, node, &server(record))?;
    }
    let admin = LeafRequest::client("kubernetes-admin", &["system:masters"]);
    let entry = KubeconfigEntry {
        name: record.name.context(),
        server: format!("https://{}:{}", Ipv4Addr::LOCALHOST, record.api_port),
        authority_pem: authority.certificate_pem().to_owned(),
        identity: authority.ensure_leaf(&first, "admin", &admin)?,
    };
    for path in &record.kubeconfigs {
        merge_kubeconfig(path, &entry)?;
    }
    Ok(())
}

/// Where control planes share a store, each has certificates for it.
fn ensure_store(layout: &ClusterLayout, record: &ClusterRecord) -> Result<(), Error> {
    let Some(first) = etcd::members(record).first().map(|node| layout.node(&node.name).data()) else { return Ok(()) };
    record.control_planes().try_for_each(|node| {
        let data = layout.node(&node.name).data();
        etcd::ensure_certificates(&first, &data, node)
    })
}

fn ensure_worker(
    layout: &Layout,
    authority: &CertificateAuthority,
    node: &NodeRecord,
    server: &str,
) -> Result<(), Error> {
    let pki = layout.pki();
    let name = node.name.to_string();
    let user = format!("system:node:{name}");
    fs::create_dir_all(&pki).map_err(|source| Error::File { action: "make", path: pki.clone(), source })?;
    let ca = pki.join("ca.crt");
    fs::write(&ca, authority.certificate_pem()).map_err(|source| Error::File { action: "write", path: ca, source })?;
    authority.ensure_leaf(&pki, "kubelet", &LeafRequest::server(&user, vec![name.clone()], node.addresses()))?;
    let agents = LeafRequest::client(&format!("system:kedge-node:{name}"), &[AGENTS]);
    for (file, request, kubeconfig) in [
        ("kubelet-client", LeafRequest::client(&user, &["system:nodes"]), layout.kubelet_kubeconfig()),
        ("agent-client", agents, layout.agent_kubeconfig()),
    ] {
        let entry = KubeconfigEntry {
            name: "kedge".to_owned(),
            server: server.to_owned(),
            authority_pem: authority.certificate_pem().to_owned(),
            identity: authority.ensure_leaf(&pki, file, &request)?,
        };
        merge_kubeconfig(&kubeconfig, &entry)?;
    }
    Ok(())
}

/// The names that `kedge up` asks for on this node, and the gateway's address.
fn names(node: &NodeRecord) -> ClusterNames {
    let mut node_addresses = node.addresses();
    node_addresses.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
    node_addresses.extend(node.second_address.map(|_| IpAddr::V6(Ipv6Addr::LOCALHOST)));
    // The first address of the Service range.
    let service = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));
    ClusterNames {
        node_name: node.name.to_string(),
        dns_domain: DOMAIN.to_owned(),
        api_addresses: [&[service], &*node_addresses, &[IpAddr::V4(GATEWAY)]].concat(),
        api_names: Vec::new(),
        node_addresses,
    }
}

fn copy_shared(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(|source| Error::File { action: "make", path: to.to_owned(), source })?;
    for name in SHARED {
        let target = to.join(name);
        fs::copy(from.join(name), &target).map_err(|source| Error::File { action: "write", path: target, source })?;
    }
    Ok(())
}

fn data(layout: &ClusterLayout, node: &NodeRecord) -> Layout {
    Layout::new(layout.node(&node.name).data())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn control_planes_share_an_authority_and_workers_have_no_key_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = record(2, 1);
        let name = record.name.clone();
        let layout = ClusterLayout::new(dir.path(), &name);
        record.kubeconfigs = vec![layout.kubeconfig()];
        ensure(&layout, &record).unwrap();
        let read = |number, file: &str| fs::read_to_string(layout.node(&name.node(number)).data().join(file)).ok();
        assert_eq!(read(1, "pki/ca.key").unwrap(), read(2, "pki/ca.key").unwrap());
        assert_eq!(read(1, "pki/sa.key").unwrap(), read(2, "pki/sa.key").unwrap());
        assert_ne!(read(1, "pki/apiserver.crt").unwrap(), read(2, "pki/apiserver.crt").unwrap());
        assert_eq!(read(1, "pki/ca.crt"), read(3, "pki/ca.crt"));
        assert_eq!(read(3, "pki/ca.key"), None);
        assert!(read(3, "kubelet.conf").unwrap().contains("https://172.20.0.1:6443"));
        let before = read(1, "pki/ca.crt");
        ensure(&layout, &record).unwrap();
        assert_eq!(read(1, "pki/ca.crt"), before);
        assert!(fs::read_to_string(layout.kubeconfig()).unwrap().contains("https://127.0.0.1:7000"));
    }
}
