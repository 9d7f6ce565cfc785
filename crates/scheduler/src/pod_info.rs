//! A pod as the scheduler knows it: with what is asked of it again and again, and whole while it waits.
//!
//! Invariant: what is asked of placed pods is kept beside the pod itself.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Volume};
use kedge_meta::ObjectKey;

use crate::resources::{Resources, pod_requests, pod_requests_for_score};
use crate::shape::Shape;

/// A port of the host: protocol, address, number.
pub(crate) type HostPort = (String, String, i32);

/// A pod with what is asked of it again and again.
#[derive(Debug, Clone)]
pub(crate) struct PodInfo {
    /// Only while the pod waits for a node.
    whole: Option<Arc<Pod>>,
    pub(crate) key: ObjectKey,
    pub(crate) uid: String,
    pub(crate) started_at: Option<Timestamp>,
    /// Whether it is on its way out because a scheduler wanted its place.
    pub(crate) is_leaving: bool,
    /// The names of its claims, with whether they are of its ephemeral volumes.
    pub(crate) claims: Vec<(String, bool)>,
    /// Its volumes of the kinds that only one pod on a node may use.
    pub(crate) disks: Vec<Volume>,
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
        let key = kedge_client::object_key(&*pod);
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            started_at: pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0),
            is_leaving: is_leaving(&pod),
            claims: volumes.iter().filter_map(|volume| claim_of(volume, &key)).collect(),
            disks: volumes.iter().filter(|volume| is_disk(volume)).cloned().collect(),
            key,
            score_requests: pod_requests_for_score(&pod),
            host_ports: host_ports(&pod),
            priority: pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default(),
            shape: Arc::new(Shape::new(&pod)),
            requests,
            whole: Some(pod),
        }
    }

    /// The pod itself; of one that has been placed nothing is in it.
    pub(crate) fn pod(&self) -> &Pod {
        static NOTHING: LazyLock<Pod> = LazyLock::new(Pod::default);
        self.whole.as_deref().unwrap_or(&NOTHING)
    }

    /// What is kept of a pod that has been placed: there are very many, and only this is asked of them.
    pub(crate) fn placed(self: &Arc<Self>) -> Arc<Self> {
        match self.whole {
            None => self.clone(),
            Some(_) => Arc::new(Self { whole: None, ..Self::clone(self) }),
        }
    }

    /// How events name it.
    pub(crate) fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(self.key.namespace.clone()),
            name: Some(self.key.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// The name of the scheduler that places it.
    pub(crate) fn scheduler_name(&self) -> &str {
        self.pod().spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.key.namespace
    }

    pub(crate) fn labels(&self) -> &BTreeMap<String, String> {
        &self.shape.labels
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

/// The claim of a volume of the pod with this key.
fn claim_of(volume: &Volume, pod: &ObjectKey) -> Option<(String, bool)> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some((source.claim_name.clone(), false)),
        (None, Some(_)) => Some((format!("{}-{}", pod.name, volume.name), true)),
        (None, None) => None,
    }
}

fn is_disk(volume: &Volume) -> bool {
    volume.gce_persistent_disk.is_some()
        || volume.aws_elastic_block_store.is_some()
        || volume.iscsi.is_some()
        || volume.rbd.is_some()
}

fn is_leaving(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_some()
        && conditions.into_iter().any(|condition| {
            condition.type_ == "DisruptionTarget"
                && condition.status == "True"
                && condition.reason.as_deref() == Some("PreemptionByScheduler")
        })
}

/// Whether two host ports exclude each other: the wildcard address takes all.
pub(crate) fn ports_conflict(one: &HostPort, other: &HostPort) -> bool {
    let wildcard = |address: &str| matches!(address, "0.0.0.0" | "::");
    one.0 == other.0 && one.2 == other.2 && (one.1 == other.1 || wildcard(&one.1) || wildcard(&other.1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_placed_pod_keeps_what_is_asked_of_it() {
        let value = json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": {"app": "web"},
                "deletionTimestamp": "2026-01-01T00:00:09Z"},
            "spec": {"priority": 7, "containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}],
                    "resources": {"requests": {"cpu": "100m"}}}],
                "volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "mine"}},
                    {"name": "b", "ephemeral": {}}, {"name": "c", "emptyDir": {}},
                    {"name": "d", "gcePersistentDisk": {"pdName": "x"}}]},
            "status": {"startTime": "2026-01-01T00:00:00Z", "conditions": [
                {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]},
        });
        let whole = Arc::new(PodInfo::new(Arc::new(serde_json::from_value(value).unwrap())));
        let placed = whole.placed();
        assert_eq!(*placed.pod(), Pod::default());
        assert!(Arc::ptr_eq(&placed, &placed.placed()), "nothing is left to take away");
        assert_eq!(placed.reference(), kedge_client::object_reference(whole.pod()));
        assert_eq!(placed.claims, [("mine".to_owned(), false), ("p-b".to_owned(), true)]);
        assert_eq!(placed.disks.iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>(), ["d"]);
        assert_eq!(placed.host_ports, whole.host_ports);
        assert_eq!((placed.requests.milli_cpu, placed.priority, placed.is_leaving), (100, 7, true));
        assert_eq!(placed.started_at, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(placed.labels().get("app").map(String::as_str), Some("web"));
    }
}
