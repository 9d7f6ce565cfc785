//! A certificate that the cluster is asked for: the request posted, its answer waited for.
//!
//! Invariant: the certificate that comes back is for the key that was made here.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kedge_client::Client;
use kedge_pki::{CertificateFacts, Identity, LeafRequest, PendingIdentity};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::wait::await_condition;

use crate::error::BootstrapError;

/// Who signs client certificates of kubelets.
pub const KUBELET_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Who signs serving certificates of kubelets.
pub const KUBELET_SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
/// Who signs client certificates of anybody.
pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// How long one request is waited for before another is made.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct SigningRequest {
    /// The request's name begins with it.
    pub name_prefix: &'static str,
    /// Who is to sign.
    pub signer: &'static str,
    /// The subject.
    pub subject: LeafRequest,
    /// What the certificate is for, in upstream's words.
    pub usages: Vec<&'static str>,
}

impl SigningRequest {
    /// For a kubelet's client certificate.
    pub fn kubelet_client(node_name: &str) -> Self {
        Self {
            name_prefix: "node-csr-",
            signer: KUBELET_CLIENT_SIGNER,
            subject: LeafRequest::client(&format!("system:node:{node_name}"), &["system:nodes"]),
            usages: vec!["digital signature", "client auth"],
        }
    }

    /// For a kubelet's serving certificate.
    pub fn kubelet_serving(node_name: &str, addresses: Vec<std::net::IpAddr>) -> Self {
        let subject = LeafRequest::server(&format!("system:node:{node_name}"), vec![node_name.to_owned()], addresses);
        Self {
            name_prefix: "csr-",
            signer: KUBELET_SERVING_SIGNER,
            subject: LeafRequest { organizations: vec!["system:nodes".to_owned()], ..subject },
            usages: vec!["digital signature", "server auth"],
        }
    }

    /// Makes a key, asks, and waits until the certificate is there or refused.
    pub async fn obtain(&self, client: &Client) -> Result<Identity, BootstrapError> {
        let pending = PendingIdentity::new(&self.subject)?;
        let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
        let what = "cannot create certificate signing request";
        let posted = requests.create(&PostParams::default(), &self.object(&pending)).await;
        let posted = posted.map_err(BootstrapError::api(what))?;
        let name = posted.metadata.name.unwrap_or_default();
        tracing::info!(request = name, "waiting for a certificate");
        let decided = await_condition(requests, &name, |request: Option<&CertificateSigningRequest>| {
            request.is_none_or(|request| decision(request).is_some())
        });
        let decided = tokio::time::timeout(PATIENCE, decided).await.map_err(|_| {
            BootstrapError::Refused(format!(
                "timed out waiting for the certificate signing request {name:?} to be signed"
            ))
        })?;
        let request = decided.map_err(|error| BootstrapError::Refused(format!("cannot watch {name:?}: {error}")))?;
        match request.as_ref().and_then(decision) {
            Some(Ok(certificate_pem)) => self.checked(&name, certificate_pem, pending.key_pem),
            Some(Err(why)) => Err(BootstrapError::Refused(format!("certificate signing request {name:?} {why}"))),
            None => Err(BootstrapError::Refused(format!("certificate signing request {name:?} was deleted"))),
        }
    }

    fn object(&self, pending: &PendingIdentity) -> CertificateSigningRequest {
        CertificateSigningRequest {
            metadata: ObjectMeta { generate_name: Some(self.name_prefix.to_owned()), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(pending.request_pem.clone().into_bytes()),
                signer_name: self.signer.to_owned(),
                usages: Some(self.usages.iter().map(|&usage| usage.to_owned()).collect()),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        }
    }

    /// A signer may change its mind about names; what it gives must be for us, and now.
    fn checked(&self, name: &str, certificate_pem: String, key_pem: String) -> Result<Identity, BootstrapError> {
        let refuse = |why: String| BootstrapError::Refused(format!("the certificate of {name:?} is not usable: {why}"));
        let facts = CertificateFacts::read(&certificate_pem).map_err(refuse)?;
        if facts.common_name != self.subject.common_name {
            return Err(refuse(format!("it is for {:?}", facts.common_name)));
        }
        if facts.has_expired(Timestamp::now()) {
            return Err(refuse(
                "it has expired; are the clocks of this machine and the control plane the same?".to_owned(),
            ));
        }
        let identity = Identity { certificate_pem, key_pem };
        identity.check().map_err(refuse)?;
        Ok(identity)
    }
}

/// The certificate, or why there will be none; `None` while that is open.
fn decision(request: &CertificateSigningRequest) -> Option<Result<String, String>> {
    let status = request.status.as_ref()?;
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let negative = conditions.iter().find(|condition| ["Denied", "Failed"].contains(&condition.type_.as_str()));
    if let Some(condition) = negative {
        let verb = if condition.type_ == "Denied" { "was denied" } else { "failed" };
        let (reason, message) = (condition.reason.as_deref(), condition.message.as_deref());
        return Some(Err(format!("{verb}, reason: {:?}, message: {:?}", reason.unwrap_or(""), message.unwrap_or(""))));
    }
    let certificate = status.certificate.as_ref().filter(|certificate| !certificate.0.is_empty())?;
    Some(String::from_utf8(certificate.0.clone()).map_err(|_| "has a certificate that is no text".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::certificates::v1::{CertificateSigningRequestCondition, CertificateSigningRequestStatus};

    #[test]
    fn a_request_is_open_until_it_is_signed_or_refused() {
        let check = |certificate: &str, type_: &str, expected: Option<Result<&str, &str>>| {
            let condition = CertificateSigningRequestCondition {
                type_: type_.to_owned(),
                status: "True".to_owned(),
                reason: Some("why".to_owned()),
                ..CertificateSigningRequestCondition::default()
            };
            let status = CertificateSigningRequestStatus {
                certificate: Some(ByteString(certificate.as_bytes().to_vec())),
                conditions: Some(vec![condition]),
            };
            let request = CertificateSigningRequest { status: Some(status), ..CertificateSigningRequest::default() };
            let expected = expected.map(|result| result.map(str::to_owned).map_err(str::to_owned));
            assert_eq!(decision(&request), expected);
        };
        check("", "Approved", None);
        check("pem", "Approved", Some(Ok("pem")));
        check("", "Denied", Some(Err("was denied, reason: \"why\", message: \"\"")));
        check("", "Failed", Some(Err("failed, reason: \"why\", message: \"\"")));
        assert_eq!(decision(&CertificateSigningRequest::default()), None);
    }
}
