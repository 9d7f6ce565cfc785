//! The descriptor of a kind: its names, what may be done with it, where it is stored, and the strategy behind it.
//!
//! It holds no objects and routes no requests. The invariant: everything that the API server must know about a kind is
//! reachable from its [`Kind`], whether the kind is built in or comes from a CustomResourceDefinition.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use jiff::Timestamp;
use kedge_meta::{FieldError, GroupResource, GroupVersionKind, GroupVersionResource};
use serde_json::Value;

use crate::metadata;
use crate::strategy::{Column, Strategy, UnsupportedField, WriteContext};

/// Text that is static for built-in kinds and owned for custom ones.
type Text = Cow<'static, str>;

/// Where a resource's objects lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// In the store.
    Stored,
    /// Nowhere: the API server answers out of code (`TokenReview`, `SubjectAccessReview`, `Binding`, `ComponentStatus`).
    Virtual,
}

/// A strategy that is static (built in) or shared (custom resources).
#[derive(Clone)]
pub enum StrategyRef {
    /// Of a built-in kind.
    Static(&'static dyn Strategy),
    /// Of a custom resource.
    Shared(Arc<dyn Strategy>),
}

impl Deref for StrategyRef {
    type Target = dyn Strategy;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Static(strategy) => *strategy,
            Self::Shared(strategy) => &**strategy,
        }
    }
}

/// A path below a resource's objects, such as `status` or `scale`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    /// Its last path segment.
    pub name: Text,
    /// Group of the body's kind.
    pub group: Text,
    /// Version of the body's kind.
    pub version: Text,
    /// Kind of the body.
    pub kind: Text,
    /// What may be done with it.
    pub verbs: Vec<Text>,
}

/// A kind in one served version.
#[derive(Clone)]
pub struct Kind {
    /// API group; empty for core.
    pub group: Text,
    /// Served version.
    pub version: Text,
    /// Kind, such as `Pod`.
    pub kind: Text,
    /// Kind of its list, such as `PodList`.
    pub list_kind: Text,
    /// Plural resource name, such as `pods`.
    pub resource: Text,
    /// Singular resource name, such as `pod`.
    pub singular: Text,
    /// Short names, such as `po`.
    pub short_names: Vec<Text>,
    /// Categories, such as `all`.
    pub categories: Vec<Text>,
    /// Whether objects lie in namespaces.
    pub namespaced: bool,
    /// What may be done with the resource, sorted.
    pub verbs: Vec<Text>,
    /// Paths below its objects.
    pub subresources: Vec<Subresource>,
    /// Opaque hash of the storage version that discovery shows; empty where upstream shows none.
    pub storage_version_hash: Text,
    /// Where its objects lie.
    pub backing: Backing,
    /// Group and version (`v1`, `apps/v1`) in which objects are stored; of another served version of the same resource
    /// where it is not this one's.
    pub storage_api_version: Text,
    /// First part of its keys, without a slash at its end: `/registry/pods`, `/registry/apps/deployments`.
    pub storage_prefix: Text,
    /// Whether upstream serves this version without `--runtime-config`.
    pub served_by_default: bool,
    /// What is particular to the kind.
    pub strategy: StrategyRef,
}

impl Kind {
    /// Group, version and kind.
    pub fn group_version_kind(&self) -> GroupVersionKind {
        GroupVersionKind::new(&self.group, &self.version, &self.kind)
    }

    /// Group, version and resource.
    pub fn group_version_resource(&self) -> GroupVersionResource {
        GroupVersionResource::new(&self.group, &self.version, &self.resource)
    }

