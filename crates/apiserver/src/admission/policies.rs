//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: what policies written in CEL say about requests.
//!
//! Not about how expressions work (`kedge_expressions`) or what a policy may say (`kedge_kinds`). Invariant: policies are
//! never asked about what would change policies or webhooks, so that a policy that refuses everything can be taken away.
//! Audit annotations are always made, as their failure may refuse a request.

mod compiled;
mod known;
mod matching;
mod mutating;
mod params;
mod policy;
mod request;
mod scope;
mod validating;

pub(super) use mutating::Rounds;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cel::common::value::Val;
use kedge_meta::{ApiStatus, GroupVersionKind, StatusCause, StatusReason};
use serde_json::{Value, json};

use self::known::Known;
use self::matching::Looked;
use self::params::Missing;
use self::policy::{Binding, Policy};
use self::scope::{BUDGET, CONDITIONS_BUDGET, Inputs, Scope};
use self::validating::{Judgement, Objection};
use super::authorizers::authorizers;
use super::{Attributes, Plugin, Seen, Told};
use crate::config::Config;
use crate::registry::Resource;

/// Reviews, which are answered and not stored, are no concern of policies either.
const REVIEWS: [&str; 2] = ["authentication.k8s.io", "authorization.k8s.io"];

/// Where the audit log has what a policy found that only audits.
const VALIDATION_FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";

pub(super) const MUTATING: &str = "MutatingAdmissionPolicy";

/// The plugin of ValidatingAdmissionPolicies.
pub(super) struct ValidatingPolicies {
    known: Known,
}

/// What MutatingAdmissionPolicies do.
pub(super) struct MutatingPolicies {
    known: Known,
}

impl ValidatingPolicies {
    pub(super) fn new() -> Self {
        Self { known: Known::new("validatingadmissionpolicies", "validatingadmissionpolicybindings") }
    }
}

impl MutatingPolicies {
    /// All that are in the store; none where they are turned off.
    pub(super) fn new(config: &Config) -> Option<Self> {
        let is_off = config.disable_admission_plugins.iter().any(|name| name == MUTATING);
        (!is_off).then(|| Self { known: Known::new("mutatingadmissionpolicies", "mutatingadmissionpolicybindings") })
    }
}

fn concerns_policies(attributes: &Attributes<'_>) -> bool {
    !attributes.is_hidden_from_outside() && !REVIEWS.contains(&&*attributes.resource.kind.group)
}

/// What policies see of a request that goes through a view of its object, such as a scale.
struct Shown {
    /// The kind of the view, the object and what it was before.
    view: Option<(GroupVersionKind, Value, Option<Value>)>,
}

impl Shown {
    fn of(attributes: &Attributes<'_>, object: &Value) -> Self {
        let Seen::Through(lens) = attributes.told.seen else { return Self { view: None } };
        Self { view: Some((lens.kind(), lens.view(object), attributes.old.map(|old| lens.view(old)))) }
    }

    fn attributes<'a>(&'a self, attributes: &Attributes<'a>) -> Attributes<'a> {
        match &self.view {
            None => *attributes,
            Some((kind, _, old)) => {
                Attributes { old: old.as_ref(), told: Told { seen: Seen::As(kind), ..attributes.told }, ..*attributes }
            }
        }
    }

    fn object<'a>(&'a self, object: &'a Value) -> &'a Value {
        self.view.as_ref().map_or(object, |(_, view, _)| view)
    }
}

#[async_trait]
impl Plugin for ValidatingPolicies {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        concerns_policies(attributes)
    }

    /// Evaluates all policies once: what they deny is an error, of what they warn they warn.
    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiStatus> {
        let policies = self.known.all(&*attributes.core.store).await?;
        if policies.is_empty() {
            return Ok(());
        }
        let shown = Shown::of(attributes, object);
        let (attributes, object) = (&shown.attributes(attributes), shown.object(object));
        let asked = Asked::new(attributes, object).await?;
        let mut said = Said::default();
        for (policy, bindings) in &policies {
            asked.ask(policy, bindings, &mut said).await?;
        }
        said.warnings.iter().for_each(|warning| attributes.told.notes.warn(warning));
        match said.denials.into_iter().next() {
            Some(denial) => Err(denial.status(attributes, object)),
            None => Ok(()),
        }
    }
}

