//! What is particular to a kind, as one trait whose every method has a plain default.
//!
//! Strategies hold no state that changes. The invariant: they never look at the clock or at other objects; what they need
//! comes in as an argument.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::table;

/// What a write knows besides the object.
#[derive(Debug, Clone, Copy)]
pub struct WriteContext<'a> {
    /// The time of the write.
    pub now: Timestamp,
    /// The uid that the new object gets.
    pub uid: &'a str,
}

/// Which names a kind's objects may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, the usual rule.
    Subdomain,
    /// RFC 1123 label.
    Label,
    /// RFC 1035 label.
    Label1035,
    /// Anything that can stand in a path.
    PathSegment,
    /// The kind's own `validate_create` checks the name.
    Own,
}

/// What happens to dependents when a request does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// The garbage collector deletes them.
    Background,
    /// They stay, without their owner reference.
    Orphan,
}

/// Where the three fields of `autoscaling/v1 Scale` lie in an object, as fields from the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths<'a> {
    /// Of `spec.replicas`.
    pub replicas: Cow<'a, [&'a str]>,
    /// Of `status.replicas`.
    pub status_replicas: Cow<'a, [&'a str]>,
    /// Of `status.selector`: a label selector object, a map of labels, or (custom resources) its text form.
    pub selector: Option<Cow<'a, [&'a str]>>,
}

/// A field selector names a field that the kind can't be selected by. Displays as upstream says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedField(pub(crate) String);

impl std::fmt::Display for UnsupportedField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UnsupportedField {}

/// A column of a kind's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: std::borrow::Cow<'static, str>,
    /// OpenAPI type: `string`, `integer`, `number`, `boolean`, `date`.
    pub kind: std::borrow::Cow<'static, str>,
    /// OpenAPI format; `name` marks the primary column.
    pub format: std::borrow::Cow<'static, str>,
    /// What it shows.
    pub description: std::borrow::Cow<'static, str>,
    /// 0 always shown, 1 only in wide output.
    pub priority: u8,
}

/// What is particular to a kind. All objects are decoded JSON of the kind's own version.
pub trait Strategy: Send + Sync {
    /// Which names its objects may have.
    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }

    /// Whether `metadata.generation` counts changes of `spec` (or of what [`Strategy::generation_fields`] names).
    fn has_generation(&self) -> bool {
        false
    }

    /// The fields at the root whose change counts as a new generation.
    fn generation_fields(&self) -> &[&str] {
        &["spec"]
    }

    /// Whether an update counts as a new generation.
    fn is_new_generation(&self, new: &Value, old: &Value) -> bool {
        self.generation_fields().iter().any(|field| new.get(field) != old.get(field))
    }

    /// Fields at the root that clients may not set on create nor change by the main resource; usually `status`.
    fn status_fields(&self) -> &[&str] {
        &["status"]
    }

    /// Whether a new object keeps the status that the client sends.
    fn keeps_status_on_create(&self) -> bool {
        false
    }

    /// Whether objects with a status subresource always have a status, be it empty.
    fn fills_status(&self) -> bool {
        true
    }

    /// Whether PUT of an object that is not there creates it.
    fn creates_on_update(&self) -> bool {
        false
    }

    /// Whether an update without `resourceVersion` is taken.
    fn allows_unconditional_update(&self) -> bool {
        true
    }

    /// After how long objects vanish, from their last write.
    fn time_to_live(&self) -> Option<Duration> {
        None
    }

    /// What happens to dependents when a delete request does not say.
    fn default_propagation(&self) -> Propagation {
        Propagation::Background
    }

    /// Text for a `Warning` header of a delete request that leaves the propagation to [`Strategy::default_propagation`].
    fn default_propagation_warning(&self) -> Option<&'static str> {
        None
    }

    /// Seconds of grace that a deletion gets; `None` where the kind is deleted at once. `requested` is the request's
    /// `gracePeriodSeconds`. `Some(0)` means at once.
    fn grace_period(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let _ = (object, requested);
        None
    }

    /// A finalizer that every deletion begins with.
    fn deletion_finalizer(&self) -> Option<&'static str> {
        None
    }

    /// Whether deletion waits for `spec.finalizers` too, which the `finalize` subresource empties (namespaces).
    fn has_spec_finalizers(&self) -> bool {
        false
    }

    /// Fills in defaults.
    fn default(&self, object: &mut Value) {
        let _ = object;
    }

    /// Adds what only the server sets. Metadata and status have been dealt with.
    fn prepare_create(&self, object: &mut Value, context: &WriteContext<'_>) {
        let _ = (object, context);
    }

    /// Keeps what the main resource may not change. Metadata and status have been dealt with.
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let _ = (new, old);
    }

    /// Keeps what a subresource may not change. For `status`, everything but the status fields has been kept already.
    fn prepare_subresource_update(&self, subresource: &str, new: &mut Value, old: &Value) {
        let _ = (subresource, new, old);
    }

    /// Appends what is wrong with a new object. Metadata has been checked.
    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let _ = (object, errors);
    }

    /// Appends what is wrong with a changed object; by default what would be wrong with a new one.
    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        let _ = old;
        self.validate_create(new, errors);
    }

    /// Appends what is wrong with an object changed through a subresource.
    fn validate_subresource_update(&self, subresource: &str, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        let _ = (subresource, new, old, errors);
    }

    /// Texts for `Warning` headers of a create (`old` is `None`) or an update of the main resource.
    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let _ = (new, old);
        Vec::new()
    }

    /// The columns of its table.
    fn columns(&self) -> &[Column] {
        table::DEFAULT_COLUMNS
    }

    /// The cells of an object's row, one for each column.
    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let _ = now;
        vec![table::name(object), table::created_at(object)]
    }

    /// `TableRow.conditions` of an object.
    fn row_conditions(&self, object: &Value) -> Vec<Value> {
        let _ = object;
        Vec::new()
    }

    /// Selectable fields besides `metadata.name` and `metadata.namespace`.
    fn fields(&self) -> &[&str] {
        &[]
    }

    /// Whether `path` is one of [`Strategy::fields`].
    fn has_field(&self, path: &str) -> bool {
        self.fields().contains(&path)
    }

    /// Text for a field that objects can't be selected by.
    fn unsupported_field(&self, path: &str) -> String {
        match self.fields().is_empty() {
            true => {
                format!("\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
            }
            false => format!("field label not supported: {path}"),
        }
    }

    /// The value of one of [`Strategy::fields`]; empty where the object does not have it.
    fn field(&self, object: &Value, path: &str) -> String {
        crate::value::field_text(object, path)
    }

    /// Where the fields of its scale subresource lie.
    fn scale(&self) -> Option<ScalePaths<'_>> {
        None
    }

    /// Where its pod template (or pod spec, for pods) lies, as fields from the root to the pod spec.
    fn pod_spec_path(&self) -> Option<&[&str]> {
        None
    }

    /// Turns an object of another served `version` into the stored version. The caller sets `apiVersion`.
    fn convert_to_storage(&self, object: &mut Value, version: &str) {
        let _ = (object, version);
    }

    /// Turns a stored object into another served `version`. The caller sets `apiVersion`.
    fn convert_from_storage(&self, object: &mut Value, version: &str) {
        let _ = (object, version);
    }

    /// Whether stored objects may lack something of this version, so that they are no answers as they are.
    fn completes_stored(&self) -> bool {
        false
    }

    /// Adds to a stored object, of this version by now, what was not there when it was stored.
    fn complete_stored(&self, object: &mut Value) {
        let _ = object;
    }
}
