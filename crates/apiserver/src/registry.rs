//! The kinds that are served, found by the words of a path.
//!
//! Built-in and custom kinds are the same [`Resource`]; the registry can be replaced as a whole while requests run.
//! Invariant: within one group, version and resource name there is one resource.

use std::collections::BTreeMap;
use std::sync::Arc;

use kedge_custom::{DefinitionStrategy, Version};
use kedge_kinds::{Backing, Kind, StrategyRef};
use kedge_meta::GroupResource;
use kedge_schema::Schema;
use kedge_store::Key;
use kedge_webhooks::Converter;
use tokio_util::sync::CancellationToken;

/// One kind in one served version, with what requests need of it at hand.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) kind: Kind,
    pub(crate) api_version: String,
    pub(crate) group_resource: GroupResource,
    /// Stored bytes are answers as they are.
    pub(crate) is_storage_version: bool,
    schema: Schema<'static>,
    /// What is known of a custom resource besides.
    pub(crate) custom: Option<Custom>,
}

/// What a custom resource comes from.
#[derive(Debug)]
pub(crate) struct Custom {
    /// The name of its definition.
    pub(crate) definition: String,
    /// The version that it is served in.
    pub(crate) version: Arc<Version>,
    /// Ends the watches of a resource that is served no longer, or differently.
    pub(crate) retired: CancellationToken,
    /// The webhook that knows the other versions, where the definition names one.
    pub(crate) converter: Option<Arc<Converter>>,
}

impl Resource {
    pub(crate) fn new(kind: Kind) -> Self {
        let schema = kedge_schema::type_by_gvk(&kind.group, &kind.version, &kind.kind).map(Schema::of);
        Self {
            api_version: kind.api_version().into_owned(),
            group_resource: kind.group_resource(),
            is_storage_version: kind.serves_stored(),
            schema: schema.unwrap_or_else(Schema::untyped),
            custom: None,
            kind,
        }
    }

    /// A custom resource.
    pub(crate) fn custom(kind: Kind, custom: Custom) -> Self {
        Self { custom: Some(custom), ..Self::new(kind) }
    }

    /// What is known of the fields of its objects.
    pub(crate) fn schema(&self) -> Schema<'_> {
        self.custom.as_ref().map_or(self.schema, |custom| custom.version.merging())
    }

    /// The version of its definition, for a custom resource.
    pub(crate) fn version(&self) -> Option<&Version> {
        self.custom.as_ref().map(|custom| &*custom.version)
    }

    /// The webhook that converts its objects, for a custom resource that has one.
    pub(crate) fn converter(&self) -> Option<&Converter> {
        self.custom.as_ref().and_then(|custom| custom.converter.as_deref())
    }

    /// Whether anything is known of the fields of its objects.
    pub(crate) fn has_schema(&self) -> bool {
        self.custom.is_some()
            || kedge_schema::type_by_gvk(&self.kind.group, &self.kind.version, &self.kind.kind).is_some()
    }

    /// Whether its objects are in the store.
    pub(crate) fn is_stored(&self) -> bool {
        self.kind.backing == Backing::Stored
    }

    /// The store key of an object.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> Key {
        Key::new(self.kind.key(namespace, name))
    }

    /// Whether this is the resource `resource` in `group`.
    pub(crate) fn is(&self, group: &str, resource: &str) -> bool {
        self.kind.resource == resource && self.kind.group == group
    }
}

/// Resource by version and name, of one group.
type Versions = BTreeMap<String, BTreeMap<String, Arc<Resource>>>;

/// Everything that is served.
#[derive(Debug, Default, Clone)]
pub(crate) struct Registry {
    by_group: BTreeMap<String, Versions>,
    in_order: Vec<Arc<Resource>>,
}

impl Registry {
    /// The kinds that are built in.
    pub(crate) fn builtin() -> Self {
        let mut registry = Self::default();
        for kind in kedge_kinds::builtins().iter().filter(|kind| kind.served_by_default) {
            registry.add(with_definitions(kind.clone()));
        }
        registry
    }

    /// The same, with other resources of a definition. What is built in is never replaced.
    pub(crate) fn with_definition(&self, definition: &str, resources: &[Arc<Resource>]) -> Self {
        let is_other =
            |known: &Arc<Resource>| known.custom.as_ref().is_none_or(|custom| custom.definition != definition);
        let mut registry = Self::default();
        for resource in self.in_order.iter().filter(|known| is_other(known)).chain(resources) {
            let kind = &resource.kind;
            if registry.find(&kind.group, &kind.version, &kind.resource).is_none() {
                registry.insert(Arc::clone(resource));
            }
        }
        registry
    }

    /// Adds a kind, in the place of one with the same group, version and resource.
    pub(crate) fn add(&mut self, kind: Kind) {
        self.insert(Arc::new(Resource::new(kind)));
    }

    fn insert(&mut self, resource: Arc<Resource>) {
        let kind = &resource.kind;
        let versions = self.by_group.entry(kind.group.to_string()).or_default();
        let resources = versions.entry(kind.version.to_string()).or_default();
        let replaced = resources.insert(kind.resource.to_string(), Arc::clone(&resource));
        self.in_order.retain(|known| replaced.as_ref().is_none_or(|replaced| !Arc::ptr_eq(known, replaced)));
        self.in_order.push(resource);
    }

    /// The resource that a path names.
    pub(crate) fn find(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<Resource>> {
        self.by_group.get(group)?.get(version)?.get(resource)
    }

    /// The version of a resource in which its objects are stored, or any version that is served.
    pub(crate) fn storage(&self, group: &str, resource: &str) -> Option<&Arc<Resource>> {
        let served = || self.in_order.iter().filter(|known| known.is(group, resource));
        served().find(|known| known.kind.is_storage_version()).or_else(|| served().next())
    }

    /// The resource of a kind.
    pub(crate) fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.by_group.get(group)?.get(version)?.values().find(|resource| resource.kind.kind == kind)
    }

    /// The groups with their versions.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        self.by_group.iter().map(|(group, versions)| (group.as_str(), versions.keys().map(String::as_str).collect()))
    }

    /// The resources of a group in a version, by name.
    pub(crate) fn in_version(&self, group: &str, version: &str) -> impl Iterator<Item = &Resource> {
        let resources = self.by_group.get(group).and_then(|versions| versions.get(version));
        resources.into_iter().flat_map(BTreeMap::values).map(Arc::as_ref)
    }

    /// Everything, in the order of registration.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.in_order.iter()
    }

    /// Whether a group is served in a version.
    pub(crate) fn serves(&self, group: &str, version: &str) -> bool {
        self.by_group.get(group).is_some_and(|versions| versions.contains_key(version))
    }
}

/// Definitions of custom resources are held to more than their kind says.
fn with_definitions(kind: Kind) -> Kind {
    if kind.group != "apiextensions.k8s.io" || kind.resource != "customresourcedefinitions" {
        return kind;
    }
    let strategy = StrategyRef::Shared(Arc::new(DefinitionStrategy::new(kind.strategy.clone())));
    Kind { strategy, ..kind }
}
