//! Which stored objects a request selects, decided on their bytes wherever the bytes suffice.
//!
//! Invariant: the answer is the same as on the decoded object in the version that is asked for.

use std::sync::Arc;

use kedge_meta::{ApiStatus, FieldSelector, LabelSelector};
use serde_json::Value;

use crate::registry::Resource;
use crate::scan;

/// Fields whose value is the scalar at their path for every kind that can be selected by them.
const PLAIN_FIELDS: [&str; 11] = [
    "metadata.name",
    "metadata.namespace",
    "involvedObject.kind",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.uid",
    "reason",
    "spec.nodeName",
    "spec.schedulerName",
    "status.phase",
    "type",
];

/// A label and a field selector over one resource.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    resource: Arc<Resource>,
    labels: LabelSelector,
    fields: FieldSelector,
    decodes: bool,
}

impl Selection {
    /// Checks that the fields can be selected by.
    pub(crate) fn new(
        resource: Arc<Resource>,
        labels: LabelSelector,
        fields: FieldSelector,
    ) -> Result<Self, ApiStatus> {
        for (path, _, _) in fields.terms() {
            resource.kind.check_field(path).map_err(|error| ApiStatus::bad_request(error.to_string()))?;
        }
        let plain =
            |path: &str| PLAIN_FIELDS.contains(&path) && (resource.is_storage_version || path.starts_with("metadata."));
        let decodes = !fields.terms().iter().all(|(path, _, _)| plain(path));
        Ok(Self { resource, labels, fields, decodes })
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    pub(crate) fn has_fields(&self) -> bool {
        !self.fields.is_everything()
    }

    pub(crate) fn labels(&self) -> &LabelSelector {
        &self.labels
    }

    /// The only name that can be selected, if a field says so.
    pub(crate) fn exact_name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    /// The only namespace that can be selected, if a field says so.
    pub(crate) fn exact_namespace(&self) -> Option<&str> {
        self.fields.exact("metadata.namespace")
    }

    /// Whether a stored object is selected.
    pub(crate) fn matches(&self, stored: &[u8]) -> bool {
        self.matches_labels(stored) && self.matches_fields(stored)
    }

    fn matches_labels(&self, stored: &[u8]) -> bool {
        self.labels.is_everything() || labels_match(&self.labels, scan::field(stored, &["metadata", "labels"]))
    }

    fn matches_fields(&self, stored: &[u8]) -> bool {
        if self.fields.is_everything() {
            return true;
        }
        if !self.decodes {
            return self.fields.matches_with(|path| {
                let path: Vec<&str> = path.split('.').collect();
                scan::text(stored, &path).into_owned()
            });
        }
        let Ok(mut object) = serde_json::from_slice::<Value>(stored) else { return false };
        self.resource.kind.from_storage(&mut object);
        self.fields.matches_with(|path| self.resource.kind.field(&object, path).unwrap_or_default())
    }
}

/// Whether a raw labels object meets a selector.
pub(crate) fn labels_match(selector: &LabelSelector, raw: Option<&[u8]>) -> bool {
    let labels: Vec<_> = raw.map(|raw| scan::strings(raw).collect()).unwrap_or_default();
    selector.matches_with(|wanted| labels.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(labels: &str, fields: &str, expected: bool) {
        let kind = kedge_kinds::builtin_by_resource("", "v1", "pods").unwrap().clone();
        let (labels, fields) = (LabelSelector::parse(labels).unwrap(), FieldSelector::parse(fields).unwrap());
        let selection = Selection::new(Arc::new(Resource::new(kind)), labels, fields).unwrap();
        let stored = br#"{"metadata":{"labels":{"app":"web"},"name":"a","namespace":"n"},"spec":{"nodeName":"m"}}"#;
        assert_eq!(selection.matches(stored), expected, "{selection:?}");
    }

    #[test]
    fn objects_are_selected_by_their_bytes() {
        check("", "", true);
        check("app=web", "", true);
        check("app!=web", "", false);
        check("tier", "", false);
        check("", "spec.nodeName=m,metadata.name=a", true);
        check("", "spec.nodeName=x", false);
        check("", "spec.nodeName!=", true);
        check("", "status.podIP=", true);
        check("app=web", "metadata.namespace=x", false);
    }
}
