//! The types of custom and aggregated resources, as the API publishes them in its OpenAPI documents of version 3.
//!
//! Invariant: what cannot be found out leaves a type unknown, and nothing is said about it: a policy works without.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicySpec;
use kedge_client::Client;
use kedge_expressions::{ObjectType, Type, readable_name};
use serde_json::{Map, Value};

use super::types::{literal_rules, params_of};

const REFERENCE: &str = "#/components/schemas/";

/// The versions of groups that are not built in, by group and version.
#[derive(Debug, Default)]
pub(super) struct Published(BTreeMap<(String, String), Version>);

/// What is served in a version of a group.
#[derive(Debug, Default)]
struct Version {
    /// As discovery lists them.
    resources: Vec<Value>,
    /// By the names that references use.
    schemas: Map<String, Value>,
}

impl Published {
    /// Asks for all that a policy names and that is not built in.
    pub(super) async fn find(client: &Client, spec: &ValidatingAdmissionPolicySpec) -> Self {
        let mut found = BTreeMap::new();
        for (group, version) in foreign(spec) {
            match Version::find(client, &group, &version).await {
                Ok(own) => drop(found.insert((group, version), own)),
                Err(error) => tracing::debug!(group, version, %error, "types of a policy cannot be found out"),
            }
        }
        Self(found)
    }

    /// The kind of a resource, by its plural or singular name.
    pub(super) fn kind(&self, group: &str, version: &str, resource: &str) -> Option<&str> {
        let resources = &self.version(group, version)?.resources;
        let found = resources.iter().find(|own| own["name"] == resource || own["singularName"] == resource)?;
        found["kind"].as_str()
    }

    /// The type of a kind.
    pub(super) fn type_of(&self, group: &str, version: &str, kind: &str) -> Option<Type> {
        let schemas = &self.version(group, version)?.schemas;
        let is_kind = |own: &Value| own["group"] == group && own["version"] == version && own["kind"] == kind;
        let (name, schema) = schemas.iter().find(|(_, schema)| {
            let kinds = schema["x-kubernetes-group-version-kind"].as_array();
            kinds.is_some_and(|kinds| kinds.iter().any(is_kind))
        })?;
        Reader { schemas, visited: vec![name.as_str()] }.type_of(schema, kind, true)
    }

    fn version(&self, group: &str, version: &str) -> Option<&Version> {
        self.0.get(&(group.to_owned(), version.to_owned()))
    }
}

impl Version {
    async fn find(client: &Client, group: &str, version: &str) -> Result<Self, kube::Error> {
        let mut discovered = get(client, &format!("/apis/{group}/{version}")).await?;
        let mut document = get(client, &format!("/openapi/v3/apis/{group}/{version}")).await?;
        let resources = match discovered["resources"].take() {
            Value::Array(resources) => resources,
            _ => Vec::new(),
        };
        let schemas = match document["components"]["schemas"].take() {
            Value::Object(schemas) => schemas,
            _ => Map::new(),
        };
        Ok(Self { resources, schemas })
    }
}

async fn get(client: &Client, path: &str) -> Result<Value, kube::Error> {
    let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    client.request(request).await
}

/// Groups and versions that a policy names and that are not built in.
fn foreign(spec: &ValidatingAdmissionPolicySpec) -> BTreeSet<(String, String)> {
    let rules = literal_rules(spec).into_iter();
    let named = rules.flat_map(|rule| rule.groups_and_versions().collect::<Vec<_>>());
    let named = named.chain(params_of(spec).map(|(group, version, _)| (group, version)));
    let is_foreign = |(group, version): &(&str, &str)| {
        !group.is_empty()
            && !kedge_kinds::builtins().iter().any(|kind| kind.group == *group && kind.version == *version)
    };
    named.filter(is_foreign).map(|(group, version)| (group.to_owned(), version.to_owned())).collect()
}

/// Reads schemas, and follows their references.
struct Reader<'a> {
    schemas: &'a Map<String, Value>,
    /// The references that lead to where it is.
    visited: Vec<&'a str>,
}

