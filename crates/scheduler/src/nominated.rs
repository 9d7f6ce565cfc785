//! Pods that were promised a node, because others leave it for them.
//!
//! Invariant: a pod is promised one node at most; who is placed, gone or promised another one is promised this no more.

use std::collections::HashMap;
use std::sync::Arc;

use kedge_meta::ObjectKey;
use parking_lot::Mutex;

use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

#[derive(Default)]
pub(crate) struct Nominated {
    by_pod: HashMap<ObjectKey, String>,
    by_node: HashMap<String, Promised>,
}

/// What a node was promised to.
#[derive(Default)]
struct Promised {
    pods: Vec<Arc<PodInfo>>,
    /// The number of the node's state when it was last asked for, and that state with all of `pods`: asked for again by
    /// every pod that fits nowhere.
    seen: Mutex<Option<(u64, Arc<NodeInfo>)>>,
}

impl Promised {
    fn with_all(&self, node: &Arc<NodeInfo>) -> Arc<NodeInfo> {
        let mut seen = self.seen.lock();
        if let Some((before, with_all)) = &*seen
            && *before == node.version()
        {
            return with_all.clone();
        }
        let with_all = with(node, self.pods.iter());
        *seen = Some((node.version(), with_all.clone()));
        with_all
    }
}

fn with<'a>(node: &Arc<NodeInfo>, pods: impl Iterator<Item = &'a Arc<PodInfo>>) -> Arc<NodeInfo> {
    let mut changed = NodeInfo::clone(node);
    pods.for_each(|pod| changed.add_pod(pod.clone()));
    Arc::new(changed)
}

impl Nominated {
    /// Promises a pod a node, and no other any more; the node that it was promised before.
    pub(crate) fn add(&mut self, pod: Arc<PodInfo>, node: &str) -> Option<String> {
        let before = self.remove(&pod.key);
        self.by_pod.insert(pod.key.clone(), node.to_owned());
        let promised = self.by_node.entry(node.to_owned()).or_default();
        promised.pods.push(pod);
        *promised.seen.get_mut() = None;
        before
    }

    /// Takes back what a pod was promised: the node, where there was one.
    pub(crate) fn remove(&mut self, key: &ObjectKey) -> Option<String> {
        let node = self.by_pod.remove(key)?;
        if let Some(promised) = self.by_node.get_mut(&node) {
            promised.pods.retain(|pod| pod.key != *key);
            *promised.seen.get_mut() = None;
            if promised.pods.is_empty() {
                self.by_node.remove(&node);
            }
        }
        Some(node)
    }

    /// Those who were promised a node and matter less than others.
    pub(crate) fn less_important(&self, node: &str, priority: i32) -> Vec<Arc<PodInfo>> {
        let promised = self.by_node.get(node).into_iter().flat_map(|promised| &promised.pods);
        promised.filter(|pod| pod.priority < priority).cloned().collect()
    }

    /// Those who were promised a node and matter at least as much as others.
    pub(crate) fn as_important(&self, node: &str, priority: i32) -> impl Iterator<Item = &Arc<PodInfo>> {
        let promised = self.by_node.get(node).into_iter().flat_map(|promised| &promised.pods);
        promised.filter(move |pod| pod.priority >= priority)
    }

    /// The node that a pod was promised.
    pub(crate) fn node_of(&self, key: &ObjectKey) -> Option<&str> {
        self.by_pod.get(key).map(String::as_str)
    }

    /// Whether nobody was promised anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_pod.is_empty()
    }

    /// A node as `pod` must see it: with those that were promised it and are at least as important.
    pub(crate) fn seen_by(&self, pod: &PodInfo, node: &Arc<NodeInfo>) -> Option<Arc<NodeInfo>> {
        let promised = self.by_node.get(&node.name)?;
        let counts = |other: &&Arc<PodInfo>| other.priority >= pod.priority && other.key != pod.key;
        match promised.pods.iter().filter(counts).count() {
            0 => None,
            all if all == promised.pods.len() => Some(promised.with_all(node)),
            _ => Some(with(node, promised.pods.iter().filter(counts))),
        }
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
        nominated.add(Arc::new(asking("c", 4)), "n");
        assert_eq!(used(&nominated, &asking("b", 4)), Some(2000), "what was seen before is not what is promised now");
        assert_eq!(used(&nominated, &asking("b", 5)), Some(1000));
        let fuller = Arc::new(node(json!({"metadata": {"name": "n"}}), vec![asking("d", 0)]));
        let seen = nominated.seen_by(&asking("b", 4), &fuller).expect("it was promised");
        assert_eq!(seen.requested.milli_cpu, 3000, "the node has changed");
        nominated.remove(&asking("c", 4).key);
        nominated.remove(&asking("a", 5).key);
        assert!(nominated.is_empty() && used(&nominated, &asking("b", 1)).is_none());
    }
}
