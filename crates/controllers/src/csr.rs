//! The three controllers of CertificateSigningRequests: one approves what nodes ask for and may have, one signs what is
//! approved, one removes what is old.
//!
//! Invariants: nothing is signed that is not approved and of its signer's form; nothing is approved for which the API
//! server does not confirm the permission.

mod rules;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kedge_client::{Change, Informer, Queue, object_key};
use kedge_meta::ObjectKey;
use kube::api::{Api, DeleteParams, PostParams};

use crate::config::{CertificateSigner, RequestedIdentity};
use crate::error::{ReconcileError, unless_gone};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};
use rules::{KUBELET_CLIENT, check, is_ours};

/// The least life time that may be asked for.
const SHORTEST: Duration = Duration::from_secs(600);
const APPROVED_FOR: SignedDuration = SignedDuration::from_hours(1);
const PENDING_FOR: SignedDuration = SignedDuration::from_hours(24);

type Request = CertificateSigningRequest;

fn enqueue(starter: &mut Starter<'_>) -> (Informer<Request>, Queue<ObjectKey>) {
    let requests = starter.informer::<Request>();
    let queue = Queue::new();
    starter.enqueue(&requests, &queue, |change| match change {
        Change::Deleted(_) => Vec::new(),
        change => vec![object_key(&**change.object())],
    });
    (requests, queue)
}

/// Starts the approving controller, if there is a certificate authority.
pub(crate) fn start_approving(mut starter: Starter<'_>) {
    let Some(signer) = starter.context.signer.clone() else { return };
    let (requests, queue) = enqueue(&mut starter);
    let controller = Approver { context: starter.context.clone(), requests, signer };
    starter.work(Arc::new(controller), queue, 1);
}

/// Starts the signing controller, if there is a certificate authority.
pub(crate) fn start_signing(mut starter: Starter<'_>) {
    let Some(signer) = starter.context.signer.clone() else { return };
    let (requests, queue) = enqueue(&mut starter);
    let workers = starter.context.config.concurrency;
    let controller = Signing { context: starter.context.clone(), requests, signer };
    starter.work(Arc::new(controller), queue, workers);
}

/// Starts the cleaning controller.
pub(crate) fn start_cleaning(mut starter: Starter<'_>) {
    let (requests, queue) = enqueue(&mut starter);
    let controller = Cleaner { context: starter.context.clone(), requests };
    starter.work(Arc::new(controller), queue, 1);
}

fn condition<'a>(request: &'a Request, type_: &str) -> Option<&'a CertificateSigningRequestCondition> {
    let conditions = request.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

fn certificate(request: &Request) -> Option<&ByteString> {
    request.status.as_ref()?.certificate.as_ref().filter(|certificate| !certificate.0.is_empty())
}

fn with_condition(request: &Request, type_: &str, reason: &str, message: &str, now: Timestamp) -> Request {
    let mut request = request.clone();
    let conditions = request.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.push(CertificateSigningRequestCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
    request
}

struct Approver {
    context: Context,
    requests: Informer<Request>,
    signer: Arc<dyn CertificateSigner>,
}

/// The permissions that allow a request, with what is said about the approval.
fn plan_approval(request: &Request, identity: &RequestedIdentity) -> Vec<(&'static str, &'static str)> {
    let usages = request.spec.usages.as_deref().unwrap_or_default();
    if check(&request.spec.signer_name, identity, usages).is_err() {
        return Vec::new();
    }
    let own = ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.");
    let any = ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");
    match request.spec.username.as_ref() == Some(&identity.common_name) {
        true => vec![own, any],
        false => vec![any],
    }
}

impl Controller for Approver {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(request) = self.requests.get(key) else { return Ok(Next::Done) };
        let is_decided = condition(&request, "Approved").is_some() || condition(&request, "Denied").is_some();
        if is_decided || certificate(&request).is_some() || request.spec.signer_name != KUBELET_CLIENT {
            return Ok(Next::Done);
        }
        let Ok(identity) = self.signer.inspect(&request.spec.request.0) else { return Ok(Next::Done) };
        for (subresource, message) in plan_approval(&request, &identity) {
            if self.is_permitted(&request, subresource).await? {
                let approved = with_condition(&request, "Approved", "AutoApproved", message, self.context.now());
                let requests = Api::<Request>::all(self.context.client.clone());
                let parameters = PostParams::default();
                unless_gone(requests.replace_subresource("approval", &key.name, &parameters, &approved).await)?;
                return Ok(Next::Done);
            }
        }
        Ok(Next::Done)
    }
}

