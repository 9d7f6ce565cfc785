//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction; and who asked for a certificate.
//!
//! Invariant: nobody can make a request in another's name, approve or sign for a signer without the right to, or ask for
//! a client certificate of `system:masters`.

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kedge_auth::{Attributes as Question, ResourceAttributes};
use kedge_meta::ApiStatus;
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::{Attributes, Operation, Plugin};
use crate::object;

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

#[derive(Debug, Default)]
pub(super) struct Certificates;

#[async_trait]
impl Plugin for Certificates {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.resource.is("certificates.k8s.io", "certificatesigningrequests")
            && matches!(attributes.operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, attributes: &Attributes<'_>, request: &mut Value) -> Result<(), ApiStatus> {
        if attributes.operation == Operation::Create {
            sign_for(request, attributes.user);
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>, request: &Value) -> Result<(), ApiStatus> {
        match (attributes.operation, attributes.subresource) {
            (Operation::Create, "") => check_subject(attributes, request),
            (Operation::Update, "approval") => check_right(attributes, "approve").await,
            (Operation::Update, "status") => {
                let certificate = |object: &Value| object::at(object, &["status", "certificate"]).cloned();
                let failed = |object: &Value| {
                    let conditions = object::list(object, &["status", "conditions"]);
                    conditions.iter().filter(|condition| condition["type"] == "Failed").count()
                };
                let old = attributes.old.unwrap_or(&Value::Null);
                if certificate(old) == certificate(request) && failed(old) == failed(request) {
                    return Ok(());
                }
                check_right(attributes, "sign").await
            }
            _ => Ok(()),
        }
    }
}

/// Who asks stands in the request, whatever the client wrote there.
fn sign_for(request: &mut Value, user: &kedge_meta::UserInfo) {
    let spec = object::child_mut(request, "spec");
    for field in ["username", "uid", "groups", "extra"] {
        spec.remove(field);
    }
    spec.insert("username".to_owned(), json!(user.username));
    if !user.uid.is_empty() {
        spec.insert("uid".to_owned(), json!(user.uid));
    }
    if !user.groups.is_empty() {
        spec.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".to_owned(), json!(user.extra));
    }
}

fn check_subject(attributes: &Attributes<'_>, request: &Value) -> Result<(), ApiStatus> {
    if object::text(request, &["spec", "signerName"]) != CLIENT_SIGNER {
        return Ok(());
    }
    let is_master = |subject: Subject| subject.organizations.iter().any(|name| name == "system:masters");
    if subject_of(request).is_ok_and(is_master) {
        let why = format!("use of {CLIENT_SIGNER} signer with system:masters group is not allowed");
        return Err(attributes.forbidden(&why));
    }
    Ok(())
}

/// Whom a certificate is asked for.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
}

/// The subject of a CertificateSigningRequest.
pub(super) fn subject_of(request: &Value) -> Result<Subject, String> {
    let pem = STANDARD.decode(object::text(request, &["spec", "request"])).unwrap_or_default();
    let text = String::from_utf8_lossy(&pem);
    if !text.contains("CERTIFICATE REQUEST-----") {
        return Err("PEM block type must be CERTIFICATE REQUEST".to_owned());
    }
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let der = STANDARD.decode(body).map_err(|error| error.to_string())?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|error| error.to_string())?;
    let subject = &request.certification_request_info.subject;
    let organizations = subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect();
    let common_name = subject.iter_common_name().filter_map(|name| name.as_str().ok()).last();
    Ok(Subject { common_name: common_name.unwrap_or_default().to_owned(), organizations })
}

/// The right to act for a signer: by its name, or for its whole domain.
async fn check_right(attributes: &Attributes<'_>, verb: &str) -> Result<(), ApiStatus> {
    let signer = attributes.old.map_or("", |old| object::text(old, &["spec", "signerName"]));
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    for name in [signer.to_owned(), format!("{domain}/*")] {
        let (group, version, resource) = ("certificates.k8s.io", "*", "signers");
        let asked = ResourceAttributes { group, version, resource, name: &name, ..ResourceAttributes::default() };
        let question = Question { user: attributes.user, verb, resource: Some(asked), path: "" };
        if attributes.core.access.decide(&question).await?.is_allowed() {
            return Ok(());
        }
    }
    let why = format!("user not permitted to {verb} requests with signerName \"{signer}\"");
    Err(attributes.forbidden(&why))
}
