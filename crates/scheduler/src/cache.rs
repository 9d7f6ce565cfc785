//! The snapshot of the cluster that cycles look at, kept up to date change by change.
//!
//! Invariant: every pod with a node, terminal ones left out, counts on exactly that node; a pod that was placed but not
//! yet confirmed by the API (assumed) counts as well. Nodes stand in an order in which neighbours are of different zones
//! where that is possible, so that a stretch of them is a fair sample.

#[cfg(test)]
pub(crate) mod history;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Affinity, Node, Pod};
use kedge_meta::ObjectKey;

use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::shape::{Shape, Shapes};
use crate::tallies::{Tallies, Tally, Topology};

#[derive(Default)]
pub(crate) struct Cache {
    nodes: Vec<Arc<NodeInfo>>,
    places: HashMap<String, usize>,
    /// Whether nodes came, went or moved since they were put in order.
    is_unordered: bool,
    placed: HashMap<ObjectKey, (String, Arc<PodInfo>)>,
    assumed: HashSet<ObjectKey>,
    shapes: Shapes,
    images: HashMap<String, usize>,
    /// Topology keys by which placed pods want to be near others or away from them, each with how often.
    affine_keys: HashMap<String, usize>,
    affine_pods: usize,
    tallies: Tallies,
}

impl Cache {
    /// A pod as the cache knows pods: those that are alike share what they have in common.
    pub(crate) fn pod_info(&mut self, pod: Arc<Pod>) -> Arc<PodInfo> {
        let mut info = PodInfo::new(pod);
        info.shape = self.shapes.shared(info.shape);
        Arc::new(info)
    }

    pub(crate) fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        if let Some(at) = self.places.get(&name) {
            let info = Arc::make_mut(&mut self.nodes[*at]);
            count_images(&mut self.images, info, false);
            let zone = info.zone();
            let zone = (zone.0.to_owned(), zone.1.to_owned());
            if info.labels() != node.metadata.labels.as_ref().unwrap_or(&BTreeMap::new()) {
                self.tallies.forget();
            }
            info.set_node(node);
            self.is_unordered |= (zone.0.as_str(), zone.1.as_str()) != info.zone();
            return count_images(&mut self.images, info, true);
        }
        self.tallies.forget();
        let mut info = NodeInfo::new(node);
        for (on, pod) in self.placed.values() {
            if *on == name {
                info.add_new(pod.clone());
            }
        }
        count_images(&mut self.images, &info, true);
        self.places.insert(name, self.nodes.len());
        self.nodes.push(Arc::new(info));
        self.is_unordered = true;
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        let Some(at) = self.places.remove(name) else { return };
        self.tallies.forget();
        let info = self.nodes.swap_remove(at);
        count_images(&mut self.images, &info, false);
        if let Some(moved) = self.nodes.get(at) {
            self.places.insert(moved.name.clone(), at);
        }
        self.is_unordered = true;
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
    pub(crate) fn forget(&mut self, key: &ObjectKey) -> Option<Arc<PodInfo>> {
        self.assumed.contains(key).then(|| self.remove_pod(key)).flatten()
    }

    /// Takes a pod off its node; the pod, where it was known.
    pub(crate) fn remove_pod(&mut self, key: &ObjectKey) -> Option<Arc<PodInfo>> {
        self.assumed.remove(key);
        let (node, pod) = self.placed.remove(key)?;
        self.count_affinity(&pod.shape, false);
        self.take_off(&node, &pod);
        Some(pod)
    }

    /// Something that is not in the cache makes a node another one for those who look at it.
    pub(crate) fn touch(&mut self, node: &str) {
        if let Some(at) = self.places.get(node) {
            Arc::make_mut(&mut self.nodes[*at]).touch();
        }
    }

    /// On which node a pod counts.
    pub(crate) fn place_of_pod(&self, key: &ObjectKey) -> Option<&str> {
        self.placed.get(key).map(|(node, _)| node.as_str())
    }

    pub(crate) fn is_assumed(&self, key: &ObjectKey) -> bool {
        self.assumed.contains(key)
    }

    /// A placed pod as the cache has it.
    pub(crate) fn pod(&self, key: &ObjectKey) -> Option<&Arc<PodInfo>> {
        self.placed.get(key).map(|(_, pod)| pod)
    }

