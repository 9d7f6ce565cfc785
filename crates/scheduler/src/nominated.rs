//! Pods that were promised a node, because others leave it for them.
//!
//! Invariant: a pod is promised one node at most; who is placed, gone or promised another one is promised this no more.

use std::collections::HashMap;
use std::sync::Arc;

use kedge_meta::ObjectKey;

use crate::node_info::{NodeInfo, PodInfo};

#[derive(Default)]
pub(crate) struct Nominated {
    by_pod: HashMap<ObjectKey, String>,
    by_node: HashMap<String, Vec<Arc<PodInfo>>>,
}

impl Nominated {
    pub(crate) fn add(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove(&pod.key);
        self.by_pod.insert(pod.key.clone(), node.to_owned());
        self.by_node.entry(node.to_owned()).or_default().push(pod);
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        let Some(node) = self.by_pod.remove(key) else { return };
        if let Some(pods) = self.by_node.get_mut(&node) {
            pods.retain(|pod| pod.key != *key);
            if pods.is_empty() {
                self.by_node.remove(&node);
            }
        }
    }

    /// The node that a pod was promised.
    pub(crate) fn node_of(&self, key: &ObjectKey) -> Option<&str> {
        self.by_pod.get(key).map(String::as_str)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_pod.is_empty()
    }

    /// A node as `pod` must see it: with those that were promised it and are at least as important.
    pub(crate) fn seen_by(&self, pod: &PodInfo, node: &Arc<NodeInfo>) -> Option<Arc<NodeInfo>> {
        let promised = self.by_node.get(&node.name)?;
        let mut counts =
            promised.iter().filter(|other| other.priority >= pod.priority && other.key != pod.key).peekable();
        counts.peek()?;
        let mut seen = node.clone();
        let changed = Arc::make_mut(&mut seen);
        counts.for_each(|other| changed.add_pod(other.clone()));
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::{node, pod};
    use serde_json::json;

    #[test]
    fn promised_room_is_taken_for_those_who_matter_less() {
        let asking = |name: &str, priority: i32| {
            pod(json!({"metadata": {"name": name, "namespace": "d"}, "spec": {"priority": priority, "containers": [
                {"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}))
        };
        let at = Arc::new(node(json!({"metadata": {"name": "n"}}), vec![]));
        let mut nominated = Nominated::default();
        nominated.add(Arc::new(asking("a", 5)), "other");
        nominated.add(Arc::new(asking("a", 5)), "n");
        let used =
            |nominated: &Nominated, pod: &PodInfo| nominated.seen_by(pod, &at).map(|node| node.requested.milli_cpu);
        assert_eq!(used(&nominated, &asking("b", 5)), Some(1000));
        assert_eq!(used(&nominated, &asking("b", 6)), None, "it goes first");
        assert_eq!(used(&nominated, &asking("a", 5)), None, "its own place");
        assert_eq!(nominated.node_of(&asking("a", 5).key), Some("n"));
        nominated.remove(&asking("a", 5).key);
        assert!(nominated.is_empty() && used(&nominated, &asking("b", 1)).is_none());
    }
}
