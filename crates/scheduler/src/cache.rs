//! The snapshot of the cluster that cycles look at, kept up to date change by change.
//!
//! Invariant: every pod with a node, terminal ones left out, counts on exactly that node; a pod that was placed but not
//! yet confirmed by the API (assumed) counts as well.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kedge_meta::ObjectKey;

use crate::node_info::{NodeInfo, PodInfo};

#[derive(Default)]
pub(crate) struct Cache {
    nodes: BTreeMap<String, NodeInfo>,
    placed: HashMap<ObjectKey, (String, Arc<PodInfo>)>,
    assumed: HashSet<ObjectKey>,
}

impl Cache {
    pub(crate) fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        if let Some(info) = self.nodes.get_mut(&name) {
            return info.set_node(node);
        }
        let mut info = NodeInfo::new(node);
        for (on, pod) in self.placed.values() {
            if *on == name {
                info.add_pod(pod.clone());
            }
        }
        self.nodes.insert(name, info);
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// A pod that the API says runs on a node.
    pub(crate) fn set_pod(&mut self, node: &str, pod: Arc<PodInfo>) {
        self.assumed.remove(&pod.key);
        self.place(node, pod);
    }

    /// A pod that this scheduler has placed and is about to bind.
    pub(crate) fn assume(&mut self, node: &str, pod: Arc<PodInfo>) {
        self.assumed.insert(pod.key.clone());
        self.place(node, pod);
    }

    /// Takes back an assumption that did not come true. A pod that the API has confirmed stays.
    pub(crate) fn forget(&mut self, key: &ObjectKey) {
        if self.assumed.contains(key) {
            self.remove_pod(key);
        }
    }

    pub(crate) fn remove_pod(&mut self, key: &ObjectKey) {
        self.assumed.remove(key);
        if let Some((node, _)) = self.placed.remove(key)
            && let Some(info) = self.nodes.get_mut(&node)
        {
            info.remove_pod(key);
        }
    }

    pub(crate) fn is_assumed(&self, key: &ObjectKey) -> bool {
        self.assumed.contains(key)
    }

    /// How many nodes, placed pods, and pods among these that the API has not confirmed.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        (self.nodes.len(), self.placed.len(), self.assumed.len())
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values()
    }

    #[cfg(test)]
    fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name)
    }

    fn place(&mut self, node: &str, pod: Arc<PodInfo>) {
        if self.placed.get(&pod.key).is_some_and(|(before, _)| before != node) {
            let key = pod.key.clone();
            if let Some((before, _)) = self.placed.remove(&key)
                && let Some(info) = self.nodes.get_mut(&before)
            {
                info.remove_pod(&key);
            }
        }
        self.placed.insert(pod.key.clone(), (node.to_owned(), pod.clone()));
        if let Some(info) = self.nodes.get_mut(node) {
            info.add_pod(pod);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(cpu: &str) -> Arc<PodInfo> {
        let value = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        Arc::new(PodInfo::new(Arc::new(serde_json::from_value(value).unwrap())))
    }

    fn node(name: &str) -> Arc<Node> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}})).unwrap())
    }

    fn used(cache: &Cache, name: &str) -> i64 {
        cache.node(name).unwrap().requested.milli_cpu
    }

    #[test]
    fn a_pod_counts_once_wherever_it_is() {
        let mut cache = Cache::default();
        cache.set_node(node("n1"));
        cache.assume("n1", pod("100m"));
        cache.set_pod("n1", pod("100m"));
        assert_eq!(used(&cache, "n1"), 100);
        cache.forget(&pod("0").key);
        assert_eq!(used(&cache, "n1"), 100, "what the API confirmed is not forgotten");
        cache.set_pod("n1", pod("200m"));
        assert_eq!(used(&cache, "n1"), 200);
        cache.set_pod("n2", pod("200m"));
        assert_eq!(used(&cache, "n1"), 0);
        cache.set_node(node("n2"));
        assert_eq!(used(&cache, "n2"), 200, "pods may be known before their node");
        cache.remove_pod(&pod("0").key);
        assert_eq!(used(&cache, "n2"), 0);
    }

    #[test]
    fn an_assumption_can_be_taken_back() {
        let mut cache = Cache::default();
        cache.set_node(node("n1"));
        cache.assume("n1", pod("100m"));
        cache.forget(&pod("0").key);
        assert_eq!(used(&cache, "n1"), 0);
    }
}
