//! CertificateSigningRequests.
//!
//! Who asks (`spec.username`, `uid`, `groups`, `extra`) is the API server's to set from the request's user. Not checked
//! here: whether `spec.request` is a certificate request. The invariant: a spec never changes, and only `approval` changes
//! whether it is approved.

use jiff::Timestamp;
use kedge_meta::FieldError;
use serde_json::Value;

use crate::path::Path;
use crate::strategy::{Column, NameRule, Strategy};
use crate::table::{AGE, NAME, age, column, human_duration, name, or_none};
use crate::value::{at, child, int, is_set, items, keep, remove, set, text, texts};
use crate::workload::SPEC;

/// Of certificatesigningrequests.
pub(super) struct CertificateSigningRequest;

const COLUMNS: &[Column] = &[
    NAME,
    AGE,
    column("SignerName", "string", "Signer that is asked"),
    column("Requestor", "string", "User who asks"),
    column("RequestedDuration", "string", "How long the certificate should be valid"),
    column("Condition", "string", "Whether it is approved, denied, failed or issued"),
];

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

impl Strategy for CertificateSigningRequest {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
    }

    fn prepare_subresource_update(&self, subresource: &str, new: &mut Value, old: &Value) {
        match subresource {
            "status" => {
                // Whether it is approved is kept as it was; everything else of the status may change.
                let kept = items(old, &["status", "conditions"]).iter().filter(|one| is_decision(one));
                let others = items(new, &["status", "conditions"]).iter().filter(|one| !is_decision(one));
                let conditions: Vec<Value> = kept.chain(others).cloned().collect();
                if let Some(status) = child(new, "status") {
                    match conditions.is_empty() {
                        true => drop(remove(status, "conditions")),
                        false => set(status, "conditions", conditions),
                    }
                }
            }
            "approval" => {
                keep(new, old, "spec");
                let conditions = at(new, &["status", "conditions"]).cloned();
                keep(new, old, "status");
                if let (Some(conditions), Some(status)) = (conditions, child(new, "status")) {
                    set(status, "conditions", conditions);
                }
            }
            _ => {}
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        if !is_set(object, &["spec", "request"]) {
            SPEC.child("request").invalid(errors, "", "PEM block type must be CERTIFICATE REQUEST");
        }
        if !is_set(object, &["spec", "usages"]) {
            SPEC.child("usages").required(errors, "");
        }
        let usages: Vec<&str> = texts(object, &["spec", "usages"]).collect();
        for (index, usage) in usages.iter().enumerate() {
            let list = SPEC.child("usages");
            list.index(index).one_of(errors, usage, USAGES);
            if usages[..index].contains(usage) {
                list.index(index).duplicate(errors, *usage);
            }
        }
        signer(text(object, &["spec", "signerName"]), errors);
        if let Some(seconds) = int(object, &["spec", "expirationSeconds"]).filter(|seconds| *seconds < 600) {
            let why = "may not specify a duration less than 600 seconds (10 minutes)";
            SPEC.child("expirationSeconds").invalid(errors, seconds, why);
        }
        conditions(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_create(new, errors);
        for kind in ["Approved", "Denied", "Failed"] {
            let of = |object: &Value| -> Option<Value> {
                items(object, &["status", "conditions"]).iter().find(|one| text(one, &["type"]) == kind).cloned()
            };
            if of(old).is_some() && of(new).is_none() {
                let status = Path::root("status");
                let why = format!("updates may not remove a condition of type {kind:?}");
                status.child("conditions").forbidden(errors, &why);
            }
        }
    }

    fn validate_subresource_update(&self, subresource: &str, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate_update(new, old, errors);
        let certificate = |object: &'_ Value| at(object, &["status", "certificate"]).cloned();
        if subresource == "status" && is_set(old, &["status", "certificate"]) && certificate(new) != certificate(old) {
            let status = Path::root("status");
            status.child("certificate").forbidden(errors, "updates may not change existing certificate content");
        }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let duration = int(object, &["spec", "expirationSeconds"]).map(human_duration);
        vec![
            name(object),
            age(object, now),
            Value::from(or_none(text(object, &["spec", "signerName"]))),
            Value::from(text(object, &["spec", "username"])),
            Value::from(duration.unwrap_or_else(|| "<none>".to_owned())),
            Value::from(condition(object)),
        ]
    }

    fn fields(&self) -> &[&str] {
        &["spec.signerName"]
    }
}

fn is_decision(condition: &Value) -> bool {
    matches!(text(condition, &["type"]), "Approved" | "Denied")
}

fn signer(name: &str, errors: &mut Vec<FieldError>) {
    let path = SPEC.child("signerName");
    match name.split_once('/') {
        _ if name.is_empty() => path.required(errors, ""),
        None => path.invalid(
            errors,
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
        Some((domain, rest)) => {
            path.check(errors, name, crate::formats::subdomain(domain));
            if rest.is_empty()
                || !rest.split(['.', '/']).all(|part| crate::formats::label(&part.to_lowercase()).is_empty())
            {
                path.invalid(errors, name, "validating signer name: path component must be a valid subdomain");
            }
        }
    }
}

fn conditions(object: &Value, errors: &mut Vec<FieldError>) {
    let status = Path::root("status");
    let list = status.child("conditions");
    let conditions = items(object, &["status", "conditions"]);
    let has = |kind: &str| conditions.iter().any(|condition| text(condition, &["type"]) == kind);
    for (index, condition) in conditions.iter().enumerate() {
        let path = list.index(index);
        let (kind, value) = (text(condition, &["type"]), text(condition, &["status"]));
        if kind.is_empty() {
            path.child("type").required(errors, "");
        }
        match kind {
            "Approved" | "Denied" | "Failed" => path.child("status").required_one_of(errors, value, &["True"]),
            _ => path.child("status").required_one_of(errors, value, &["False", "True", "Unknown"]),
        }
        if conditions[..index].iter().any(|earlier| text(earlier, &["type"]) == kind) {
            path.child("type").duplicate(errors, kind);
        }
    }
    if has("Approved") && has("Denied") {
        list.invalid(errors, "Denied", "Approved and Denied conditions are mutually exclusive");
    }
}

fn condition(object: &Value) -> String {
    let conditions = items(object, &["status", "conditions"]);
    let has = |kind: &str| conditions.iter().any(|condition| text(condition, &["type"]) == kind);
    let mut shown = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        shown.push_str(",Failed");
    }
    if is_set(object, &["status", "certificate"]) {
        shown.push_str(",Issued");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request() -> Value {
        json!({"metadata": {"name": "ann"}, "spec": {"request": "AA==", "usages": ["client auth"],
            "signerName": "kubernetes.io/kube-apiserver-client", "username": "ann"}})
    }

    #[test]
    fn requests_are_checked() {
        let check = |change: &dyn Fn(&mut Value), expected: &[&str]| {
            let mut object = request();
            change(&mut object["spec"]);
            let mut errors = Vec::new();
            CertificateSigningRequest.validate_create(&object, &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check(&|_| {}, &[]);
        check(&|spec| spec["usages"] = json!([]), &["spec.usages: Required value"]);
        check(
            &|spec| spec["signerName"] = json!("mine"),
            &["spec.signerName: Invalid value: \"mine\": must be a fully qualified domain and path of the form \
               'example.com/signer-name'"],
        );
    }

    #[test]
    fn only_approval_decides() {
        let kind = crate::builtin("certificates.k8s.io", "v1", "CertificateSigningRequest").unwrap();
        let old = request();
        let mut new = old.clone();
        new["status"] = json!({"certificate": "AA==", "conditions": [{"type": "Approved", "status": "True"}]});
        let mut by_status = new.clone();
        kind.prepare_update(&mut by_status, &old, "status");
        assert_eq!(condition(&by_status), "Pending,Issued");
        let mut by_approval = new.clone();
        kind.prepare_update(&mut by_approval, &old, "approval");
        assert_eq!(condition(&by_approval), "Approved");
    }
}
