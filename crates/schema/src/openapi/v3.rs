//! OpenAPI v3: the index, and one document for each group version.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};

use super::definitions::{Dialect, META, closure, render};
use super::operations::{Operation, Parameter, capitalized};
use super::paths::{self, PathItem};
use super::{ServedResource, custom};
use crate::facts::group_versions;

const TYPES: [&str; 2] = ["application/json", "application/yaml"];

/// `/openapi/v3`: where the documents are. The hash in a link changes with the document.
pub fn openapi_v3_index(resources: &[ServedResource]) -> Vec<u8> {
    let mut links = Map::new();
    for resource in resources {
        let path = &paths::root(&resource.group, &resource.version)[1..];
        if !links.contains_key(path) {
            let hash = openapi_v3_hash(&resource.group, &resource.version, resources);
            let link = json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")});
            links.insert(path.to_owned(), link);
        }
    }
    json!({"paths": links}).to_string().into_bytes()
}

/// The hash of a group version's document: the one in the index's link, and its `ETag`.
pub fn openapi_v3_hash(group: &str, version: &str, resources: &[ServedResource]) -> String {
    let facts = group_versions().iter().find(|known| known.group == group && known.version == version);
    // Only has to differ when the document does; the hasher is the same in every process of one build.
    let mut hasher = DefaultHasher::new();
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    of_group_version(group, version, resources).hash(&mut hasher);
    format!("{}{:016X}", facts.map_or("", |facts| facts.hash), hasher.finish())
}

fn of_group_version<'r>(group: &str, version: &str, resources: &'r [ServedResource]) -> Vec<&'r ServedResource> {
    resources.iter().filter(|resource| resource.group == group && resource.version == version).collect()
}

/// `/openapi/v3/apis/<group>/<version>`; `None` where nothing of it is served.
pub fn openapi_v3(group: &str, version: &str, resources: &[ServedResource]) -> Option<Vec<u8>> {
    let served = of_group_version(group, version, resources);
    if served.is_empty() {
        return None;
    }
    let items = paths::of_resources(&served);
    let list = format!("{META}APIResourceList");
    let event = format!("{META}WatchEvent");
    let custom = custom::definitions(&served, Dialect::V3);
    let meta = if custom.is_empty() { Vec::new() } else { custom::referred().to_vec() };
    let roots = paths::definitions(&items).into_iter().chain([list.as_str(), event.as_str()]);
    let definitions = closure(roots.chain(meta.iter().map(String::as_str)));
    let own = [(group.to_owned(), version.to_owned())];

    let mut document = Writer::new();
    document.open("components").open("schemas");
    for (name, definition) in definitions {
        match custom.get(&name) {
            Some(schema) => document.entry(&name, schema),
            None => document.entry(&name, &render(&name, definition, Dialect::V3, &own)),
        };
    }
    document.close();
    let token = json!({"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header",
        "description": "Bearer Token authentication"}});
    document.entry("securitySchemes", &token).close();
    document.entry("info", &json!({"title": "Kubernetes", "version": "unversioned"}));
    document.entry("openapi", &json!("3.0.0"));
    document.open("paths");
    document.entry(&format!("{}/", paths::root(group, version)), &resource_list_path(group, version, &list));
    for item in &items {
        document.entry(&item.path, &path(item));
    }
    document.close();
    Some(document.finish())
}

fn resource_list_path(group: &str, version: &str, list: &str) -> Value {
    let tag = paths::tag(group, version);
    let id = tag.split('_').map(capitalized).collect::<String>();
    json!({"get": {
        "operationId": format!("get{id}APIResources"),
        "tags": [tag],
        "description": "get available resources",
        "responses": {"200": answer("OK", Some(list), &TYPES), "401": {"description": "Unauthorized"}},
    }})
}

fn path(item: &PathItem) -> Value {
    let mut rendered = Map::new();
    for operation in &item.operations {
        rendered.insert(operation.method.to_owned(), render_operation(operation));
    }
    let in_path = item.parameters.iter().map(
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}}),
    );
    let parameters: Vec<Value> = in_path.chain([query(&("pretty", "string"))]).collect();
    rendered.insert("parameters".to_owned(), parameters.into());
    Value::Object(rendered)
}

fn query((name, ty): &Parameter) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": ty, "uniqueItems": true}})
}

fn render_operation(operation: &Operation) -> Value {
    let mut rendered = Map::new();
    rendered.insert("operationId".to_owned(), operation.id.as_str().into());
    rendered.insert("tags".to_owned(), json!([operation.tag]));
    if !operation.query.is_empty() {
        let parameters: Vec<Value> = operation.query.iter().map(query).collect();
        rendered.insert("parameters".to_owned(), parameters.into());
    }
    if let Some((definition, required)) = &operation.body {
        let types: &[&str] = if operation.method == "patch" { operation.patch_types } else { &["*/*"] };
        let mut body = Map::new();
        body.insert("content".to_owned(), content(&Dialect::V3.reference(definition), types));
        if *required {
            body.insert("required".to_owned(), true.into());
        }
        rendered.insert("requestBody".to_owned(), Value::Object(body));
    }
    let types: &[&str] = match (operation.action, &operation.answer) {
        ("list", _) => &["application/json", "application/json;stream=watch", "application/yaml"],
        ("connect", _) => &["*/*"],
        (_, None) => &["text/plain"],
        _ => &TYPES,
    };
    let mut responses = Map::new();
    let codes = [("200", "OK")].iter().chain(operation.codes).copied().collect::<Vec<_>>();
    for (code, text) in codes {
        responses.insert(code.to_owned(), answer(text, operation.answer.as_deref(), types));
    }
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    rendered.insert("responses".to_owned(), Value::Object(responses));
    rendered.extend(paths::vendor(operation).map(|(name, value)| (name.to_owned(), value)));
    Value::Object(rendered)
}

fn answer(text: &str, definition: Option<&str>, types: &[&str]) -> Value {
    let schema = match definition {
        Some(name) => Dialect::V3.reference(name),
        None => json!({"type": "string"}),
    };
    json!({"description": text, "content": content(&schema, types)})
}

fn content(schema: &Value, types: &[&str]) -> Value {
    let types = types.iter().map(|ty| ((*ty).to_owned(), json!({"schema": schema})));
    Value::Object(types.collect())
}

/// Writes nested objects entry by entry.
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { bytes: vec![b'{'] }
    }

    fn name(&mut self, name: &str) {
        if self.bytes.last() != Some(&b'{') {
            self.bytes.push(b',');
        }
        self.bytes.extend_from_slice(Value::from(name).to_string().as_bytes());
        self.bytes.push(b':');
    }

    pub(super) fn open(&mut self, name: &str) -> &mut Self {
        self.name(name);
        self.bytes.push(b'{');
        self
    }

    pub(super) fn entry(&mut self, name: &str, value: &Value) -> &mut Self {
        self.name(name);
        self.bytes.extend_from_slice(value.to_string().as_bytes());
        self
    }

    pub(super) fn close(&mut self) -> &mut Self {
        self.bytes.push(b'}');
        self
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(b'}');
        self.bytes
    }
}
