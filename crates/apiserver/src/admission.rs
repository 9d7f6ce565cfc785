//! Admission: plugins that change or refuse writes, in upstream's order.
//!
//! First every plugin may change the object, then every plugin may refuse it, and last those that hand out something
//! that must be unique (addresses, ports, quota) reserve it together with the commit. Invariant: what is reserved is in the
//! same commit as the object, so that nothing has to be given back when it does not happen.

use async_trait::async_trait;
use kedge_meta::{ApiStatus, UserInfo};
use kedge_store::{Condition, ListRequest, Record, Write};
use serde_json::Value;

use crate::config::Config;
use crate::core::Core;
use crate::registry::Resource;
use crate::reply::store_error;

mod always_pull_images;
mod certificates;
mod default_toleration_seconds;
mod device_admin_access;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod plugins;
mod pod_security;
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

pub use plugins::{UnknownPlugin, check_plugins};
pub(crate) use service_allocation::missing_records;

/// What is done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// What a plugin knows of a request besides the object.
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
}

impl Attributes<'_> {
    /// Whether the request is about the main resource of `resource` in `group`.
    pub(crate) fn is_main(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.resource.is(group, resource)
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

/// The plugins, in order.
pub(crate) struct Chain(Vec<Box<dyn Plugin>>);

impl Chain {
    /// The plugins that are on, in upstream's order; allocation comes last, when nothing can go wrong any more.
    pub(crate) fn new(config: &Config) -> Self {
        Self(plugins::selected(config))
    }

    pub(crate) async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiStatus> {
        for plugin in self.0.iter().filter(|plugin| plugin.handles(attributes)) {
            plugin.admit(attributes, object).await?;
        }
        Ok(())
    }

    pub(crate) async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiStatus> {
        for plugin in self.0.iter().filter(|plugin| plugin.handles(attributes)) {
            plugin.validate(attributes, object).await?;
        }
        Ok(())
    }

    /// What all of them have to say about an object that they let pass.
    pub(crate) async fn warnings(&self, attributes: &Attributes<'_>, object: &Value) -> Result<Vec<String>, ApiStatus> {
        let mut warnings = Vec::new();
        for plugin in self.0.iter().filter(|plugin| plugin.handles(attributes)) {
            warnings.extend(plugin.warnings(attributes, object).await?);
        }
        Ok(warnings)
    }

    pub(crate) async fn reserve(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<Effects, ApiStatus> {
        let mut effects = Effects::default();
        for plugin in self.0.iter().filter(|plugin| plugin.handles(attributes)) {
            plugin.reserve(attributes, object, &mut effects).await?;
        }
        Ok(effects)
    }

    pub(crate) async fn release(&self, core: &Core, resource: &Resource, object: &Value) -> Result<Effects, ApiStatus> {
        let mut effects = Effects::default();
        for plugin in &self.0 {
            plugin.release(core, resource, object, &mut effects).await?;
        }
        Ok(effects)
    }
}
