//! What a validating policy says about a request.

use std::time::{Duration, Instant};

use cel::Value as Outcome;

use super::policy::{Policy, Validation};
use super::scope::{Failure, Scope};

/// Upstream's bound of a message that an expression makes.
const LONGEST_MESSAGE: usize = 5 * 1024;
/// Upstream's bound of an annotation's value.
const LONGEST_ANNOTATION: usize = 10 * 1024;

/// Something that speaks against a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Objection {
    pub(super) message: String,
    /// Empty where the policy gives none.
    pub(super) reason: String,
    /// Which of the policy's validations it is; 0 where it is none.
    pub(super) index: usize,
    /// How long it took to find out.
    pub(super) took: Duration,
}

/// What a policy says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) objections: Vec<Objection>,
    /// For the audit log.
    pub(super) annotations: Vec<(String, String)>,
    /// Why annotations could not be made, and how long the attempt took; these always deny.
    pub(super) annotation_errors: Vec<(String, Duration)>,
    /// What went wrong where failures do not count, and how long that took.
    pub(super) ignored: Vec<(String, Duration)>,
}

impl Judgement {
    /// What comes of something that went wrong.
    fn failed(policy: &Policy, message: String, took: Duration) -> Self {
        if policy.ignores_failures {
            return Self { ignored: vec![(message, took)], ..Self::default() };
        }
        Self { objections: vec![Objection { message, reason: String::new(), index: 0, took }], ..Self::default() }
    }
}

/// Whether all match conditions are met; an error where that cannot be said and failures count.
pub(super) fn meets_conditions(policy: &Policy, scope: &mut Scope<'_>) -> Result<bool, String> {
    let mut errors = Vec::new();
    for condition in &policy.conditions {
        match scope.evaluate(condition) {
            Ok(Outcome::Bool(false)) => return Ok(false),
            Ok(_) => {}
            Err(Failure::Expression(error)) => errors.push(error),
            Err(Failure::Budget(error)) if policy.ignores_failures => {
                tracing::debug!(policy = policy.name, error, "match conditions cost too much");
                return Ok(false);
            }
            Err(Failure::Budget(error)) => return Err(error),
        }
    }
    match errors.as_slice() {
        [] => Ok(true),
        _ if policy.ignores_failures => Ok(false),
        [error] => Err(error.clone()),
        all => Err(format!("[{}]", all.join(", "))),
    }
}

/// Evaluates a policy: its conditions in one scope, all else in another.
pub(super) fn judge(policy: &Policy, conditions: &mut Scope<'_>, scope: &mut Scope<'_>) -> Judgement {
    let began = Instant::now();
    match meets_conditions(policy, conditions) {
        Ok(true) => {}
        Ok(false) => return Judgement::default(),
        Err(error) => return Judgement::failed(policy, error, began.elapsed()),
    }
    let mut judgement = Judgement::default();
    let mut unmet = Vec::new();
    for (index, validation) in policy.validations.iter().enumerate() {
        let began = Instant::now();
        match scope.evaluate(&validation.expression) {
            Ok(Outcome::Bool(true)) => {}
            Ok(_) => unmet.push((index, validation, None, began.elapsed())),
            Err(Failure::Expression(error)) => unmet.push((index, validation, Some(error), began.elapsed())),
            Err(Failure::Budget(error)) => return Judgement::failed(policy, error, began.elapsed()),
        }
    }
    for (index, validation, error, took) in unmet {
        match error {
            Some(message) => {
                let failed = Judgement::failed(policy, message, took);
                judgement.ignored.extend(failed.ignored);
                let objections = failed.objections.into_iter();
                judgement.objections.extend(objections.map(|objection| Objection { index, ..objection }));
            }
            None => {
                let (message, reason) = (message(validation, scope), validation.reason.clone());
                judgement.objections.push(Objection { message, reason, index, took });
            }
        }
    }
    annotate(policy, scope, &mut judgement);
    judgement
}

fn message(validation: &Validation, scope: &mut Scope<'_>) -> String {
    if let Some(expression) = &validation.message_expression {
        match scope.evaluate(expression) {
            Ok(Outcome::String(text)) => {
                let text = text.trim();
                if !text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n') {
                    return text.to_owned();
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(?error, "the message of a policy cannot be made"),
        }
    }
    match validation.message.is_empty() {
        true => format!("failed expression: {}", validation.expression.source.trim()),
        false => validation.message.clone(),
    }
}

fn annotate(policy: &Policy, scope: &mut Scope<'_>, judgement: &mut Judgement) {
    for (key, expression) in &policy.annotations {
        let began = Instant::now();
        let error = match scope.evaluate(expression) {
            Ok(Outcome::String(text)) => {
                let text: String = text.trim().chars().take(LONGEST_ANNOTATION).collect();
                if !text.is_empty() {
                    judgement.annotations.push((key.clone(), text));
                }
                continue;
            }
            Ok(Outcome::Null) => continue,
            Ok(other) => format!(
                "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
                expression.source,
                other.type_of()
            ),
            Err(Failure::Expression(error) | Failure::Budget(error)) => error,
        };
        if !policy.ignores_failures {
            judgement.annotation_errors.push((error, began.elapsed()));
        }
    }
}
