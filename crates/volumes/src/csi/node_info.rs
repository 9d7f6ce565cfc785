//! What the cluster knows about this node's drivers: the CSINode object, an annotation of the Node, and the labels of where
//! the drivers say that it is.
//!
//! Deciding is pure; this process is the only writer, one change at a time. Invariant: other drivers' entries stay.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kedge_csi::v1::NodeGetInfoResponse;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

const ANNOTATION: &str = "csi.volume.kubernetes.io/nodeid";

/// Writes what the cluster knows about this node's drivers.
pub(crate) struct NodeInfo {
    nodes: Api<Node>,
    csi_nodes: Api<CSINode>,
    node_name: String,
    one_at_a_time: tokio::sync::Mutex<()>,
}

impl NodeInfo {
    pub(crate) fn new(client: Client, node_name: &str) -> Self {
        Self {
            nodes: Api::all(client.clone()),
            csi_nodes: Api::all(client),
            node_name: node_name.to_owned(),
            one_at_a_time: tokio::sync::Mutex::default(),
        }
    }

    /// Makes the CSINode where there is none.
    pub(crate) async fn ensure(&self) -> Result<(), String> {
        let _one = self.one_at_a_time.lock().await;
        self.csi_node().await.map(|_| ())
    }

    /// Adds a driver, or changes its entry.
    pub(crate) async fn install(&self, driver: &str, info: &NodeGetInfoResponse) -> Result<(), String> {
        if info.node_id.is_empty() {
            return Err("error adding CSI driver node info: driverNodeID must not be empty".to_owned());
        }
        let _one = self.one_at_a_time.lock().await;
        let wrap = |error: String| format!("error updating Node object with CSI driver node info: {error}");
        let node = self.nodes.get(&self.node_name).await.map_err(|error| wrap(error.to_string()))?;
        let segments = info.accessible_topology.iter().flat_map(|topology| &topology.segments);
        let segments: BTreeMap<String, String> = segments.map(|(key, value)| (key.clone(), value.clone())).collect();
        collisions(&node, &segments).map_err(wrap)?;
        let annotation = with_node_id(&node, driver, Some(&info.node_id)).map_err(wrap)?;
        self.patch_node(&node, annotation, &segments).await.map_err(wrap)?;
        let wrap = |error: String| format!("error updating CSINode object with CSI driver node info: {error}");
        let known = self.csi_node().await.map_err(wrap)?;
        let keys: Vec<String> = segments.into_keys().collect();
        self.put(&known, with_driver(&known, driver, Some(entry(driver, info, keys)))).await.map_err(wrap)
    }

    /// Removes a driver.
    pub(crate) async fn uninstall(&self, driver: &str) -> Result<(), String> {
        let _one = self.one_at_a_time.lock().await;
        let known = self.csi_nodes.get_opt(&self.node_name).await.map_err(|error| error.to_string())?;
        if let Some(known) = known {
            self.put(&known, with_driver(&known, driver, None))
                .await
                .map_err(|error| format!("error uninstalling CSI driver from CSINode object {error}"))?;
        }
        let node = self.nodes.get(&self.node_name).await.map_err(|error| error.to_string())?;
        let annotation = with_node_id(&node, driver, None)?;
        self.patch_node(&node, annotation, &BTreeMap::new())
            .await
            .map_err(|error| format!("error removing CSI driver node info from Node object {error}"))
    }

    async fn csi_node(&self) -> Result<CSINode, String> {
        if let Some(known) = self.csi_nodes.get_opt(&self.node_name).await.map_err(|error| error.to_string())? {
            return Ok(known);
        }
        let node = self.nodes.get(&self.node_name).await.map_err(|error| error.to_string())?;
        self.csi_nodes.create(&PostParams::default(), &new_csi_node(&node)).await.map_err(|error| error.to_string())
    }

    async fn put(&self, known: &CSINode, wanted: CSINode) -> Result<(), String> {
        if *known == wanted {
            return Ok(());
        }
        let put = self.csi_nodes.replace(&self.node_name, &PostParams::default(), &wanted).await;
        put.map(|_| ()).map_err(|error| error.to_string())
    }

    async fn patch_node(
        &self,
        node: &Node,
        annotation: Option<String>,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), String> {
        let has =
            |key: &String, value: &String| node.metadata.labels.as_ref().and_then(|all| all.get(key)) == Some(value);
        let same = node.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION)) == annotation.as_ref();
        if same && labels.iter().all(|(key, value)| has(key, value)) {
            return Ok(());
        }
        let patch = json!({ "metadata": { "annotations": { ANNOTATION: annotation }, "labels": labels } });
        let patched = self.nodes.patch(&self.node_name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(|_| ()).map_err(|error| error.to_string())
    }
}

