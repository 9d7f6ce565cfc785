//! Which clusters there are, and what is on.

use std::path::Path;

use serde::Serialize;

use crate::error::Error;
use crate::layout::{ClusterLayout, NodeLayout};
use crate::name::ClusterName;
use crate::node::{agent, running};
use crate::record::{ClusterRecord, NodeRecord, Role};
use crate::switch;

/// The state of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// kedge runs on it.
    Running,
    /// It is on, and kedge is stopped (or is being started again).
    Stopped,
    /// It is on, with its cable pulled.
    Cut,
    /// It is off.
    Off,
}

/// A node as it is now.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Name, address and role.
    #[serde(flatten)]
    pub record: NodeRecord,
    /// Its state.
    pub state: NodeState,
    /// The process id of its first process, while it is on.
    pub init: Option<i32>,
}

/// A cluster as it is now.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterView {
    /// Its name.
    pub name: ClusterName,
    /// Where the machine reaches its API server.
    pub server: String,
    /// Why its record can't be read, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Its nodes.
    pub nodes: Vec<NodeView>,
}

/// All clusters, by name.
pub fn list(clusters: &Path) -> Result<Vec<ClusterView>, Error> {
    let entries = match std::fs::read_dir(clusters) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::File { action: "read", path: clusters.to_owned(), source }),
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<ClusterName>().ok());
    let mut names: Vec<ClusterName> = names.collect();
    names.sort();
    Ok(names.into_iter().map(|name| view(&ClusterLayout::new(clusters, &name), name)).collect())
}

fn view(layout: &ClusterLayout, name: ClusterName) -> ClusterView {
    match ClusterRecord::read(layout) {
        Ok(record) => {
            let nodes = record.nodes.iter().map(|node| view_node(&layout.node(&node.name), node)).collect();
            ClusterView { name, server: format!("https://127.0.0.1:{}", record.api_port), problem: None, nodes }
        }
        Err(error) => ClusterView { name, server: String::new(), problem: Some(error.to_string()), nodes: Vec::new() },
    }
}

fn view_node(files: &NodeLayout, node: &NodeRecord) -> NodeView {
    let init = running(files).ok().flatten().map(|mark| mark.pid);
    let state = match init {
        None => NodeState::Off,
        Some(_) if !switch::has_link(&node.name) => NodeState::Cut,
        Some(_) if agent(files).is_running => NodeState::Running,
        Some(_) => NodeState::Stopped,
    };
    NodeView { record: node.clone(), state, init }
}

impl Role {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::ControlPlane => "control-plane",
            Role::Worker => "worker",
        }
    }
}

impl NodeState {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Running => "running",
            NodeState::Stopped => "stopped",
            NodeState::Cut => "cut",
            NodeState::Off => "off",
        }
    }
}
