//! The kinds of `certificates.k8s.io`.

mod certificate_signing_request;

use jiff::Timestamp;
use serde_json::Value;

use crate::generic::{Generic, Printed};
use crate::strategy::{Column, NameRule, Strategy};
use crate::table::{NAME, column, name, or_none};
use crate::value::{items, text};

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "certificatesigningrequests" => &certificate_signing_request::CertificateSigningRequest,
        "clustertrustbundles" => &Printed {
            generic: Generic { name_rule: NameRule::PathSegment, unconditional_update: false, ..Generic::PLAIN },
            columns: BUNDLE_COLUMNS,
            row: bundle_row,
        },
        "podcertificaterequests" => &Printed { generic: Generic::PLAIN, columns: POD_COLUMNS, row: pod_row },
        _ => &Generic::PLAIN,
    }
}

const BUNDLE_COLUMNS: &[Column] = &[NAME, column("SignerName", "string", "Signer that the bundle is of")];

const POD_COLUMNS: &[Column] = &[
    NAME,
    column("PodName", "string", "Pod that asks"),
    column("ServiceAccountName", "string", "Service account of the pod"),
    column("NodeName", "string", "Node of the pod"),
    column("SignerName", "string", "Signer that is asked"),
    column("State", "string", "Whether it is issued, denied or failed"),
];

fn bundle_row(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![name(object), Value::from(or_none(text(object, &["spec", "signerName"])))]
}

fn pod_row(object: &Value, _now: Timestamp) -> Vec<Value> {
    let cell = |field: &str| Value::from(text(object, &["spec", field]));
    let known = |condition: &Value| match text(condition, &["type"]) {
        "Issued" => Some("Issued"),
        "Denied" => Some("Denied"),
        "Failed" => Some("Failed"),
        _ => None,
    };
    let state = items(object, &["status", "conditions"]).iter().filter_map(known).next_back().unwrap_or("Pending");
    vec![
        name(object),
        cell("podName"),
        cell("serviceAccountName"),
        cell("nodeName"),
        cell("signerName"),
        Value::from(state),
    ]
}
