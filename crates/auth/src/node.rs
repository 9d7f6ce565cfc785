//! The node authorizer: a kubelet may read its own node, its own pods and what these refer to, and nothing else of that
//! kind.
//!
//! Not here: what belongs to which node (`graph.rs`); what a node may write into an object, which is admission's business.
//! Invariant: nothing is allowed here on the word of a node alone.

use kedge_meta::UserInfo;
use serde_json::Value;

use crate::attributes::{Attributes, Decision, ResourceAttributes};
use crate::bootstrap::node_rules;
use crate::rule::PolicyRule;

mod graph;
mod references;

use graph::Graph;
pub use references::{api_reference_of_pod, secrets_of_pod};

/// Decides about requests of nodes.
#[derive(Debug)]
pub(crate) struct NodeIndex {
    graph: Graph,
    rules: Vec<PolicyRule>,
}

impl NodeIndex {
    pub(crate) fn new() -> Self {
        Self { graph: Graph::default(), rules: node_rules() }
    }

    /// Whether changes of a resource are to be told it.
    pub(crate) fn follows(resource: &str) -> bool {
        Graph::follows(resource)
    }

    /// Takes in a committed change of what it follows; `None` is a deletion.
    pub(crate) fn observe(&mut self, resource: &str, namespace: &str, name: &str, object: Option<&Value>) {
        self.graph.observe(resource, namespace, name, object);
    }

    /// The decision about a node's request; `NoOpinion` about everybody else's.
    pub(crate) fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let Some(node) = node_of(attributes.user) else { return no_opinion("") };
        if node.is_empty() {
            return no_opinion(&format!("unknown node for user \"{}\"", attributes.user.username));
        }
        let Some(asked) = &attributes.resource else { return self.by_rules(attributes) };
        let asking = Asking { graph: &self.graph, node, verb: attributes.verb, asked };
        match (asked.group, asked.resource) {
            ("", "secrets" | "configmaps") => asking.to_read(),
            ("", "persistentvolumeclaims") if asked.subresource == "status" => asking.to_write_status(),
            ("", "persistentvolumeclaims" | "persistentvolumes") => asking.to_get(),
            ("resource.k8s.io", "resourceclaims") | ("storage.k8s.io", "volumeattachments") => asking.to_get(),
            ("", "serviceaccounts") => asking.for_account(),
            ("", "nodes") => asking.for_node(),
            ("", "pods") => asking.for_pod(),
            ("resource.k8s.io", "resourceslices") => asking.for_slice(),
            ("coordination.k8s.io", "leases") => asking.for_lease(),
            ("storage.k8s.io", "csinodes") => asking.for_csi_node(),
            // Behind a gate that is off by default.
            ("certificates.k8s.io", "podcertificaterequests") => no_opinion(""),
            _ => self.by_rules(attributes),
        }
    }

    fn by_rules(&self, attributes: &Attributes<'_>) -> Decision {
        allow_if(self.rules.iter().any(|rule| rule.allows(attributes)), "")
    }
}

/// The question of one node.
struct Asking<'a> {
    graph: &'a Graph,
    node: &'a str,
    verb: &'a str,
    asked: &'a ResourceAttributes<'a>,
}

