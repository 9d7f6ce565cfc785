//! Admission policies written in CEL.

use jiff::Timestamp;
use kedge_expressions::Type;
use kedge_meta::FieldError;
use serde_json::Value;

use super::expressions::{Given, check, type_of};
use super::matching::{default_match, match_errors};
use crate::formats;
use crate::path::Path;
use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, name};
use crate::value::{at, at_mut, child, fill, is_set, items, text, texts};
use crate::workload::SPEC;

/// Upstream's bounds.
const MAX_CONDITIONS: usize = 64;
const MAX_ANNOTATIONS: usize = 20;
const LONGEST_ANNOTATION: usize = 5 * 1024;

const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];

/// Words that CEL keeps for itself.
const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// Of validatingadmissionpolicies, and of mutatingadmissionpolicies.
pub(super) struct Policy {
    /// The field with its rules: `validations` or `mutations`.
    pub(super) rules: &'static str,
}

const VALIDATING_COLUMNS: &[Column] = &[
    NAME,
    column("Validations", "integer", "How many validations it has"),
    column("ParamKind", "string", "Kind of its parameters"),
    AGE,
];

const MUTATING_COLUMNS: &[Column] = &[
    NAME,
    column("Mutations", "integer", "How many mutations it has"),
    column("ParamKind", "string", "Kind of its parameters"),
    AGE,
];

impl Strategy for Policy {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        fill(spec, "failurePolicy", "Fail");
        if let Some(constraints) = at_mut(spec, &["matchConstraints"]) {
            default_match(constraints);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let spec = &object["spec"];
        let policy = text(spec, &["failurePolicy"]);
        SPEC.child("failurePolicy").required_one_of(errors, policy, &["Fail", "Ignore"]);
        let kind = at(spec, &["paramKind"]);
        if let Some(kind) = kind {
            kind_errors(kind, &SPEC.child("paramKind"), errors);
        }
        let path = SPEC.child("matchConstraints");
        match at(spec, &["matchConstraints"]) {
            None => path.required(errors, ""),
            Some(constraints) => {
                match_errors(constraints, &path, errors);
                if !is_set(constraints, &["resourceRules"]) {
                    path.child("resourceRules").required(errors, "");
                }
            }
        }
        let given = Given { params: kind.is_some(), authorizer: true, variables: None, constructs: false };
        condition_errors(spec, given, errors);
        let variables = variable_errors(spec, given, errors);
        let has_variables = !variables.is_empty() || self.rules == "mutations";
        let given = Given { variables: has_variables.then_some(variables.as_slice()), ..given };
        match self.rules {
            "mutations" => mutation_errors(spec, Given { constructs: true, ..given }, errors),
            _ => validation_errors(object, given, errors),
        }
    }

    fn columns(&self) -> &[Column] {
        if self.rules == "mutations" { MUTATING_COLUMNS } else { VALIDATING_COLUMNS }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let kind = at(object, &["spec", "paramKind"]).map_or_else(
            || "<unset>".to_owned(),
            |kind| format!("{}/{}", text(kind, &["apiVersion"]), text(kind, &["kind"])),
        );
        let rules = items(object, &["spec", self.rules]).len();
        vec![name(object), Value::from(rules), Value::from(kind), age(object, now)]
    }
}

fn kind_errors(kind: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (version, own) = (text(kind, &["apiVersion"]), text(kind, &["kind"]));
    let path_of_version = path.child("apiVersion");
    match version.split('/').collect::<Vec<_>>().as_slice() {
        [""] => path_of_version.required(errors, ""),
        [version] => path_of_version.check(errors, version, formats::label_1035(version)),
        [group, version] => {
            path_of_version.check(errors, group, formats::subdomain(group));
            path_of_version.check(errors, version, formats::label_1035(version));
        }
        _ => path_of_version.invalid(errors, version, &format!("unexpected GroupVersion string: {version}")),
    }
    let wrong = formats::label_1035(&own.to_lowercase());
    if own.is_empty() {
        path.child("kind").required(errors, "");
    } else if !wrong.is_empty() {
        let why = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        path.child("kind").invalid(errors, own, &why);
    }
}

fn condition_errors(spec: &Value, given: Given<'_>, errors: &mut Vec<FieldError>) {
    let list = SPEC.child("matchConditions");
    let conditions = items(spec, &["matchConditions"]);
    if conditions.len() > MAX_CONDITIONS {
        list.too_many(errors, conditions.len(), MAX_CONDITIONS);
    }
    for (index, condition) in conditions.iter().enumerate() {
        let path = list.index(index);
        match text(condition, &["expression"]).trim() {
            "" => path.child("expression").required(errors, ""),
            source => check(source, given, &[Type::Bool], &path.child("expression"), errors),
        }
        let name = text(condition, &["name"]);
        match name.is_empty() {
            true => path.child("name").required(errors, ""),
            false => path.child("name").check(errors, name, formats::qualified_name(name)),
        }
        if !name.is_empty() && conditions[..index].iter().any(|earlier| text(earlier, &["name"]) == name) {
            path.child("name").duplicate(errors, name);
        }
    }
}

