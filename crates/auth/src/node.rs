//! The node authorizer: a kubelet may read its own node, its own pods and what these refer to, and nothing else of that
//! kind.
//!
//! Invariant: the references of a node are exactly those of the pods that are bound to it.

use std::collections::HashMap;

use kedge_meta::UserInfo;
use serde_json::Value;

use crate::attributes::{Attributes, Decision, ResourceAttributes};
use crate::bootstrap::node_rules;
use crate::rule::PolicyRule;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Reference {
    resource: &'static str,
    namespace: String,
    name: String,
}

/// What a persistent volume refers to, each by namespace and name.
#[derive(Debug)]
struct VolumeReferences {
    claim: (String, String),
    /// What a driver is given on the node.
    secrets: Vec<(String, String)>,
}

/// What the pods of each node refer to.
#[derive(Debug)]
pub(crate) struct NodeIndex {
    pods: HashMap<(String, String), (String, Vec<Reference>)>,
    counts_by_node: HashMap<String, HashMap<Reference, usize>>,
    volumes: HashMap<String, VolumeReferences>,
    rules: Vec<PolicyRule>,
}

impl NodeIndex {
    pub(crate) fn new() -> Self {
        Self { pods: HashMap::new(), counts_by_node: HashMap::new(), volumes: HashMap::new(), rules: node_rules() }
    }

    /// Takes in a committed change of a pod or a persistent volume.
    pub(crate) fn observe(&mut self, resource: &str, namespace: &str, name: &str, object: Option<&Value>) {
        match resource {
            "pods" => self.observe_pod(namespace, name, object),
            "persistentvolumes" => {
                match object.and_then(volume_references) {
                    Some(references) => self.volumes.insert(name.to_owned(), references),
                    None => self.volumes.remove(name),
                };
            }
            _ => {}
        }
    }

    fn observe_pod(&mut self, namespace: &str, name: &str, object: Option<&Value>) {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some((node, references)) = self.pods.remove(&key) {
            self.forget(&node, &references);
        }
        let Some(pod) = object else { return };
        let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) else { return };
        let references = references_of(pod, namespace);
        let counts = self.counts_by_node.entry(node.to_owned()).or_default();
        for reference in &references {
            *counts.entry(reference.clone()).or_default() += 1;
        }
        self.pods.insert(key, (node.to_owned(), references));
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

