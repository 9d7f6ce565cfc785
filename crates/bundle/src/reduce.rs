//! Objects without what no rule asks for; and of a large cluster's pods, those that are well by their names only. Pure.
//! For objects from the API and from files alike.
//!
//! Invariant: an object of which anything may be wrong stays, with every field that tells of it. Values of environment
//! variables, in which people keep passwords, do not.

use std::collections::{BTreeMap, BTreeSet};

use kedge_diagnosis::WellFact;
use serde::Deserialize;
use serde_json::Value;

use crate::glance::Glance;

/// The component of events that say what the doctor found: no evidence of anything.
pub const OWN_EVENTS: &str = "kedge-doctor";
/// So many pods are kept whole, well or not.
const MOST_WHOLE: usize = 5000;
/// Annotations that rules read; the others may be as large as the objects that they repeat.
const ANNOTATIONS: [&str; 7] = [
    "kubernetes.io/config.",
    "kwok.x-k8s.io/",
    "network.kedge.dev/reachability",
    "projectcalico.org/",
    "storageclass.kubernetes.io/",
    "storageclass.beta.kubernetes.io/",
    "volume.kubernetes.io/",
];
/// Events that only tell that things go their way.
const SUCCESSES: [&str; 9] = [
    "Completed",
    "Created",
    "Pulled",
    "Pulling",
    "ScalingReplicaSet",
    "Scheduled",
    "Started",
    "SuccessfulCreate",
    "SuccessfulDelete",
];

/// Reduces objects one by one; what it saw before tells what it must keep.
#[derive(Debug, Default)]
pub struct Reducer {
    /// Objects come in no order, so that nobody may have named a Service yet.
    is_unordered: bool,
    pods: usize,
    /// Machines that take no new pods: theirs are looked at.
    cordoned: BTreeSet<String>,
    /// Services that webhooks and aggregated servers name, as `namespace/name`.
    named: BTreeSet<String>,
    /// Pods that are well, by their namespace.
    well: BTreeMap<String, Vec<String>>,
}

impl Reducer {
    /// One for objects that come in no order.
    pub fn unordered() -> Self {
        Self { is_unordered: true, ..Self::default() }
    }

    /// The object with its kind, which items of a list do not say; nothing where it is not worth keeping. Services come
    /// after their endpoints, these after those who name them, and Pods after Nodes.
    pub fn reduce(&mut self, kind: &str, mut object: Value) -> Option<Value> {
        object["kind"] = Value::from(kind);
        metadata(&mut object["metadata"]);
        match kind {
            "Node" => self.node(&mut object),
            "Pod" => return self.pod(object),
            "Event" if SUCCESSES.contains(&text(&object["reason"])) && object["type"] == "Normal" => return None,
            "Event" if object["source"]["component"] == OWN_EVENTS => return None,
            "ReplicaSet" if object["spec"]["replicas"] == 0 && object["status"]["replicas"] == 0 => return None,
            "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => drop(object["spec"]["template"].take()),
            "CustomResourceDefinition" => self.definition(&mut object),
            "APIService" => self.name(&object["spec"]["service"]),
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => self.webhooks(&object),
            "EndpointSlice" => {
                self.slice(&object);
                return self.is_named(kind, &object).then_some(object);
            }
            "Service" if !self.is_named(kind, &object) => return None,
            _ => {}
        }
        Some(object)
    }

    /// The same for an object that is still a text: of a pod that is well no more is read than what says so.
    ///
    /// # Errors
    /// Where the text is no object in JSON.
    pub fn reduce_text(&mut self, kind: &str, text: &str) -> Result<Option<Value>, serde_json::Error> {
        if self.pass(Some(kind), text) {
            return Ok(None);
        }
        Ok(self.reduce(kind, Value::Object(serde_json::from_str(text)?)))
    }

    /// One that has seen as many pods as are kept whole.
    #[cfg(test)]
    pub(crate) fn full() -> Self {
        Self { pods: MOST_WHOLE, ..Self::default() }
    }

    /// Whether there are so many pods that a look at a text may be enough.
    pub(crate) fn is_full(&self) -> bool {
        self.pods >= MOST_WHOLE
    }

    /// Takes note of an object by its text, if that is a pod that need not be kept. `kind` is of what does not say its own.
    pub(crate) fn pass(&mut self, kind: Option<&str>, text: &str) -> bool {
        if !self.is_full() {
            return false;
        }
        // What is no object of the API, or an unusual one, is for those who read it in full.
        let Ok(glance) = serde_json::from_str::<Glance<'_>>(text) else { return false };
        glance.kind.get().or(kind) == Some("Pod") && self.pass_well(&glance)
    }