/// The variables with their types.
fn variable_errors(spec: &Value, given: Given<'_>, errors: &mut Vec<FieldError>) -> Vec<(String, Type)> {
    let mut known: Vec<(String, Type)> = Vec::new();
    for (index, variable) in items(spec, &["variables"]).iter().enumerate() {
        let list = SPEC.child("variables");
        let path = list.index(index);
        let name = text(variable, &["name"]);
        let is_identifier = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
            && !RESERVED.contains(&name);
        if name.trim().is_empty() {
            path.child("name").required(errors, "name is not specified");
        } else if !is_identifier {
            path.child("name").invalid(errors, name, "must be a valid CEL identifier");
        }
        let source = text(variable, &["expression"]);
        let own = match type_of(source, Given { variables: Some(&known), ..given }) {
            _ if source.trim().is_empty() => {
                path.child("expression").required(errors, "expression is not specified");
                Type::Dyn
            }
            Ok(own) => own,
            Err(why) => {
                path.child("expression").invalid(errors, source, &why);
                Type::Dyn
            }
        };
        known.push((name.to_owned(), own));
    }
    known
}

fn validation_errors(object: &Value, given: Given<'_>, errors: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    let validations = items(spec, &["validations"]);
    if validations.is_empty() && !is_set(spec, &["auditAnnotations"]) {
        for field in ["validations", "auditAnnotations"] {
            SPEC.child(field).required(errors, "validations or auditAnnotations must contain at least one item");
        }
    }
    for (index, validation) in validations.iter().enumerate() {
        let list = SPEC.child("validations");
        one_validation(validation, given, &list.index(index), errors);
    }
    annotation_errors(object, given, errors);
}

fn one_validation(validation: &Value, given: Given<'_>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let given_text = |field: &str| text(validation, &[field]);
    match given_text("expression") {
        source if source.trim().is_empty() => path.child("expression").required(errors, "expression is not specified"),
        source => check(source, given, &[Type::Bool], &path.child("expression"), errors),
    }
    match given_text("messageExpression") {
        "" => {}
        source if source.trim().is_empty() => {
            path.child("messageExpression").invalid(errors, source, "must be non-empty if specified");
        }
        source => {
            let given = Given { authorizer: false, ..given };
            check(source, given, &[Type::String], &path.child("messageExpression"), errors);
        }
    }
    let message = given_text("message");
    if !message.is_empty() && message.trim().is_empty() {
        path.child("message").invalid(errors, message, "must be non-empty if specified");
    } else if message.trim().contains(['\n', '\r']) {
        path.child("message").invalid(errors, message, "must not contain line breaks");
    }
    let reason = given_text("reason");
    if !reason.is_empty() {
        path.child("reason").one_of(errors, reason, &REASONS);
    }
}

fn annotation_errors(object: &Value, given: Given<'_>, errors: &mut Vec<FieldError>) {
    let list = SPEC.child("auditAnnotations");
    let annotations = items(object, &["spec", "auditAnnotations"]);
    if annotations.len() > MAX_ANNOTATIONS {
        let why = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        list.invalid(errors, annotations.to_vec(), &why);
    }
    let policy = text(object, &["metadata", "name"]);
    for (index, annotation) in annotations.iter().enumerate() {
        let path = list.index(index);
        let key = text(annotation, &["key"]);
        match policy {
            "" => path.child("key").invalid(errors, key, "requires metadata.name be non-empty"),
            policy => {
                let whole = format!("{policy}/{key}");
                path.child("key").check(errors, &whole, formats::qualified_name(&whole));
            }
        }
        if annotations[..index].iter().any(|earlier| text(earlier, &["key"]) == key) {
            path.child("key").duplicate(errors, key);
        }
        let path = path.child("valueExpression");
        match text(annotation, &["valueExpression"]).trim() {
            "" => path.required(errors, "valueExpression is not specified"),
            source if source.len() > LONGEST_ANNOTATION => {
                path.required(errors, &format!("must not exceed {LONGEST_ANNOTATION} bytes in length"));
            }
            source => check(source, given, &[Type::String, Type::Null], &path, errors),
        }
    }
}

fn mutation_errors(spec: &Value, given: Given<'_>, errors: &mut Vec<FieldError>) {
    for rule in items(spec, &["matchConstraints", "resourceRules"]) {
        let (constraints, supported) = (SPEC.child("matchConstraints"), ["CREATE", "UPDATE"]);
        let rules = constraints.child("resourceRules");
        for operation in texts(rule, &["operations"]).filter(|operation| !supported.contains(operation)) {
            rules.child("operations").one_of(errors, operation, &supported);
        }
    }
    let list = SPEC.child("mutations");
    let mutations = items(spec, &["mutations"]);
    if mutations.is_empty() {
        list.required(errors, "mutations must contain at least one item");
    }
    for (index, mutation) in mutations.iter().enumerate() {
        one_mutation(mutation, given, &list.index(index), errors);
    }
    let policy = text(spec, &["reinvocationPolicy"]);
    SPEC.child("reinvocationPolicy").required_one_of(errors, policy, &["IfNeeded", "Never"]);
}

fn one_mutation(mutation: &Value, given: Given<'_>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let kind = text(mutation, &["patchType"]);
    let (own, other, made) = match kind {
        "JSONPatch" => ("jsonPatch", "applyConfiguration", Type::list(Type::opaque("JSONPatch"))),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", Type::opaque("Object")),
        _ => return path.child("patchType").required_one_of(errors, kind, &["ApplyConfiguration", "JSONPatch"]),
    };
    match at(mutation, &[own]) {
        None => path.child(own).required(errors, &format!("must be specified when patchType is {kind}")),
        Some(patch) => {
            let path = path.child(own);
            let path = path.child("expression");
            match text(patch, &["expression"]).trim() {
                "" => path.required(errors, ""),
                source => check(source, given, &[made], &path, errors),
            }
        }
    }
    if at(mutation, &[other]).is_some() {
        let why = format!("must not be specified when patchType is {kind}");
        path.child(other).invalid(errors, format!("{{{other}}}"), &why);
    }
}

#[cfg(test)]
mod tests;
