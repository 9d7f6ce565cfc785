//! Expressions against the types that a policy matches: what such objects do not have, and what their types do not go with.
//!
//! Built-in types are known by themselves, others as far as they are published.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{ExpressionWarning, ValidatingAdmissionPolicySpec};
use kedge_expressions::{Fields, ObjectType, Type, admission_scope, compile_checked};
use kedge_schema::{Schema, Shape, Struct};

use super::published::Published;

/// Upstream's bound of the types that one rule adds; the rules after one that reaches it count no more.
const MOST_TYPES: usize = 10;

/// What is to be warned of in the expressions of a policy.
pub(super) fn check(spec: &ValidatingAdmissionPolicySpec, published: &Published) -> Vec<ExpressionWarning> {
    let types = types(spec, published);
    let params = params_of(spec).map(|(group, version, kind)| {
        let own = of_kind(group, version, kind).or_else(|| published.type_of(group, version, kind));
        own.unwrap_or(Type::Dyn)
    });
    let mut warnings = Vec::new();
    let mut warn = |source: &str, field_ref: String| {
        let about = types.iter().filter_map(|(name, own)| {
            let wrong = mistakes(source, spec, own, params.as_ref())?;
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

/// A rule without patterns, with its parts in their order.
pub(super) struct LiteralRule<'a> {
    groups: Vec<&'a str>,
    versions: Vec<&'a str>,
    resources: Vec<&'a str>,
}

impl<'a> LiteralRule<'a> {
    /// Each group with each version.
    pub(super) fn groups_and_versions(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.groups.iter().flat_map(|group| self.versions.iter().map(move |version| (*group, *version)))
    }
}

/// The rules that name types: those with patterns of groups or versions do not, nor do patterns of resources and
/// subresources.
pub(super) fn literal_rules(spec: &ValidatingAdmissionPolicySpec) -> Vec<LiteralRule<'_>> {
    let rules = spec.match_constraints.iter().flat_map(|constraints| constraints.resource_rules.iter().flatten());
    let literal = rules.filter_map(|rule| {
        let lists = [&rule.api_groups, &rule.api_versions, &rule.resources];
        let mut lists = lists.map(|list| list.iter().flatten().map(String::as_str).collect::<Vec<_>>());
        lists.iter_mut().for_each(|list| list.sort_unstable());
        let [groups, versions, mut resources] = lists;
        resources.retain(|resource| !resource.contains(['*', '/']));
        let is_literal = groups.iter().chain(&versions).all(|text| !text.contains('*')) && !resources.is_empty();
        is_literal.then_some(LiteralRule { groups, versions, resources })
    });
    literal.collect()
}

/// Group, version and kind of a policy's parameters.
pub(super) fn params_of(spec: &ValidatingAdmissionPolicySpec) -> Option<(&str, &str, &str)> {
    let params = spec.param_kind.as_ref()?;
    let api_version = params.api_version.as_deref().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Some((group, version, params.kind.as_deref().unwrap_or_default()))
}

/// The types that rules name, as texts and types, in the order of group, version and kind.
fn types(spec: &ValidatingAdmissionPolicySpec, published: &Published) -> Vec<(String, Type)> {
    let mut found: BTreeMap<(&str, &str, String), Type> = BTreeMap::new();
    'rules: for rule in literal_rules(spec) {
        let mut count = 0;
        for (group, version) in rule.groups_and_versions() {
            for resource in &rule.resources {
                let kind = match kedge_kinds::builtin_by_resource(group, version, resource) {
                    Some(kind) => Some(kind.kind.to_string()),
                    None => published.kind(group, version, resource).map(str::to_owned),
                };
                let Some(kind) = kind else { continue };
                count += 1;
                let own = of_kind(group, version, &kind).or_else(|| published.type_of(group, version, &kind));
                if let Some(own) = own {
                    found.insert((group, version, kind), own);
                }
                if count == MOST_TYPES {
                    break 'rules;
                }
            }
        }
    }
    let name = |(group, version, kind): (&str, &str, String)| format!("{group}/{version}, Kind={kind}");
    found.into_iter().map(|(own, found)| (name(own), found)).collect()
}

/// The type of a built-in kind, if there is such a kind.
fn of_kind(group: &str, version: &str, kind: &str) -> Option<Type> {
    Some(type_of(Schema::of(kedge_schema::type_by_gvk(group, version, kind)?), kind))
}

/// What an expression makes of objects of a type that cannot be.
fn mistakes(source: &str, spec: &ValidatingAdmissionPolicySpec, own: &Type, params: Option<&Type>) -> Option<String> {
    let mut scope = admission_scope(own, params, true);
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

    use super::Published;

    #[test]
    fn fields_that_a_type_does_not_have_are_found() {
        let check = |expression: &str, resources: &[&str], expected: &[&str]| {
            let rule =
                json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": resources});
            let spec = json!({"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": expression}],
                "variables": [{"name": "pod", "expression": "object.spec.template"}]});
            let warnings = super::check(&serde_json::from_value(spec).unwrap(), &Published::default());
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
        let warnings = super::check(&serde_json::from_value(spec).unwrap(), &Published::default());
        assert_eq!(
            warnings[0].warning,
            "/v1, Kind=Pod: ERROR: <input>:1:18: found no matching overload for '_==_' applied to '(string, int)'\
             \n | params.data['a'] == 1\n | .................^\n"
        );
    }
}
