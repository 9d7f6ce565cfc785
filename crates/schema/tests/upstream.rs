//! Compares the facts and the documents made from them with upstream's OpenAPI documents.
//!
//! Those are not part of the repository: `KEDGE_UPSTREAM` names the folder that has them, or they lie in
//! `../shared/upstream` beside it. Where they are absent, the comparison is skipped and says so.

// Tests: a document that is not as expected fails the test, and what is skipped must be seen.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kedge_schema::{ServedResource, ServedSubresource, openapi_v2_json, openapi_v3};
use serde_json::{Map, Value};

fn upstream() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::env::var_os("KEDGE_UPSTREAM").map_or_else(|| root.join("../shared/upstream"), PathBuf::from);
    if folder.join("openapi").is_dir() && folder.join("discovery/aggregated_v2.json").is_file() {
        return Some(folder);
    }
    let test = std::thread::current().name().unwrap_or("a comparison with upstream").to_owned();
    kedge_skip::skip(&test, &format!("upstream's documents are not at {} (set KEDGE_UPSTREAM)", folder.display()));
    None
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// What upstream serves, from its discovery document.
fn served(folder: &Path) -> Vec<ServedResource> {
    let mut resources = Vec::new();
    let mut documents = vec![read(&folder.join("discovery/aggregated_v2.json"))];
    let core = read(&folder.join("discovery/api__v1.json"));
    documents.retain(|document| document["items"].is_array());
    for group in documents.iter().flat_map(|document| document["items"].as_array().unwrap()) {
        for version in group["versions"].as_array().unwrap() {
            for resource in version["resources"].as_array().unwrap() {
                resources.push(served_resource(group, version, resource));
            }
        }
    }
    resources.extend(core_resources(&core));
    resources
}

fn served_resource(group: &Value, version: &Value, resource: &Value) -> ServedResource {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let group = group.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let version = text(version, "version");
    let subresources = resource["subresources"].as_array().into_iter().flatten().map(|sub| {
        let kind = &sub["responseKind"];
        let or = |value: String, other: &String| if value.is_empty() { other.clone() } else { value };
        ServedSubresource {
            name: text(sub, "subresource"),
            group: if text(kind, "version").is_empty() { group.clone() } else { text(kind, "group") },
            version: or(text(kind, "version"), &version),
            kind: text(kind, "kind"),
            verbs: texts(&sub["verbs"]),
        }
    });
    ServedResource {
        resource: text(resource, "resource"),
        kind: text(&resource["responseKind"], "kind"),
        namespaced: resource["scope"] == "Namespaced",
        verbs: texts(&resource["verbs"]),
        subresources: subresources.collect(),
        group: group.clone(),
        version: version.clone(),
        schema: None,
    }
}

/// The core group from its legacy discovery document.
fn core_resources(document: &Value) -> Vec<ServedResource> {
    let mut resources: Vec<ServedResource> = Vec::new();
    for entry in document["resources"].as_array().unwrap() {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let name = text("name");
        let version = if text("version").is_empty() { "v1".to_owned() } else { text("version") };
        match name.split_once('/') {
            None => resources.push(ServedResource {
                group: String::new(),
                version: "v1".to_owned(),
                resource: name,
                kind: text("kind"),
                namespaced: entry["namespaced"] == true,
                verbs: texts(&entry["verbs"]),
                subresources: Vec::new(),
                schema: None,
            }),
            Some((parent, sub)) => {
                let parent = resources.iter_mut().find(|resource| resource.resource == parent).unwrap();
                parent.subresources.push(ServedSubresource {
                    name: sub.to_owned(),
                    group: text("group"),
                    version,
                    kind: text("kind"),
                    verbs: texts(&entry["verbs"]),
                });
            }
        }
    }
    resources
}

/// Without prose, and with references in one form.
fn normalized(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(normalized).collect(),
        Value::Object(entries) => {
            let mut kept: Map<String, Value> = entries
                .iter()
                .filter(|(name, value)| !(*name == "description" && value.is_string()))
                .map(|(name, value)| (name.clone(), normalized(value)))
                .collect();
            if let Some(Value::Array(required)) = kept.get_mut("required") {
                required.sort_by_key(Value::to_string);
            }
            if let Some(reference) = kept.get("allOf").and_then(|all| all.pointer("/0/$ref")).cloned() {
                kept.remove("allOf");
                kept.insert("$ref".to_owned(), reference);
            }
            Value::Object(kept)
        }
        other => other.clone(),
    }
}

