//! MutatingAdmissionPolicies: what policies make of an object.
//!
//! A policy that asks for it runs again, once, where one after it has changed the object. Invariant: a part of an object
//! that an expression gives never replaces a list or map that belongs together as a whole.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use cel::Value as Outcome;
use kedge_expressions::to_json;
use kedge_meta::{ApiStatus, StatusCause};
use kedge_schema::FieldValidation;
use serde_json::Value;

use super::compiled::Compiled;
use super::policy::{Binding, Mutation, Policy};
use super::scope::{BUDGET, CONDITIONS_BUDGET, Failure, Inputs, Scope};
use super::{Asked, Invocation, MutatingPolicies, Shown, Wrong, concerns_policies, request, validating};
use crate::admission::{Attributes, Operation, Plugin, Seen};
use crate::object::text;
use crate::write::Expected;

#[async_trait]
impl Plugin for MutatingPolicies {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update) && concerns_policies(attributes)
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiStatus> {
        let policies = self.known.all(&*attributes.core.store).await?;
        if policies.is_empty() {
            return Ok(());
        }
        let shown = Shown::of(attributes, object);
        let mut view = shown.object(object).clone();
        let before = view.clone();
        mutate(&policies, &shown.attributes(attributes), &before, &mut view).await?;
        if view == before {
            return Ok(());
        }
        match attributes.told.seen {
            Seen::Through(lens) => *object = lens.with(object, &view)?,
            _ => *object = view,
        }
        Ok(())
    }
}

/// Lets all policies change an object as they see it.
async fn mutate(
    policies: &[(Arc<Policy>, Vec<Arc<Binding>>)],
    attributes: &Attributes<'_>,
    before: &Value,
    object: &mut Value,
) -> Result<(), ApiStatus> {
    let asked = Asked::new(attributes, before).await?;
    let (mut wrong, mut invocations) = (Vec::new(), Vec::new());
    for (policy, bindings) in policies {
        invocations.extend(asked.invocations(policy, bindings, &mut wrong).await?);
    }
    let mut last_change = None;
    for (index, invocation) in invocations.iter().enumerate() {
        if asked.mutate(invocation, object, &mut wrong).await? {
            last_change = Some(index);
        }
    }
    if let Some(last) = last_change {
        for invocation in invocations[..last].iter().filter(|invocation| invocation.policy.is_reinvoked) {
            asked.mutate(invocation, object, &mut wrong).await?;
        }
    }
    refuse(attributes, object, wrong)
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
    /// Does what a policy says to an object; whether that changed it.
    async fn mutate<'p>(
        &self,
        invocation: &Invocation<'p>,
        object: &mut Value,
        wrong: &mut Vec<Wrong<'p>>,
    ) -> Result<bool, ApiStatus> {
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
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => {
                failed(why);
                return Ok(false);
            }
        }
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
                }
                Err(why) => failed(why),
            }
        }
        *object = request::versioned(&versioned, seen, matched, own).await?;
        Ok(*object != before)
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