impl Asking<'_> {
    /// Get, or list and watch by name.
    fn to_read(&self) -> Decision {
        if !matches!(self.verb, "get" | "list" | "watch") {
            return no_opinion("can only read resources of this type");
        }
        if !self.asked.subresource.is_empty() {
            return no_opinion("cannot read subresource");
        }
        if self.asked.namespace.is_empty() {
            return no_opinion("can only read namespaced object of this type");
        }
        self.if_related()
    }

    fn to_get(&self) -> Decision {
        if self.verb != "get" {
            return no_opinion("can only get individual resources of this type");
        }
        if !self.asked.subresource.is_empty() {
            return no_opinion("cannot get subresource");
        }
        self.if_related()
    }

    fn to_write_status(&self) -> Decision {
        match self.verb {
            "update" | "patch" => self.if_related(),
            _ => no_opinion("can only get/update/patch this type"),
        }
    }

    /// A token of the account of one of its pods, or the account itself, for credential providers.
    fn for_account(&self) -> Decision {
        if self.verb == "get" && self.asked.subresource.is_empty() {
            return self.to_read();
        }
        if self.verb != "create" || self.asked.name.is_empty() {
            return no_opinion("can only create tokens for individual service accounts");
        }
        if self.asked.subresource != "token" {
            return no_opinion("can only create token subresource of serviceaccount");
        }
        self.if_related()
    }

    /// Admission holds writes to the node's own object. It may be read before it is there.
    fn for_node(&self) -> Decision {
        let (node, name) = (self.node, self.asked.name);
        match (self.asked.subresource, self.verb) {
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => allow(),
            ("", "get" | "list" | "watch") => match name {
                "" => no_opinion(&format!("node '{node}' cannot read all nodes, only its own Node object")),
                _ => allow_if(name == node, &format!("node '{node}' cannot read '{name}', only its own Node object")),
            },
            _ => no_opinion(""),
        }
    }

    /// Admission holds writes to the node's own pods.
    fn for_pod(&self) -> Decision {
        match (self.asked.subresource, self.verb) {
            ("", "get") => self.if_related(),
            ("", "list" | "watch") if self.is_selected() => allow(),
            ("", "list" | "watch") if self.asked.name.is_empty() => {
                no_opinion("can only list/watch pods with spec.nodeName field selector")
            }
            ("", "list" | "watch") => self.if_related(),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => allow(),
            _ => no_opinion(""),
        }
    }

    /// Admission looks at what is created, and at each of those that are deleted together.
    fn for_slice(&self) -> Decision {
        if !self.asked.subresource.is_empty() {
            return no_opinion("cannot authorize ResourceSlice subresources");
        }
        match self.verb {
            "create" => allow(),
            "get" | "update" | "patch" | "delete" => self.if_related(),
            "watch" | "list" | "deletecollection" => allow_if(
                self.is_selected(),
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            _ => no_opinion(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, \
                 delete, deletecollection",
            ),
        }
    }

    fn for_lease(&self) -> Decision {
        if !self.changes_one() {
            return no_opinion("can only get, create, update, patch, or delete a node lease");
        }
        if self.asked.namespace != "kube-node-lease" {
            return no_opinion("can only access leases in the \"kube-node-lease\" system namespace");
        }
        allow_if(self.is_own_or_new(), "can only access node lease with the same name as the requesting node")
    }

    fn for_csi_node(&self) -> Decision {
        if !self.changes_one() {
            return no_opinion("can only get, create, update, patch, or delete a CSINode");
        }
        if !self.asked.subresource.is_empty() {
            return no_opinion("cannot authorize CSINode subresources");
        }
        allow_if(self.is_own_or_new(), "can only access CSINode with the same name as the requesting node")
    }

    fn changes_one(&self) -> bool {
        matches!(self.verb, "get" | "create" | "update" | "patch" | "delete")
    }

    /// A creation has no name yet; admission looks at it.
    fn is_own_or_new(&self) -> bool {
        self.verb == "create" || self.asked.name == self.node
    }

    fn if_related(&self) -> Decision {
        let ResourceAttributes { resource, namespace, name, .. } = *self.asked;
        if name.is_empty() {
            return no_opinion("No Object name found");
        }
        allow_if(
            self.graph.relates(self.node, resource, namespace, name),
            &format!("no relationship found between node '{}' and this object", self.node),
        )
    }

    /// Whether only objects of the node are asked about.
    fn is_selected(&self) -> bool {
        let is_own =
            |(field, equals, value): &(String, bool, String)| *equals && field == "spec.nodeName" && value == self.node;
        self.asked.fields.is_some_and(|fields| fields.terms().iter().any(is_own))
    }
}

/// The node's name, where the user is a kubelet.
fn node_of(user: &UserInfo) -> Option<&str> {
    let name = user.username.strip_prefix("system:node:")?;
    user.groups.iter().any(|group| group == "system:nodes").then_some(name)
}

fn allow() -> Decision {
    Decision::Allow(String::new())
}

fn allow_if(allowed: bool, otherwise: &str) -> Decision {
    if allowed { allow() } else { no_opinion(otherwise) }
}

fn no_opinion(why: &str) -> Decision {
    Decision::NoOpinion(why.to_owned())
}
