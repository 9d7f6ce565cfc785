//! One webhook and one request: whether it is asked, and what comes of it.

use std::time::Instant;

use kedge_meta::{ApiStatus, GroupVersionKind, GroupVersionResource};
use kedge_webhooks::{CallError, Hook, HookKind, Looked, Match, Outcome, Question, Verdict, denial};
use serde_json::{Value, json};

use super::Webhooks;
use super::subject::{Known, Subject};
use crate::admission::authorizers::authorizers;
use crate::core::new_uid;

/// A webhook and what it may be asked about.
pub(super) struct Asking<'a> {
    webhooks: &'a Webhooks,
    subject: &'a Subject<'a>,
    hook: &'a Hook,
    kind: HookKind,
    place: Place,
}

/// When a webhook is asked, as the audit log names it.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) round: usize,
    pub(super) index: usize,
}

/// A question that will be asked.
pub(super) struct Invocation {
    known: Known,
    kind: GroupVersionKind,
    resource: GroupVersionResource,
    /// In the version that the webhook knows.
    object: Option<Value>,
    old: Option<Value>,
}

/// How a question ended that lets the request go on.
pub(super) enum Settled {
    /// The object stays as it is.
    Unchanged,
    /// The object is this, in the version of the request.
    Changed(Value),
}

/// Why a request may not go on.
enum Trouble {
    /// The webhook could not be asked; why.
    Calling(CallError),
    /// It refused.
    Denied(ApiStatus),
    /// What it said cannot be made use of.
    Unusable(ApiStatus),
}

fn calling(text: String, code: u16) -> Trouble {
    Trouble::Calling(CallError { text, code })
}

impl<'a> Asking<'a> {
    pub(super) fn new(
        webhooks: &'a Webhooks,
        subject: &'a Subject<'a>,
        hook: &'a Hook,
        kind: HookKind,
        place: Place,
    ) -> Self {
        Self { webhooks, subject, hook, kind, place }
    }

    /// Leaves word for the audit log, under the place of the question.
    fn note(&self, what: &str, text: String) {
        let Place { round, index } = self.place;
        let key = format!("{what}.webhook.admission.k8s.io/round_{round}_index_{index}");
        self.subject.attributes.told.notes.annotate(key, text);
    }

    /// Leaves word whether a mutating webhook has changed the object.
    pub(super) fn note_mutation(&self, mutated: bool) {
        if self.subject.attributes.told.notes.are_collected() {
            let (configuration, webhook) = (&self.hook.configuration, &self.hook.name);
            let text = json!({"configuration": configuration, "webhook": webhook, "mutated": mutated});
            self.note("mutation", text.to_string());
        }
    }

    /// Leaves word how a mutating webhook has changed the object.
    fn note_patch(&self, patch: &Value) {
        if self.subject.attributes.told.notes.may_show_objects() {
            let (configuration, webhook) = (&self.hook.configuration, &self.hook.name);
            let text =
                json!({"configuration": configuration, "webhook": webhook, "patch": patch, "patchType": "JSONPatch"});
            self.note("patch", text.to_string());
        }
    }

    /// Leaves word that the request goes on without the webhook's answer.
    fn note_failure(&self) {
        let what = match self.kind {
            HookKind::Mutating => "failed-open.mutation",
            HookKind::Validating => "failed-open.validating",
        };
        self.note(what, self.hook.name.clone());
    }