    /// The decision about a node's request; `NoOpinion` about everybody else's.
    pub(crate) fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let Some(node) = node_of(attributes.user) else { return Decision::NoOpinion(String::new()) };
        if node.is_empty() {
            return Decision::NoOpinion(format!("unknown node for user \"{}\"", attributes.user.username));
        }
        let Some(asked) = &attributes.resource else { return self.by_rules(attributes) };
        match (asked.group, asked.resource) {
            ("", "nodes") if asked.subresource.is_empty() && is_read(attributes.verb) => own_node(node, asked.name),
            ("", "pods") if asked.subresource.is_empty() && is_read(attributes.verb) => {
                self.pods(node, attributes.verb, asked)
            }
            ("resource.k8s.io", "resourceslices")
                if matches!(attributes.verb, "list" | "watch" | "deletecollection") =>
            {
                if_selected(
                    node,
                    asked,
                    "can only list/watch/deletecollection resourceslices with nodeName field selector",
                )
            }
            ("", "secrets" | "configmaps") => self.if_referenced(node, attributes, asked, &["get", "list", "watch"]),
            ("", "persistentvolumeclaims") if asked.subresource.is_empty() => {
                self.if_referenced(node, attributes, asked, &["get"])
            }
            ("", "persistentvolumes") => self.if_referenced(node, attributes, asked, &["get"]),
            ("", "serviceaccounts") if asked.subresource == "token" => {
                self.if_referenced(node, attributes, asked, &["create"])
            }
            // For credential providers that are given a token of the pod's account.
            ("", "serviceaccounts") => self.if_referenced(node, attributes, asked, &["get"]),
            ("coordination.k8s.io", "leases") => own_object(
                asked.namespace == "kube-node-lease" && (asked.name == node || attributes.verb == "create"),
                "can only access node lease with the same name as the requesting node",
                &["get", "create", "update", "patch", "delete"],
                attributes.verb,
            ),
            ("storage.k8s.io", "csinodes") => own_object(
                asked.name == node || attributes.verb == "create",
                "can only access CSINode with the same name as the requesting node",
                &["get", "create", "update", "patch", "delete"],
                attributes.verb,
            ),
            _ => self.by_rules(attributes),
        }
    }

    fn by_rules(&self, attributes: &Attributes<'_>) -> Decision {
        match self.rules.iter().any(|rule| rule.allows(attributes)) {
            true => Decision::Allow(String::new()),
            false => Decision::NoOpinion(String::new()),
        }
    }

    /// A pod of the node, or all of them.
    fn pods(&self, node: &str, verb: &str, asked: &ResourceAttributes<'_>) -> Decision {
        if verb != "get" && is_selected(node, asked) {
            return Decision::Allow(String::new());
        }
        if asked.name.is_empty() {
            return Decision::NoOpinion("can only list/watch pods with spec.nodeName field selector".to_owned());
        }
        let key = (asked.namespace.to_owned(), asked.name.to_owned());
        match self.pods.get(&key).is_some_and(|(of, _)| of == node) {
            true => Decision::Allow(String::new()),
            false => unrelated(node),
        }
    }

    fn if_referenced(
        &self,
        node: &str,
        attributes: &Attributes<'_>,
        asked: &ResourceAttributes<'_>,
        verbs: &[&str],
    ) -> Decision {
        if !verbs.contains(&attributes.verb) {
            return Decision::NoOpinion(format!("can only {} resources of this type", verbs.join("/")));
        }
        if asked.name.is_empty() {
            return Decision::NoOpinion("No Object name found".to_owned());
        }
        match self.refers(node, asked) {
            true => Decision::Allow(String::new()),
            false => unrelated(node),
        }
    }

    fn refers(&self, node: &str, asked: &ResourceAttributes<'_>) -> bool {
        let has = |resource: &'static str, namespace: &str, name: &str| {
            let reference = Reference { resource, namespace: namespace.to_owned(), name: name.to_owned() };
            self.counts_by_node.get(node).is_some_and(|counts| counts.contains_key(&reference))
        };
        match asked.resource {
            "secrets" => {
                let of_volume = |volume: &VolumeReferences| {
                    volume.secrets.iter().any(|(namespace, name)| namespace == asked.namespace && name == asked.name)
                        && has("persistentvolumeclaims", &volume.claim.0, &volume.claim.1)
                };
                has("secrets", asked.namespace, asked.name) || self.volumes.values().any(of_volume)
            }
            "configmaps" => has("configmaps", asked.namespace, asked.name),
            "serviceaccounts" => has("serviceaccounts", asked.namespace, asked.name),
            "persistentvolumeclaims" => has("persistentvolumeclaims", asked.namespace, asked.name),
            "persistentvolumes" => {
                let claim = self.volumes.get(asked.name).map(|volume| &volume.claim);
                claim.is_some_and(|(namespace, name)| has("persistentvolumeclaims", namespace, name))
            }
            _ => false,
        }
    }
}

/// What a bound volume refers to.
fn volume_references(volume: &Value) -> Option<VolumeReferences> {
    let named =
        |reference: &Value| Some((reference["namespace"].as_str()?.to_owned(), reference["name"].as_str()?.to_owned()));
    let csi = &volume["spec"]["csi"];
    let secrets = ["nodeStageSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"];
    Some(VolumeReferences {
        claim: named(&volume["spec"]["claimRef"])?,
        secrets: secrets.iter().filter_map(|field| named(&csi[*field])).collect(),
    })
}

