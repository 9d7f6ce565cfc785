//! MutatingAdmissionPolicies: what policies make of an object.
//!
//! Where one of them has done something, plugins, policies and webhooks see the object a second time; then only those run
//! that ask for it (`IfNeeded`). Invariant: a part of an object that an expression gives never replaces a list or map that
//! belongs together as a whole.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use cel::Value as Outcome;
use kedge_expressions::to_json;
use kedge_meta::{ApiStatus, StatusCause};
use kedge_schema::FieldValidation;
use serde_json::Value;

use super::compiled::Compiled;
use super::policy::{Binding, Mutation, Policy};
use super::scope::{BUDGET, CONDITIONS_BUDGET, Failure, Inputs, Scope};
use super::{Asked, Invocation, MutatingPolicies, Shown, Wrong, concerns_policies, request, validating};
use crate::admission::{Attributes, Operation, Seen};
use crate::object::{self, text};
use crate::write::Expected;

/// What is remembered between the first and the second time that policies see one object.
#[derive(Default)]
pub(in crate::admission) struct Rounds {
    is_second: bool,
    /// Those that ran and want to run again where somebody changes the object.
    ran: BTreeSet<InvocationKey>,
    /// Those of them after which somebody did.
    again: BTreeSet<InvocationKey>,
    last_output: Option<Value>,
}

/// Policy, binding, and the parameters' namespace and name.
type InvocationKey = [String; 4];

/// What an invocation has come to.
struct Ran {
    /// Whether a mutation worked, whatever came of it.
    has_mutated: bool,
    has_changed: bool,
}

impl MutatingPolicies {
    pub(in crate::admission) fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update) && concerns_policies(attributes)
    }

    /// Lets policies change the object; whether one of them did something. The second time with the same `rounds` only
    /// those run that want to run again.
    pub(in crate::admission) async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Value,
        rounds: &mut Rounds,
    ) -> Result<bool, ApiStatus> {
        let policies = self.known.all(&*attributes.core.store).await?;
        if policies.is_empty() {
            return Ok(false);
        }
        let shown = Shown::of(attributes, object);
        let mut view = shown.object(object).clone();
        let before = view.clone();
        let has_mutated = mutate(&policies, &shown.attributes(attributes), &before, &mut view, rounds).await?;
        if view != before {
            match attributes.told.seen {
                Seen::Through(lens) => *object = lens.with(object, &view)?,
                _ => *object = view,
            }
        }
        Ok(has_mutated)
    }
}

/// Lets all policies change an object as they see it; whether one of them did something.
async fn mutate(
    policies: &[(Arc<Policy>, Vec<Arc<Binding>>)],
    attributes: &Attributes<'_>,
    before: &Value,
    object: &mut Value,
    rounds: &mut Rounds,
) -> Result<bool, ApiStatus> {
    let is_second = std::mem::replace(&mut rounds.is_second, true);
    if is_second && !rounds.ran.is_empty() && rounds.last_output.as_ref() != Some(before) {
        rounds.again.append(&mut rounds.ran);
    }
    let asked = Asked::new(attributes, before).await?;
    let (mut wrong, mut invocations) = (Vec::new(), Vec::new());
    for (policy, bindings) in policies {
        invocations.extend(asked.invocations(policy, bindings, &mut wrong).await?);
    }
    let mut has_mutated = false;
    for invocation in &invocations {
        let key = invocation_key(invocation);
        let may_run = !is_second || rounds.again.contains(&key);
        let Some(ran) = asked.mutate(invocation, object, may_run, &mut wrong).await? else { continue };
        has_mutated |= ran.has_mutated;
        if ran.has_changed {
            rounds.again.append(&mut rounds.ran);
        }
        if invocation.policy.is_reinvoked {
            rounds.ran.insert(key);
        }
    }
    // Upstream counts what was written once more as changed, also for the policy that wrote it.
    if has_mutated {
        rounds.again.append(&mut rounds.ran);
    }
    rounds.last_output = (!rounds.ran.is_empty()).then(|| object.clone());
    refuse(attributes, object, wrong)?;
    Ok(has_mutated)
}

fn invocation_key(invocation: &Invocation<'_>) -> InvocationKey {
    let param = |read: fn(&Value) -> &str| invocation.param.as_ref().map_or("", read).to_owned();
    let (policy, binding) = (invocation.policy.name.clone(), invocation.binding.name.clone());
    [policy, binding, param(object::namespace), param(object::name)]
}

