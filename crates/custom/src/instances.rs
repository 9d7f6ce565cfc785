//! The strategy behind a custom resource: everything out of the version of its definition.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use kedge_kinds::{Column, ScalePaths, Strategy, WriteContext};
use kedge_meta::FieldError;
use serde_json::Value;

use crate::columns::Columns;
use crate::definition::storage_version;
use crate::json::{at, items, text};
use crate::version::{Version, name};

/// Of the objects of one version of a definition.
pub(crate) struct Instances {
    version: Arc<Version>,
    api_version: String,
    /// Objects may be stored in other versions than this one.
    has_siblings: bool,
    has_status: bool,
    columns: Columns,
    scale: Option<Scale>,
    /// Selectable fields, without their leading dot.
    fields: Vec<String>,
}

/// The paths of the scale subresource.
struct Scale {
    replicas: Vec<String>,
    status_replicas: Vec<String>,
    selector: Option<Vec<String>>,
}

fn words(path: &str) -> Vec<String> {
    path.split('.').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn borrowed(path: &[String]) -> Cow<'_, [&str]> {
    Cow::Owned(path.iter().map(String::as_str).collect())
}

impl Instances {
    pub(crate) fn new(definition: &Value, version: &Value, read: Arc<Version>) -> Self {
        let path = |field: &str| Some(text(version, &["subresources", "scale", field])).filter(|path| !path.is_empty());
        let stored = items(definition, &["status", "storedVersions"]);
        let own = name(version);
        let fields = items(version, &["selectableFields"]).iter();
        Self {
            version: read,
            api_version: format!("{}/{own}", text(definition, &["spec", "group"])),
            has_siblings: storage_version(definition) != own || stored.iter().any(|version| version != own),
            has_status: at(version, &["subresources", "status"]).is_some(),
            columns: Columns::read(version),
            scale: at(version, &["subresources", "scale"]).map(|_| Scale {
                replicas: words(path("specReplicasPath").unwrap_or_default()),
                status_replicas: words(path("statusReplicasPath").unwrap_or_default()),
                selector: path("labelSelectorPath").map(words),
            }),
            fields: fields.map(|field| text(field, &["jsonPath"]).trim_start_matches('.').to_owned()).collect(),
        }
    }
}

impl Strategy for Instances {
    fn has_generation(&self) -> bool {
        true
    }

    fn is_new_generation(&self, new: &Value, old: &Value) -> bool {
        let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
        let counts = |field: &str| field != "metadata" && !(self.has_status && field == "status");
        let differs = |field: &String| counts(field) && new.get(field) != old.get(field);
        new.keys().chain(old.keys()).any(differs)
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn fills_status(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        self.version.default(object);
    }

    fn completes_stored(&self) -> bool {
        self.has_siblings || self.version.has_defaults()
    }

    fn complete_stored(&self, object: &mut Value) {
        if self.has_siblings {
            object["apiVersion"] = Value::from(self.api_version.as_str());
        }
        self.version.default(object);
    }

    fn prepare_create(&self, _object: &mut Value, _context: &WriteContext<'_>) {}

    fn prepare_subresource_update(&self, subresource: &str, new: &mut Value, old: &Value) {
        if subresource != "status" {
            return;
        }
        let managers = new.pointer("/metadata/managedFields").cloned();
        let mut metadata = old["metadata"].clone();
        if let Some(fields) = metadata.as_object_mut() {
            match managers {
                Some(managers) => fields.insert("managedFields".to_owned(), managers),
                None => fields.remove("managedFields"),
            };
        }
        new["metadata"] = metadata;
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        self.version.check(object, None, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.version.check(new, Some(old), errors);
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.version.check(new, Some(old), errors);
    }

    fn columns(&self) -> &[Column] {
        self.columns.columns()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        self.columns.row(object, now)
    }

    fn has_field(&self, path: &str) -> bool {
        self.fields.iter().any(|field| field == path)
    }

    fn unsupported_field(&self, path: &str) -> String {
        format!("field label not supported: {path}")
    }

    fn field(&self, object: &Value, path: &str) -> String {
        let found = path.split('.').try_fold(object, |value, name| value.get(name));
        match found {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        }
    }

    fn scale(&self) -> Option<ScalePaths<'_>> {
        let scale = self.scale.as_ref()?;
        Some(ScalePaths {
            replicas: borrowed(&scale.replicas),
            status_replicas: borrowed(&scale.status_replicas),
            selector: scale.selector.as_deref().map(borrowed),
        })
    }
}
