//! PersistentVolumeClaims.

use jiff::Timestamp;
use kedge_meta::{FieldError, Quantity};
use serde_json::{Map, Value, json};

use crate::formats;
use crate::path::Path;
use crate::pod_spec::label_selector_errors;
use crate::strategy::{Column, Strategy, WriteContext};
use crate::table::{AGE, NAME, age, column, name, wide};
use crate::value::{at, child, fill, fill_text, is_set, remove, set, text, texts};

/// Of persistentvolumeclaims.
pub(crate) struct PersistentVolumeClaim;

const SPEC: Path<'static> = Path::root("spec");

const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "Phase of the claim"),
    column("Volume", "string", "Volume that it is bound to"),
    column("Capacity", "string", "Size of the volume"),
    column("Access Modes", "string", "How the volume may be mounted"),
    column("StorageClass", "string", "Class that it asks for"),
    column("VolumeAttributesClass", "string", "Class of attributes that it asks for"),
    AGE,
    wide("VolumeMode", "string", "File system or block device"),
];

const ANNOTATED_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

impl Strategy for PersistentVolumeClaim {
    fn default(&self, object: &mut Value) {
        default_claim(object);
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext<'_>) {
        set(object, "status", json!({"phase": "Pending"}));
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        validate_claim_spec(&object["spec"], &SPEC, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        if !same_spec(new, old) {
            let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                       bound claims\n";
            SPEC.forbidden(errors, why);
        }
        let size = |claim: &Value, path: &[&str]| text(claim, path).parse::<Quantity>().unwrap_or_default();
        const REQUEST: &[&str] = &["spec", "resources", "requests", "storage"];
        let current = size(new, &["status", "capacity", "storage"]);
        if size(new, REQUEST) < size(old, REQUEST) && size(new, REQUEST) <= current {
            let resources = SPEC.child("resources");
            let requests = resources.child("requests");
            requests.child("storage").forbidden(errors, "field can not be less than status.capacity");
        }
        let mode = |claim: &'_ Value| at(claim, &["spec", "volumeMode"]).cloned();
        Path::root("volumeMode").immutable(errors, mode(new).as_ref(), mode(old).as_ref());
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        if !is_set(new, &["spec", "accessModes"]) {
            SPEC.child("accessModes").required(errors, "");
        }
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        class_warning(new).into_iter().collect()
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let bound = is_set(object, &["spec", "volumeName"]);
        let phase = match is_set(object, &["metadata", "deletionTimestamp"]) {
            true => "Terminating",
            false => text(object, &["status", "phase"]),
        };
        let capacity = match (bound, text(object, &["status", "capacity", "storage"])) {
            (false, _) => "",
            (true, "") => "0",
            (true, capacity) => capacity,
        };
        let modes = if bound { access_modes(object, &["status", "accessModes"]) } else { String::new() };
        vec![
            name(object),
            Value::from(phase),
            Value::from(text(object, &["spec", "volumeName"])),
            Value::from(capacity),
            Value::from(modes),
            Value::from(storage_class(object)),
            Value::from(or_unset(text(object, &["spec", "volumeAttributesClassName"]))),
            age(object, now),
            Value::from(or_unset(text(object, &["spec", "volumeMode"]))),
        ]
    }
}

/// Defaults of a claim, also as a template in a StatefulSet.
pub(crate) fn default_claim(claim: &mut Value) {
    if let Some(status) = child(claim, "status") {
        fill_text(status, "phase", "Pending");
    }
    if let Some(spec) = child(claim, "spec") {
        fill(spec, "volumeMode", "Filesystem");
        fill(spec, "resources", json!({}));
        // The older of the two ways to name a data source is kept in step with the newer one.
        match (at(spec, &["dataSource"]).cloned(), at(spec, &["dataSourceRef"]).cloned()) {
            (Some(source), None) => set(spec, "dataSourceRef", source),
            (None, Some(reference)) if !is_set(&reference, &["namespace"]) => set(spec, "dataSource", reference),
            _ => {}
        }
    }
}

/// The warning about an object that names its class in the old way.
pub(super) fn class_warning(object: &Value) -> Option<String> {
    let is_annotated = at(object, &["metadata", "annotations", ANNOTATED_CLASS]).is_some();
    is_annotated.then(|| {
        format!(
            "metadata.annotations[{ANNOTATED_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        )
    })
}

/// `<unset>` for empty text.
pub(super) fn or_unset(text: &str) -> &str {
    if text.is_empty() { "<unset>" } else { text }
}

/// The class of a volume or claim, which an old annotation may name too.
pub(super) fn storage_class(object: &Value) -> &str {
    match text(object, &["metadata", "annotations", ANNOTATED_CLASS]) {
        "" => text(object, &["spec", "storageClassName"]),
        class => class,
    }
}

/// Access modes in their short form, each once, in upstream's order.
pub(super) fn access_modes(object: &Value, path: &[&str]) -> String {
    const SHORT: &[(&str, &str)] =
        &[("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let short: Vec<&str> =
        SHORT.iter().filter(|(mode, _)| texts(object, path).any(|own| own == *mode)).map(|(_, short)| *short).collect();
    short.join(",")
}

/// What is wrong with access modes.
pub(super) fn access_mode_errors(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    let path = path.child("accessModes");
    texts(spec, &["accessModes"]).for_each(|mode| path.one_of(errors, mode, MODES));
    let single = texts(spec, &["accessModes"]).any(|mode| mode == "ReadWriteOncePod");
    let other = texts(spec, &["accessModes"]).any(|mode| MODES[..3].contains(&mode));
    if single && other {
        path.forbidden(errors, "may not use ReadWriteOncePod with other access modes");
    }
}

/// What is wrong with the spec of a claim.
pub(crate) fn validate_claim_spec(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !is_set(spec, &["accessModes"]) {
        path.child("accessModes").required(errors, "at least 1 access mode is required");
    }
    if let Some(selector) = at(spec, &["selector"]) {
        label_selector_errors(selector, &path.child("selector"), errors);
    }
    access_mode_errors(spec, path, errors);
    let resources = path.child("resources");
    match at(spec, &["resources", "requests", "storage"]) {
        None => resources.key("storage").required(errors, ""),
        Some(size) => {
            let positive = size.as_str().and_then(|size| size.parse::<Quantity>().ok());
            if positive.is_some_and(|size| size <= Quantity::ZERO) {
                resources.key("storage").invalid(errors, size.clone(), "must be greater than zero");
            }
        }
    }
    for field in ["storageClassName", "volumeAttributesClassName"] {
        let class = text(spec, &[field]);
        if !class.is_empty() {
            path.child(field).check(errors, class, formats::subdomain(class));
        }
    }
    if let Some(mode) = at(spec, &["volumeMode"]).and_then(Value::as_str) {
        path.child("volumeMode").one_of(errors, mode, &["Block", "Filesystem"]);
    }
    for field in ["dataSource", "dataSourceRef"] {
        let Some(source) = at(spec, &[field]) else { continue };
        for part in ["name", "kind"].iter().filter(|part| text(source, &[part]).is_empty()) {
            path.child(field).child(part).required(errors, "");
        }
    }
}

/// Whether nothing changed that may not change.
fn same_spec(new: &Value, old: &Value) -> bool {
    let bound = text(new, &["status", "phase"]) == "Bound";
    let strip = |claim: &Value| -> Map<String, Value> {
        let mut spec = claim["spec"].as_object().cloned().unwrap_or_default();
        if !is_set(old, &["spec", "volumeName"]) {
            spec.remove("volumeName");
        }
        // A claim that had no class may be given the default one later.
        if at(old, &["spec", "storageClassName"]).is_none() {
            spec.remove("storageClassName");
        }
        if bound {
            spec.remove("volumeAttributesClassName");
            if let Some(requests) = spec.get_mut("resources").and_then(|resources| resources.get_mut("requests")) {
                remove(requests, "storage");
            }
        }
        spec
    };
    strip(new) == strip(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Value {
        let mut claim = json!({"metadata": {"name": "data", "namespace": "default"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        PersistentVolumeClaim.default(&mut claim);
        claim
    }

    #[test]
    fn specs_are_checked() {
        let check = |spec: Value, expected: &[&str]| {
            let mut errors = Vec::new();
            validate_claim_spec(&spec, &SPEC, &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check(claim()["spec"].clone(), &[]);
        check(
            json!({}),
            &[
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ],
        );
        check(
            json!({"accessModes": ["ReadWriteOncePod", "ReadWriteMany"], "resources": {"requests": {"storage": "0"}}}),
            &[
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                "spec.resources[storage]: Invalid value: \"0\": must be greater than zero",
            ],
        );
    }

    #[test]
    fn only_bound_claims_grow() {
        for (phase, size, refused) in [("Pending", "2Gi", true), ("Bound", "2Gi", false), ("Bound", "1Mi", true)] {
            let mut old = claim();
            old["status"] = json!({"phase": phase, "capacity": {"storage": "1Gi"}});
            let mut new = old.clone();
            new["spec"]["resources"]["requests"]["storage"] = json!(size);
            let mut errors = Vec::new();
            PersistentVolumeClaim.validate_update(&new, &old, &mut errors);
            assert_eq!(!errors.is_empty(), refused, "{phase} {size}: {errors:?}");
        }
    }

    #[test]
    fn rows() {
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let mut object = claim();
        let expected = json!(["data", "Pending", "", "", "", "", "<unset>", "<unknown>", "Filesystem"]);
        assert_eq!(Value::from(PersistentVolumeClaim.row(&object, now)), expected);
        object["spec"]["volumeName"] = json!("pv1");
        object["spec"]["storageClassName"] = json!("fast");
        object["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]});
        let expected = json!(["data", "Bound", "pv1", "1Gi", "RWO", "fast", "<unset>", "<unknown>", "Filesystem"]);
        assert_eq!(Value::from(PersistentVolumeClaim.row(&object, now)), expected);
    }
}