fn new_csi_node(node: &Node) -> CSINode {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    CSINode {
        metadata: ObjectMeta {
            name: node.metadata.name.clone(),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: CSINodeSpec { drivers: Vec::new() },
    }
}

fn entry(driver: &str, info: &NodeGetInfoResponse, topology_keys: Vec<String>) -> CSINodeDriver {
    // No count means no limit.
    let count = i32::try_from(info.max_volumes_per_node).unwrap_or(i32::MAX);
    CSINodeDriver {
        name: driver.to_owned(),
        node_id: info.node_id.clone(),
        topology_keys: Some(topology_keys),
        allocatable: (count > 0).then_some(VolumeNodeResources { count: Some(count) }),
    }
}

fn with_driver(known: &CSINode, driver: &str, entry: Option<CSINodeDriver>) -> CSINode {
    let mut wanted = known.clone();
    let place = known.spec.drivers.iter().position(|known| known.name == driver);
    match (place, entry) {
        (Some(place), Some(entry)) => wanted.spec.drivers[place] = entry,
        (Some(place), None) => drop(wanted.spec.drivers.remove(place)),
        (None, Some(entry)) => wanted.spec.drivers.push(entry),
        (None, None) => {}
    }
    wanted
}

/// The Node's annotation: a JSON map from drivers to their names for the node.
fn with_node_id(node: &Node, driver: &str, id: Option<&str>) -> Result<Option<String>, String> {
    let text = node.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION)).filter(|text| !text.is_empty());
    let mut ids: BTreeMap<String, String> = match text {
        None => BTreeMap::new(),
        Some(text) => serde_json::from_str(text).map_err(|error| {
            format!("failed to parse node's {ANNOTATION:?} annotation value ({text:?}) err={error}")
        })?,
    };
    match id {
        Some(id) => drop(ids.insert(driver.to_owned(), id.to_owned())),
        None => drop(ids.remove(driver)),
    }
    Ok((!ids.is_empty()).then(|| json!(ids).to_string()))
}

fn collisions(node: &Node, segments: &BTreeMap<String, String>) -> Result<(), String> {
    let known = |key: &String| node.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    for (key, value) in segments {
        if let Some(other) = known(key).filter(|other| *other != value) {
            return Err(format!(
                "detected topology value collision: driver reported {key:?}:{value:?} but existing label is {key:?}:{other:?}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(id: &str, limit: i64) -> NodeGetInfoResponse {
        NodeGetInfoResponse { node_id: id.to_owned(), max_volumes_per_node: limit, accessible_topology: None }
    }

    #[test]
    fn a_driver_comes_changes_and_goes() {
        let none = new_csi_node(&Node::default());
        let one = with_driver(&none, "a", Some(entry("a", &info("n1", 0), vec!["zone".to_owned()])));
        assert_eq!(one.spec.drivers[0].allocatable, None);
        let two = with_driver(&one, "b", Some(entry("b", &info("x", 5), vec![])));
        let changed = with_driver(&two, "a", Some(entry("a", &info("n2", 1 << 40), vec![])));
        let names = |node: &CSINode| {
            node.spec.drivers.iter().map(|driver| format!("{}={}", driver.name, driver.node_id)).collect::<Vec<_>>()
        };
        assert_eq!(names(&changed), ["a=n2", "b=x"]);
        assert_eq!(changed.spec.drivers[0].allocatable, Some(VolumeNodeResources { count: Some(i32::MAX) }));
        assert_eq!(names(&with_driver(&changed, "a", None)), ["b=x"]);
        assert_eq!(with_driver(&changed, "none", None), changed);
    }

    #[test]
    fn the_annotation_is_a_map() {
        let mut node = Node::default();
        assert_eq!(with_node_id(&node, "a", Some("1")).unwrap().as_deref(), Some("{\"a\":\"1\"}"));
        node.metadata.annotations = Some([(ANNOTATION.to_owned(), "{\"a\":\"1\"}".to_owned())].into());
        assert_eq!(with_node_id(&node, "b", Some("2")).unwrap().as_deref(), Some("{\"a\":\"1\",\"b\":\"2\"}"));
        assert_eq!(with_node_id(&node, "a", None).unwrap(), None);
        node.metadata.annotations = Some([(ANNOTATION.to_owned(), "no".to_owned())].into());
        assert!(with_node_id(&node, "a", None).is_err());
        node.metadata.labels = Some([("zone".to_owned(), "z1".to_owned())].into());
        assert!(collisions(&node, &[("zone".to_owned(), "z1".to_owned())].into()).is_ok());
        assert!(collisions(&node, &[("zone".to_owned(), "z2".to_owned())].into()).is_err());
    }
}
