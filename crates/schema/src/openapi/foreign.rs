//! The OpenAPI v2 schema of an API that another server has, to be shown among this server's own.
//!
//! Invariant: of its document that is taken which its group version needs, and no definition of this server's is replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

const PREFIX: &str = "#/definitions/";

/// What these definitions are is the same everywhere.
const SHARED: &str = "io.k8s.";

/// A part of another server's document.
#[derive(Debug, Clone, PartialEq)]
pub struct ForeignSchema {
    paths: BTreeMap<String, Value>,
    definitions: BTreeMap<String, Value>,
}

impl ForeignSchema {
    /// What a document says about a group version; absent where that is nothing.
    pub fn of_group_version(document: Value, group: &str, version: &str) -> Option<Self> {
        let Value::Object(mut document) = document else { return None };
        let base = format!("/apis/{group}/{version}");
        let is_own = |path: &str| path.strip_prefix(&base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some(Value::Object(all)) = document.remove("paths") else { return None };
        let paths: BTreeMap<String, Value> = all.into_iter().filter(|(path, _)| is_own(path)).collect();
        if paths.is_empty() {
            return None;
        }
        let mut known = match document.remove("definitions") {
            Some(Value::Object(known)) => known,
            _ => serde_json::Map::new(),
        };
        let (mut definitions, mut open) = (BTreeMap::new(), Vec::new());
        paths.values().for_each(|item| references(item, &mut open));
        while let Some(name) = open.pop() {
            if let Some(definition) = known.remove(&name) {
                references(&definition, &mut open);
                definitions.insert(name, definition);
            }
        }
        Some(Self { paths, definitions })
    }
}

/// Paths and definitions of others beside definitions with the names `taken`: what is shared counts as it stands there, and
/// what only has the same name gets another one.
pub(super) fn merged(foreign: &[Arc<ForeignSchema>], mut taken: BTreeSet<String>) -> ForeignSchema {
    let mut all = ForeignSchema { paths: BTreeMap::new(), definitions: BTreeMap::new() };
    for schema in foreign {
        let mut names = BTreeMap::new();
        for (name, definition) in &schema.definitions {
            let is_there = taken.contains(name)
                && (name.starts_with(SHARED) || all.definitions.get(name).is_some_and(|other| other == definition));
            if taken.contains(name) && !is_there {
                let free = (2..).map(|number| format!("{name}_v{number}")).find(|free| !taken.contains(free));
                names.extend(free.map(|free| (name.clone(), free)));
            }
        }
        for (name, definition) in &schema.definitions {
            let name = names.get(name).unwrap_or(name);
            if taken.insert(name.clone()) {
                all.definitions.insert(name.clone(), renamed(definition, &names));
            }
        }
        for (path, item) in &schema.paths {
            all.paths.entry(path.clone()).or_insert_with(|| renamed(item, &names));
        }
    }
    all
}

impl ForeignSchema {
    pub(super) fn paths(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.paths.iter().map(|(path, item)| (path.as_str(), item))
    }

    pub(super) fn definitions(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.definitions.iter().map(|(name, definition)| (name.as_str(), definition))
    }
}

/// The names of the definitions that a value refers to.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let own = fields.get("$ref").and_then(Value::as_str).and_then(|own| own.strip_prefix(PREFIX));
            found.extend(own.map(str::to_owned));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// A value that refers to definitions by their new names.
fn renamed(value: &Value, names: &BTreeMap<String, String>) -> Value {
    match value {
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                let name = value.as_str().filter(|_| key == "$ref").and_then(|own| own.strip_prefix(PREFIX));
                let value = match name.and_then(|name| names.get(name)) {
                    Some(name) => format!("{PREFIX}{name}").into(),
                    None => renamed(value, names),
                };
                (key.clone(), value)
            };
            Value::Object(fields.iter().map(field).collect())
        }
        Value::Array(items) => items.iter().map(|item| renamed(item, names)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reference(name: &str) -> Value {
        json!({"$ref": format!("{PREFIX}{name}")})
    }

    #[test]
    fn what_a_group_version_needs_is_taken() {
        let document = json!({
            "paths": {"/apis/a.io/v1": {"get": reference("List")}, "/apis/a.io/v1/things": {"get": reference("Thing")},
                "/apis/a.io/v1beta1/things": {"get": reference("Old")}, "/healthz": {}},
            "definitions": {"Thing": {"properties": {"metadata": reference("io.k8s.Meta"), "items": [reference("Thing")]}},
                "List": {}, "Old": {}, "io.k8s.Meta": {}, "Other": {}},
        });
        let taken = ForeignSchema::of_group_version(document.clone(), "a.io", "v1").unwrap();
        assert_eq!(taken.paths().map(|(path, _)| path).collect::<Vec<_>>(), ["/apis/a.io/v1", "/apis/a.io/v1/things"]);
        assert_eq!(taken.definitions().map(|(name, _)| name).collect::<Vec<_>>(), ["List", "Thing", "io.k8s.Meta"]);
        assert_eq!(ForeignSchema::of_group_version(document, "a.io", "v2"), None);
        for nonsense in [json!([]), json!({"paths": []}), json!({"paths": {"/apis/a.io/v1beta1": 1}})] {
            assert_eq!(ForeignSchema::of_group_version(nonsense, "a.io", "v1"), None);
        }
    }

    #[test]
    fn names_that_are_taken_are_left_alone() {
        let of = |version: &str, thing: Value| {
            let path = format!("/apis/a.io/{version}/things");
            let document = json!({"paths": {path: {"get": reference("Thing")}},
                "definitions": {"Thing": thing, "io.k8s.Meta": {"x": version}}});
            Arc::new(ForeignSchema::of_group_version(document, "a.io", version).unwrap())
        };
        let thing = json!({"properties": {"metadata": reference("io.k8s.Meta"), "part": reference("Thing")}});
        let taken = || BTreeSet::from(["io.k8s.Meta".to_owned(), "Thing".to_owned()]);
        let all = merged(&[of("v1", thing.clone())], taken());
        let renamed = json!({"properties": {"metadata": reference("io.k8s.Meta"), "part": reference("Thing_v2")}});
        assert_eq!(all.definitions().collect::<Vec<_>>(), [("Thing_v2", &renamed)]);
        assert_eq!(all.paths["/apis/a.io/v1/things"]["get"], reference("Thing_v2"));
        // Two others that mean the same share it.
        let all = merged(&[of("v1", thing.clone()), of("v2", thing), of("v3", json!({}))], BTreeSet::new());
        assert_eq!(all.definitions().map(|(name, _)| name).collect::<Vec<_>>(), ["Thing", "Thing_v2", "io.k8s.Meta"]);
        assert_eq!(all.paths["/apis/a.io/v2/things"]["get"], reference("Thing"));
        assert_eq!(all.paths["/apis/a.io/v3/things"]["get"], reference("Thing_v2"));
    }
}