    /// How many nodes, placed pods, and pods among these that the API has not confirmed.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        (self.nodes.len(), self.placed.len(), self.assumed.len())
    }

    /// The nodes; in their order where nothing changed since [`Self::settle`].
    pub(crate) fn nodes(&self) -> &[Arc<NodeInfo>] {
        &self.nodes
    }

    /// Puts the nodes in order, where they are not.
    pub(crate) fn settle(&mut self) {
        if self.is_unordered {
            self.put_in_order();
        }
    }

    pub(crate) fn node(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        self.places.get(name).map(|at| &self.nodes[*at])
    }

    /// On how many nodes an image lies.
    pub(crate) fn image_spread(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or_default()
    }

    /// The place of a node among [`Self::nodes`].
    pub(crate) fn place_of(&self, node: &str) -> Option<usize> {
        self.places.get(node).copied()
    }

    /// Makes sure of the tallies that are asked for, and of those by which placed pods keep others near or away.
    pub(crate) fn tally(&mut self, asked: impl IntoIterator<Item = Topology>) {
        let by_pods = self.affine_keys.keys().map(|key| Topology::of(key));
        for topology in asked.into_iter().chain(by_pods) {
            self.tallies.ensure(topology, &self.nodes);
        }
    }

    /// The tally of the domains of a label, on nodes that have all of some labels.
    pub(crate) fn tallied(&self, key: &str, with: &[&str]) -> Option<&Tally> {
        self.tallies.get(key, with)
    }

    /// Whether all tallies say what counting says.
    #[cfg(test)]
    pub(crate) fn tallies_are_true(&self) -> bool {
        self.tallies.are_true(&self.nodes)
    }

    /// The topology keys by which placed pods want to be near others or away from them.
    pub(crate) fn affine_keys(&self) -> impl Iterator<Item = &str> {
        self.affine_keys.keys().map(String::as_str)
    }

    /// Whether pods with affinity or anti-affinity to pods are placed.
    pub(crate) fn has_affine_pods(&self) -> bool {
        self.affine_pods > 0
    }

    fn place(&mut self, node: &str, pod: Arc<PodInfo>) {
        if let Some((before, old)) = self.placed.remove(&pod.key) {
            self.count_affinity(&old.shape, false);
            self.take_off(&before, &old);
        }
        let pod = pod.placed();
        self.count_affinity(&pod.shape, true);
        if let Some(at) = self.places.get(node) {
            let info = Arc::make_mut(&mut self.nodes[*at]);
            info.add_new(pod.clone());
            self.tallies.add(info.labels(), &pod.shape);
        }
        self.placed.insert(pod.key.clone(), (node.to_owned(), pod));
    }

    fn take_off(&mut self, node: &str, pod: &Arc<PodInfo>) {
        let Some(at) = self.places.get(node) else { return };
        let info = Arc::make_mut(&mut self.nodes[*at]);
        if info.remove_same(pod).is_some() {
            self.tallies.remove(info.labels(), &pod.shape);
        }
    }

    fn count_affinity(&mut self, shape: &Shape, more: bool) {
        let Some(affinity) = &shape.affinity else { return };
        self.affine_pods = if more { self.affine_pods + 1 } else { self.affine_pods - 1 };
        for key in topology_keys(affinity) {
            let count = self.affine_keys.entry(key.to_owned()).or_default();
            *count = if more { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.affine_keys.remove(key);
            }
        }
    }

    /// Zone by zone in turn, by name within a zone.
    fn put_in_order(&mut self) {
        self.nodes.sort_by(|one, other| (one.zone(), &one.name).cmp(&(other.zone(), &other.name)));
        let mut zones: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut turns: Vec<usize> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let turn = zones.entry(node.zone()).or_default();
            turns.push(*turn);
            *turn += 1;
        }
        let mut ordered: Vec<(usize, Arc<NodeInfo>)> = turns.into_iter().zip(self.nodes.drain(..)).collect();
        ordered.sort_by_key(|(turn, _)| *turn);
        self.nodes = ordered.into_iter().map(|(_, node)| node).collect();
        self.places = self.nodes.iter().enumerate().map(|(at, node)| (node.name.clone(), at)).collect();
        self.is_unordered = false;
    }
}

/// The topology keys of everything that a pod says about other pods.
pub(crate) fn topology_keys(affinity: &Affinity) -> impl Iterator<Item = &str> {
    let (near, away) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
    let required = [
        near.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_ref()),
        away.and_then(|away| away.required_during_scheduling_ignored_during_execution.as_ref()),
    ];
    let preferred = [
        near.and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_ref()),
        away.and_then(|away| away.preferred_during_scheduling_ignored_during_execution.as_ref()),
    ];
    let required = required.into_iter().flatten().flatten();
    let preferred = preferred.into_iter().flatten().flatten().map(|term| &term.pod_affinity_term);
    required.chain(preferred).map(|term| term.topology_key.as_str())
}

fn count_images(images: &mut HashMap<String, usize>, node: &NodeInfo, more: bool) {
    for image in node.image_sizes.keys() {
        let count = images.entry(image.clone()).or_default();
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            images.remove(image);
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

    #[test]
    fn neighbours_are_of_different_zones() {
        let mut cache = Cache::default();
        for (name, zone) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c"), ("c2", "c")] {
            let value = json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}});
            cache.set_node(Arc::new(serde_json::from_value(value).unwrap()));
        }
        let order = |cache: &mut Cache| -> Vec<String> {
            cache.settle();
            cache.nodes().iter().map(|node| node.name.clone()).collect()
        };
        assert_eq!(order(&mut cache), ["a1", "b1", "c1", "a2", "c2", "a3"]);
        cache.remove_node("b1");
        assert_eq!(order(&mut cache), ["a1", "c1", "a2", "c2", "a3"]);
        cache.assume("a3", pod("100m"));
        assert_eq!(used(&cache, "a3"), 100, "places are known after the order changed");
    }

    #[test]
    fn images_are_counted_by_node() {
        let with = |name: &str, images: &[&str]| -> Arc<Node> {
            let images: Vec<_> = images.iter().map(|image| json!({"names": [image], "sizeBytes": 5})).collect();
            let value = json!({"metadata": {"name": name}, "status": {"images": images}});
            Arc::new(serde_json::from_value(value).unwrap())
        };
        let mut cache = Cache::default();
        cache.set_node(with("n1", &["a:1", "b:1"]));
        cache.set_node(with("n2", &["a:1"]));
        assert_eq!(cache.image_spread("a:1"), 2);
        cache.set_node(with("n1", &["b:1"]));
        cache.remove_node("n2");
        assert_eq!((cache.image_spread("a:1"), cache.image_spread("b:1")), (0, 1));
    }
}
