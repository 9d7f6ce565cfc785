//! A node with the pods on it, as the plugins see it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use kedge_meta::ObjectKey;

use crate::resources::{Resources, pod_requests, pod_requests_for_score};
use crate::shape::Shape;

/// A port of the host: protocol, address, number.
pub(crate) type HostPort = (String, String, i32);

/// A pod with what is asked of it again and again.
#[derive(Debug, Clone)]
pub(crate) struct PodInfo {
    pub(crate) pod: Arc<Pod>,
    pub(crate) key: ObjectKey,
    pub(crate) requests: Resources,
    pub(crate) score_requests: Resources,
    pub(crate) host_ports: Vec<HostPort>,
    pub(crate) priority: i32,
    pub(crate) shape: Arc<Shape>,
}

impl PodInfo {
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        let mut requests = pod_requests(&pod);
        requests.pods = 1;
        Self {
            key: kedge_client::object_key(&*pod),
            score_requests: pod_requests_for_score(&pod),
            host_ports: host_ports(&pod),
            priority: pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default(),
            shape: Arc::new(Shape::new(&pod)),
            requests,
            pod,
        }
    }

    /// The name of the scheduler that places it.
    pub(crate) fn scheduler_name(&self) -> &str {
        self.pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.key.namespace
    }

    pub(crate) fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.pod.metadata.labels.as_ref().unwrap_or(&NONE)
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten().filter(|init| init.restart_policy.as_deref() == Some("Always")));
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let address = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
            Some((protocol, address, number))
        })
        .collect()
}

/// Whether two host ports exclude each other: the wildcard address takes all.
pub(crate) fn ports_conflict(one: &HostPort, other: &HostPort) -> bool {
    let wildcard = |address: &str| matches!(address, "0.0.0.0" | "::");
    one.0 == other.0 && one.2 == other.2 && (one.1 == other.1 || wildcard(&one.1) || wildcard(&other.1))
}

/// A node and what is on it.
#[derive(Debug, Clone)]
pub(crate) struct NodeInfo {
    pub(crate) node: Arc<Node>,
    pub(crate) name: String,
    pub(crate) pods: HashMap<ObjectKey, Arc<PodInfo>>,
    pub(crate) allocatable: Resources,
    pub(crate) requested: Resources,
    pub(crate) score_requested: Resources,
    pub(crate) image_sizes: HashMap<String, i64>,
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
            node: node.clone(),
            pods: HashMap::new(),
            allocatable: Resources::default(),
            requested: Resources::default(),
            score_requested: Resources::default(),
            image_sizes: HashMap::new(),
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
        self.image_sizes = status
            .and_then(|status| status.images.as_ref())
            .into_iter()
            .flatten()
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or_default();
                image.names.iter().flatten().map(move |name| (name.clone(), size))
            })
            .collect();
        self.node = node;
    }

    pub(crate) fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.remove_pod(&pod.key.clone());
        self.requested.add(&pod.requests);
        self.score_requested.add(&pod.score_requests);
        match self.shapes.iter_mut().find(|(shape, _)| Shape::is_same(shape, &pod.shape)) {
            Some((_, count)) => *count += 1,
            None => self.shapes.push((pod.shape.clone(), 1)),
        }
        self.pods.insert(pod.key.clone(), pod);
    }

    /// Takes a pod off; the pod, where it was there.
    pub(crate) fn remove_pod(&mut self, key: &ObjectKey) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(key)?;
        self.requested.subtract(&pod.requests);
        self.score_requested.subtract(&pod.score_requests);
        if let Some((_, count)) = self.shapes.iter_mut().find(|(shape, _)| Shape::is_same(shape, &pod.shape)) {
            *count -= 1;
        }
        self.shapes.retain(|(_, count)| *count > 0);
        Some(pod)
    }

    pub(crate) fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.node.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    pub(crate) fn used_host_ports(&self) -> impl Iterator<Item = &HostPort> {
        self.pods.values().flat_map(|pod| &pod.host_ports)
    }

    /// The node's zone with its region; empty where it says none.
    pub(crate) fn zone(&self) -> (&str, &str) {
        let label = |key: &str| self.labels().get(key).map_or("", String::as_str);
        (label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
    }
}