impl<'a> Reader<'a> {
    /// The type of a schema; absent where expressions do not see it. `is_root` of objects with a name of their own.
    fn type_of(&mut self, schema: &'a Value, name: &str, is_root: bool) -> Option<Type> {
        let Some(reference) = reference_of(schema) else { return self.plain(schema, name, is_root) };
        if self.visited.contains(&reference) {
            return Some(object(name, BTreeMap::new()));
        }
        let schema = self.schemas.get(reference)?;
        self.visited.push(reference);
        let own = self.plain(schema, name, is_root);
        self.visited.pop();
        own
    }

    fn plain(&mut self, schema: &'a Value, name: &str, is_root: bool) -> Option<Type> {
        if schema["x-kubernetes-int-or-string"] == true {
            return Some(Type::Dyn);
        }
        match (schema["type"].as_str().unwrap_or_default(), schema["format"].as_str().unwrap_or_default()) {
            _ if is_root => Some(self.object(schema, name, true)),
            ("array", _) => Some(Type::list(self.below(schema.get("items")?, &format!("{name}.@items"))?)),
            ("object", _) => match schema.get("additionalProperties").filter(|values| values.is_object()) {
                Some(values) => Some(Type::map(self.below(values, &format!("{name}.@elem"))?)),
                None => Some(self.object(schema, name, false)),
            },
            ("string", "byte") => Some(Type::Bytes),
            ("string", "duration") => Some(Type::Duration),
            ("string", "date" | "date-time") => Some(Type::Timestamp),
            ("string", _) => Some(Type::String),
            ("boolean", _) => Some(Type::Bool),
            ("number", _) => Some(Type::Double),
            ("integer", _) => Some(Type::Int),
            _ => None,
        }
    }

    fn below(&mut self, schema: &'a Value, name: &str) -> Option<Type> {
        self.type_of(schema, name, schema["x-kubernetes-embedded-resource"] == true)
    }

    fn object(&mut self, schema: &'a Value, name: &str, is_root: bool) -> Type {
        let mut fields = BTreeMap::new();
        for (own, property) in schema["properties"].as_object().into_iter().flatten() {
            let Some(own) = readable_name(own) else { continue };
            if let Some(of) = self.below(property, &format!("{name}.{own}")) {
                fields.insert(own, of);
            }
        }
        if is_root && !is_whole(&fields) {
            let names = [("name", Type::String), ("generateName", Type::String)];
            fields.insert("metadata".to_owned(), Type::object(&format!("{name}.metadata"), names));
            fields.insert("apiVersion".to_owned(), Type::String);
            fields.insert("kind".to_owned(), Type::String);
        }
        object(name, fields)
    }
}

/// Whether an object says itself what every object has.
fn is_whole(fields: &BTreeMap<String, Type>) -> bool {
    let is_text = |own: Option<Type>| matches!(own, Some(Type::String));
    let metadata = |name: &str| match fields.get("metadata") {
        Some(Type::Object(metadata)) => metadata.fields.field(name),
        _ => None,
    };
    ["apiVersion", "kind"].into_iter().all(|name| is_text(fields.get(name).cloned()))
        && ["name", "generateName"].into_iter().all(|name| is_text(metadata(name)))
}

fn object(name: &str, fields: BTreeMap<String, Type>) -> Type {
    Type::Object(ObjectType { name: name.into(), fields: std::sync::Arc::new(fields) })
}

