//! `/openapi/v2` and `/openapi/v3`: the schema of what is served, made when first asked for.
//!
//! Invariant: a document belongs to one state of the registry and of what other servers have; a new one makes new documents.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH};
use http::{Response, StatusCode};
use kedge_meta::{ApiStatus, StatusReason};
use kedge_schema::{ForeignSchema, ServedResource, ServedSubresource};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::body::Body;
use crate::call::Call;
use crate::core::Core;
use crate::negotiate;
use crate::registry::Registry;
use crate::reply::{self, Reply};

const V2_PROTOBUF: &str = kedge_schema::OPENAPI_V2_PROTOBUF;

/// What other servers say of their APIs.
type Foreign = Vec<Arc<ForeignSchema>>;

/// Documents that were made, for the registry they were made of. Bounded by the number of groups and versions.
#[derive(Default)]
pub(crate) struct Documents {
    made: Mutex<Made>,
}

/// Documents by name, each with its etag.
#[derive(Default)]
struct Made {
    of: Option<(Arc<Registry>, Foreign)>,
    by_name: HashMap<String, (Bytes, String)>,
}

impl Documents {
    /// The document `name` with its etag, made by `make` if it was not made yet.
    fn get(
        &self,
        registry: &Arc<Registry>,
        foreign: &[Arc<ForeignSchema>],
        name: &str,
        make: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<(Bytes, String)> {
        let mut made = self.made.lock();
        let is_same = made.of.as_ref().is_some_and(|(known, others)| {
            let same = |(one, other): (&Arc<ForeignSchema>, &Arc<ForeignSchema>)| Arc::ptr_eq(one, other);
            Arc::ptr_eq(known, registry) && others.len() == foreign.len() && others.iter().zip(foreign).all(same)
        });
        if !is_same {
            *made = Made { of: Some((Arc::clone(registry), foreign.to_vec())), by_name: HashMap::new() };
        }
        if let Some(document) = made.by_name.get(name) {
            return Some(document.clone());
        }
        let text = Bytes::from(make()?);
        let document = (text.clone(), super::discovery::etag(&text));
        made.by_name.insert(name.to_owned(), document.clone());
        Some(document)
    }
}

/// Answers `/openapi/...`; `rest` is what follows.
pub(super) fn answer(core: &Core, call: &Call, rest: &str) -> Reply {
    let registry = core.registry.load_full();
    let foreign: Foreign = core.extensions.all().iter().filter_map(|extension| extension.schema_v2()).collect();
    match rest.split_once('/').unwrap_or((rest, "")) {
        ("v2", "") => v2(core, call, &registry, &foreign),
        ("v3", "") => {
            let make = || Some(kedge_schema::openapi_v3_index(&served(&registry)));
            let index = core.documents.get(&registry, &foreign, "v3", make);
            let index = with_extensions(core, index.ok_or_else(ApiStatus::no_such_path)?);
            Ok(send(call, reply::JSON, index))
        }
        ("v3", path) => v3(core, call, &registry, &foreign, path),
        _ => Err(ApiStatus::no_such_path()),
    }
}

/// The index with the schemas of other servers in it.
fn with_extensions(core: &Core, (index, etag): (Bytes, String)) -> (Bytes, String) {
    let extensions = core.extensions.all();
    let mut schemas = extensions.iter().filter_map(|extension| extension.schema()).peekable();
    let read = schemas.peek().and_then(|_| serde_json::from_slice::<Value>(&index).ok());
    let Some(mut document) = read else { return (index, etag) };
    for (place, url) in schemas {
        document["paths"][place] = json!({"serverRelativeURL": url});
    }
    let text = Bytes::from(document.to_string());
    let etag = super::discovery::etag(&text);
    (text, etag)
}

fn v2(core: &Core, call: &Call, registry: &Arc<Registry>, foreign: &[Arc<ForeignSchema>]) -> Reply {
    let ranges = negotiate::accept_ranges(&call.headers);
    let wanted = ranges.iter().find_map(|range| match range.name.as_str() {
        V2_PROTOBUF => Some(true),
        // What kubectl and older clients ask for by its old name is the same protobuf document.
        name if name.starts_with("application/com.github.googleapis.gnostic.openapiv2") => Some(true),
        name if name.starts_with("application/com.github.proto-openapi.spec.v2") => Some(true),
        "application/json" | "*/*" | "application/*" => Some(false),
        _ => None,
    });
    match wanted.or(ranges.is_empty().then_some(false)) {
        Some(true) => {
            let make = || Some(kedge_schema::openapi_v2_protobuf(&served(registry), foreign));
            let document = core.documents.get(registry, foreign, "v2.pb", make);
            let document = document.ok_or_else(ApiStatus::no_such_path)?;
            Ok(send(call, HeaderValue::from_static(V2_PROTOBUF), document))
        }
        Some(false) => {
            let make = || Some(kedge_schema::openapi_v2_json(&served(registry), foreign));
            let document = core.documents.get(registry, foreign, "v2", make);
            Ok(send(call, reply::JSON, document.ok_or_else(ApiStatus::no_such_path)?))
        }
        None => Err(ApiStatus::new(
            406,
            StatusReason::NotAcceptable,
            format!("only the following media types are accepted: application/json, {V2_PROTOBUF}"),
        )),
    }
}

fn v3(core: &Core, call: &Call, registry: &Arc<Registry>, foreign: &[Arc<ForeignSchema>], path: &str) -> Reply {
    let (group, version) = match path.split('/').collect::<Vec<_>>()[..] {
        ["api", version] => ("", version),
        ["apis", group, version] => (group, version),
        _ => return Err(ApiStatus::no_such_path()),
    };
    let wants_json = negotiate::accept_ranges(&call.headers);
    let json = wants_json.is_empty()
        || wants_json.iter().any(|range| matches!(range.name.as_str(), "application/json" | "*/*" | "application/*"));
    if !json {
        let text = "only the following media types are accepted: application/json";
        return Err(ApiStatus::new(406, StatusReason::NotAcceptable, text));
    }
    let make = || kedge_schema::openapi_v3(group, version, &served(registry));
    let document = core.documents.get(registry, foreign, path, make);
    let document = document.ok_or_else(ApiStatus::no_such_path)?;
    let mut response = send(call, reply::JSON, document);
    // With the document's hash in the query the answer can be kept for good.
    if call.query.non_empty("hash").is_some() {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let in_a_year = call.now + std::time::Duration::from_secs(365 * 86_400);
        let text = in_a_year.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(EXPIRES, value);
        }
    }
    Ok(response)
}

