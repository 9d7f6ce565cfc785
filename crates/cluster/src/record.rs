//! What a cluster is made of, in a file: written before anything of it is made.
//!
//! Invariant: the file is whole or not there. What changes later (which process runs where) is not in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::layout::ClusterLayout;
use crate::name::{ClusterName, NodeName};

/// What runs on a node beside pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The control plane, and a node.
    ControlPlane,
    /// A node alone.
    Worker,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeRecord {
    /// Its name.
    pub name: NodeName,
    /// Its address on the cluster's segment.
    pub address: Ipv4Addr,
    /// Its address of IPv6, where the cluster has both families.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_address: Option<Ipv6Addr>,
    /// What runs on it.
    pub role: Role,
}

impl NodeRecord {
    /// All its addresses, the primary first.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        std::iter::once(IpAddr::V4(self.address)).chain(self.second_address.map(IpAddr::V6)).collect()
    }
}

/// One cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterRecord {
    /// Its name.
    pub name: ClusterName,
    /// When it was created.
    pub created: Timestamp,
    /// The port of the machine's loopback address that leads to the API server.
    pub api_port: u16,
    /// Its nodes, control planes first.
    pub nodes: Vec<NodeRecord>,
    /// The kubeconfig files that have a context for it.
    pub kubeconfigs: Vec<PathBuf>,
    /// The kubelet's configuration on every node, as YAML.
    pub kubelet_config: Option<String>,
    /// Further flags of `kedge up` on control planes.
    pub control_plane_flags: Vec<String>,
    /// Further flags of `kedge up` and `kedge node` on every node.
    pub node_flags: Vec<String>,
    /// What kedge logs on the nodes, as `KEDGE_LOG` says it.
    pub log: String,
}

impl ClusterRecord {
    /// Reads the record of a cluster.
    pub fn read(layout: &ClusterLayout) -> Result<Self, Error> {
        let name = || layout.root().file_name().unwrap_or_default().to_string_lossy().into_owned();
        read_json(&layout.record())?.ok_or_else(|| Error::NoCluster { name: name() })
    }

    /// Writes the record.
    pub fn write(&self, layout: &ClusterLayout) -> Result<(), Error> {
        write_json(&layout.record(), self)
    }

    /// The node of this name.
    pub fn node(&self, name: &NodeName) -> Result<&NodeRecord, Error> {
        let missing = || Error::NoNode { cluster: self.name.to_string(), node: name.to_string() };
        self.nodes.iter().find(|node| node.name == *name).ok_or_else(missing)
    }

    /// The nodes with a control plane.
    pub fn control_planes(&self) -> impl Iterator<Item = &NodeRecord> {
        self.nodes.iter().filter(|node| node.role == Role::ControlPlane)
    }
}

/// Reads a file; `None` where there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let parsed = serde_json::from_slice(&bytes);
            parsed.map(Some).map_err(|source| Error::Damaged { path: path.to_owned(), source })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { action: "read", path: path.to_owned(), source }),
    }
}

/// Writes a file, whole or not at all.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let wrap = |source| Error::File { action: "write", path: path.to_owned(), source };
    let text = serde_json::to_vec_pretty(value).map_err(|error| wrap(error.into()))?;
    let temporary = path.with_extension("json.tmp");
    std::fs::write(&temporary, text).map_err(wrap)?;
    std::fs::rename(&temporary, path).map_err(wrap)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::addresses::node_address;

    /// A cluster of the name `demo`.
    pub(crate) fn record(control_planes: u8, workers: u8) -> ClusterRecord {
        let name: ClusterName = "demo".parse().unwrap();
        let role = |number| if number <= control_planes { Role::ControlPlane } else { Role::Worker };
        let node = |number| NodeRecord {
            name: name.node(number),
            address: node_address(number),
            second_address: None,
            role: role(number),
        };
        ClusterRecord {
            nodes: (1..=control_planes + workers).map(node).collect(),
            name: name.clone(),
            created: Timestamp::UNIX_EPOCH,
            api_port: 7000,
            kubeconfigs: Vec::new(),
            kubelet_config: None,
            control_plane_flags: Vec::new(),
            node_flags: Vec::new(),
            log: "info".to_owned(),
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let name: ClusterName = "demo".parse().unwrap();
        let layout = ClusterLayout::new(dir.path(), &name);
        assert!(matches!(ClusterRecord::read(&layout), Err(Error::NoCluster { name }) if name == "demo"));
        let record = record(1, 0);
        std::fs::create_dir_all(layout.root()).unwrap();
        record.write(&layout).unwrap();
        assert_eq!(ClusterRecord::read(&layout).unwrap(), record);
        assert!(record.node(&record.name.node(2)).is_err());
        std::fs::write(layout.record(), "{").unwrap();
        assert!(ClusterRecord::read(&layout).unwrap_err().to_string().contains("is damaged"));
    }
}
