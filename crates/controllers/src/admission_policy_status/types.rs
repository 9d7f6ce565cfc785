//! Expressions against the types that a policy matches: fields that a type does not have, operators that nothing of such
//! types goes with.
//!
//! Not a whole type checker: only built-in types are known, and what functions make of them is passed over.

use std::collections::HashMap;

use cel::common::ast::{CallExpr, Expr, LiteralValue};
use cel::parser::Expression;
use k8s_openapi::api::admissionregistration::v1::{
    ExpressionWarning, NamedRuleWithOperations, ValidatingAdmissionPolicySpec, Variable,
};
use kedge_expressions::compile;
use kedge_schema::{Schema, Shape};

/// Upstream's bound of the types that a policy is checked against.
const MOST_TYPES: usize = 10;

/// The type of an expression.
#[derive(Clone, Copy)]
enum Kind {
    /// What stands at a position of a known type.
    Position(Schema<'static>),
    /// `int`, `string` and their like.
    Scalar(&'static str),
}

/// The types of names; absent where nothing is known.
type Known = HashMap<String, Option<Kind>>;

const COMPARISONS: [&str; 6] = ["_!=_", "_<=_", "_<_", "_==_", "_>=_", "_>_"];
const ARITHMETIC: [&str; 5] = ["_%_", "_*_", "_+_", "_-_", "_/_"];
const NUMBERS: [&str; 3] = ["double", "int", "uint"];

/// What is to be warned of in the expressions of a policy.
pub(super) fn check(spec: &ValidatingAdmissionPolicySpec) -> Vec<ExpressionWarning> {
    let rules = spec.match_constraints.iter().flat_map(|constraints| constraints.resource_rules.iter().flatten());
    let types = types(rules);
    let variables = spec.variables.as_deref().unwrap_or_default();
    let mut warnings = Vec::new();
    let mut warn = |source: &str, field_ref: String| {
        let about = types.iter().filter_map(|(name, schema)| {
            let wrong = mistakes(source, variables, *schema);
            (!wrong.is_empty()).then(|| format!("{name}: ERROR: {}\n", wrong.join("; ")))
        });
        let warning = about.collect::<Vec<_>>().join("\n");
        if !warning.is_empty() {
            warnings.push(ExpressionWarning { field_ref, warning });
        }
    };
    for (index, validation) in spec.validations.iter().flatten().enumerate() {
        warn(&validation.expression, format!("spec.validations[{index}].expression"));
        if let Some(source) = validation.message_expression.as_deref().filter(|source| !source.is_empty()) {
            warn(source, format!("spec.validations[{index}].messageExpression"));
        }
    }
    warnings
}

/// The built-in types that rules name, as texts and schemas.
fn types<'a>(rules: impl Iterator<Item = &'a NamedRuleWithOperations>) -> Vec<(String, Schema<'static>)> {
    let mut found: Vec<(String, Schema<'static>)> = Vec::new();
    for rule in rules {
        let lists = [&rule.api_groups, &rule.api_versions, &rule.resources];
        let [groups, versions, resources] = lists.map(|list| list.as_deref().unwrap_or_default());
        for (group, version) in groups.iter().flat_map(|group| versions.iter().map(move |version| (group, version))) {
            for resource in resources {
                let Some(kind) = kedge_kinds::builtin_by_resource(group, version, resource) else { continue };
                let Some(known) = kedge_schema::type_by_gvk(group, version, &kind.kind) else { continue };
                let name = format!("{}, Kind={}", kind.api_version(), kind.kind);
                if found.len() < MOST_TYPES && !found.iter().any(|(earlier, _)| *earlier == name) {
                    found.push((name, Schema::of(known)));
                }
            }
        }
    }
    found
}

/// What an expression makes of objects of a type that cannot be.
fn mistakes(source: &str, variables: &[Variable], schema: Schema<'static>) -> Vec<String> {
    let mut known = Known::from(["object", "oldObject"].map(|name| (name.to_owned(), Some(Kind::Position(schema)))));
    for variable in variables {
        let kind =
            compile(&variable.expression).ok().and_then(|program| visit(program.expression(), &known, &mut Vec::new()));
        known.insert(format!("variables.{}", variable.name), kind);
    }
    let mut found = Vec::new();
    if let Ok(program) = compile(source) {
        visit(program.expression(), &known, &mut found);
    }
    found.dedup();
    found
}

/// Visits an expression; its type, if that is known.
fn visit(expression: &Expression, known: &Known, found: &mut Vec<String>) -> Option<Kind> {
    match &expression.expr {
        Expr::Ident(name) => known.get(name).copied().flatten(),
        Expr::Literal(LiteralValue::Boolean(_)) => Some(Kind::Scalar("bool")),
        Expr::Literal(LiteralValue::Double(_)) => Some(Kind::Scalar("double")),
        Expr::Literal(LiteralValue::Int(_)) => Some(Kind::Scalar("int")),
        Expr::Literal(LiteralValue::String(_)) => Some(Kind::Scalar("string")),
        Expr::Select(select) => match &select.operand.expr {
            Expr::Ident(name) if name == "variables" => {
                known.get(&format!("variables.{}", select.field)).copied().flatten()
            }
            _ => {
                let kind = field(visit(&select.operand, known, found)?, &select.field, found);
                if select.test { Some(Kind::Scalar("bool")) } else { kind }
            }
        },
        Expr::Call(call) => called(call, known, found),
        Expr::Comprehension(all) => {
            let range = visit(&all.iter_range, known, found);
            let mut inner = known.clone();
            inner.insert(all.accu_var.clone(), None);
            let is_list = |kind: &Kind| matches!(kind, Kind::Position(list) if matches!(list.shape(), Shape::List(_)));
            inner.insert(all.iter_var.clone(), range.filter(is_list).and_then(element));
            visit(&all.accu_init, known, found);
            for part in [&all.loop_cond, &all.loop_step, &all.result] {
                visit(part, &inner, found);
            }
            None
        }
        Expr::List(list) => {
            list.elements.iter().for_each(|part| {
                visit(part, known, found);
            });
            None
        }
        _ => None,
    }
}

fn called(call: &CallExpr, known: &Known, found: &mut Vec<String>) -> Option<Kind> {
    if let Some(target) = &call.target {
        visit(target, known, found);
    }
    let args: Vec<_> = call.args.iter().map(|arg| visit(arg, known, found)).collect();
    let name = call.func_name.as_str();
    if name == "_[_]" {
        return args.first().copied().flatten().and_then(element);
    }
    let (is_comparison, is_arithmetic) = (COMPARISONS.contains(&name), ARITHMETIC.contains(&name));
    let [Some(one), Some(other)] = args.as_slice() else {
        return is_comparison.then_some(Kind::Scalar("bool"));
    };
    let (one, other) = (scalar(*one)?, scalar(*other)?);
    let are_numbers = NUMBERS.contains(&one) && NUMBERS.contains(&other);
    if (is_comparison || is_arithmetic) && one != other && !(is_comparison && are_numbers) {
        found.push(format!("found no matching overload for '{name}' applied to '({one}, {other})'"));
    }
    if is_comparison { Some(Kind::Scalar("bool")) } else { is_arithmetic.then_some(Kind::Scalar(one)) }
}

fn scalar(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Scalar(name) => Some(name),
        Kind::Position(schema) => match schema.shape() {
            Shape::Boolean => Some("bool"),
            Shape::Int32 | Shape::Int64 => Some("int"),
            Shape::Double => Some("double"),
            Shape::String => Some("string"),
            _ => None,
        },
    }
}

fn element(kind: Kind) -> Option<Kind> {
    match kind {
        Kind::Position(schema) => match schema.shape() {
            Shape::List(items) | Shape::Map(items) => Some(Kind::Position(items)),
            _ => None,
        },
        Kind::Scalar(_) => None,
    }
}

fn field(owner: Kind, name: &str, found: &mut Vec<String>) -> Option<Kind> {
    let Kind::Position(owner) = owner else { return None };
    match owner.shape() {
        Shape::Struct(fields) => match fields.field(name) {
            Some((_, schema)) => Some(Kind::Position(schema)),
            None if fields.keeps_unknown() => None,
            None => {
                found.push(format!("undefined field '{name}'"));
                None
            }
        },
        Shape::Map(values) => Some(Kind::Position(values)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn fields_that_a_type_does_not_have_are_found() {
        let check = |expression: &str, resources: &[&str], expected: &[&str]| {
            let rule =
                json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": resources});
            let spec = json!({"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": expression}],
                "variables": [{"name": "pod", "expression": "object.spec.template"}]});
            let warnings = super::check(&serde_json::from_value(spec).unwrap());
            assert!(warnings.iter().all(|warning| warning.field_ref == "spec.validations[0].expression"));
            let texts: Vec<&str> = warnings.iter().map(|warning| warning.warning.as_str()).collect();
            assert_eq!(texts, expected, "{expression}");
        };
        check("object.spec.replicas > 1 && object.metadata.labels.any == 'x'", &["deployments"], &[]);
        let deployment = "apps/v1, Kind=Deployment: ERROR: undefined field 'replica'\n";
        check("object.spec.replica > 1", &["deployments"], &[deployment]);
        check("has(object.spec.replica)", &["deployments"], &[deployment]);
        check("object.spec.replica > 1", &["*"], &[]);
        check(
            "object.spec.template.spec.containers.all(c, c.image != '' && c.replica)",
            &["deployments"],
            &[deployment],
        );
        check("variables.pod.spec.containers[0].replica == 1", &["deployments"], &[deployment]);
        let overload = |text: &str| format!("apps/v1, Kind=Deployment: ERROR: found no matching overload for {text}\n");
        check("object.spec.replicas > '1'", &["deployments"], &[&overload("'_>_' applied to '(int, string)'")]);
        check(
            "'got ' + object.spec.replicas == ''",
            &["deployments"],
            &[&overload("'_+_' applied to '(string, int)'")],
        );
        check("object.spec.replicas % 2 == 1 && object.spec.replicas > 1.5", &["deployments"], &[]);
        check("cel.bind(replica, object.spec, replica.replicas == 1)", &["deployments"], &[]);
        check(
            "object.spec.replicas > 1",
            &["deployments", "daemonsets"],
            &["apps/v1, Kind=DaemonSet: ERROR: undefined field 'replicas'\n"],
        );
    }
}