/// What policies have said so far.
#[derive(Default)]
struct Said {
    denials: Vec<Denial>,
    warnings: Vec<String>,
}

/// A policy denies a request.
struct Denial {
    policy: String,
    /// Empty where the policy itself is wrong.
    binding: String,
    objection: Objection,
}

impl Denial {
    fn status(self, attributes: &Attributes<'_>, object: &Value) -> ApiStatus {
        let Objection { message, reason, .. } = self.objection;
        let with = if self.binding.is_empty() { String::new() } else { format!(" with binding '{}'", self.binding) };
        let message = format!("ValidatingAdmissionPolicy '{}'{with} denied request: {message}", self.policy);
        let name = request::shown_name(attributes, object);
        let mut status = ApiStatus::forbidden(&attributes.resource.group_resource, name, &message);
        (status.code, status.reason) = match reason.as_str() {
            "Forbidden" => (403, StatusReason::Forbidden),
            "Unauthorized" => (401, StatusReason::Unauthorized),
            "RequestEntityTooLarge" => (413, StatusReason::RequestEntityTooLarge),
            _ => (422, StatusReason::Invalid),
        };
        if let Some(details) = &mut status.details {
            details.causes.push(StatusCause { message, ..StatusCause::default() });
        }
        status
    }
}

/// A request that policies are asked about.
struct Asked<'a> {
    attributes: &'a Attributes<'a>,
    object: &'a Value,
    namespace: Option<Value>,
    namespace_object: Value,
}

/// A binding with parameters that a policy is to be evaluated for.
struct Invocation<'p> {
    policy: &'p Policy,
    binding: &'p Binding,
    matched: Arc<Resource>,
    param: Option<Value>,
}

/// Why a policy cannot be asked: the binding that is wrong, where it is one, and why.
struct Wrong<'p> {
    policy: &'p Policy,
    binding: Option<&'p Binding>,
    why: String,
}

impl<'a> Asked<'a> {
    async fn new(attributes: &'a Attributes<'a>, object: &'a Value) -> Result<Self, ApiStatus> {
        let namespace = request::namespace(attributes).await?;
        let namespace_object = request::namespace_object(namespace.as_ref());
        Ok(Self { attributes, object, namespace, namespace_object })
    }