    /// Group and resource, as error texts print them.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.to_string(), resource: self.resource.to_string() }
    }

    /// The `apiVersion` field of its objects.
    pub fn api_version(&self) -> Text {
        match self.group.is_empty() {
            true => self.version.clone(),
            false => Cow::Owned(format!("{}/{}", self.group, self.version)),
        }
    }

    /// The store key of an object. `namespace` is empty for cluster-scoped kinds.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        match namespace.is_empty() {
            true => format!("{}/{name}", self.storage_prefix),
            false => format!("{}/{namespace}/{name}", self.storage_prefix),
        }
    }

    /// The store prefix of a namespace's objects, or of all objects where `namespace` is empty; ends with a slash.
    pub fn prefix(&self, namespace: &str) -> String {
        match namespace.is_empty() {
            true => format!("{}/", self.storage_prefix),
            false => format!("{}/{namespace}/", self.storage_prefix),
        }
    }

    /// Whether this version is the one in which objects are stored, so that stored bytes are answers as they are.
    pub fn is_storage_version(&self) -> bool {
        self.storage_api_version == self.api_version()
    }

    /// Turns an object of this version into the stored version, in place. Nothing to do for the storage version itself.
    pub fn to_storage(&self, object: &mut Value) {
        if !self.is_storage_version() {
            self.strategy.convert_to_storage(object, &self.version);
            object["apiVersion"] = Value::from(&*self.storage_api_version);
        }
    }

    /// Turns a stored object into this version, in place. Nothing to do where stored bytes are answers.
    pub fn from_storage(&self, object: &mut Value) {
        if !self.is_storage_version() {
            self.strategy.convert_from_storage(object, &self.version);
            object["apiVersion"] = Value::from(&*self.api_version());
        }
        self.strategy.complete_stored(object);
    }

    /// Whether stored bytes are answers as they are.
    pub fn serves_stored(&self) -> bool {
        self.is_storage_version() && !self.strategy.completes_stored()
    }

    /// Whether `verb` may be done with the resource.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|own| own == verb)
    }

    /// A path below its objects.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// Whether it has a status subresource, so that writes of the main resource leave the status alone.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Fills in what upstream's `SetDefaults` functions fill in. Objects are of this version.
    pub fn default(&self, object: &mut Value) {
        self.strategy.default(object);
    }

    /// Makes a new object ready for validation: sets `metadata.uid`, `creationTimestamp` and `generation`, removes what
    /// clients may not set, drops the status where there is a status subresource, then what the kind adds.
    ///
    /// Does not set the namespace and does not resolve `generateName`.
    pub fn prepare_create(&self, object: &mut Value, context: &WriteContext<'_>) {
        metadata::prepare_create(self, object, context);
        self.strategy.prepare_create(object, context);
        if self.has_status() && self.strategy.fills_status() {
            self.fill_status(object);
        }
    }

    /// Puts back the status that upstream always writes, be it empty.
    fn fill_status(&self, object: &mut Value) {
        let fields = self.strategy.status_fields();
        if fields.iter().all(|field| object.get(field).is_some()) {
            return;
        }
        self.strategy.default(object);
        for field in fields {
            crate::value::fill(object, field, Value::Object(serde_json::Map::new()));
        }
    }

    /// Makes an update ready for validation. `subresource` is empty for the main resource. Keeps what the write may not
    /// change as it is in `old`, and counts up `metadata.generation` where the desired state changed.
    pub fn prepare_update(&self, new: &mut Value, old: &Value, subresource: &str) {
        metadata::prepare_update(self, new, old, subresource);
        match subresource {
            "" => self.strategy.prepare_update(new, old),
            _ => self.strategy.prepare_subresource_update(subresource, new, old),
        }
        metadata::count_generation(self, new, old);
    }

    /// Warnings for a create (`old` is `None`) or an update of the main resource, one for each `Warning` header.
    pub fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        self.strategy.warnings(new, old)
    }

    /// What is wrong with a new object.
    pub fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = metadata::validate_create(self, object);
        self.strategy.validate_create(object, &mut errors);
        errors
    }

    /// What is wrong with a changed object. `subresource` is empty for the main resource.
    pub fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        let mut errors = metadata::validate_update(self, new, old);
        match subresource {
            "" => self.strategy.validate_update(new, old, &mut errors),
            _ => self.strategy.validate_subresource_update(subresource, new, old, &mut errors),
        }
        errors
    }

    /// The columns of its table.
    pub fn columns(&self) -> &[Column] {
        self.strategy.columns()
    }

    /// The cells of an object's row, one for each column (wide ones too).
    pub fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        self.strategy.row(object, now)
    }

    /// `TableRow.conditions` of an object: `Completed` for pods and jobs that have ended.
    pub fn row_conditions(&self, object: &Value) -> Vec<Value> {
        self.strategy.row_conditions(object)
    }

    /// The value of a selectable field; empty where the object does not have it.
    pub fn field(&self, object: &Value, path: &str) -> Result<String, UnsupportedField> {
        metadata::field(self, object, path)
    }

    /// Whether a field selector may name `path`.
    pub fn check_field(&self, path: &str) -> Result<(), UnsupportedField> {
        metadata::check_field(self, path)
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.api_version(), self.kind)
    }
}
