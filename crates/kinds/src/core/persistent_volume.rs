//! PersistentVolumes.

use jiff::Timestamp;
use kedge_meta::{FieldError, Quantity};
use serde_json::{Map, Value, json};

use super::persistent_volume_claim::{access_mode_errors, access_modes, class_warning, or_unset, storage_class};
use crate::formats;
use crate::path::Path;
use crate::pod_spec::node_selector_errors;
use crate::strategy::{Column, Strategy, WriteContext};
use crate::table::{AGE, NAME, age, column, name, wide};
use crate::value::{at, at_mut, child, entries, fill, fill_text, is_set, map, set, text};

/// Of persistentvolumes.
pub(super) struct PersistentVolume;

const SPEC: Path<'static> = Path::root("spec");

const COLUMNS: &[Column] = &[
    NAME,
    column("Capacity", "string", "Size of the volume"),
    column("Access Modes", "string", "How it may be mounted"),
    column("Reclaim Policy", "string", "What happens to it after its claim is gone"),
    column("Status", "string", "Phase of the volume"),
    column("Claim", "string", "Claim that it is bound to"),
    column("StorageClass", "string", "Class of the volume"),
    column("VolumeAttributesClass", "string", "Class of its attributes"),
    column("Reason", "string", "Why it is in its phase"),
    AGE,
    wide("VolumeMode", "string", "File system or block device"),
];

/// Fields of the spec that are no volume source.
const NO_SOURCE: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