/// The node's name, where the user is a kubelet.
fn node_of(user: &UserInfo) -> Option<&str> {
    let name = user.username.strip_prefix("system:node:")?;
    user.groups.iter().any(|group| group == "system:nodes").then_some(name)
}

fn is_read(verb: &str) -> bool {
    matches!(verb, "get" | "list" | "watch")
}

/// Whether only objects of the node are asked about.
fn is_selected(node: &str, asked: &ResourceAttributes<'_>) -> bool {
    let is_own = |(field, equals, value): &(String, bool, String)| *equals && field == "spec.nodeName" && value == node;
    asked.fields.is_some_and(|fields| fields.terms().iter().any(is_own))
}

fn if_selected(node: &str, asked: &ResourceAttributes<'_>, otherwise: &str) -> Decision {
    match is_selected(node, asked) {
        true => Decision::Allow(String::new()),
        false => Decision::NoOpinion(otherwise.to_owned()),
    }
}

fn own_node(node: &str, name: &str) -> Decision {
    match name {
        "" => Decision::NoOpinion(format!("node '{node}' cannot read all nodes, only its own Node object")),
        name if name == node => Decision::Allow(String::new()),
        name => Decision::NoOpinion(format!("node '{node}' cannot read '{name}', only its own Node object")),
    }
}

fn unrelated(node: &str) -> Decision {
    Decision::NoOpinion(format!("no relationship found between node '{node}' and this object"))
}

fn own_object(own: bool, otherwise: &str, verbs: &[&str], verb: &str) -> Decision {
    match own && verbs.contains(&verb) {
        true => Decision::Allow(String::new()),
        false => Decision::NoOpinion(otherwise.to_owned()),
    }
}

/// The names of the Secrets of its own namespace that a pod names anywhere.
pub fn secrets_of_pod(pod: &Value) -> Vec<String> {
    let references = references_of(pod, "");
    references.into_iter().filter(|found| found.resource == "secrets").map(|found| found.name).collect()
}

fn references_of(pod: &Value, namespace: &str) -> Vec<Reference> {
    let mut found = Vec::new();
    let mut add = |resource: &'static str, name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            let reference = Reference { resource, namespace: namespace.to_owned(), name: name.to_owned() };
            if !found.contains(&reference) {
                found.push(reference);
            }
        }
    };
    let spec = &pod["spec"];
    add("serviceaccounts", &spec["serviceAccountName"]);
    for secret in items(&spec["imagePullSecrets"]) {
        add("secrets", &secret["name"]);
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(&spec[list]) {
            for source in items(&container["envFrom"]) {
                add("configmaps", &source["configMapRef"]["name"]);
                add("secrets", &source["secretRef"]["name"]);
            }
            for variable in items(&container["env"]) {
                add("configmaps", &variable["valueFrom"]["configMapKeyRef"]["name"]);
                add("secrets", &variable["valueFrom"]["secretKeyRef"]["name"]);
            }
        }
    }
    for volume in items(&spec["volumes"]) {
        add_volume(volume, pod, &mut add);
    }
    found
}

fn add_volume(volume: &Value, pod: &Value, add: &mut impl FnMut(&'static str, &Value)) {
    add("secrets", &volume["secret"]["secretName"]);
    add("secrets", &volume["azureFile"]["secretName"]);
    add("configmaps", &volume["configMap"]["name"]);
    add("persistentvolumeclaims", &volume["persistentVolumeClaim"]["claimName"]);
    add("secrets", &volume["csi"]["nodePublishSecretRef"]["name"]);
    for plugin in ["cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
        add("secrets", &volume[plugin]["secretRef"]["name"]);
    }
    for source in items(&volume["projected"]["sources"]) {
        add("secrets", &source["secret"]["name"]);
        add("configmaps", &source["configMap"]["name"]);
    }
    if volume["ephemeral"].is_object() {
        let name = format!(
            "{}-{}",
            pod["metadata"]["name"].as_str().unwrap_or_default(),
            volume["name"].as_str().unwrap_or_default()
        );
        add("persistentvolumeclaims", &Value::String(name));
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