/// Our document of each group version beside upstream's.
fn for_each_document(visit: &mut dyn FnMut(&str, &Value, &Value)) {
    let Some(folder) = upstream() else { return };
    let served = served(&folder);
    let mut seen = Vec::new();
    for resource in &served {
        let prefix = if resource.group.is_empty() { "api".to_owned() } else { format!("apis__{}", resource.group) };
        let name = format!("{prefix}__{}_openapi.json", resource.version);
        if seen.contains(&name) {
            continue;
        }
        let theirs = read(&folder.join("openapi").join(&name));
        let ours = openapi_v3(&resource.group, &resource.version, &served).unwrap();
        visit(&name, &serde_json::from_slice(&ours).unwrap(), &theirs);
        seen.push(name);
    }
    assert!(seen.len() > 20, "{seen:?}");
}

#[test]
fn definitions_are_upstreams() {
    let mut differences = Vec::new();
    for_each_document(&mut |document, ours, theirs| {
        let ours = ours.pointer("/components/schemas").unwrap().as_object().unwrap();
        for (name, theirs) in theirs.pointer("/components/schemas").unwrap().as_object().unwrap() {
            match ours.get(name) {
                None => differences.push(format!("{document} lacks {name}")),
                Some(ours) if normalized(ours) != normalized(theirs) => {
                    differences.push(format!("{document} {name}:\n  {}\n  {}", normalized(ours), normalized(theirs)))
                }
                _ => {}
            }
        }
    });
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

/// Id, action, kind and parameters of every operation by path and method.
fn operations(document: &Value) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        // Watches by path are long deprecated, and `{path}` only repeats a connection.
        if path.contains("/watch/") || path.ends_with("{path}") {
            continue;
        }
        let names = |owner: &Value| -> Vec<String> {
            let parameters = owner["parameters"].as_array().into_iter().flatten();
            parameters.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
        };
        for (method, operation) in
            item.as_object().unwrap().iter().filter(|(method, _)| METHODS.contains(&method.as_str()))
        {
            let mut parameters = [names(item), names(operation)].concat();
            parameters.retain(|name| name != "pretty" && name != "shardSelector");
            parameters.sort();
            let text = |key: &str| operation[key].to_string();
            let summary = format!(
                "{} {} {} {parameters:?} {}",
                text("operationId"),
                text("x-kubernetes-action"),
                text("x-kubernetes-group-version-kind"),
                text("tags"),
            );
            found.insert((path.clone(), method.clone()), summary);
        }
    }
    found
}

#[test]
fn operations_are_upstreams() {
    let mut differences = Vec::new();
    for_each_document(&mut |document, ours, theirs| {
        let (ours, theirs) = (operations(ours), operations(theirs));
        for (place, theirs) in &theirs {
            if ours.get(place) != Some(theirs) {
                differences.push(format!("{document} {place:?}:\n  {:?}\n  {theirs}", ours.get(place)));
            }
        }
        for place in ours.keys() {
            if !theirs.contains_key(place) {
                differences.push(format!("{document} has {place:?}, upstream has not"));
            }
        }
    });
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn references_lead_to_definitions() {
    fn check(value: &Value, definitions: &Map<String, Value>, prefix: &str) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| check(item, definitions, prefix)),
            Value::Object(entries) => {
                // A field may be called `$ref`; then it is no text.
                if let Some(Value::String(reference)) = entries.get("$ref") {
                    let name = reference.strip_prefix(prefix).unwrap();
                    assert!(definitions.contains_key(name), "{reference}");
                }
                entries.values().for_each(|value| check(value, definitions, prefix));
            }
            _ => {}
        }
    }
    for_each_document(&mut |_, ours, _| {
        check(ours, ours.pointer("/components/schemas").unwrap().as_object().unwrap(), "#/components/schemas/");
    });
    if let Some(folder) = upstream() {
        let document: Value = serde_json::from_slice(&openapi_v2_json(&served(&folder), &[])).unwrap();
        check(&document, document["definitions"].as_object().unwrap(), "#/definitions/");
    }
}
