//! Expressions against the types that a policy matches: what such objects do not have, and what their types do not go with.
//!
//! Only built-in types are known; of parameters and objects of others nothing is.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{
    ExpressionWarning, NamedRuleWithOperations, ValidatingAdmissionPolicySpec,
};
use kedge_expressions::{Fields, ObjectType, Type, admission_scope, compile_checked};
use kedge_schema::{Schema, Shape, Struct};

/// Upstream's bound of the types that a policy is checked against.
const MOST_TYPES: usize = 10;

/// What is to be warned of in the expressions of a policy.
pub(super) fn check(spec: &ValidatingAdmissionPolicySpec) -> Vec<ExpressionWarning> {
    let rules = spec.match_constraints.iter().flat_map(|constraints| constraints.resource_rules.iter().flatten());
    let types = types(rules);
    let mut warnings = Vec::new();
    let mut warn = |source: &str, field_ref: String| {
        let about = types.iter().filter_map(|(name, own)| {
            let wrong = mistakes(source, spec, own)?;
            Some(format!("{name}: {wrong}\n"))
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

/// The built-in types that rules name, as texts and types, in the order of their texts.
fn types<'a>(rules: impl Iterator<Item = &'a NamedRuleWithOperations>) -> Vec<(String, Type)> {
    let mut found: Vec<(String, Type)> = Vec::new();
    for rule in rules {
        let lists = [&rule.api_groups, &rule.api_versions, &rule.resources];
        let [groups, versions, resources] = lists.map(|list| list.as_deref().unwrap_or_default());
        for (group, version) in groups.iter().flat_map(|group| versions.iter().map(move |version| (group, version))) {
            for resource in resources {
                let Some(kind) = kedge_kinds::builtin_by_resource(group, version, resource) else { continue };
                let Some(own) = of_kind(group, version, &kind.kind) else { continue };
                let name = format!("{}, Kind={}", kind.api_version(), kind.kind);
                if found.len() < MOST_TYPES && !found.iter().any(|(earlier, _)| *earlier == name) {
                    found.push((name, own));
                }
            }
        }
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

/// The type of a built-in kind, if there is such a kind.
fn of_kind(group: &str, version: &str, kind: &str) -> Option<Type> {
    Some(type_of(Schema::of(kedge_schema::type_by_gvk(group, version, kind)?), kind))
}

/// What an expression makes of objects of a type that cannot be.
fn mistakes(source: &str, spec: &ValidatingAdmissionPolicySpec, own: &Type) -> Option<String> {
    let params = spec.param_kind.as_ref().map(|params| {
        let api_version = params.api_version.as_deref().unwrap_or_default();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        of_kind(group, version, params.kind.as_deref().unwrap_or_default()).unwrap_or(Type::Dyn)
    });
    let mut scope = admission_scope(own, params.as_ref(), true);
    let mut variables: Vec<(&str, Type)> = Vec::new();
    for variable in spec.variables.iter().flatten() {
        scope.declare("variables", Type::object("kubernetes.variables", variables.clone()));
        let own = compile_checked(&variable.expression, &scope).map_or(Type::Dyn, |(_, own)| own);
        variables.push((&variable.name, own));
    }
    scope.declare("variables", Type::object("kubernetes.variables", variables));
    let mistake = compile_checked(source, &scope).err()?;
    // Upstream's controller says it without the words that its API server puts before it.
    Some(mistake.strip_prefix("compilation failed: ").unwrap_or(&mistake).to_owned())
}

/// The fields of a built-in type, looked up when they are asked for: some types contain themselves.
#[derive(Debug)]
struct BuiltIn {
    fields: Struct<'static>,
    name: String,
}

impl Fields for BuiltIn {
    fn field(&self, name: &str) -> Option<Type> {
        // CEL cannot read a name with a sign, and keeps some words for itself.
        let plain = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
        let (_, schema) = self.fields.field(plain.unwrap_or(name))?;
        Some(type_of(schema, &format!("{}.{name}", self.name)))
    }
}

fn type_of(schema: Schema<'static>, name: &str) -> Type {
    match schema.shape() {
        Shape::Boolean => Type::Bool,
        Shape::Int32 | Shape::Int64 => Type::Int,
        Shape::Double => Type::Double,
        Shape::String | Shape::Quantity => Type::String,
        Shape::Bytes => Type::Bytes,
        Shape::Time | Shape::MicroTime => Type::Timestamp,
        Shape::IntOrString | Shape::Json | Shape::Untyped => Type::Dyn,
        Shape::List(items) => Type::list(type_of(items, &format!("{name}.@items"))),
        Shape::Map(values) => Type::map(type_of(values, &format!("{name}.@elem"))),
        Shape::Struct(fields) => {
            let fields = Arc::new(BuiltIn { fields, name: name.to_owned() });
            Type::Object(ObjectType { name: name.into(), fields })
        }
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
            let lines = warnings.iter().flat_map(|warning| warning.warning.lines());
            let lines: Vec<&str> = lines.filter(|line| line.contains("ERROR")).collect();
            assert_eq!(lines, expected, "{expression}");
        };
        check("object.spec.replicas > 1 && object.metadata.labels.any == 'x'", &["deployments"], &[]);
        let mistake = |text: &str| format!("apps/v1, Kind=Deployment: ERROR: <input>:{text}");
        check("object.spec.replica > 1", &["deployments"], &[&mistake("1:12: undefined field 'replica'")]);
        check("has(object.spec.replica)", &["deployments"], &[&mistake("1:4: undefined field 'replica'")]);
        check("object.spec.replica > 1", &["*"], &[]);
        check(
            "object.spec.template.spec.containers.all(c, c.image != '' && c.replica)",
            &["deployments"],
            &[&mistake("1:63: undefined field 'replica'")],
        );
        check(
            "variables.pod.spec.containers[0].replica == 1",
            &["deployments"],
            &[&mistake("1:33: undefined field 'replica'")],
        );
        let overload = |at: &str, text: &str| mistake(&format!("{at}: found no matching overload for {text}"));
        check("object.spec.replicas > '1'", &["deployments"], &[&overload("1:22", "'_>_' applied to '(int, string)'")]);
        check(
            "'got ' + object.spec.replicas == ''",
            &["deployments"],
            &[&overload("1:8", "'_+_' applied to '(string, int)'")],
        );
        check("object.spec.replicas % 2 == 1 && object.spec.replicas > 1.5", &["deployments"], &[]);
        check("object.metadata.creationTimestamp > timestamp('2020-01-01T00:00:00Z')", &["deployments"], &[]);
        check("request.operation == 'CREATE' && authorizer.path('/').check('get').allowed()", &["deployments"], &[]);
        check(
            "object.spec.template.spec.containers.all(c, c.ports.all(p, p.name.startsWith(1)))",
            &["deployments"],
            &[&overload("1:77", "'startsWith' applied to 'string.(int)'")],
        );
        check("object.spec.strategy.rollingUpdate.maxSurge == '25%'", &["deployments"], &[]);
        check("cel.bind(replica, object.spec, replica.replicas == 1)", &["deployments"], &[]);
        check(
            "object.spec.replicas > 1",
            &["deployments", "daemonsets"],
            &["apps/v1, Kind=DaemonSet: ERROR: <input>:1:12: undefined field 'replicas'"],
        );
    }

    #[test]
    fn parameters_of_built_in_kinds_have_types() {
        let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["pods"]});
        let spec = json!({"matchConstraints": {"resourceRules": [rule]},
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "validations": [{"expression": "params.data['a'] == 1"}]});
        let warnings = super::check(&serde_json::from_value(spec).unwrap());
        assert_eq!(
            warnings[0].warning,
            "v1, Kind=Pod: ERROR: <input>:1:18: found no matching overload for '_==_' applied to '(string, int)'\
             \n | params.data['a'] == 1\n | .................^\n"
        );
    }
}
