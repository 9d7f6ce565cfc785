//! The store that several control planes share: etcd members on the first ones.
//!
//! An odd number of them, as an even one has no more quorum than the odd one below: with two control planes the first has
//! the only member, and the cluster does not outlive that node. Invariant: members and API servers know each other by
//! certificates of an authority that is etcd's alone.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use kedge_pki::{CertificateAuthority, LeafRequest};

use crate::error::Error;
use crate::layout::NODE_DATA;
use crate::plan::{Program, environment};
use crate::record::{ClusterRecord, NodeRecord};

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
const MOST_MEMBERS: usize = 5;
/// The directories of certificates, as kubeadm has them.
const PKI: &str = "pki/etcd";

/// The nodes with a member; none where one control plane keeps its own store.
pub(crate) fn members(record: &ClusterRecord) -> Vec<&NodeRecord> {
    let control_planes: Vec<&NodeRecord> = record.control_planes().collect();
    let members = match control_planes.len() {
        0 | 1 => 0,
        count if count % 2 == 1 => count.min(MOST_MEMBERS),
        count => (count - 1).min(MOST_MEMBERS),
    };
    control_planes[..members].to_vec()
}

/// The member on a node, where it has one.
pub(crate) fn plan_member(record: &ClusterRecord, node: &NodeRecord) -> Option<Program> {
    let members = members(record);
    members.iter().find(|member| member.name == node.name)?;
    let peers = members.iter().map(|member| format!("{}=https://{}:{PEER_PORT}", member.name, member.address));
    let pki = format!("{NODE_DATA}/{PKI}");
    let client = format!("https://{}:{CLIENT_PORT}", node.address);
    let peer = format!("https://{}:{PEER_PORT}", node.address);
    let arguments = [
        format!("--name={}", node.name),
        format!("--data-dir={NODE_DATA}/etcd"),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster={}", peers.collect::<Vec<_>>().join(",")),
        format!("--initial-cluster-token={}", record.name),
        "--initial-cluster-state=new".to_owned(),
        "--client-cert-auth".to_owned(),
        format!("--trusted-ca-file={pki}/ca.crt"),
        format!("--cert-file={pki}/server.crt"),
        format!("--key-file={pki}/server.key"),
        "--peer-client-cert-auth".to_owned(),
        format!("--peer-trusted-ca-file={pki}/ca.crt"),
        format!("--peer-cert-file={pki}/peer.crt"),
        format!("--peer-key-file={pki}/peer.key"),
        "--enable-grpc-gateway=false".to_owned(),
        // As upstream's API server does it.
        "--auto-compaction-retention=5m".to_owned(),
        "--logger=zap".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    Some(Program { path: "etcd".to_owned(), arguments: arguments.into(), environment: environment(&record.log) })
}

/// The flags by which a control plane finds the members.
pub(crate) fn plan_flags(record: &ClusterRecord) -> Vec<String> {
    let members = members(record);
    if members.is_empty() {
        return Vec::new();
    }
    let servers = members.iter().map(|member| format!("https://{}:{CLIENT_PORT}", member.address));
    let pki = format!("{NODE_DATA}/{PKI}");
    vec![
        format!("--etcd-servers={}", servers.collect::<Vec<_>>().join(",")),
        format!("--etcd-cafile={pki}/ca.crt"),
        format!("--etcd-certfile={pki}/client.crt"),
        format!("--etcd-keyfile={pki}/client.key"),
    ]
}

/// Makes the certificates of a control plane: a member's, and the API server's towards members. `authority` is the
/// directory that holds the authority.
pub(crate) fn ensure_certificates(authority: &Path, data: &Path, node: &NodeRecord) -> Result<(), Error> {
    let directory = data.join(PKI);
    std::fs::create_dir_all(&directory).map_err(|source| Error::File {
        action: "make",
        path: directory.clone(),
        source,
    })?;
    let issuer = CertificateAuthority::ensure(&authority.join(PKI), "ca", "etcd-ca")?;
    let ca = directory.join("ca.crt");
    std::fs::write(&ca, issuer.certificate_pem()).map_err(|source| Error::File {
        action: "write",
        path: ca,
        source,
    })?;
    let name = node.name.to_string();
    let addresses = vec![IpAddr::V4(node.address), IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let server = LeafRequest::server(&name, vec![name.clone(), "localhost".to_owned()], addresses);
    issuer.ensure_leaf(&directory, "server", &server)?;
    issuer.ensure_leaf(&directory, "peer", &server.clone().for_peers())?;
    issuer.ensure_leaf(&directory, "client", &LeafRequest::client("kube-apiserver-etcd-client", &[]))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn members_are_odd_in_number() {
        let check = |control_planes: u8, expected: usize| {
            let record = record(control_planes, 0);
            assert_eq!(members(&record).len(), expected, "{control_planes}");
            let planned = record.nodes.iter().filter(|node| plan_member(&record, node).is_some()).count();
            assert_eq!(planned, expected, "{control_planes}");
        };
        check(1, 0);
        check(2, 1);
        check(3, 3);
        check(4, 3);
        check(5, 5);
        check(8, 5);
    }

    #[test]
    fn control_planes_are_told_of_all_members() {
        assert!(plan_flags(&record(1, 2)).is_empty());
        let flags = plan_flags(&record(3, 1));
        assert_eq!(
            flags[0],
            "--etcd-servers=https://172.20.0.11:2379,https://172.20.0.12:2379,https://172.20.0.13:2379"
        );
    }

    #[test]
    fn members_share_an_authority() {
        let dir = tempfile::tempdir().unwrap();
        let record = record(3, 0);
        let data = |index: usize| dir.path().join(record.nodes[index].name.to_string());
        for (index, node) in record.nodes.iter().enumerate() {
            ensure_certificates(&data(0), &data(index), node).unwrap();
        }
        let read = |index: usize, name: &str| std::fs::read_to_string(data(index).join(PKI).join(name)).ok();
        assert_eq!(read(0, "ca.crt"), read(2, "ca.crt"));
        assert_eq!(read(2, "ca.key"), None);
        assert_ne!(read(1, "server.crt"), read(2, "server.crt"));
    }
}