impl Approver {
    async fn is_permitted(&self, request: &Request, subresource: &str) -> Result<bool, ReconcileError> {
        let attributes = ResourceAttributes {
            group: Some("certificates.k8s.io".to_owned()),
            resource: Some("certificatesigningrequests".to_owned()),
            subresource: Some(subresource.to_owned()),
            verb: Some("create".to_owned()),
            version: Some("*".to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: request.spec.username.clone(),
                uid: request.spec.uid.clone(),
                groups: request.spec.groups.clone(),
                extra: request.spec.extra.clone(),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews = Api::<SubjectAccessReview>::all(self.context.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

struct Signing {
    context: Context,
    requests: Informer<Request>,
    signer: Arc<dyn CertificateSigner>,
}

impl Controller for Signing {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(request) = self.requests.get(key) else { return Ok(Next::Done) };
        let is_open = condition(&request, "Approved").is_some()
            && condition(&request, "Denied").is_none()
            && condition(&request, "Failed").is_none()
            && certificate(&request).is_none();
        let signer_name = &request.spec.signer_name;
        if !is_open || !is_ours(signer_name) || !self.signer.signs(signer_name) {
            return Ok(Next::Done);
        }
        let changed = match self.sign(&request) {
            Ok(chain) => {
                let mut signed = (*request).clone();
                signed.status.get_or_insert_default().certificate = Some(ByteString(chain));
                signed
            }
            Err(why) => with_condition(&request, "Failed", "SignerValidationFailure", &why, self.context.now()),
        };
        let requests = Api::<Request>::all(self.context.client.clone());
        unless_gone(requests.replace_status(&key.name, &PostParams::default(), &changed).await)?;
        Ok(Next::Done)
    }
}

impl Signing {
    fn sign(&self, request: &Request) -> Result<Vec<u8>, String> {
        let spec = &request.spec;
        let identity = self.signer.inspect(&spec.request.0)?;
        let usages = spec.usages.as_deref().unwrap_or_default();
        check(&spec.signer_name, &identity, usages)?;
        self.signer.sign(
            &spec.signer_name,
            &spec.request.0,
            usages,
            lifetime(spec.expiration_seconds, self.context.config.cluster_signing_duration),
        )
    }
}

/// What was asked for, within limits.
fn lifetime(asked: Option<i32>, longest: Duration) -> Duration {
    let asked = asked.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or_default()));
    asked.map_or(longest, |asked| asked.max(SHORTEST).min(longest))
}

struct Cleaner {
    context: Context,
    requests: Informer<Request>,
}

/// How long a request stays yet.
fn time_left(request: &Request, now: Timestamp) -> Option<SignedDuration> {
    let since = |condition: &CertificateSigningRequestCondition| condition.last_update_time.as_ref().map(|time| time.0);
    let decided = ["Approved", "Denied", "Failed"].iter().find_map(|type_| condition(request, type_).and_then(since));
    let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
    match (decided, created) {
        (Some(decided), _) => Some(APPROVED_FOR - now.duration_since(decided)),
        (None, Some(created)) => Some(PENDING_FOR - now.duration_since(created)),
        (None, None) => None,
    }
}

impl Controller for Cleaner {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(request) = self.requests.get(key) else { return Ok(Next::Done) };
        let Some(left) = time_left(&request, self.context.now()) else { return Ok(Next::Done) };
        if let Ok(left) = Duration::try_from(left)
            && !left.is_zero()
        {
            return Ok(Next::After(left));
        }
        let requests = Api::<Request>::all(self.context.client.clone());
        unless_gone(requests.delete(&key.name, &DeleteParams::default()).await)?;
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_approved_for_themselves_or_by_others() {
        let identity = RequestedIdentity {
            common_name: "system:node:a".to_owned(),
            organizations: vec!["system:nodes".to_owned()],
            ..RequestedIdentity::default()
        };
        let test = |username: &str, usage: &str, expected: &[&str]| {
            let mut request = Request::default();
            request.spec.signer_name = KUBELET_CLIENT.to_owned();
            request.spec.username = Some(username.to_owned());
            request.spec.usages = Some(vec![usage.to_owned()]);
            let permissions: Vec<&str> =
                plan_approval(&request, &identity).iter().map(|(permission, _)| *permission).collect();
            assert_eq!(permissions, expected);
        };
        test("system:node:a", "client auth", &["selfnodeclient", "nodeclient"]);
        test("system:bootstrap:abcdef", "client auth", &["nodeclient"]);
        test("system:node:a", "code signing", &[]);
    }

    #[test]
    fn old_requests_go() {
        let now = Timestamp::from_second(100_000).unwrap();
        let mut request = Request::default();
        request.metadata.creation_timestamp = Some(Time(Timestamp::from_second(90_000).unwrap()));
        assert_eq!(time_left(&request, now), Some(SignedDuration::from_secs(76_400)));
        let approved = with_condition(&request, "Approved", "", "", Timestamp::from_second(96_000).unwrap());
        assert_eq!(time_left(&approved, now), Some(SignedDuration::from_secs(-400)));
    }

    #[test]
    fn life_times_have_limits() {
        let year = Duration::from_secs(365 * 24 * 3600);
        assert_eq!(lifetime(None, year), year);
        assert_eq!(lifetime(Some(1), year), SHORTEST);
        assert_eq!(lifetime(Some(-1), year), SHORTEST);
        assert_eq!(lifetime(Some(3600), year), Duration::from_secs(3600));
        assert_eq!(lifetime(Some(i32::MAX), year), year);
        assert_eq!(lifetime(Some(3600), Duration::from_secs(60)), Duration::from_secs(60));
    }
}
