//! What other pods see of a pod: namespace, labels, affinity to pods, and whether it is on its way out.
//!
//! Pods of one workload are alike in it, so that whoever asks something about all pods asks once for each shape and counts
//! how many a node has. Invariant: two shapes with the same key are equal.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use k8s_openapi::api::core::v1::{Affinity, Pod};

/// Forgotten shapes are swept out when there are twice as many as after the last time, and no earlier than here.
const SWEEP_AT: usize = 1024;

/// A shape.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    key: String,
    pub(crate) namespace: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Affinity and anti-affinity to pods; what concerns nodes is left out.
    pub(crate) affinity: Option<Affinity>,
    pub(crate) is_terminating: bool,
}

impl Shape {
    pub(crate) fn new(pod: &Pod) -> Self {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let whole = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
        let whole = whole.filter(|affinity| affinity.pod_affinity.is_some() || affinity.pod_anti_affinity.is_some());
        let affinity = whole.map(|affinity| Affinity { node_affinity: None, ..affinity.clone() });
        let is_terminating = pod.metadata.deletion_timestamp.is_some();
        let mut key = format!("{is_terminating}\0{namespace}");
        for (name, value) in &labels {
            key.push('\0');
            key.push_str(name);
            key.push('=');
            key.push_str(value);
        }
        if let Some(affinity) = &affinity {
            key.push('\u{1}');
            key.push_str(&serde_json::to_string(affinity).unwrap_or_default());
        }
        Self { key, namespace, labels, affinity, is_terminating }
    }

    /// What only equal shapes have in common.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn is_same(one: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(one, other) || one.key == other.key
    }
}

impl PartialEq for Shape {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Shape {}

/// The shapes that are in use, each once.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    known: HashMap<String, Weak<Shape>>,
    swept: usize,
}

impl Shapes {
    /// The one that stands for all that equal it.
    pub(crate) fn shared(&mut self, shape: Arc<Shape>) -> Arc<Shape> {
        if let Some(known) = self.known.get(&shape.key).and_then(Weak::upgrade) {
            return known;
        }
        if self.known.len() >= SWEEP_AT.max(self.swept * 2) {
            self.known.retain(|_, known| known.strong_count() > 0);
            self.swept = self.known.len();
        }
        self.known.insert(shape.key.clone(), Arc::downgrade(&shape));
        shape
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn shape(value: Value) -> Arc<Shape> {
        Arc::new(Shape::new(&serde_json::from_value(value).unwrap()))
    }

    #[test]
    fn pods_that_are_alike_share_a_shape() {
        let web = |name: &str, app: &str| json!({"metadata": {"name": name, "labels": {"app": app}}});
        let mut shapes = Shapes::default();
        let first = shapes.shared(shape(web("a", "web")));
        assert!(Arc::ptr_eq(&first, &shapes.shared(shape(web("b", "web")))));
        assert!(!Shape::is_same(&first, &shapes.shared(shape(web("c", "db")))));
        let mut leaving = web("d", "web");
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(!Shape::is_same(&first, &shapes.shared(shape(leaving))));
        let mut affine = web("e", "web");
        affine["spec"] = json!({"containers": [], "affinity": {"podAffinity": {}}});
        assert!(!Shape::is_same(&first, &shapes.shared(shape(affine))));
    }
}