fn send(call: &Call, content_type: HeaderValue, (text, etag): (Bytes, String)) -> Response<Body> {
    let unchanged = call.header(IF_NONE_MATCH.as_str()).split(',').any(|known| known.trim() == etag);
    let mut response = match unchanged {
        true => reply::respond(StatusCode::NOT_MODIFIED, content_type, Body::empty()),
        false => reply::bytes(StatusCode::OK, content_type, text),
    };
    response.headers_mut().insert(ETAG, HeaderValue::from_str(&etag).expect("it is ASCII"));
    response
}

fn served(registry: &Registry) -> Vec<ServedResource> {
    let text = |text: &std::borrow::Cow<'static, str>| text.to_string();
    // What other parts of the process serve has no schema here.
    let known = registry.all().filter(|resource| resource.has_schema());
    let all = known.map(|resource| {
        let kind = &resource.kind;
        let subresource = |sub: &kedge_kinds::Subresource| ServedSubresource {
            name: text(&sub.name),
            group: text(&sub.group),
            version: text(&sub.version),
            kind: text(&sub.kind),
            verbs: sub.verbs.iter().map(text).collect(),
        };
        ServedResource {
            group: text(&kind.group),
            version: text(&kind.version),
            resource: text(&kind.resource),
            kind: text(&kind.kind),
            namespaced: kind.namespaced,
            verbs: kind.verbs.iter().map(text).collect(),
            subresources: kind.subresources.iter().map(subresource).collect(),
            schema: resource
                .version()
                .map(|version| version.document().unwrap_or_else(|| r#"{"type":"object"}"#.to_owned())),
        }
    });
    all.collect()
}
