//! Admission: plugins that change or refuse writes, in upstream's order.
//!
//! First every plugin may change the object, then every plugin may refuse it, and last those that hand out something
//! that must be unique (addresses, ports, quota) reserve it together with the commit. Invariant: what is reserved is in the
//! same commit as the object, so that nothing has to be given back when it does not happen.

use async_trait::async_trait;
use kedge_meta::{ApiStatus, GroupVersionKind, UserInfo};
use kedge_store::{Condition, ListRequest, Record, Write};
use serde_json::Value;

use crate::call::Call;
use crate::core::Core;
use crate::registry::Resource;
use crate::reply::store_error;
use crate::target::ResourceTarget;

mod always_pull_images;
mod authorizers;
mod certificates;
mod chain;
mod claim_status;
mod configuration;
mod default_toleration_seconds;
mod device_admin_access;
mod device_taints;
mod limit_ranger;
mod match_conditions;
mod member;
mod namespace_lifecycle;
mod node_declared_features;
mod node_restriction;
mod notes;
mod plugins;
mod pod_amounts;
mod pod_resize;
mod pod_security;
mod pod_topology_labels;
mod policies;
mod priority;
mod privileged;
mod rbac_escalation;
mod resource_quota;
mod runtime_class;
mod service_account;
mod service_allocation;
mod service_families;
mod service_ledger;
mod storage;
mod taint_nodes;
mod webhooks;

pub(crate) use chain::Chain;
pub use configuration::PluginConfigurations;
pub(crate) use notes::Notes;
pub use plugins::{UnknownPlugin, check_plugins};
pub(crate) use service_allocation::{missing_records, node_ports};
pub(crate) use service_ledger::{Ledger, NODE_PORTS, known_ranges};
pub use webhooks::WebhookCredentials;

/// The group and the resources by which people decide what is let in.
const DECIDERS: (&str, [&str; 6]) = (
    "admissionregistration.k8s.io",
    [
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
        "mutatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "validatingwebhookconfigurations",
    ],
);

/// What is done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// In the words of rules and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// What a plugin knows of a request besides the object.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a> {
    pub(crate) core: &'a Core,
    pub(crate) user: &'a UserInfo,
    pub(crate) resource: &'a Resource,
    pub(crate) subresource: &'a str,
    pub(crate) operation: Operation,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// The object before, for updates and deletions.
    pub(crate) old: Option<&'a Value>,
    /// What policies and webhooks hear of it besides.
    pub(crate) told: Told<'a>,
}

/// What policies and webhooks hear of a request besides the object, and where they leave word.
#[derive(Clone, Copy)]
pub(crate) struct Told<'a> {
    /// `CreateOptions`, `UpdateOptions` and so on; null where there are none.
    pub(crate) options: &'a Value,
    pub(crate) dry_run: bool,
    pub(crate) notes: &'a Notes,
    pub(crate) seen: Seen<'a>,
}

/// As what policies and webhooks see the object.
#[derive(Clone, Copy)]
pub(crate) enum Seen<'a> {
    /// As it is.
    Plain,
    /// It is of another kind than the resource's.
    As(&'a GroupVersionKind),
    /// As what it looks like from a subresource.
    Through(&'a dyn Lens),
    /// Not at all: they have been asked already, or this is the server's own business.
    Nothing,
}

impl Seen<'_> {
    fn is_hidden(self) -> bool {
        matches!(self, Self::Nothing)
    }
}

/// A view of an object that can be changed.
pub(crate) trait Lens: Send + Sync {
    /// The kind of the view.
    fn kind(&self) -> GroupVersionKind;

    /// What an object looks like.
    fn view(&self, object: &Value) -> Value;

    /// The object that looks like `view`.
    fn with(&self, object: &Value, view: &Value) -> Result<Value, ApiStatus>;
}

impl<'a> Attributes<'a> {
    /// About what a request names in its path.
    pub(crate) fn of(
        core: &'a Core,
        call: &'a Call,
        resource: &'a Resource,
        operation: Operation,
        told: Told<'a>,
    ) -> Self {
        let ResourceTarget { subresource, namespace, name, .. } = call.resource();
        Self { core, user: &call.user, resource, subresource, operation, namespace, name, old: None, told }
    }

    /// Whether the request is about the main resource of `resource` in `group`.
    pub(crate) fn is_main(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.resource.is(group, resource)
    }

    /// Whether neither policies nor webhooks are asked: about what they are made of, so that what locks everybody out can be
    /// taken away, and about what they have been asked already.
    fn is_hidden_from_outside(&self) -> bool {
        let kind = &self.resource.kind;
        self.told.seen.is_hidden() || (kind.group == DECIDERS.0 && DECIDERS.1.contains(&&*kind.resource))
    }

    /// 403 about the object of the request.
    pub(crate) fn forbidden(&self, why: &str) -> ApiStatus {
        ApiStatus::forbidden(&self.resource.group_resource, self.name, why)
    }
}

/// What is committed together with the write.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) writes: Vec<Write>,
}

/// One admission plugin.
#[async_trait]
pub(crate) trait Plugin: Send + Sync {
    /// Whether it looks at such a request at all; cheap.
    fn handles(&self, attributes: &Attributes<'_>) -> bool;

    /// Changes the object.
    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiStatus> {
        let _ = (attributes, object);
        Ok(())
    }

    /// Refuses the object. For deletions it is the one that goes.
    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiStatus> {
        let _ = (attributes, object);
        Ok(())
    }

    /// What whoever writes the object is to be told, where nobody has refused it.
    async fn warnings(&self, attributes: &Attributes<'_>, object: &Value) -> Result<Vec<String>, ApiStatus> {
        let _ = (attributes, object);
        Ok(Vec::new())
    }

    /// Reserves what must be unique. In a dry run everything is given back at once.
    async fn reserve(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Value,
        effects: &mut Effects,
    ) -> Result<(), ApiStatus> {
        let _ = (attributes, object, effects);
        Ok(())
    }

    /// Takes back what an object had reserved, together with its deletion.
    async fn release(
        &self,
        core: &Core,
        resource: &Resource,
        object: &Value,
        effects: &mut Effects,
    ) -> Result<(), ApiStatus> {
        let _ = (core, resource, object, effects);
        Ok(())
    }
}

/// The records of a built-in resource in a namespace.
async fn records(core: &Core, group: &str, resource: &str, namespace: &str) -> Result<Vec<Record>, ApiStatus> {
    let registry = core.registry.load();
    let Some(resource) = registry.storage(group, resource) else { return Ok(Vec::new()) };
    let prefix = resource.kind.prefix(namespace);
    let page = core.store.list(ListRequest { prefix, ..ListRequest::default() }).await.map_err(store_error)?;
    Ok(page.records)
}

/// The objects of a built-in resource in a namespace, as they are stored.
async fn objects(core: &Core, group: &str, resource: &str, namespace: &str) -> Result<Vec<Value>, ApiStatus> {
    records(core, group, resource, namespace).await?.iter().map(crate::core::decode).collect()
}
