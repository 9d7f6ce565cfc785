//! What belongs to which node: pods and what they refer to, attachments of volumes, slices of devices.
//!
//! Not here: what a node may do with it. Invariant: the references of a node are exactly those of the pods that are bound
//! to it, and mirror pods have none: who writes them is the node itself. Names that many pods have are held once.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use serde_json::Value;

use super::references::{Reference, VolumeReferences, references_of, volume_references};

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Where a pod runs, and what it refers to.
#[derive(Debug)]
struct BoundPod {
    node: Arc<str>,
    references: Box<[Arc<Reference>]>,
}

/// Follows the objects that tie others to nodes.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pods: HashMap<Arc<str>, HashMap<Box<str>, BoundPod>>,
    counts_by_node: HashMap<Arc<str>, HashMap<Arc<Reference>, u32>>,
    references: HashSet<Arc<Reference>>,
    volumes: HashMap<String, VolumeReferences>,
    /// Names of volumes by namespace and name of the Secrets that they need.
    volumes_by_secret: HashMap<(String, String), HashSet<String>>,
    nodes_by_attachment: HashMap<String, String>,
    nodes_by_slice: HashMap<String, String>,
}

impl Graph {
    /// The resources that it follows.
    pub(super) fn follows(resource: &str) -> bool {
        matches!(resource, "pods" | "persistentvolumes" | "volumeattachments" | "resourceslices")
    }

    /// Takes in a committed change of one of them; `None` is a deletion.
    pub(super) fn observe(&mut self, resource: &str, namespace: &str, name: &str, object: Option<&Value>) {
        match resource {
            "pods" => self.observe_pod(namespace, name, object),
            "persistentvolumes" => self.observe_volume(name, object.and_then(volume_references)),
            "volumeattachments" => set(&mut self.nodes_by_attachment, name, object.and_then(node_name)),
            "resourceslices" => set(&mut self.nodes_by_slice, name, object.and_then(node_name)),
            _ => {}
        }
    }

    fn observe_volume(&mut self, name: &str, volume: Option<VolumeReferences>) {
        for secret in self.volumes.remove(name).into_iter().flat_map(|before| before.secrets) {
            if let Some(volumes) = self.volumes_by_secret.get_mut(&secret) {
                volumes.remove(name);
                if volumes.is_empty() {
                    self.volumes_by_secret.remove(&secret);
                }
            }
        }
        let Some(volume) = volume else { return };
        for secret in &volume.secrets {
            self.volumes_by_secret.entry(secret.clone()).or_default().insert(name.to_owned());
        }
        self.volumes.insert(name.to_owned(), volume);
    }

    fn observe_pod(&mut self, namespace: &str, name: &str, object: Option<&Value>) {
        self.forget_pod(namespace, name);
        let Some(pod) = object else { return };
        let Some(node) = node_name(pod) else { return };
        let is_mirror = pod["metadata"]["annotations"].get(MIRROR).is_some();
        let references = if is_mirror { Vec::new() } else { references_of(pod, namespace) };
        let references: Box<[_]> = references.into_iter().map(|found| shared(&mut self.references, found)).collect();
        let node =
            self.counts_by_node.get_key_value(&*node).map_or_else(|| Arc::from(node), |(known, _)| known.clone());
        let counts = self.counts_by_node.entry(node.clone()).or_default();
        for reference in &references {
            *counts.entry(reference.clone()).or_default() += 1;
        }
        let namespace = self.pods.get_key_value(namespace).map_or_else(|| namespace.into(), |(known, _)| known.clone());
        self.pods.entry(namespace).or_default().insert(name.into(), BoundPod { node, references });
    }

