//! A policy and a binding, as they are read once.

use serde_json::Value;

use super::compiled::Compiled;
use super::known::Read;
use super::matching::Criteria;
use crate::object;

/// A ValidatingAdmissionPolicy or a MutatingAdmissionPolicy.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) criteria: Criteria,
    pub(super) conditions: Vec<Compiled>,
    pub(super) variables: Vec<(String, Compiled)>,
    pub(super) validations: Vec<Validation>,
    pub(super) annotations: Vec<(String, Compiled)>,
    pub(super) mutations: Vec<Mutation>,
    /// What cannot be evaluated counts as good.
    pub(super) ignores_failures: bool,
    /// `apiVersion` and `kind`.
    pub(super) param_kind: Option<(String, String)>,
    /// Whether a mutation of somebody else makes it run again.
    pub(super) is_reinvoked: bool,
}

/// One of `spec.validations`.
#[derive(Debug)]
pub(super) struct Validation {
    pub(super) expression: Compiled,
    pub(super) message: String,
    pub(super) message_expression: Option<Compiled>,
    pub(super) reason: String,
}

/// One of `spec.mutations`.
#[derive(Debug)]
pub(super) enum Mutation {
    /// The expression gives a part of the object.
    Apply(Compiled),
    /// The expression gives operations.
    JsonPatch(Compiled),
}

/// A binding of either.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) policy: String,
    pub(super) criteria: Criteria,
    pub(super) actions: Vec<String>,
    pub(super) param_ref: Option<Value>,
}

impl Policy {
    /// Every expression of it.
    pub(super) fn expressions(&self) -> impl Iterator<Item = &Compiled> {
        let validations = self
            .validations
            .iter()
            .flat_map(|own| std::iter::once(&own.expression).chain(own.message_expression.as_ref()));
        let mutations = self.mutations.iter().map(|own| match own {
            Mutation::Apply(expression) | Mutation::JsonPatch(expression) => expression,
        });
        let named = self.variables.iter().chain(&self.annotations).map(|(_, expression)| expression);
        self.conditions.iter().chain(named).chain(validations).chain(mutations)
    }

    /// Whether an expression of it looks at a variable of the request.
    pub(super) fn uses(&self, variable: &str) -> bool {
        self.expressions().any(|expression| expression.uses(variable))
    }
}

impl Read for Policy {
    fn read(policy: &Value) -> Self {
        let spec = &policy["spec"];
        let named = |list: &str, name: &str, expression: &str| -> Vec<(String, Compiled)> {
            let read = |item: &Value| {
                (object::text(item, &[name]).to_owned(), Compiled::new(object::text(item, &[expression])))
            };
            object::list(spec, &[list]).iter().map(read).collect()
        };
        let conditions = named("matchConditions", "name", "expression").into_iter().map(|(_, own)| own).collect();
        let param_kind = spec
            .get("paramKind")
            .filter(|kind| kind.is_object())
            .map(|kind| (object::text(kind, &["apiVersion"]).to_owned(), object::text(kind, &["kind"]).to_owned()));
        Self {
            name: object::name(policy).to_owned(),
            criteria: Criteria::read(&spec["matchConstraints"]),
            conditions,
            variables: named("variables", "name", "expression"),
            validations: object::list(spec, &["validations"]).iter().map(validation).collect(),
            annotations: named("auditAnnotations", "key", "valueExpression"),
            mutations: object::list(spec, &["mutations"]).iter().map(mutation).collect(),
            ignores_failures: object::text(spec, &["failurePolicy"]) == "Ignore",
            param_kind,
            is_reinvoked: object::text(spec, &["reinvocationPolicy"]) == "IfNeeded",
        }
    }
}

fn validation(validation: &Value) -> Validation {
    let text = |name: &str| object::text(validation, &[name]).trim().to_owned();
    Validation {
        expression: Compiled::new(object::text(validation, &["expression"])),
        message: text("message"),
        message_expression: Compiled::some(object::text(validation, &["messageExpression"])),
        reason: text("reason"),
    }
}

fn mutation(mutation: &Value) -> Mutation {
    match object::text(mutation, &["patchType"]) {
        "JSONPatch" => {
            Mutation::JsonPatch(Compiled::constructing(object::text(mutation, &["jsonPatch", "expression"])))
        }
        _ => Mutation::Apply(Compiled::constructing(object::text(mutation, &["applyConfiguration", "expression"]))),
    }
}

impl Read for Binding {
    fn read(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let actions = object::list(spec, &["validationActions"]).iter().filter_map(Value::as_str);
        Self {
            name: object::name(binding).to_owned(),
            policy: object::text(spec, &["policyName"]).to_owned(),
            criteria: Criteria::read(&spec["matchResources"]),
            actions: actions.map(str::to_owned).collect(),
            param_ref: spec.get("paramRef").filter(|reference| reference.is_object()).cloned(),
        }
    }
}