/// What a schema refers to, where it is a reference: by itself, or wrapped to have a description beside it.
fn reference_of(schema: &Value) -> Option<&str> {
    let wrapped = schema["allOf"].as_array().into_iter().flatten();
    let found = std::iter::once(schema).chain(wrapped).find_map(|schema| schema["$ref"].as_str())?;
    Some(found.strip_prefix(REFERENCE).unwrap_or(found))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission_policy_status::types::check;

    /// A version with the kind `Tool`, as the API server publishes it.
    fn published() -> Published {
        let metadata = json!({"type": "object", "properties": {"name": {"type": "string"},
            "generateName": {"type": "string"}, "labels": {"type": "object", "additionalProperties": {"type": "string"}}}});
        let spec = json!({"type": "object", "properties": {
            "size": {"type": "integer"}, "port": {"x-kubernetes-int-or-string": true},
            "names": {"type": "array", "items": {"type": "string"}},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}, "free": {},
            "self": {"allOf": [{"$ref": "#/components/schemas/tool"}]}, "a-b": {"type": "boolean"},
            "since": {"type": "string", "format": "date-time"},
            "inner": {"type": "object", "x-kubernetes-embedded-resource": true}}});
        let tool = json!({"type": "object", "x-kubernetes-group-version-kind": [
                {"group": "example.com", "version": "v1", "kind": "Tool"}],
            "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "spec": spec,
                "metadata": {"description": "", "allOf": [{"$ref": "#/components/schemas/meta"}]}}});
        let resources = vec![json!({"name": "tools", "singularName": "tool", "kind": "Tool"})];
        let schemas = json!({"meta": metadata, "tool": tool}).as_object().unwrap().clone();
        let key = ("example.com".to_owned(), "v1".to_owned());
        Published([(key, Version { resources, schemas })].into())
    }

    #[test]
    fn custom_types_are_known_as_far_as_they_are_published() {
        let published = published();
        let check = |expression: &str, wrong: &str| {
            let rule = json!({"apiGroups": ["example.com"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["tools"]});
            let spec =
                json!({"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": expression}]});
            let warnings = check(&serde_json::from_value(spec).unwrap(), &published);
            let lines = warnings.iter().flat_map(|warning| warning.warning.lines());
            let lines: Vec<&str> = lines.filter(|line| line.contains("ERROR")).collect();
            let whole = format!("example.com/v1, Kind=Tool: ERROR: <input>:{wrong}");
            assert_eq!(lines, if wrong.is_empty() { Vec::new() } else { vec![whole] }, "{expression}");
        };
        check("object.spec.size > 1 && object.metadata.labels['a'] == 'b' && object.kind == 'Tool'", "");
        check("object.spec.sise > 1", "1:12: undefined field 'sise'");
        check("object.spec.size > 'a'", "1:18: found no matching overload for '_>_' applied to '(int, string)'");
        check("object.spec.port == 1 || object.spec.port == 'http'", "");
        check("object.spec.names.all(n, n.startsWith('a'))", "");
        check(
            "object.spec.names.all(n, n > 1)",
            "1:28: found no matching overload for '_>_' applied to '(string, int)'",
        );
        check("object.spec.any.thing == 1", "1:16: undefined field 'thing'");
        check("object.spec.free == 1", "1:12: undefined field 'free'");
        check("object.spec.self.spec == 1", "1:17: undefined field 'spec'");
        check("object.spec.a__dash__b", "");
        check("object.spec.since < timestamp('2026-01-01T00:00:00Z')", "");
        check("object.spec.inner.metadata.name == 'a'", "");
        check("object.spec.inner.metadata.labels == null", "1:27: undefined field 'labels'");
        check("object.metadata.label == null", "1:16: undefined field 'label'");
    }

    #[test]
    fn only_literal_names_of_what_is_not_built_in_are_asked_for() {
        let rule = |groups: &[&str], versions: &[&str], resources: &[&str]| json!({"apiGroups": groups, "apiVersions": versions, "operations": ["*"], "resources": resources});
        let spec = json!({"paramKind": {"apiVersion": "params.example.com/v2", "kind": "Limit"},
        "matchConstraints": {"resourceRules": [
            rule(&["apps", "example.com"], &["v1"], &["deployments", "tools"]),
            rule(&["*", "wild.example.com"], &["v1"], &["tools"]),
            rule(&["subs.example.com"], &["v1"], &["tools/status", "*"]),
            rule(&[""], &["v1"], &["pods"]),
        ]}});
        let named = foreign(&serde_json::from_value(spec).unwrap());
        let named: Vec<(&str, &str)> = named.iter().map(|(group, version)| (&**group, &**version)).collect();
        assert_eq!(named, [("example.com", "v1"), ("params.example.com", "v2")]);
    }
}