    fn looked(&self) -> Looked<'_> {
        let object = request::object_of(self.attributes, self.object);
        let of = object.or(self.attributes.old).unwrap_or(&Value::Null);
        Looked { object, namespace_labels: request::namespace_labels(self.attributes, self.namespace.as_ref(), of) }
    }

    /// For which of its bindings and parameters a policy is to be evaluated.
    async fn invocations<'p>(
        &self,
        policy: &'p Policy,
        bindings: &'p [Arc<Binding>],
        wrong: &mut Vec<Wrong<'p>>,
    ) -> Result<Vec<Invocation<'p>>, ApiStatus> {
        let mut found = Vec::new();
        let matched = match policy.criteria.matches(self.attributes, &self.looked()) {
            Ok(Some(matched)) => matched,
            Ok(None) => return Ok(found),
            Err(why) => {
                wrong.push(Wrong { policy, binding: None, why });
                return Ok(found);
            }
        };
        for binding in bindings {
            match binding.criteria.matches(self.attributes, &self.looked()) {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(why) => {
                    wrong.push(Wrong { policy, binding: Some(binding), why });
                    continue;
                }
            }
            match params::collect(self.attributes, policy, binding).await {
                Ok(params) => found.extend(params.into_iter().map(|param| {
                    let matched = Arc::clone(&matched);
                    Invocation { policy, binding, matched, param }
                })),
                Err(Missing::UnknownKind(why)) => {
                    wrong.push(Wrong { policy, binding: None, why });
                    return Ok(found);
                }
                Err(Missing::Misconfigured(why)) => wrong.push(Wrong { policy, binding: Some(binding), why }),
                Err(Missing::Status(status)) => return Err(status),
            }
        }
        Ok(found)
    }

    /// Who may do what, where an expression of the policy asks.
    async fn authorizers(
        &self,
        policy: &Policy,
        matched: &Resource,
    ) -> Result<Option<(Box<dyn Val>, Box<dyn Val>)>, ApiStatus> {
        if !policy.uses("authorizer") {
            return Ok(None);
        }
        authorizers(self.attributes, matched).await.map(Some)
    }

    async fn ask(&self, policy: &Policy, bindings: &[Arc<Binding>], said: &mut Said) -> Result<(), ApiStatus> {
        let mut wrong = Vec::new();
        let (mut annotations, notes) = (BTreeMap::<String, Vec<String>>::new(), self.attributes.told.notes);
        for invocation in self.invocations(policy, bindings, &mut wrong).await? {
            let mut judgement = self.judge(&invocation).await?;
            for (key, text) in std::mem::take(&mut judgement.annotations) {
                let texts = annotations.entry(key).or_default();
                if !texts.contains(&text) {
                    texts.push(text);
                }
            }
            tell(&invocation, judgement, said, self.attributes);
        }
        for (key, texts) in annotations {
            notes.annotate(format!("{}/{key}", policy.name), texts.join(", "));
        }
        for Wrong { policy, binding, why } in wrong.into_iter().filter(|_| !policy.ignores_failures) {
            let what = if binding.is_some() { "binding" } else { "policy" };
            said.denials.push(Denial {
                policy: policy.name.clone(),
                binding: binding.map(|binding| binding.name.clone()).unwrap_or_default(),
                objection: Objection {
                    message: format!("failed to configure {what}: {why}"),
                    reason: String::new(),
                    index: 0,
                    took: Duration::ZERO,
                },
            });
        }
        Ok(())
    }

    /// An object as the matched version has it; null where there is none.
    async fn versioned(&self, object: Option<&Value>, matched: &Resource) -> Result<Value, ApiStatus> {
        match object {
            Some(object) => {
                request::versioned(object, self.attributes.told.seen, self.attributes.resource, matched).await
            }
            None => Ok(Value::Null),
        }
    }

    async fn judge(&self, invocation: &Invocation<'_>) -> Result<Judgement, ApiStatus> {
        let Invocation { policy, matched, param, .. } = invocation;
        let object = request::object_of(self.attributes, self.object);
        let (object, old) =
            (self.versioned(object, matched).await?, self.versioned(self.attributes.old, matched).await?);
        let request = request::request(self.attributes, matched);
        let authorizer = self.authorizers(policy, matched).await?;
        let inputs = Inputs {
            object: &object,
            old: &old,
            request: &request,
            namespace: &self.namespace_object,
            params: param.as_ref(),
            authorizer,
        };
        let mut conditions = Scope::new(&inputs, &[], CONDITIONS_BUDGET);
        let mut scope = Scope::new(&inputs, &policy.variables, BUDGET);
        Ok(validating::judge(policy, &mut conditions, &mut scope))
    }
}

/// An objection as the audit log has it.
fn failure(invocation: &Invocation<'_>, objection: &Objection) -> String {
    let Invocation { policy, binding, .. } = invocation;
    json!([{"message": objection.message, "policy": policy.name, "binding": binding.name,
        "expressionIndex": objection.index, "validationActions": binding.actions}])
    .to_string()
}

/// Does with a judgement what its binding says.
fn tell(invocation: &Invocation<'_>, judgement: Judgement, said: &mut Said, attributes: &Attributes<'_>) {
    let (policy, binding) = (&invocation.policy.name, &invocation.binding.name);
    let denial = |objection| Denial { policy: policy.clone(), binding: binding.clone(), objection };
    let count = |message: &str, action: &str, took| {
        attributes.core.metrics.policies.validated(policy, binding, message, action, took);
    };
    for (message, took) in judgement.ignored {
        count(&message, "allow", took);
    }
    for objection in judgement.objections {
        for action in &invocation.binding.actions {
            match action.as_str() {
                "Warn" => {
                    count(&objection.message, "warn", objection.took);
                    said.warnings.push(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {}",
                        objection.message
                    ));
                }
                "Deny" => {
                    count(&objection.message, "deny", objection.took);
                    said.denials.push(denial(objection.clone()));
                }
                "Audit" => {
                    count(&objection.message, "audit", objection.took);
                    let notes = attributes.told.notes;
                    notes.annotate(VALIDATION_FAILURE.to_owned(), failure(invocation, &objection));
                }
                _ => {}
            }
        }
    }
    for (message, took) in judgement.annotation_errors {
        count(&message, "deny", took);
        said.denials.push(denial(Objection { message, reason: String::new(), index: 0, took }));
    }
}
