//! Which cluster a drill is done on: test hosts of `kedge cluster`, or this machine's cluster where somebody says so.

use std::path::{Path, PathBuf};

use kedge_cluster::{ClusterLayout, ClusterName, ClusterRecord, NodeName, NodeState, Role};
use serde::{Deserialize, Serialize};

use crate::action::Stop;
use crate::api::Api;
use crate::error::Error;
use crate::machines::Machines;
use crate::scenario::Where;
use crate::variables::Variables;

const INIT_MANIFESTS: &str = "/etc/kubernetes/manifests";
const UP_MANIFESTS: &str = "/var/lib/kedge/manifests";

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Target {
    /// Test hosts.
    #[serde(rename_all = "camelCase")]
    TestHosts {
        /// The directory of all clusters.
        clusters: PathBuf,
        /// The cluster.
        name: String,
    },
    /// The cluster that this machine is a control plane of.
    #[serde(rename_all = "camelCase")]
    ThisMachine {
        /// The machine's name, as its Node has it.
        node: String,
        /// The way to the API.
        kubeconfig: PathBuf,
    },
}

/// Picks the cluster that a person means.
#[derive(Debug, Clone)]
pub struct Targets {
    /// The directory of all clusters of test hosts.
    pub clusters: PathBuf,
}

impl Targets {
    /// The cluster of test hosts of this name, or the only one.
    pub fn test_hosts(&self, name: Option<&str>) -> Result<Target, Error> {
        let views = kedge_cluster::list(&self.clusters)?;
        let names: Vec<String> = views.iter().map(|view| view.name.to_string()).collect();
        let name = match (name, names.as_slice()) {
            (Some(name), _) if names.iter().any(|known| known == name) => name.to_owned(),
            (Some(name), _) => return Err(Error::Refused(format!("there is no cluster {name}"))),
            (None, [only]) => only.clone(),
            (None, []) => {
                return Err(Error::Refused(
                    "there is no cluster of test hosts: make one with `kedge cluster create NAME`, or say \
                     --this-machine to break the cluster of this machine"
                        .to_owned(),
                ));
            }
            (None, several) => {
                return Err(Error::Refused(format!("which cluster? --cluster {}", several.join(" or --cluster "))));
            }
        };
        Ok(Target::TestHosts { clusters: self.clusters.clone(), name })
    }
}

