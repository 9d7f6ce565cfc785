//! A node with the pods on it, as the plugins see it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::api::core::v1::Node;
use kedge_meta::ObjectKey;

use crate::pod_info::{HostPort, PodInfo};
use crate::resources::Resources;
use crate::shape::Shape;

/// A node and what is on it.
#[derive(Debug, Clone)]
pub(crate) struct NodeInfo {
    pub(crate) node: Arc<Node>,
    pub(crate) name: String,
    /// Which state of which node this is: no other state in this process has the same.
    version: u64,
    /// Each once, in no order: there are few enough to be looked through.
    pub(crate) pods: Vec<Arc<PodInfo>>,
    pub(crate) allocatable: Resources,
    pub(crate) requested: Resources,
    pub(crate) score_requested: Resources,
    pub(crate) image_sizes: Arc<HashMap<String, i64>>,
    /// `spec.unschedulable`.
    pub(crate) is_cordoned: bool,
    pub(crate) has_taints: bool,
    /// The shapes of its pods, each with how many have it.
    pub(crate) shapes: Vec<(Arc<Shape>, usize)>,
}

impl NodeInfo {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        let mut info = Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            version: 0,
            node: node.clone(),
            pods: Vec::new(),
            allocatable: Resources::default(),
            requested: Resources::default(),
            score_requested: Resources::default(),
            image_sizes: Arc::default(),
            is_cordoned: false,
            has_taints: false,
            shapes: Vec::new(),
        };
        info.set_node(node);
        info
    }

    pub(crate) fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        self.allocatable = Resources::from_list(status.and_then(|status| status.allocatable.as_ref()));
        self.is_cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default();
        self.has_taints =
            node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).is_some_and(|taints| !taints.is_empty());
        let sizes: HashMap<String, i64> = status
            .and_then(|status| status.images.as_ref())
            .into_iter()
            .flatten()
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or_default();
                image.names.iter().flatten().map(move |name| (name.clone(), size))
            })
            .collect();
        self.image_sizes = Arc::new(sizes);
        self.node = node;
        self.touch();
    }

    /// What was known of the node is not what is known now.
    pub(crate) fn touch(&mut self) {
        static LAST: AtomicU64 = AtomicU64::new(0);
        self.version = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    }

    /// The number of this state: where two are the same, so is everything else.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.remove_pod(&pod.key);
        self.add_new(pod);
    }

    /// The same for a pod of which none with its key is there.
    pub(crate) fn add_new(&mut self, pod: Arc<PodInfo>) {
        self.touch();
        self.requested.add(&pod.requests);
        self.score_requested.add(&pod.score_requests);
        match self.shapes.iter_mut().find(|(shape, _)| Shape::is_same(shape, &pod.shape)) {
            Some((_, count)) => *count += 1,
            None => self.shapes.push((pod.shape.clone(), 1)),
        }
        self.pods.push(pod);
    }

    /// Takes a pod off; the pod, where it was there.
    pub(crate) fn remove_pod(&mut self, key: &ObjectKey) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().rposition(|pod| pod.key == *key)?;
        Some(self.take(at))
    }

    /// The same for the very pod that is there. Who has a great many pods is changed in what came last most often.
    pub(crate) fn remove_same(&mut self, pod: &Arc<PodInfo>) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().rposition(|other| Arc::ptr_eq(other, pod))?;
        Some(self.take(at))
    }

    fn take(&mut self, at: usize) -> Arc<PodInfo> {
        self.touch();
        let pod = self.pods.swap_remove(at);
        self.requested.subtract(&pod.requests);
        self.score_requested.subtract(&pod.score_requests);
        if let Some((_, count)) = self.shapes.iter_mut().find(|(shape, _)| Shape::is_same(shape, &pod.shape)) {
            *count -= 1;
        }
        self.shapes.retain(|(_, count)| *count > 0);
        pod
    }

    pub(crate) fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.node.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    pub(crate) fn used_host_ports(&self) -> impl Iterator<Item = &HostPort> {
        self.pods.iter().flat_map(|pod| &pod.host_ports)
    }

    /// The node's zone with its region; empty where it says none.
    pub(crate) fn zone(&self) -> (&str, &str) {
        let label = |key: &str| self.labels().get(key).map_or("", String::as_str);
        (label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
    }
}