    /// Pods that are well and were not kept.
    pub fn well(self) -> impl Iterator<Item = WellFact> {
        self.well.into_iter().map(|(namespace, names)| WellFact { kind: "Pod".to_owned(), namespace, names })
    }

    fn node(&mut self, node: &mut Value) {
        if node["spec"]["unschedulable"] == true {
            self.cordoned.insert(text(&node["metadata"]["name"]).to_owned());
        }
        remove(&mut node["status"], &["images", "daemonEndpoints", "runtimeHandlers", "features"]);
    }

    fn pod(&mut self, mut pod: Value) -> Option<Value> {
        if self.is_full() && Glance::deserialize(&pod).is_ok_and(|glance| self.pass_well(&glance)) {
            return None;
        }
        self.pods += 1;
        for field in ["initContainers", "containers", "ephemeralContainers"] {
            pod["spec"][field].as_array_mut().into_iter().flatten().for_each(|container| {
                // The shared address of a control plane stands in such a variable.
                if container["name"] != "kube-vip" {
                    remove(container, &["env"]);
                }
            });
            if pod["spec"][field].is_null() {
                remove(&mut pod["spec"], &[field]);
            }
        }
        Some(pod)
    }

    /// Takes note of a pod that is well; whether it is, and no rule looks at it all the same.
    fn pass_well(&mut self, pod: &Glance<'_>) -> bool {
        if !pod.is_well() || self.is_looked_at(pod) {
            return false;
        }
        self.pods += 1;
        match self.well.get_mut(pod.namespace()) {
            Some(names) => names.push(pod.name().to_owned()),
            None => drop(self.well.insert(pod.namespace().to_owned(), vec![pod.name().to_owned()])),
        }
        true
    }

    /// Whether rules look at a pod although it is well: static ones, the cluster's DNS, and those of a drain.
    fn is_looked_at(&self, pod: &Glance<'_>) -> bool {
        pod.is_static() || pod.is_dns() || self.cordoned.contains(pod.node())
    }

    fn definition(&mut self, definition: &mut Value) {
        self.name(&definition["spec"]["conversion"]["webhook"]["clientConfig"]["service"]);
        for version in definition["spec"]["versions"].as_array_mut().into_iter().flatten() {
            remove(version, &["schema", "additionalPrinterColumns"]);
        }
    }

    fn webhooks(&mut self, configuration: &Value) {
        for webhook in configuration["webhooks"].as_array().into_iter().flatten() {
            self.name(&webhook["clientConfig"]["service"]);
        }
    }

    /// Endpoints that lead nowhere are worth a look, and so is their Service.
    fn slice(&mut self, slice: &Value) {
        let is_empty = |field: &str| slice[field].as_array().is_none_or(Vec::is_empty);
        if is_empty("endpoints") || is_empty("ports") {
            let name = &slice["metadata"]["labels"]["kubernetes.io/service-name"];
            self.name(&serde_json::json!({"namespace": slice["metadata"]["namespace"], "name": name}));
        }
    }

    fn name(&mut self, service: &Value) {
        if let Some(name) = service["name"].as_str() {
            self.named.insert(format!("{}/{name}", text(&service["namespace"])));
        }
    }

    /// Whether somebody names this Service or the Service of these endpoints; the API server's own and the DNS count.
    fn is_named(&self, kind: &str, object: &Value) -> bool {
        if self.is_unordered {
            return true;
        }
        let metadata = &object["metadata"];
        let name = match kind {
            "Service" => text(&metadata["name"]),
            _ => text(&metadata["labels"]["kubernetes.io/service-name"]),
        };
        let name = format!("{}/{name}", text(&metadata["namespace"]));
        matches!(name.as_str(), "default/kubernetes" | "kube-system/kube-dns") || self.named.contains(&name)
    }
}

fn metadata(metadata: &mut Value) {
    remove(metadata, &["managedFields", "uid", "generateName", "resourceVersion"]);
    if let Some(annotations) = metadata["annotations"].as_object_mut() {
        annotations.retain(|name, _| ANNOTATIONS.iter().any(|prefix| name.starts_with(prefix)));
    }
    if metadata["annotations"].as_object().is_none_or(serde_json::Map::is_empty) {
        remove(metadata, &["annotations"]);
    }
}

