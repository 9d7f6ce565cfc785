//! One version of a definition: what its objects are read, pruned, defaulted, validated and merged by.
//!
//! Invariant: everything that depends on the schema alone is made once, here.

use std::sync::Arc;

use kedge_meta::{FieldError, FieldErrorKind, FieldPath};
use kedge_schema::{OwnedSchema, Schema};
use serde_json::{Value, json};

use crate::json::{at, text, truth};
use crate::node::Node;
use crate::place::Place;
use crate::rules::Checker;
use crate::timing::{Timing, Untimed};
use crate::{check, defaults, embedded, list_types, prune};

/// A version of a definition, made ready.
#[derive(Debug)]
pub struct Version {
    root: Node,
    has_defaults: bool,
    /// How fields are owned and merged.
    merging: OwnedSchema,
    /// What bodies are read by: the metadata is typed, everything else is free.
    reading: OwnedSchema,
    deprecation: Option<String>,
    /// As the definition has it, in its short form.
    source: String,
    timing: Arc<dyn Timing>,
}

impl Version {
    /// Reads a version of a definition.
    pub(crate) fn of(definition: &Value, version: &Value, timing: &Arc<dyn Timing>) -> Self {
        let kind = text(definition, &["spec", "names", "kind"]);
        let plain = || format!("{}/{} {kind} is deprecated", text(definition, &["spec", "group"]), name(version));
        let warning = at(version, &["deprecationWarning"]).and_then(Value::as_str);
        let deprecation = truth(version, &["deprecated"]).then(|| warning.map_or_else(plain, str::to_owned));
        Self { deprecation, timing: Arc::clone(timing), ..Self::read(version) }
    }

    /// Reads the schema of a version.
    pub(crate) fn read(version: &Value) -> Self {
        let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let document = at(version, &["schema", "openAPIV3Schema"]).unwrap_or(&free);
        let root = Node::read(document);
        Self {
            has_defaults: root.has_defaults(),
            merging: OwnedSchema::from_structural(document),
            reading: OwnedSchema::from_structural(&free),
            root,
            deprecation: None,
            source: version.to_string(),
            timing: Arc::new(Untimed),
        }
    }

    /// How fields are owned and merged.
    pub fn merging(&self) -> Schema<'_> {
        self.merging.schema()
    }

    /// What bodies are read by; pruning is what types them.
    pub fn reading(&self) -> Schema<'_> {
        self.reading.schema()
    }

    /// The version as the definition has it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The `openAPIV3Schema`, as JSON.
    pub fn document(&self) -> Option<String> {
        let version: Value = serde_json::from_str(&self.source).ok()?;
        at(&version, &["schema", "openAPIV3Schema"]).map(ToString::to_string)
    }

    /// Text for a `Warning` header of every request, where the version is deprecated.
    pub fn deprecation(&self) -> Option<&str> {
        self.deprecation.as_deref()
    }

    /// Whether stored objects may lack what the schema fills in.
    pub fn has_defaults(&self) -> bool {
        self.has_defaults
    }

    /// Drops what the schema does not name; texts about what was dropped.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let dropped = prune::prune(object, &self.root);
        dropped.into_iter().map(|path| format!("unknown field \"{path}\"")).collect()
    }

    /// Fills in defaults.
    pub(crate) fn default(&self, object: &mut Value) {
        if self.has_defaults {
            defaults::fill(object, &self.root);
        }
    }

    /// Appends what is wrong with an object; `old` is what it was before an update.
    pub(crate) fn check(&self, object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        check::check(object, old, &self.root, &Place::ROOT, errors);
        let mut repeated = Vec::new();
        list_types::check(object, &self.root, &Place::ROOT, &mut repeated);
        if let (Some(old), false) = (old, repeated.is_empty()) {
            // What was there twice may stay.
            let mut known = Vec::new();
            list_types::check(old, &self.root, &Place::ROOT, &mut known);
            repeated.retain(|error| !known.contains(error));
        }
        errors.append(&mut repeated);
        embedded::check(object, &self.root, &Place::ROOT, errors);
        self.check_rules(object, old, errors);
    }

    /// Rules are for objects whose shape is right.
    fn check_rules(&self, object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        use FieldErrorKind::{Required, TooLong, TooMany, TypeInvalid};
        if !self.root.holds_rules {
            return;
        }
        if errors.iter().any(|error| matches!(error.kind(), Required | TooLong | TooMany | TypeInvalid)) {
            let why = "some validation rules were not checked because the object was invalid; correct the existing errors \
                to complete validation";
            errors.push(FieldError::invalid(&FieldPath::new("<nil>"), &Value::Null, why));
            return;
        }
        Checker::new(errors, &*self.timing).visit(object, old, false, &self.root, &Place::ROOT);
    }

    /// The schema of a selectable field, by its dotted path.
    pub(crate) fn property(&self, path: &str) -> Option<&Node> {
        path.split('.').filter(|name| !name.is_empty()).try_fold(&self.root, |node, name| node.properties.get(name))
    }
}

/// The name of a version.
pub(crate) fn name(version: &Value) -> &str {
    text(version, &["name"])
}
