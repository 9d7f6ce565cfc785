//! A request as webhooks see it: its kind, its objects, the other names of its resource.

use std::sync::Arc;

use kedge_meta::{ApiStatus, GroupResource, GroupVersionKind, GroupVersionResource};
use kedge_schema::FieldValidation;
use kedge_webhooks::{Asked, Hook};
use serde_json::Value;

use crate::admission::{Attributes, Operation, Seen};
use crate::convert;
use crate::registry::Resource;
use crate::write::Expected;

/// What a request is about.
pub(super) struct Subject<'a> {
    pub(super) attributes: &'a Attributes<'a>,
    pub(super) kind: GroupVersionKind,
    pub(super) resource: GroupVersionResource,
    /// The same objects under other groups and versions.
    equivalents: Vec<Arc<Resource>>,
}

/// The name under which a webhook knows a resource.
pub(super) enum Known {
    /// The one of the request.
    AsAsked,
    /// Another one.
    As(Arc<Resource>),
}

impl<'a> Subject<'a> {
    pub(super) fn of(attributes: &'a Attributes<'a>) -> Self {
        let own = attributes.resource;
        let kind = match attributes.told.seen {
            Seen::As(kind) => kind.clone(),
            Seen::Through(lens) => lens.kind(),
            Seen::Plain | Seen::Nothing => own.kind.group_version_kind(),
        };
        let registry = attributes.core.registry.load();
        let is_other = |other: &&Arc<Resource>| {
            other.kind.storage_prefix == own.kind.storage_prefix && other.api_version != own.api_version
        };
        let equivalents = registry.all().filter(is_other).cloned().collect();
        Self { attributes, kind, resource: own.kind.group_version_resource(), equivalents }
    }

    /// An object as webhooks see it.
    pub(super) fn seen(&self, object: &Value) -> Value {
        match self.attributes.told.seen {
            Seen::Through(lens) => lens.view(object),
            _ => object.clone(),
        }
    }

    /// Takes what webhooks made of what they saw into the object itself.
    pub(super) fn take_over(&self, object: &mut Value, seen: &Value) -> Result<(), ApiStatus> {
        match self.attributes.told.seen {
            Seen::Through(lens) => *object = lens.with(object, seen)?,
            _ => *object = seen.clone(),
        }
        Ok(())
    }

    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub(super) fn operation(&self) -> &'static str {
        self.attributes.operation.as_str()
    }

    /// Its namespace; of a Namespace its own name.
    pub(super) fn namespace(&self) -> &str {
        match self.attributes.resource.is("", "namespaces") {
            true => self.attributes.name,
            false => self.attributes.namespace,
        }
    }

    /// The name under which a webhook wants to hear of it, if it does.
    pub(super) fn known_to(&self, hook: &Hook) -> Option<Known> {
        let asked = self.asked(self.attributes.resource);
        if hook.asks_for(&asked) {
            return Some(Known::AsAsked);
        }
        let others = self.equivalents.iter().filter(|_| hook.is_equivalent);
        let others: Vec<Asked<'_>> = others.map(|resource| self.asked(resource)).collect();
        hook.asks_for_one_of(&others).map(|index| Known::As(Arc::clone(&self.equivalents[index])))
    }

    fn asked<'b>(&'b self, resource: &'b Resource) -> Asked<'b> {
        Asked {
            operation: self.operation(),
            group: &resource.kind.group,
            version: &resource.kind.version,
            resource: &resource.kind.resource,
            subresource: self.attributes.subresource,
            namespaced: !self.attributes.namespace.is_empty() && !resource.is("", "namespaces"),
        }
    }

    /// Whether the labels of the namespace that it lies in are what a webhook asks for; 404 where there is none.
    pub(super) async fn is_in_namespace_of(&self, hook: &Hook) -> Result<bool, ApiStatus> {
        if hook.namespaces.is_everything() || self.namespace().is_empty() {
            return Ok(true);
        }
        let found = self.attributes.core.object("", "namespaces", "", self.namespace()).await?;
        let Some((_, namespace)) = found else {
            let resource = GroupResource { group: String::new(), resource: "namespaces".to_owned() };
            return Err(ApiStatus::not_found(&resource, self.namespace()));
        };
        Ok(hook.selects_namespace(&namespace))
    }

    /// Whether it writes a Namespace, whose new labels count then.
    pub(super) fn writes_namespace(&self) -> bool {
        self.attributes.is_main("", "namespaces")
            && matches!(self.attributes.operation, Operation::Create | Operation::Update)
    }

    /// An object in the version that a webhook knows.
    pub(super) async fn in_version_of(&self, known: &Known, object: &Value) -> Result<Value, ApiStatus> {
        match known {
            Known::As(other) if self.converts() => convert::between(self.attributes.resource, other, object).await,
            _ => Ok(object.clone()),
        }
    }

    /// An object that a webhook has changed, with defaults and without what there is not, in the version of the request.
    pub(super) async fn settled(&self, known: &Known, changed: Value) -> Result<Value, ApiStatus> {
        let resource = match known {
            Known::As(other) if self.converts() => other,
            _ => self.attributes.resource,
        };
        let expected = match self.converts() {
            true => Expected::of(resource),
            false => Expected::builtin(&self.kind.group, &self.kind.version, &self.kind.kind, ""),
        };
        let decoded = expected.check_fields(changed, FieldValidation::Ignore).map_err(ApiStatus::internal)?;
        let mut object = decoded.value;
        if self.converts() {
            resource.kind.default(&mut object);
        }
        match known {
            Known::As(other) if self.converts() => convert::between(other, self.attributes.resource, &object).await,
            _ => Ok(object),
        }
    }

    /// Whether what webhooks see is the resource's own kind, which may have several versions.
    fn converts(&self) -> bool {
        matches!(self.attributes.told.seen, Seen::Plain)
    }

    /// The kind under which a webhook sees the objects.
    pub(super) fn kind_for(&self, known: &Known) -> GroupVersionKind {
        match known {
            Known::As(other) if self.converts() => other.kind.group_version_kind(),
            _ => self.kind.clone(),
        }
    }

    /// The resource that a webhook knows.
    pub(super) fn matched<'b>(&'b self, known: &'b Known) -> &'b Resource {
        match known {
            Known::As(other) => other,
            Known::AsAsked => self.attributes.resource,
        }
    }

    /// The resource as a webhook knows it.
    pub(super) fn resource_for(&self, known: &Known) -> GroupVersionResource {
        match known {
            Known::As(other) => other.kind.group_version_resource(),
            Known::AsAsked => self.resource.clone(),
        }
    }
}