fn remove(value: &mut Value, fields: &[&str]) {
    if let Some(object) = value.as_object_mut() {
        fields.iter().for_each(|field| drop(object.remove(*field)));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, ready: &str) -> Value {
        json!({
            "metadata": {"namespace": "a", "name": name, "managedFields": [{}]},
            "spec": {"nodeName": "one", "containers": [{"name": "c", "env": [{"name": "PASSWORD", "value": "hunter2"}]}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{"name": "c", "restartCount": 0}]},
        })
    }

    #[test]
    fn of_many_pods_those_that_are_well_are_names() {
        let mut reducer = Reducer::full();
        assert!(reducer.reduce("Pod", pod("well", "True")).is_none());
        assert!(reducer.reduce("Pod", pod("unwell", "False")).is_some());
        let mut dns = pod("dns", "True");
        dns["metadata"]["labels"] = json!({"k8s-app": "kube-dns"});
        assert!(reducer.reduce("Pod", dns).is_some());
        let mut restarted = pod("restarted", "True");
        restarted["status"]["containerStatuses"][0]["restartCount"] = json!(1);
        assert!(reducer.reduce("Pod", restarted).is_some());
        let well: Vec<_> = reducer.well().map(|well| (well.namespace, well.names)).collect();
        assert_eq!(well, [("a".to_owned(), vec!["well".to_owned()])]);
    }

    #[test]
    fn pods_of_a_drain_and_of_a_small_cluster_stay() {
        let mut reducer = Reducer::full();
        reducer.reduce(
            "Node",
            json!({"metadata": {"name": "one"}, "spec": {"unschedulable": true}, "status": {"images": [{}]}}),
        );
        assert!(reducer.reduce("Pod", pod("web", "True")).is_some());
        let small = Reducer::default().reduce("Pod", pod("web", "True")).expect("it stays").to_string();
        assert!(!small.contains("hunter2") && !small.contains("managedFields"), "{small}");
    }

    #[test]
    fn services_stay_if_somebody_names_them() {
        let mut reducer = Reducer::default();
        let configuration = json!({"metadata": {"name": "v"}, "webhooks": [{"clientConfig": {"service": {"namespace": "a", "name": "v"}}}]});
        assert!(reducer.reduce("ValidatingWebhookConfiguration", configuration).is_some());
        let service = |namespace: &str, name: &str| json!({"metadata": {"namespace": namespace, "name": name}});
        assert!(reducer.reduce("Service", service("a", "v")).is_some());
        assert!(reducer.reduce("Service", service("default", "kubernetes")).is_some());
        assert!(reducer.reduce("Service", service("a", "other")).is_none());
        let slice =
            json!({"metadata": {"namespace": "a", "name": "v-1", "labels": {"kubernetes.io/service-name": "v"}}});
        assert!(reducer.reduce("EndpointSlice", slice).is_some());
        let slice = |name: &str, endpoints: Value| {
            json!({"metadata": {"namespace": "a", "name": name, "labels": {"kubernetes.io/service-name": name}},
                "endpoints": endpoints, "ports": [{"port": 1}]})
        };
        assert!(reducer.reduce("EndpointSlice", slice("empty", json!(null))).is_some());
        assert!(reducer.reduce("Service", service("a", "empty")).is_some());
        assert!(reducer.reduce("EndpointSlice", slice("full", json!([{}]))).is_none());
        assert!(reducer.reduce("Service", service("a", "full")).is_none());
    }

    #[test]
    fn without_an_order_services_stay() {
        let service = json!({"metadata": {"namespace": "a", "name": "other"}});
        assert!(Reducer::unordered().reduce("Service", service).is_some());
    }

    #[test]
    fn successes_and_old_replicas_go() {
        let event = |reason: &str| json!({"metadata": {}, "type": "Normal", "reason": reason});
        let mut reducer = Reducer::default();
        assert!(reducer.reduce("Event", event("Pulled")).is_none());
        assert!(reducer.reduce("Event", event("ExternalProvisioning")).is_some());
        let mut own = event("DoctorFinding");
        own["source"] = json!({"component": OWN_EVENTS});
        assert!(reducer.reduce("Event", own).is_none(), "what the doctor said proves nothing");
        let set = |count: u64| json!({"metadata": {}, "spec": {"replicas": count}, "status": {"replicas": count}});
        assert!(reducer.reduce("ReplicaSet", set(0)).is_none());
        assert!(reducer.reduce("ReplicaSet", set(1)).is_some());
    }
}