    /// The question, if the webhook wants to be asked it.
    pub(super) async fn invocation(
        &self,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<Option<Invocation>, ApiStatus> {
        let (hook, subject) = (self.hook, self.subject);
        let Some(known) = subject.known_to(hook) else { return Ok(None) };
        if !hook.selects(object, old) {
            return Ok(None);
        }
        let is_in_namespace = match object.filter(|_| subject.writes_namespace()) {
            Some(namespace) => hook.selects_namespace(namespace),
            None => subject.is_in_namespace_of(hook).await?,
        };
        if !is_in_namespace {
            return Ok(None);
        }
        let mut invocation = Invocation {
            kind: subject.kind_for(&known),
            resource: subject.resource_for(&known),
            object: None,
            old: None,
            known,
        };
        if let Some(object) = object {
            invocation.object = Some(subject.in_version_of(&invocation.known, object).await?);
        }
        if let Some(old) = old {
            invocation.old = Some(subject.in_version_of(&invocation.known, old).await?);
        }
        if hook.conditions.is_empty() {
            return Ok(Some(invocation));
        }
        let seen = self.question(&invocation, "", "v1").for_expressions();
        let looked = Looked { object: invocation.object.as_ref(), old: invocation.old.as_ref(), request: &seen };
        let authorizers = match hook.conditions.ask_authorizer() {
            true => Some(authorizers(subject.attributes, subject.matched(&invocation.known)).await?),
            false => None,
        };
        match hook.conditions.evaluate(looked, authorizers) {
            Match::Yes => Ok(Some(invocation)),
            Match::No => {
                self.webhooks.metrics.excluded(&hook.name, self.kind, subject.operation());
                Ok(None)
            }
            Match::Failed(why) => Err(subject.attributes.forbidden(&why)),
        }
    }

    fn question<'b>(&'b self, invocation: &'b Invocation, uid: &'b str, review_version: &'b str) -> Question<'b> {
        let attributes = self.subject.attributes;
        Question {
            review_version,
            uid,
            kind: &invocation.kind,
            resource: &invocation.resource,
            request_kind: &self.subject.kind,
            request_resource: &self.subject.resource,
            subresource: attributes.subresource,
            name: attributes.name,
            namespace: self.subject.namespace(),
            operation: self.subject.operation(),
            user: attributes.user,
            object: invocation.object.as_ref(),
            old: invocation.old.as_ref(),
            dry_run: attributes.told.dry_run,
            options: attributes.told.options,
        }
    }

    /// Asks; an error where the request may not go on.
    pub(super) async fn ask(&self, invocation: &Invocation) -> Result<Settled, ApiStatus> {
        let (hook, began) = (self.hook, Instant::now());
        let answer = self.exchange(invocation).await;
        let outcome = match &answer {
            Ok(_) => Outcome::Allowed,
            Err(Trouble::Denied(status)) => Outcome::Denied(status.code),
            Err(Trouble::Calling(error)) if hook.ignores_failure => Outcome::FailedOpen(error.code),
            Err(Trouble::Calling(error)) => Outcome::FailedClosed(error.code),
            Err(Trouble::Unusable(_)) => Outcome::Unusable,
        };
        self.webhooks.metrics.asked(&hook.name, self.kind, self.subject.operation(), outcome, began.elapsed());
        match answer {
            Ok(settled) => Ok(settled),
            Err(Trouble::Denied(status) | Trouble::Unusable(status)) => Err(status),
            Err(Trouble::Calling(error)) => {
                let text = format!("failed calling webhook \"{}\": {error}", hook.name);
                let configuration = &hook.configuration;
                if hook.ignores_failure {
                    tracing::warn!(%configuration, "{text}; the request goes on");
                    self.note_failure();
                    return Ok(Settled::Unchanged);
                }
                tracing::warn!(%configuration, "{text}; the request is refused");
                Err(ApiStatus::internal(text))
            }
        }
    }

    async fn exchange(&self, invocation: &Invocation) -> Result<Settled, Trouble> {
        let (hook, told) = (self.hook, self.subject.attributes.told);
        if told.dry_run && !hook.takes_dry_run {
            let text = format!("admission webhook \"{}\" does not support dry run", hook.name);
            return Err(Trouble::Unusable(ApiStatus::bad_request(text)));
        }
        let Some(version) = hook.review_version else {
            let text = "could not create admission objects: webhook does not accept known AdmissionReview versions \
                        (v1, v1beta1)";
            return Err(calling(text.to_owned(), 400));
        };
        let target = hook.target.as_ref().map_err(|why| calling(format!("could not get REST client: {why}"), 500))?;
        let uid = new_uid();
        let question = self.question(invocation, &uid, version);
        let credentials = self.webhooks.credentials.of(self.kind);
        let answer = self.webhooks.client.post(target, credentials, &question.review(), hook.timeout, true).await;
        let answer = answer.map_err(|error| calling(format!("failed to call webhook: {}", error.text), error.code))?;
        let verdict = question.verdict(&answer, self.kind == HookKind::Mutating);
        let verdict = verdict.map_err(|why| calling(format!("received invalid webhook response: {why}"), 503))?;
        for (key, text) in &verdict.annotations {
            told.notes.annotate(format!("{}/{key}", hook.name), text.clone());
        }
        verdict.warnings.iter().for_each(|warning| told.notes.warn(warning));
        if !verdict.allowed {
            return Err(Trouble::Denied(denial(&hook.name, &verdict.status)));
        }
        self.patched(invocation, &verdict).await.map_err(Trouble::Unusable)
    }

    async fn patched(&self, invocation: &Invocation, verdict: &Verdict) -> Result<Settled, ApiStatus> {
        let Some(patch) = &verdict.patch else { return Ok(Settled::Unchanged) };
        let Some(object) = &invocation.object else {
            let name = &self.hook.name;
            return Err(ApiStatus::internal(format!(
                "admission webhook \"{name}\" attempted to modify the object, which is not supported for this operation"
            )));
        };
        let changed = kedge_schema::json_patch(object.clone(), patch).map_err(ApiStatus::internal)?;
        let settled = self.subject.settled(&invocation.known, changed).await.map(Settled::Changed)?;
        self.note_patch(patch);
        Ok(settled)
    }
}