    fn forget_pod(&mut self, namespace: &str, name: &str) {
        let Some(pods) = self.pods.get_mut(namespace) else { return };
        let Some(BoundPod { node, references }) = pods.remove(name) else { return };
        if pods.is_empty() {
            self.pods.remove(namespace);
        }
        let Some(counts) = self.counts_by_node.get_mut(&node) else { return };
        for reference in references {
            if let Some(count) = counts.get_mut(&reference) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&reference);
                }
            }
            // The set and this one are the last two.
            if Arc::strong_count(&reference) == 2 {
                self.references.remove(&reference);
            }
        }
        if counts.is_empty() {
            self.counts_by_node.remove(&node);
        }
    }

    /// Whether an object belongs to a node.
    pub(super) fn relates(&self, node: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let refers = |resource| self.refers(node, resource, namespace, name);
        let is_of = |nodes: &HashMap<String, String>| nodes.get(name).is_some_and(|of| of == node);
        match resource {
            "pods" => {
                let pod = self.pods.get(namespace).and_then(|pods| pods.get(name));
                pod.is_some_and(|pod| &*pod.node == node)
            }
            "secrets" => refers("secrets") || self.has_volume_with(node, namespace, name),
            "configmaps" => refers("configmaps"),
            "serviceaccounts" => refers("serviceaccounts"),
            "persistentvolumeclaims" => refers("persistentvolumeclaims"),
            "resourceclaims" => refers("resourceclaims"),
            "persistentvolumes" => self.volumes.get(name).is_some_and(|volume| self.uses(node, volume)),
            "volumeattachments" => is_of(&self.nodes_by_attachment),
            "resourceslices" => is_of(&self.nodes_by_slice),
            _ => false,
        }
    }

    fn refers(&self, node: &str, resource: &'static str, namespace: &str, name: &str) -> bool {
        let reference = Reference { resource, namespace: namespace.to_owned(), name: name.to_owned() };
        self.counts_by_node.get(node).is_some_and(|counts| counts.contains_key(&reference))
    }

    fn uses(&self, node: &str, volume: &VolumeReferences) -> bool {
        let (namespace, name) = &volume.claim;
        self.refers(node, "persistentvolumeclaims", namespace, name)
    }

    /// Whether a volume of the node needs a Secret.
    fn has_volume_with(&self, node: &str, namespace: &str, name: &str) -> bool {
        let volumes = self.volumes_by_secret.get(&(namespace.to_owned(), name.to_owned()));
        let mut volumes = volumes.into_iter().flatten().filter_map(|volume| self.volumes.get(volume));
        volumes.any(|volume| self.uses(node, volume))
    }
}

/// The one that is held of equal values.
fn shared<T: Eq + Hash>(known: &mut HashSet<Arc<T>>, value: T) -> Arc<T> {
    if let Some(same) = known.get(&value) {
        return same.clone();
    }
    let value = Arc::new(value);
    known.insert(value.clone());
    value
}

fn set<T>(known: &mut HashMap<String, T>, name: &str, value: Option<T>) {
    match value {
        Some(value) => known.insert(name.to_owned(), value),
        None => known.remove(name),
    };
}

fn node_name(object: &Value) -> Option<String> {
    object["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_follow_the_volumes_that_need_them() {
        let mut graph = Graph::default();
        let volume = |secret: &str| {
            json!({"spec": {"claimRef": {"namespace": "d", "name": "c"}, "csi": {"driver": "x", "volumeHandle": "h",
                "nodePublishSecretRef": {"namespace": "s", "name": secret}}}})
        };
        let pod =
            json!({"spec": {"nodeName": "n", "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}});
        graph.observe("pods", "d", "p", Some(&pod));
        let mut observe = |name: &str, volume: Option<Value>| {
            graph.observe("persistentvolumes", "", name, volume.as_ref());
            let related = ["one", "two"].map(|secret| graph.relates("n", "secrets", "s", secret));
            (related, graph.volumes_by_secret.len())
        };
        assert_eq!(observe("a", Some(volume("one"))), ([true, false], 1));
        assert_eq!(observe("b", Some(volume("one"))), ([true, false], 1));
        assert_eq!(observe("a", Some(volume("two"))), ([true, true], 2));
        assert_eq!(observe("b", None), ([false, true], 1));
        assert_eq!(observe("a", None), ([false, false], 0));
    }

    #[test]
    fn what_no_pod_refers_to_is_forgotten() {
        let mut graph = Graph::default();
        let pod = |node: &str| json!({"spec": {"nodeName": node, "serviceAccountName": "default"}});
        let mut observe = |name: &str, pod: Option<Value>| {
            graph.observe("pods", "d", name, pod.as_ref());
            let related = ["n1", "n2"].map(|node| graph.relates(node, "serviceaccounts", "d", "default"));
            (related, graph.references.len(), graph.counts_by_node.len(), graph.pods.len())
        };
        assert_eq!(observe("a", Some(pod("n1"))), ([true, false], 1, 1, 1));
        assert_eq!(observe("b", Some(pod("n2"))), ([true, true], 1, 2, 1));
        assert_eq!(observe("a", Some(pod("n2"))), ([false, true], 1, 1, 1));
        assert_eq!(observe("a", None), ([false, true], 1, 1, 1));
        assert_eq!(observe("b", None), ([false, false], 0, 0, 0));
    }
}
