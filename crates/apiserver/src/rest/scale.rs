//! The `scale` subresource of every kind that has one: a view of three fields of the object.

use std::sync::Arc;

use http::StatusCode;
use kedge_kinds::ScalePaths;
use kedge_meta::{ApiStatus, FieldError, FieldPath, format_time};
use kedge_schema::Writer;
use serde_json::{Value, json};

use crate::call::Call;
use crate::core::Core;
use crate::object;
use crate::patch::{self, Patch, patched};
use crate::registry::Resource;
use crate::reply::{self, Reply};
use crate::update::{Edited, Update};
use crate::write::{self, Expected, WriteOptions};

const API_VERSION: &str = "autoscaling/v1";

/// GET, PUT and PATCH of a scale.
pub(super) async fn answer(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Reply {
    let encoding = call.accepted()?.encoding;
    let scale = match call.verb {
        "get" => {
            let target = call.resource();
            let record = core.record(resource, &target.namespace, &target.name).await?;
            view(resource, &write::live(resource, &record)?)
        }
        "update" | "patch" => change(core, call, resource).await?,
        _ => return Err(ApiStatus::method_not_allowed()),
    };
    Ok(reply::document(StatusCode::OK, encoding, &scale))
}

fn expected() -> Expected<'static> {
    Expected::builtin("autoscaling", "v1", "Scale", API_VERSION)
}

fn paths(resource: &Resource) -> ScalePaths<'_> {
    resource.kind.strategy.scale().expect("only kinds with a scale come here")
}

/// The scale of an object.
fn view(resource: &Resource, live: &Value) -> Value {
    let paths = paths(resource);
    let number = |path: &[&str]| object::at(live, path).and_then(Value::as_i64);
    let meta = |name: &str| object::meta(live, name);
    let mut metadata = json!({"name": meta("name"), "uid": meta("uid"), "resourceVersion": meta("resourceVersion"),
        "creationTimestamp": meta("creationTimestamp")});
    if resource.kind.namespaced {
        metadata["namespace"] = json!(meta("namespace"));
    }
    let mut status = json!({"replicas": number(paths.status_replicas).unwrap_or(0)});
    if let Some(selector) = paths.selector.and_then(|path| object::at(live, path)) {
        status["selector"] = json!(kedge_kinds::scale_selector(selector));
    }
    let mut spec = json!({});
    if let Some(replicas) = number(paths.replicas).filter(|replicas| *replicas != 0) {
        spec["replicas"] = json!(replicas);
    }
    json!({"kind": "Scale", "apiVersion": API_VERSION, "metadata": metadata, "spec": spec, "status": status})
}

async fn change(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Result<Value, ApiStatus> {
    let options = WriteOptions::of(call)?;
    let sent = match call.verb {
        "update" => Sent::Whole(write::read_object(core, call, expected(), options.validation).await?),
        _ => Sent::Patch(match patch::read(core, call, &options).await? {
            // DIVERGES: applied scales own the replicas as a plain update does.
            Patch::Apply { patch, .. } => Patch::Merge(patch),
            patch => patch,
        }),
    };
    let target = call.resource().clone();
    let update = Update {
        core,
        user: &call.user,
        resource,
        subresource: "scale",
        part: "",
        namespace: &target.namespace,
        name: &target.name,
        options: &options,
        now: call.now,
    };
    let time = format_time(call.now);
    let writer =
        Writer { api_version: API_VERSION, kind: "Scale", ..write::writer(resource, "scale", &options.manager, &time) };
    let edit = |live: &Value| {
        let before = view(resource, live);
        let (after, warnings) = match &sent {
            Sent::Whole(scale) => (scale.clone(), Vec::new()),
            Sent::Patch(patch) => {
                let edited = patched(&before, patch, expected(), &writer, &[], options.validation)?;
                (edited.object, edited.warnings)
            }
        };
        let object = scaled(resource, live, &after, &target.name)?;
        Ok(Edited { warnings, ..Edited::new(object) })
    };
    let outcome = update.run(&edit).await?;
    call.warnings.extend(outcome.warnings);
    let mut stored: Value = serde_json::from_slice(&outcome.stored).map_err(ApiStatus::internal)?;
    resource.kind.from_storage(&mut stored);
    Ok(view(resource, &stored))
}

enum Sent {
    Whole(Value),
    Patch(Patch),
}

/// The object with the replicas of a scale that was sent for it.
fn scaled(resource: &Resource, live: &Value, scale: &Value, name: &str) -> Result<Value, ApiStatus> {
    let replicas = object::at(scale, &["spec", "replicas"]).and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let path = FieldPath::new("spec").child("replicas");
        let error = FieldError::invalid(&path, &json!(replicas), "must be greater than or equal to 0");
        return Err(ApiStatus::invalid("autoscaling", "Scale", name, &[error]));
    }
    let given = object::name(scale);
    if !given.is_empty() && given != name {
        let text = format!("the name of the object ({given}) does not match the name on the URL ({name})");
        return Err(ApiStatus::bad_request(text));
    }
    let mut object = live.clone();
    for field in ["resourceVersion", "uid"] {
        // Empty says that any will do; the generic path checks the rest.
        let given = object::meta(scale, field);
        object::set_meta(&mut object, field, given);
    }
    let path = paths(resource).replicas;
    let Some((last, parents)) = path.split_last() else { return Ok(object) };
    let mut at = &mut object;
    for field in parents {
        if !at.get(*field).is_some_and(Value::is_object) {
            at[*field] = json!({});
        }
        at = &mut at[*field];
    }
    at[*last] = json!(replicas);
    Ok(object)
}
