//! Who answers for a webhook or an aggregated server: the Service that it names, and the pods behind that.
//!
//! Invariant: nothing is said of what was not looked at; without Services and their endpoints nobody is missing.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::Subject;
use crate::object::{condition, list, text};

/// What stands behind a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Backend {
    /// That was not looked at, or it is outside of the cluster.
    Unknown,
    /// There is no such Service.
    NoService,
    /// No endpoint of it is ready.
    NoEndpoints,
    /// All endpoints that count as ready are on these machines, whose agents are silent or which do not exist.
    OnDeadNodes(Vec<String>),
    /// Somebody should answer.
    Ready,
}

impl Backend {
    /// Whether a call fails for sure.
    pub(super) fn is_dead(&self) -> bool {
        !matches!(self, Self::Unknown | Self::Ready)
    }

    /// As part of a sentence on a Service.
    pub(super) fn told(&self, service: &Subject) -> String {
        match self {
            Self::NoService => format!("{service} does not exist"),
            Self::NoEndpoints => format!("{service} has no ready endpoint"),
            Self::OnDeadNodes(nodes) => {
                format!("{service} only has endpoints on {}, whose agent is silent", nodes.join(", "))
            }
            Self::Unknown | Self::Ready => format!("{service} has endpoints"),
        }
    }
}

/// The backends of all Services, looked up once for each rule.
pub(super) struct Backends<'a> {
    evidence: &'a Evidence,
    slices: BTreeMap<(&'a str, &'a str), Vec<&'a Value>>,
    is_known: bool,
}

impl<'a> Backends<'a> {
    pub(super) fn of(evidence: &'a Evidence) -> Self {
        let mut slices: BTreeMap<(&str, &str), Vec<&Value>> = BTreeMap::new();
        for (_, _, slice) in evidence.objects("EndpointSlice") {
            let metadata = &slice["metadata"];
            let key = (text(&metadata["namespace"]), text(&metadata["labels"]["kubernetes.io/service-name"]));
            slices.entry(key).or_default().push(slice);
        }
        // A cluster without the Service `kubernetes` was not looked at.
        let is_known = !slices.is_empty() && !evidence.items.of_kind("Service").is_empty();
        Self { evidence, slices, is_known }
    }

    /// The Service that a client configuration names, and what is behind it.
    pub(super) fn behind(&self, service: &Value) -> (Subject, Backend) {
        let (namespace, name) = (text(&service["namespace"]), text(&service["name"]));
        let subject = Subject { namespace: namespace.to_owned(), ..Subject::new("Service", name) };
        if name.is_empty() || !self.is_known {
            return (subject, Backend::Unknown);
        }
        let backend = match self.evidence.object(&subject) {
            None => Backend::NoService,
            Some((_, _, service)) if service["spec"]["type"] == "ExternalName" => Backend::Unknown,
            Some(_) => self.endpoints(namespace, name),
        };
        (subject, backend)
    }

    fn endpoints(&self, namespace: &str, name: &str) -> Backend {
        let slices = self.slices.get(&(namespace, name)).into_iter().flatten();
        let ready = slices
            .flat_map(|slice| list(&slice["endpoints"]))
            .filter(|endpoint| endpoint["conditions"]["ready"] != false);
        let nodes: Vec<&str> = ready.map(|endpoint| text(&endpoint["nodeName"])).collect();
        if nodes.is_empty() {
            return Backend::NoEndpoints;
        }
        if nodes.iter().all(|node| self.is_dead(node)) {
            let mut names: Vec<String> = nodes.into_iter().map(str::to_owned).collect();
            names.sort();
            names.dedup();
            return Backend::OnDeadNodes(names);
        }
        Backend::Ready
    }

    fn is_dead(&self, node: &str) -> bool {
        if node.is_empty() || self.evidence.items.of_kind("Node").is_empty() {
            return false;
        }
        match self.evidence.object(&Subject::new("Node", node)) {
            None => true,
            Some((_, _, node)) => condition(node, "Ready").is_some_and(|ready| ready["status"] == "Unknown"),
        }
    }
}

/// A webhook of a configuration.
pub(super) struct Webhook<'a> {
    /// Its configuration's item.
    pub(super) index: usize,
    /// Its configuration.
    pub(super) configuration: &'a Value,
    /// It.
    pub(super) webhook: &'a Value,
    /// Whether it may change what is admitted; such ones are asked one after the other.
    pub(super) is_mutating: bool,
}

impl Webhook<'_> {
    pub(super) fn name(&self) -> &str {
        text(&self.webhook["name"])
    }

    /// Whether a request fails when this one does not answer.
    pub(super) fn must_answer(&self) -> bool {
        self.webhook["failurePolicy"] != "Ignore"
    }

    /// Seconds for which it is waited for.
    pub(super) fn timeout(&self) -> u64 {
        self.webhook["timeoutSeconds"].as_u64().unwrap_or(10)
    }
}

/// Every webhook of admission.
pub(super) fn webhooks(evidence: &Evidence) -> impl Iterator<Item = Webhook<'_>> {
    [("MutatingWebhookConfiguration", true), ("ValidatingWebhookConfiguration", false)].into_iter().flat_map(
        move |(kind, is_mutating)| {
            evidence.objects(kind).flat_map(move |(index, _, configuration)| {
                list(&configuration["webhooks"]).map(move |webhook| Webhook {
                    index,
                    configuration,
                    webhook,
                    is_mutating,
                })
            })
        },
    )
}

/// Evidence in small, for the tests of rules about webhooks.
#[cfg(test)]
pub(super) mod fixtures {
    use crate::rules::fixtures::*;

    pub(crate) fn webhook(kind: &str, name: &str, policy: &str, seconds: u64) -> Value {
        old(json!({"kind": kind, "metadata": {"name": name}, "webhooks": [{"name": format!("{name}.example.com"),
            "failurePolicy": policy, "timeoutSeconds": seconds, "rules": [{"resources": ["pods"]}],
            "clientConfig": {"service": {"namespace": "a", "name": name}}}]}))
    }

    pub(crate) fn service(name: &str) -> Value {
        json!({"kind": "Service", "metadata": {"namespace": "a", "name": name}, "spec": {"type": "ClusterIP"}})
    }

    /// Endpoints of a Service on machines, each ready or not.
    pub(crate) fn slice(name: &str, endpoints: &[(&str, bool)]) -> Value {
        let endpoints: Vec<Value> =
            endpoints.iter().map(|(node, ready)| json!({"nodeName": node, "conditions": {"ready": ready}})).collect();
        json!({"kind": "EndpointSlice", "metadata": {"namespace": "a", "name": format!("{name}-x"),
            "labels": {"kubernetes.io/service-name": name}}, "endpoints": endpoints})
    }
}