impl Strategy for PersistentVolume {
    fn default(&self, object: &mut Value) {
        if let Some(status) = child(object, "status") {
            fill_text(status, "phase", "Pending");
        }
        let Some(spec) = child(object, "spec") else { return };
        fill_text(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill(spec, "volumeMode", "Filesystem");
        if let Some(host_path) = at_mut(spec, &["hostPath"]) {
            fill(host_path, "type", "");
        }
    }

    fn prepare_create(&self, object: &mut Value, context: &WriteContext<'_>) {
        let now = kedge_meta::format_time(context.now);
        set(object, "status", json!({"phase": "Pending", "lastPhaseTransitionTime": now}));
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = &object["spec"];
        if !is_set(spec, &["accessModes"]) {
            SPEC.child("accessModes").required(errors, "");
        }
        access_mode_errors(spec, &SPEC, errors);
        capacity(spec, errors);
        let policy = text(spec, &["persistentVolumeReclaimPolicy"]);
        if !policy.is_empty() {
            SPEC.child("persistentVolumeReclaimPolicy").one_of(errors, policy, &["Delete", "Recycle", "Retain"]);
        }
        if let Some(required) = at(spec, &["nodeAffinity", "required"]) {
            let affinity = SPEC.child("nodeAffinity");
            node_selector_errors(required, &affinity.child("required"), errors);
        }
        source(spec, errors);
        let class = text(spec, &["storageClassName"]);
        if !class.is_empty() {
            SPEC.child("storageClassName").check(errors, class, formats::subdomain(class));
        }
        if let Some(mode) = at(spec, &["volumeMode"]).and_then(Value::as_str) {
            SPEC.child("volumeMode").one_of(errors, mode, &["Block", "Filesystem"]);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        let sources = |volume: &Value| -> Map<String, Value> {
            let spec = volume["spec"].as_object().cloned().unwrap_or_default();
            spec.into_iter().filter(|(field, _)| !NO_SOURCE.contains(&field.as_str())).collect()
        };
        if sources(new) != sources(old) {
            let why = "spec.persistentvolumesource is immutable after creation\n";
            SPEC.child("persistentvolumesource").forbidden(errors, why);
        }
        Path::root("volumeMode").immutable(errors, at(new, &["spec", "volumeMode"]), at(old, &["spec", "volumeMode"]));
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings: Vec<String> = class_warning(new).into_iter().collect();
        if text(new, &["spec", "persistentVolumeReclaimPolicy"]) == "Recycle" {
            let why = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic \
                       provisioning.";
            warnings.push(format!("spec.persistentVolumeReclaimPolicy: {why}"));
        }
        warnings
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let claim = at(spec, &["claimRef"])
            .map(|claim| format!("{}/{}", text(claim, &["namespace"]), text(claim, &["name"])))
            .unwrap_or_default();
        let phase = match is_set(object, &["metadata", "deletionTimestamp"]) {
            true => "Terminating",
            false => text(object, &["status", "phase"]),
        };
        let size = text(spec, &["capacity", "storage"]);
        vec![
            name(object),
            Value::from(if size.is_empty() { "0" } else { size }),
            Value::from(access_modes(spec, &["accessModes"])),
            Value::from(text(spec, &["persistentVolumeReclaimPolicy"])),
            Value::from(phase),
            Value::from(claim),
            Value::from(storage_class(object)),
            Value::from(or_unset(text(spec, &["volumeAttributesClassName"]))),
            Value::from(text(object, &["status", "reason"])),
            age(object, now),
            Value::from(or_unset(text(spec, &["volumeMode"]))),
        ]
    }
}

fn capacity(spec: &Value, errors: &mut Vec<FieldError>) {
    let path = SPEC.child("capacity");
    if !is_set(spec, &["capacity"]) {
        path.required(errors, "");
    }
    let amounts = map(spec, &["capacity"]);
    if amounts.is_none_or(|amounts| amounts.len() != 1 || !amounts.contains_key("storage")) {
        let value = amounts.map_or(Value::Null, |amounts| Value::Object(amounts.clone()));
        errors.push(FieldError::not_supported_in_order(&path.build(), &value, &["storage"]));
    }
    for (resource, amount) in entries(spec, &["capacity"]) {
        let parsed = amount.as_str().and_then(|amount| amount.parse::<Quantity>().ok());
        if parsed.is_some_and(|amount| amount <= Quantity::ZERO) {
            path.key(resource).invalid(errors, amount.clone(), "must be greater than zero");
        }
    }
}

fn source(spec: &Value, errors: &mut Vec<FieldError>) {
    let mut sources = entries(spec, &[]).filter(|(field, _)| !NO_SOURCE.contains(&field.as_str()));
    match sources.next() {
        None => SPEC.required(errors, "must specify a volume type"),
        Some((kind, source)) if matches!(kind.as_str(), "hostPath" | "local") && text(source, &["path"]).is_empty() => {
            SPEC.child(kind).child("path").required(errors, "");
        }
        Some((kind, source)) if kind == "csi" => {
            for field in ["driver", "volumeHandle"].iter().filter(|field| text(source, &[field]).is_empty()) {
                SPEC.child("csi").child(field).required(errors, "");
            }
        }
        Some(_) => {}
    }
    for (kind, _) in sources {
        SPEC.child(kind).forbidden(errors, "may not specify more than 1 volume type");
    }
    if at(spec, &["local"]).is_some() && at(spec, &["nodeAffinity", "required"]).is_none() {
        SPEC.child("nodeAffinity").required(errors, "Local volume requires node affinity");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_need_one_source() {
        let check = |spec: Value, expected: &[&str]| {
            let mut errors = Vec::new();
            PersistentVolume.validate_create(&json!({"spec": spec}), &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        let base = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}});
        let with = |extra: Value| {
            let mut spec = base.clone();
            spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            spec
        };
        check(with(json!({"hostPath": {"path": "/data"}})), &[]);
        check(base.clone(), &["spec: Required value: must specify a volume type"]);
        check(
            with(json!({"hostPath": {"path": "/data"}, "nfs": {}})),
            &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
        );
        check(
            with(json!({"local": {"path": "/data"}})),
            &["spec.nodeAffinity: Required value: Local volume requires node affinity"],
        );
    }

    #[test]
    fn old_ways_are_warned_about() {
        let volume = json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "a"}},
                            "spec": {"persistentVolumeReclaimPolicy": "Recycle"}});
        assert_eq!(
            PersistentVolume.warnings(&volume, None),
            [
                "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \
                 \"storageClassName\" attribute instead",
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended \
                 approach is to use dynamic provisioning.",
            ]
        );
        assert!(PersistentVolume.warnings(&json!({"spec": {}}), None).is_empty());
    }
}
