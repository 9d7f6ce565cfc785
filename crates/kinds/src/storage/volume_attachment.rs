//! VolumeAttachments: the spec never changes.

use std::borrow::Cow;

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::formats;
use crate::path::Path;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{at, child, entries, fill, int, items, text, truth};
use crate::workload::SPEC;

/// Of volumeattachments.
pub(super) struct VolumeAttachment;

/// Upstream gives this column the format of names too.
const ATTACHER: Column = Column {
    name: Cow::Borrowed("Attacher"),
    kind: Cow::Borrowed("string"),
    format: Cow::Borrowed("name"),
    description: Cow::Borrowed("Driver that attaches it"),
    priority: 0,
};

const COLUMNS: &[Column] = &[
    NAME,
    ATTACHER,
    column("PV", "string", "Volume"),
    column("Node", "string", "Node"),
    column("Attached", "boolean", "Whether it is attached"),
    AGE,
];

/// The longest text of an error, and the largest metadata of an attachment.
const LONGEST_MESSAGE: usize = 1024;
const LARGEST_METADATA: usize = 256 * 1024;

fn inline_spec(object: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let spec = &object["spec"]["source"]["inlineVolumeSpec"];
    if at(spec, &["claimRef"]).is_some() {
        path.child("claimRef").forbidden(errors, "may not be specified in the context of inline volumes");
    }
    if entries(spec, &["capacity"]).next().is_some() {
        path.child("capacity").forbidden(errors, "may not be specified in the context of inline volumes");
    }
    if at(spec, &["csi"]).is_none() {
        path.child("csi").required(errors, "has to be specified in the context of inline volumes");
    }
    if items(spec, &["accessModes"]).is_empty() {
        path.child("accessModes").required(errors, "");
    }
}

fn status(object: &Value, errors: &mut Vec<FieldError>) {
    let path = Path::root("status");
    let length = |(key, value): (&String, &Value)| key.len() + value.as_str().unwrap_or_default().len();
    let size: usize = entries(object, &["status", "attachmentMetadata"]).map(length).sum();
    if size > LARGEST_METADATA {
        path.child("attachmentMetadata").too_long(errors, LARGEST_METADATA);
    }
    for field in ["attachError", "detachError"] {
        let path = path.child(field);
        if text(object, &["status", field, "message"]).len() > LONGEST_MESSAGE {
            // Upstream names the other limit, too.
            path.child("message").too_long(errors, LARGEST_METADATA);
        }
        if let Some(code) = int(object, &["status", field, "errorCode"]).filter(|code| *code < 0) {
            path.child("errorCode").invalid(errors, code, "must be between 0 and 2147483647, inclusive");
        }
    }
}

/// What holds for attachments of every version, and for changes too.
fn attachment(object: &Value, errors: &mut Vec<FieldError>) {
    if text(object, &["spec", "attacher"]).is_empty() {
        SPEC.child("attacher").required(errors, "");
    }
    let source = SPEC.child("source");
    let volume = at(object, &["spec", "source", "persistentVolumeName"]).and_then(Value::as_str);
    let inline = at(object, &["spec", "source", "inlineVolumeSpec"]).is_some();
    match (inline, volume) {
        (false, None) => {
            source.required(errors, "must specify exactly one of inlineVolumeSpec and persistentVolumeName")
        }
        (true, Some(_)) => {
            source.forbidden(errors, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
        }
        (false, Some("")) => {
            source.child("persistentVolumeName").required(errors, "must specify non empty persistentVolumeName")
        }
        (false, Some(_)) => {}
        (true, None) => inline_spec(object, &source.child("inlineVolumeSpec"), errors),
    }
    let node = text(object, &["spec", "nodeName"]);
    SPEC.child("nodeName").check(errors, node, formats::subdomain(node));
    status(object, errors);
}

impl Strategy for VolumeAttachment {
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        if let Some(status) = child(object, "status") {
            fill(status, "attached", false);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        attachment(object, errors);
        super::csi::driver_name(&SPEC.child("attacher"), text(object, &["spec", "attacher"]), errors);
        if let Some(name) = at(object, &["spec", "source", "persistentVolumeName"]).and_then(Value::as_str) {
            SPEC.child("source").child("persistentVolumeName").check(errors, name, formats::subdomain(name));
        }
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        status(new, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        attachment(new, errors);
        if at(new, &["spec"]) != at(old, &["spec"]) {
            Path::root("spec").invalid(errors, new["spec"].clone(), "field is immutable");
        }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let cell = |path: &[&str]| Value::from(text(object, path));
        vec![
            name(object),
            cell(&["spec", "attacher"]),
            cell(&["spec", "source", "persistentVolumeName"]),
            cell(&["spec", "nodeName"]),
            Value::from(truth(object, &["status", "attached"])),
            age(object, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn attachments_name_one_volume_and_never_change() {
        let check = |spec: Value, expected: &[&str]| {
            let mut errors = Vec::new();
            VolumeAttachment.validate_create(&json!({"spec": spec}), &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        let with = |source: Value| json!({"attacher": "d.io", "nodeName": "n", "source": source});
        check(with(json!({"persistentVolumeName": "pv"})), &[]);
        let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        check(with(json!({})), &[&format!("spec.source: Required value: {one}")]);
        let both = json!({"persistentVolumeName": "pv", "inlineVolumeSpec": {"csi": {}}});
        check(with(both), &[&format!("spec.source: Forbidden: {one}")]);
        let inline = json!({"inlineVolumeSpec": {"claimRef": {}, "nfs": {}}});
        check(
            with(inline),
            &[
                "spec.source.inlineVolumeSpec.claimRef: Forbidden: may not be specified in the context of inline volumes",
                "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
                "spec.source.inlineVolumeSpec.accessModes: Required value",
            ],
        );
        let mut nobody = with(json!({"persistentVolumeName": "pv"}));
        nobody["attacher"] = json!("");
        let mut errors = Vec::new();
        VolumeAttachment.validate_create(&json!({"spec": nobody}), &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let start = "spec.attacher: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of";
        assert!(texts[0] == "spec.attacher: Required value" && texts[2].starts_with(start), "{texts:?}");
        let old = json!({"spec": with(json!({"persistentVolumeName": "pv"}))});
        let mut new = old.clone();
        new["spec"]["nodeName"] = json!("m");
        new["status"] = json!({"attachError": {"message": "x".repeat(2000), "errorCode": -1}});
        let mut errors = Vec::new();
        VolumeAttachment.validate_update(&new, &old, &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts[0], "status.attachError.message: Too long: may not be more than 262144 bytes");
        let range = "status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive";
        assert_eq!(texts[1], range);
        assert!(texts[2].starts_with("spec: Invalid value: ") && texts[2].ends_with("field is immutable"), "{texts:?}");
    }
}
