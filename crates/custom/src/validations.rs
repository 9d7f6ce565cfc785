//! What is wrong with the rules of a schema (`x-kubernetes-validations`) themselves, when a definition is written.
//!
//! The texts are upstream's.

use kedge_expressions::{Type, compile_checked};
use kedge_meta::FieldError;
use serde_json::{Value, json};

use crate::json::{at, items, text, truth};
use crate::node::Node;
use crate::place::Place;
use crate::rules::{estimate, scope};

/// Upstream's bound of what one rule may cost for any object.
const COST_LIMIT: u64 = 10_000_000;

const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What is known of the position that rules are about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position<'a> {
    /// How many values an object may have there.
    pub(crate) cardinality: u64,
    /// The position above it from which on old and new values can't be matched.
    pub(crate) unmatched: Option<&'a str>,
    /// Whether it is an object with a name of its own.
    pub(crate) is_object: bool,
}

/// Appends what is wrong with the rules of a schema.
pub(crate) fn check(schema: &Value, position: Position<'_>, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let all = place.child("x-kubernetes-validations");
    let rules = items(schema, &["x-kubernetes-validations"]);
    if rules.is_empty() {
        return;
    }
    let node = Node { is_object_root: position.is_object, ..Node::read(schema) };
    for (index, rule) in rules.iter().enumerate() {
        let place = all.index(index);
        let before = errors.len();
        words(rule, &node, &place, errors);
        if errors.len() == before {
            meaning(rule, &node, position, &place, errors);
        }
    }
}

fn words(rule: &Value, node: &Node, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let given = |field: &str| text(rule, &[field]);
    let breaks = |text: &str| text.trim().contains(['\n', '\r']);
    let path = |field: &str| place.child(field).path();
    let (source, message) = (given("rule"), given("message"));
    if source.trim().is_empty() {
        errors.push(FieldError::required(&path("rule"), "rule is not specified"));
    } else if !message.is_empty() && message.trim().is_empty() {
        errors.push(FieldError::invalid(&path("message"), &json!(message), "must be non-empty if specified"));
    } else if breaks(message) {
        errors.push(FieldError::invalid(&path("message"), &json!(message), "must not contain line breaks"));
    } else if breaks(source) && message.is_empty() {
        let why = "message must be specified if rule contains line breaks";
        errors.push(FieldError::required(&path("message"), why));
    }
    let expression = given("messageExpression");
    if !expression.is_empty() && expression.trim().is_empty() {
        let why = "messageExpression must be non-empty if specified";
        errors.push(FieldError::required(&path("messageExpression"), why));
    }
    let reason = given("reason");
    if !reason.is_empty() && !REASONS.contains(&reason) {
        errors.push(FieldError::not_supported(&path("reason"), &json!(reason), &REASONS));
    }
    let field = given("fieldPath");
    if !field.is_empty() && field.trim().is_empty() {
        errors.push(FieldError::invalid(&path("fieldPath"), &json!(field), "must be non-empty if specified"));
    } else if !field.is_empty() && !leads_somewhere(node, field) {
        errors.push(FieldError::invalid(&path("fieldPath"), &json!(field), "must be a valid path"));
    }
}

fn leads_somewhere(node: &Node, path: &str) -> bool {
    let plain = path.replace("['", ".").replace("']", "");
    let mut names = plain.split('.').filter(|name| !name.is_empty());
    path.starts_with(['.', '[']) && names.try_fold(node, |node, name| node.member(name)).is_some()
}

fn meaning(rule: &Value, node: &Node, position: Position<'_>, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let source = text(rule, &["rule"]);
    let path = place.child("rule").path();
    let scope = scope(node, truth(rule, &["optionalOldSelf"]));
    let program = match compile_checked(source.trim(), &scope) {
        Ok((program, Type::Bool)) => program,
        other => {
            let why = other.err().unwrap_or_else(|| "cel expression must evaluate to a bool".to_owned());
            errors.push(FieldError::invalid(&path, rule, &why));
            return;
        }
    };
    check_cost("rule", estimate(program.expression(), node), position, place, errors);
    if let Some(message) = at(rule, &["messageExpression"]).and_then(Value::as_str) {
        match compile_checked(message.trim(), &scope) {
            Ok((program, Type::String)) => {
                let cost = estimate(program.expression(), node);
                check_cost("messageExpression", cost, position, place, errors);
            }
            other => {
                let why = other.map_or_else(|error| error, |_| "must evaluate to a string".to_owned());
                let path = place.child("messageExpression").path();
                errors.push(FieldError::invalid(&path, rule, &format!("messageExpression {why}")));
            }
        }
    }
    let uses_old = program.references().variables().contains(&"oldSelf");
    if let (true, Some(above)) = (uses_old, position.unmatched) {
        let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {above}");
        errors.push(FieldError::invalid(&path, &json!(source), &why));
    }
    if !uses_old && let Some(optional) = at(rule, &["optionalOldSelf"]) {
        let why = "may not be set if oldSelf is not used in rule";
        errors.push(FieldError::invalid(&place.child("optionalOldSelf").path(), optional, why));
    }
}

/// Refuses what costs too much for any object.
fn check_cost(field: &str, once: u64, position: Position<'_>, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let cost = once.saturating_mul(position.cardinality);
    if cost <= COST_LIMIT {
        return;
    }
    let why = format!(
        "estimated {field} cost exceeds budget by factor of {} (try simplifying the rule, or adding maxItems, \
         maxProperties, and maxLength where arrays, maps, and strings are declared)",
        factor(cost as f64 / COST_LIMIT as f64)
    );
    errors.push(FieldError::forbidden(&place.child(field).path(), &why));
}

/// How many times a budget is exceeded; little more than once is said exactly.
fn factor(times: f64) -> String {
    match times {
        times if times > 100.0 => "more than 100x".to_owned(),
        times if times < 1.5 => format!("{times:.6}x"),
        times => format!("{times:.1}x"),
    }
}
