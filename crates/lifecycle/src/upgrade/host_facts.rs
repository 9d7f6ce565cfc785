//! What a machine's own files say of it: its name as a node, whether it is a control plane and how that was made.
//!
//! Reads only. Invariant: what a manifest on disk says of this machine alone (addresses, the members of etcd, the store) is
//! said again by the new one.

use std::path::Path;

use serde_json::Value;

use crate::addresses::hostname;
use crate::cluster_configuration::LocalEndpoint;
use crate::host::HostLayout;
use crate::init::PhaseError;
use crate::kubelet_service::kubelet_flags;
use crate::manifests::EtcdMember;

const ENDPOINT: &str = "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint";

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostFacts {
    /// The node's name.
    pub(super) node_name: String,
    /// The container runtime's socket, where the kubelet is told one.
    pub(super) cri_socket: Option<String>,
    /// What only a control plane has.
    pub(super) control_plane: Option<ControlPlaneFacts>,
}

/// The control plane on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ControlPlaneFacts {
    /// Its own endpoint.
    pub(super) local: LocalEndpoint,
    /// Whether its API server keeps objects itself.
    pub(super) embedded_store: bool,
    /// Whether it runs a member of etcd.
    pub(super) has_etcd: bool,
    /// The members that its etcd was told of when it joined; empty for the first one.
    pub(super) members: Vec<EtcdMember>,
}

impl HostFacts {
    pub(super) fn read(layout: &HostLayout) -> Result<Self, PhaseError> {
        let flags = kubelet_flags(layout);
        let flag = |name: &str| flags.iter().find_map(|word| value_of(word, name)).map(str::to_owned);
        let node_name = match flag("hostname-override") {
            Some(name) => name,
            None => hostname().map_err(|error| PhaseError::Missing(error.to_string()))?,
        };
        let control_plane = ControlPlaneFacts::read(layout)?;
        Ok(Self { node_name, cri_socket: flag("container-runtime-endpoint"), control_plane })
    }
}

impl ControlPlaneFacts {
    fn read(layout: &HostLayout) -> Result<Option<Self>, PhaseError> {
        let path = layout.manifest("kube-apiserver");
        let Some(server) = read_manifest(&path)? else { return Ok(None) };
        let etcd = read_manifest(&layout.manifest("etcd"))?;
        let endpoint = server["metadata"]["annotations"][ENDPOINT].as_str().and_then(|text| text.parse().ok());
        let endpoint: std::net::SocketAddr = endpoint.ok_or_else(|| {
            PhaseError::Missing(format!("{} has no annotation {ENDPOINT} with an address", path.display()))
        })?;
        let local = LocalEndpoint { advertise_address: endpoint.ip(), bind_port: endpoint.port() };
        let embedded_store = command(&server).any(|word| value_of(word, "store") == Some("embedded"));
        let members = etcd.as_ref().map(members).unwrap_or_default();
        Ok(Some(Self { local, embedded_store, has_etcd: etcd.is_some(), members }))
    }
}

/// A manifest of this machine; `None` where there is none.
pub(super) fn read_manifest(path: &Path) -> Result<Option<Value>, PhaseError> {
    let wrap = |why: String| PhaseError::Missing(format!("{} cannot be read: {why}", path.display()));
    match std::fs::read_to_string(path) {
        Ok(text) => serde_yaml::from_str(&text).map(Some).map_err(|error| wrap(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrap(error.to_string())),
    }
}

fn command(pod: &Value) -> impl Iterator<Item = &str> {
    pod["spec"]["containers"][0]["command"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn value_of<'a>(word: &'a str, flag: &str) -> Option<&'a str> {
    word.strip_prefix("--")?.strip_prefix(flag)?.strip_prefix('=')
}

fn members(etcd: &Value) -> Vec<EtcdMember> {
    let joined = command(etcd).any(|word| value_of(word, "initial-cluster-state") == Some("existing"));
    let list = command(etcd).find_map(|word| value_of(word, "initial-cluster")).filter(|_| joined);
    let member = |text: &str| {
        let (name, peer_url) = text.split_once('=')?;
        Some(EtcdMember { name: name.to_owned(), peer_url: peer_url.to_owned() })
    };
    list.unwrap_or_default().split(',').filter_map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::tests::facts;
    use crate::manifests::{control_plane_pod, etcd_pod, write_manifest};

    #[test]
    fn manifests_are_made_again_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let layout = HostLayout::below(dir.path());
        assert_eq!(HostFacts::read(&layout).unwrap().control_plane, None);
        let members = [("n0", "https://192.0.2.1:2380"), ("n1", "https://192.0.2.2:2380")]
            .map(|(name, url)| EtcdMember { name: name.to_owned(), peer_url: url.to_owned() });
        write_manifest(&layout, "kube-apiserver", &control_plane_pod("kube-apiserver", &facts(), &layout)).unwrap();
        let etcd = etcd_pod(&facts(), &layout, &members);
        write_manifest(&layout, "etcd", &etcd).unwrap();
        std::fs::create_dir_all(layout.kubelet()).unwrap();
        let flags = "KUBELET_KUBEADM_ARGS=\"--hostname-override=n7 --container-runtime-endpoint=unix:///a\"\n";
        std::fs::write(layout.kubelet_flags(), flags).unwrap();
        let found = HostFacts::read(&layout).unwrap();
        assert_eq!((found.node_name.as_str(), found.cri_socket.as_deref()), ("n7", Some("unix:///a")));
        let own = found.control_plane.unwrap();
        assert_eq!(own.local.host_port(), "192.0.2.2:6443");
        assert!(own.has_etcd && !own.embedded_store);
        assert_eq!(etcd_pod(&facts(), &layout, &own.members), etcd);
    }
}