impl Target {
    /// As a person calls it.
    pub fn told(&self) -> String {
        match self {
            Self::TestHosts { name, .. } => format!("the test cluster {name}"),
            Self::ThisMachine { node, .. } => format!("the cluster of this machine ({node})"),
        }
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> Result<PathBuf, Error> {
        match self {
            Self::TestHosts { .. } => Ok(self.layout()?.kubeconfig()),
            Self::ThisMachine { kubeconfig, .. } => Ok(kubeconfig.clone()),
        }
    }

    pub(crate) async fn api(&self) -> Result<Api, Error> {
        Ok(Api::new(kedge_client::client_from_kubeconfig(&self.kubeconfig()?).await?))
    }

    pub(crate) fn machines(&self) -> Machines {
        match self {
            Self::TestHosts { clusters, .. } => Machines::TestHosts { clusters: clusters.clone() },
            Self::ThisMachine { node, .. } => Machines::Here { name: node.clone() },
        }
    }

    /// What scenarios may name on it; pods run `image`, or one that is on its nodes.
    pub(crate) async fn variables(&self, image: Option<&str>) -> Result<Variables, Error> {
        let api = self.api().await?;
        let nodes = api.list("/api/v1/nodes").await?;
        let address = |name: &str| {
            let node = nodes.iter().find(|node| node["metadata"]["name"] == name);
            let addresses = node.into_iter().flat_map(|node| node["status"]["addresses"].as_array()).flatten();
            let mut internal = addresses.filter(|address| address["type"] == "InternalIP");
            internal.find_map(|address| address["address"].as_str()).unwrap_or_default().to_owned()
        };
        let (control_plane, worker) = self.roles()?;
        let images = nodes.iter().flat_map(|node| node["status"]["images"].as_array().into_iter().flatten());
        let names = images.flat_map(|image| image["names"].as_array().into_iter().flatten());
        let names: Vec<&str> = names.filter_map(serde_json::Value::as_str).collect();
        let first = |fits: fn(&str) -> bool| names.iter().copied().find(|name| fits(name));
        let image = image.or_else(|| first(is_local)).unwrap_or("localhost/kedge");
        let programs = first(has_programs).unwrap_or("localhost/kedge");
        let machines = self.machines();
        let has = machines.try_run(&control_plane, "[ -d \"$1\" ]", &[INIT_MANIFESTS], None)?;
        let manifests = if has.ok { INIT_MANIFESTS } else { UP_MANIFESTS };
        Ok(Variables::new(
            (&control_plane, &address(&control_plane)),
            (&worker, &address(&worker)),
            manifests,
            (image, programs),
            &machines.kedge()?,
        ))
    }

    fn roles(&self) -> Result<(String, String), Error> {
        match self {
            Self::ThisMachine { node, .. } => Ok((node.clone(), node.clone())),
            Self::TestHosts { name, .. } => {
                let record = ClusterRecord::read(&self.layout()?)?;
                let first = record.control_planes().next().map(|node| node.name.to_string());
                let first = first.ok_or_else(|| Error::Refused(format!("{name} has no control plane")))?;
                let worker = record.nodes.iter().rev().find(|node| node.role == Role::Worker);
                let worker = worker.map_or_else(|| first.clone(), |node| node.name.to_string());
                Ok((first, worker))
            }
        }
    }

    /// Whether a scenario can be done on it; else why not.
    pub(crate) fn suits(&self, place: &Where, variables: &Variables, has_shell: bool) -> Result<(), String> {
        if place.shell && !has_shell {
            return Err("it needs an image with a shell on every node: name it with --image".to_owned());
        }
        let is_static = variables.get("manifests") == INIT_MANIFESTS;
        if place.static_pods && !is_static {
            return Err("it needs a control plane of static pods, as `kedge init` makes it".to_owned());
        }
        if let (true, Self::ThisMachine { .. }) = (place.test_hosts, self) {
            return Err("it needs test hosts of `kedge cluster`".to_owned());
        }
        if place.nodes > 1 && variables.get("worker") == variables.get("controlPlane") {
            return Err(format!("it needs {} nodes", place.nodes));
        }
        Ok(())
    }

    /// The test hosts that are on.
    pub(crate) fn running(&self) -> Result<Vec<String>, Error> {
        let Self::TestHosts { clusters, name } = self else { return Ok(Vec::new()) };
        let views = kedge_cluster::list(clusters)?;
        let nodes = views.into_iter().filter(|view| view.name.as_str() == name).flat_map(|view| view.nodes);
        let on = nodes.filter(|node| node.state != NodeState::Off && node.state != NodeState::Stopped);
        Ok(on.map(|node| node.record.name.to_string()).collect())
    }

    pub(crate) fn plug_in(&self, node: &str) -> Result<(), Error> {
        let (clusters, node) = self.host(node)?;
        Ok(kedge_cluster::heal(clusters, &node)?)
    }

    pub(crate) fn pull_cable(&self, node: &str) -> Result<(), Error> {
        let (clusters, node) = self.host(node)?;
        Ok(kedge_cluster::cut(clusters, &node)?)
    }

    pub(crate) fn stop_node(&self, node: &str, how: Stop) -> Result<(), Error> {
        let (clusters, node) = self.host(node)?;
        let how = match how {
            Stop::Agent => kedge_cluster::Stop::Agent,
            Stop::Shutdown => kedge_cluster::Stop::Shutdown,
            Stop::Power => kedge_cluster::Stop::Power,
        };
        Ok(kedge_cluster::stop(clusters, &node, how)?)
    }

    /// Starts a host that is off, or kedge on it; one that runs is left alone.
    pub(crate) fn start_node(&self, node: &str) -> Result<(), Error> {
        if self.running()?.iter().any(|running| running == node) {
            return Ok(());
        }
        let (clusters, node) = self.host(node)?;
        Ok(kedge_cluster::start(clusters, &node)?)
    }

    fn host(&self, node: &str) -> Result<(&Path, NodeName), Error> {
        match self {
            Self::TestHosts { clusters, .. } => Ok((clusters, node.parse()?)),
            Self::ThisMachine { .. } => Err(Error::Refused(format!("{node} is no test host"))),
        }
    }

    fn layout(&self) -> Result<ClusterLayout, Error> {
        match self {
            Self::TestHosts { clusters, name } => Ok(ClusterLayout::new(clusters, &name.parse::<ClusterName>()?)),
            Self::ThisMachine { .. } => Err(Error::Refused("this machine is no test host".to_owned())),
        }
    }
}

/// An image that needs no registry. Those of sandboxes may be all that there is, and do where a pod has only to run.
fn is_local(name: &str) -> bool {
    name.starts_with("localhost/")
}

/// An image with Kedge's program in it: that of its components, or of its sandboxes and its demo.
fn has_programs(name: &str) -> bool {
    let (repository, tag) = name.rsplit_once(':').unwrap_or((name, ""));
    ["localhost/kedge", "localhost/kedge-pause", "localhost/kedge-demo"].contains(&repository) && !tag.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_with_kedge_in_them_are_known_by_name() {
        for (name, has) in [
            ("localhost/kedge:v1.36.0_kedge-0.1.0", true),
            ("localhost/kedge-pause:v0.1.0", true),
            ("localhost/kedge@sha256:0123", false),
            ("localhost/kedge-test:v1", false),
            ("registry.k8s.io/pause:3.10", false),
        ] {
            assert_eq!(has_programs(name), has, "{name}");
        }
    }
}
