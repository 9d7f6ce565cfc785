//! What belongs to which node: pods and what they refer to, attachments of volumes, slices of devices.
//!
//! Not here: what a node may do with it. Invariant: the references of a node are exactly those of the pods that are bound
//! to it, and mirror pods have none: who writes them is the node itself.

use std::collections::HashMap;

use serde_json::Value;

use super::references::{Reference, VolumeReferences, references_of, volume_references};

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Follows the objects that tie others to nodes.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pods: HashMap<(String, String), (String, Vec<Reference>)>,
    counts_by_node: HashMap<String, HashMap<Reference, usize>>,
    volumes: HashMap<String, VolumeReferences>,
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
            "persistentvolumes" => set(&mut self.volumes, name, object.and_then(volume_references)),
            "volumeattachments" => set(&mut self.nodes_by_attachment, name, object.and_then(node_name)),
            "resourceslices" => set(&mut self.nodes_by_slice, name, object.and_then(node_name)),
            _ => {}
        }
    }

    fn observe_pod(&mut self, namespace: &str, name: &str, object: Option<&Value>) {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some((node, references)) = self.pods.remove(&key) {
            self.forget(&node, &references);
        }
        let Some(pod) = object else { return };
        let Some(node) = node_name(pod) else { return };
        let is_mirror = pod["metadata"]["annotations"].get(MIRROR).is_some();
        let references = if is_mirror { Vec::new() } else { references_of(pod, namespace) };
        let counts = self.counts_by_node.entry(node.clone()).or_default();
        for reference in &references {
            *counts.entry(reference.clone()).or_default() += 1;
        }
        self.pods.insert(key, (node, references));
    }

    fn forget(&mut self, node: &str, references: &[Reference]) {
        let Some(counts) = self.counts_by_node.get_mut(node) else { return };
        for reference in references {
            if let Some(count) = counts.get_mut(reference) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(reference);
                }
            }
        }
        if counts.is_empty() {
            self.counts_by_node.remove(node);
        }
    }

    /// Whether an object belongs to a node.
    pub(super) fn relates(&self, node: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let refers = |resource| self.refers(node, resource, namespace, name);
        let is_of = |nodes: &HashMap<String, String>| nodes.get(name).is_some_and(|of| of == node);
        match resource {
            "pods" => {
                let pod = self.pods.get(&(namespace.to_owned(), name.to_owned()));
                pod.is_some_and(|(of, _)| of == node)
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
        let needs =
            |volume: &&VolumeReferences| volume.secrets.iter().any(|(of, secret)| of == namespace && secret == name);
        self.volumes.values().filter(needs).any(|volume| self.uses(node, volume))
    }
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
