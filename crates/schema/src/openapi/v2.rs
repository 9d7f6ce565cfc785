//! OpenAPI v2: one document for all group versions, as JSON and as protobuf.
//!
//! Old clients read only this one, and kubectl before 1.27 only its protobuf form.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::definitions::{Dialect, META, closure, render};
use super::foreign::{self, ForeignSchema};
use super::operations::{Operation, Parameter};
use super::paths::{self, PathItem};
use super::protobuf;
use super::v3::Writer;
use super::{ServedResource, custom};

const VERSION: &str = "v1.36.0";

/// The document as JSON, with what others serve.
pub fn openapi_v2_json(resources: &[ServedResource], foreign: &[Arc<ForeignSchema>]) -> Vec<u8> {
    let mut document = Writer::new();
    document.entry("swagger", &json!("2.0"));
    document.entry("info", &info());
    document.open("paths");
    let items = items(resources);
    let foreign = others(foreign, resources, &items);
    for item in &items {
        document.entry(&item.path, &path(item));
    }
    for (path, item) in foreign.paths() {
        document.entry(path, item);
    }
    document.close().open("definitions");
    for_each_definition(resources, &items, &mut |name, schema| {
        document.entry(name, schema);
    });
    for (name, schema) in foreign.definitions() {
        document.entry(name, schema);
    }
    document.close();
    document.entry("securityDefinitions", &security_definitions());
    document.entry("security", &json!([{"BearerToken": []}]));
    document.finish()
}

/// The document as `gnostic.openapi.v2.Document`, content type [`super::OPENAPI_V2_PROTOBUF`].
pub fn openapi_v2_protobuf(resources: &[ServedResource], foreign: &[Arc<ForeignSchema>]) -> Vec<u8> {
    let mut document = protobuf::Document::new(&info());
    let items = items(resources);
    let foreign = others(foreign, resources, &items);
    let own = items.iter().map(|item| (item.path.as_str(), path(item)));
    document.paths(own.chain(foreign.paths().map(|(path, item)| (path, item.clone()))));
    let mut definitions = protobuf::Definitions::default();
    for_each_definition(resources, &items, &mut |name, schema| definitions.add(name, schema));
    foreign.definitions().for_each(|(name, schema)| definitions.add(name, schema));
    document.finish(definitions, &security_definitions())
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": VERSION})
}

fn security_definitions() -> Value {
    json!({"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header",
        "description": "Bearer Token authentication"}})
}

fn items(resources: &[ServedResource]) -> Vec<PathItem> {
    paths::of_resources(&resources.iter().collect::<Vec<_>>())
}

/// What others serve, beside this server's own definitions.
fn others(foreign: &[Arc<ForeignSchema>], resources: &[ServedResource], items: &[PathItem]) -> ForeignSchema {
    let mut own = BTreeSet::new();
    if !foreign.is_empty() {
        for_each_definition(resources, items, &mut |name, _| own.extend([name.to_owned()]));
    }
    foreign::merged(foreign, own)
}

fn for_each_definition(resources: &[ServedResource], items: &[PathItem], visit: &mut dyn FnMut(&str, &Value)) {
    let group_versions: BTreeSet<(String, String)> =
        resources.iter().map(|resource| (resource.group.clone(), resource.version.clone())).collect();
    let group_versions: Vec<(String, String)> = group_versions.into_iter().collect();
    let event = format!("{META}WatchEvent");
    let custom = custom::definitions(&resources.iter().collect::<Vec<_>>(), Dialect::V2);
    let roots = paths::definitions(items).into_iter().chain([event.as_str()]);
    for (name, definition) in closure(roots) {
        match custom.get(&name) {
            Some(schema) => visit(&name, schema),
            None => visit(&name, &render(&name, definition, Dialect::V2, &group_versions)),
        }
    }
}

fn path(item: &PathItem) -> Value {
    let mut rendered = Map::new();
    for operation in &item.operations {
        rendered.insert(operation.method.to_owned(), render_operation(operation));
    }
    let in_path = item
        .parameters
        .iter()
        .map(|name| json!({"name": name, "in": "path", "required": true, "type": "string", "uniqueItems": true}));
    let parameters: Vec<Value> = in_path.chain([query(&("pretty", "string"))]).collect();
    rendered.insert("parameters".to_owned(), parameters.into());
    Value::Object(rendered)
}

fn query((name, ty): &Parameter) -> Value {
    json!({"name": name, "in": "query", "type": ty, "uniqueItems": true})
}

fn render_operation(operation: &Operation) -> Value {
    let mut rendered = Map::new();
    rendered.insert("operationId".to_owned(), operation.id.as_str().into());
    rendered.insert("tags".to_owned(), json!([operation.tag]));
    rendered.insert("schemes".to_owned(), json!(["https"]));
    let consumes = if operation.method == "patch" && operation.body.is_some() {
        json!(operation.patch_types)
    } else {
        json!(["*/*"])
    };
    rendered.insert("consumes".to_owned(), consumes);
    rendered.insert("produces".to_owned(), produces(operation));
    let mut parameters: Vec<Value> = Vec::new();
    if let Some((definition, required)) = &operation.body {
        let mut body = json!({"name": "body", "in": "body", "schema": Dialect::V2.reference(definition)});
        if *required {
            body["required"] = true.into();
        }
        parameters.push(body);
    }
    parameters.extend(operation.query.iter().map(query));
    if !parameters.is_empty() {
        rendered.insert("parameters".to_owned(), parameters.into());
    }
    let schema = match &operation.answer {
        Some(name) => Dialect::V2.reference(name),
        None => json!({"type": "string"}),
    };
    let mut responses = Map::new();
    responses.insert("200".to_owned(), json!({"description": "OK", "schema": schema}));
    for (code, text) in operation.codes {
        responses.insert((*code).to_owned(), json!({"description": text, "schema": schema}));
    }
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    rendered.insert("responses".to_owned(), Value::Object(responses));
    rendered.extend(paths::vendor(operation).map(|(name, value)| (name.to_owned(), value)));
    Value::Object(rendered)
}

fn produces(operation: &Operation) -> Value {
    match (operation.action, &operation.answer) {
        ("list", _) => json!(["application/json", "application/yaml", "application/json;stream=watch"]),
        ("connect", _) => json!(["*/*"]),
        (_, None) => json!(["text/plain"]),
        _ => json!(["application/json", "application/yaml"]),
    }
}