/// Refuses a request because of policies that could not do what they should.
fn refuse(attributes: &Attributes<'_>, object: &Value, wrong: Vec<Wrong<'_>>) -> Result<(), ApiStatus> {
    let messages: Vec<String> = wrong.iter().filter(|wrong| !wrong.policy.ignores_failures).map(message).collect();
    let Some(first) = messages.first() else { return Ok(()) };
    let name = request::shown_name(attributes, object);
    let mut status = ApiStatus::forbidden(&attributes.resource.group_resource, name, "");
    status.message.clone_from(first);
    if let Some(details) = &mut status.details {
        details.causes =
            messages.into_iter().map(|message| StatusCause { message, ..StatusCause::default() }).collect();
    }
    Err(status)
}

fn message(wrong: &Wrong<'_>) -> String {
    let with = wrong.binding.map(|binding| format!(" with binding '{}'", binding.name)).unwrap_or_default();
    let quote = if wrong.binding.is_some() { '\'' } else { '"' };
    format!("policy {quote}{}{quote}{with} denied request: {}", wrong.policy.name, wrong.why)
}

impl Asked<'_> {
    /// Does what a policy says to an object, where its conditions are met and it may run.
    async fn mutate<'p>(
        &self,
        invocation: &Invocation<'p>,
        object: &mut Value,
        may_run: bool,
        wrong: &mut Vec<Wrong<'p>>,
    ) -> Result<Option<Ran>, ApiStatus> {
        let Invocation { policy, binding, matched, param } = invocation;
        let (own, before) = (self.attributes.resource, object.clone());
        let seen = self.attributes.told.seen;
        let old = self.versioned(self.attributes.old, matched).await?;
        let request = request::request(self.attributes, matched);
        let authorizer = self.authorizers(policy, matched).await?;
        let mut versioned = request::versioned(object, seen, own, matched).await?;
        let inputs = Inputs {
            object: &Value::Null,
            old: &old,
            request: &request,
            namespace: &self.namespace_object,
            params: param.as_ref(),
            authorizer,
        };
        let mut failed = |why| wrong.push(Wrong { policy, binding: Some(binding), why });
        match validating::meets_conditions(policy, &mut Scope::new(&inputs.about(&versioned), &[], CONDITIONS_BUDGET)) {
            Ok(true) if may_run => {}
            Ok(_) => return Ok(None),
            Err(why) => {
                failed(why);
                return Ok(None);
            }
        }
        let mut has_mutated = false;
        let api_version = text(&versioned, &["apiVersion"]).to_owned();
        for mutation in &policy.mutations {
            let mut scope = Scope::new(&inputs.about(&versioned), &policy.variables, BUDGET);
            let expected = match seen {
                Seen::As(kind) => Expected::builtin(&kind.group, &kind.version, &kind.kind, &api_version),
                _ => Expected::of(matched),
            };
            let began = Instant::now();
            let applied = apply(mutation, &mut scope, &versioned, &expected);
            let error = applied.as_ref().err().map_or("no_error", |why| error_type(why));
            let policies = &self.attributes.core.metrics.policies;
            policies.mutated(&policy.name, &binding.name, error, began.elapsed());
            match applied {
                Ok(mut mutated) => {
                    if !matches!(seen, Seen::As(_)) {
                        matched.kind.default(&mut mutated);
                    }
                    versioned = mutated;
                    has_mutated = true;
                }
                Err(why) => failed(why),
            }
        }
        *object = request::versioned(&versioned, seen, matched, own).await?;
        Ok(Some(Ran { has_mutated, has_changed: *object != before }))
    }
}

/// The word of the metrics for what went wrong.
fn error_type(why: &str) -> &'static str {
    match why {
        why if why.contains("compilation") => "compile_error",
        why if why.contains("running out of cost budget") => "out_of_budget",
        _ => "invalid_error",
    }
}

/// What one mutation makes of an object.
fn apply(mutation: &Mutation, scope: &mut Scope<'_>, object: &Value, expected: &Expected<'_>) -> Result<Value, String> {
    let mutated = match mutation {
        Mutation::Apply(expression) => {
            let Value::Object(mut part) = made(expression, scope)? else {
                return Err("unsupported return type from ApplyConfiguration expression".to_owned());
            };
            part.insert("apiVersion".to_owned(), expected.api_version.into());
            part.insert("kind".to_owned(), expected.kind.into());
            let configured = kedge_schema::configure(object, &Value::Object(part), expected.schema);
            configured.map_err(|why| format!("error applying patch: {why}"))?
        }
        Mutation::JsonPatch(expression) => {
            let operations = made(expression, scope)?;
            kedge_schema::json_patch(object.clone(), &operations)
                .map_err(|error| format!("JSON Patch: {}", error.into_status().message))?
        }
    };
    let decoded = expected.check_fields(mutated, FieldValidation::Ignore);
    decoded.map(|decoded| decoded.value).map_err(|error| error.to_string())
}

fn made(expression: &Compiled, scope: &mut Scope<'_>) -> Result<Value, String> {
    let made: Outcome = scope.evaluate(expression).map_err(Failure::into_text)?;
    to_json(&made)
}
