//! The `scale` subresource of every kind that has one: a view of three fields of the object.

use std::sync::Arc;

use http::StatusCode;
use kedge_kinds::ScalePaths;
use kedge_meta::{ApiStatus, FieldError, FieldPath, GroupVersionKind, format_time};
use kedge_schema::{FieldValidation, Writer};
use serde_json::{Value, json};

use crate::admission::{Lens, Seen};
use crate::call::Call;
use crate::convert;
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
            view(resource, &convert::live(resource, &record).await?)
        }
        "update" | "patch" => change(core, call, resource).await?,
        _ => return Err(ApiStatus::method_not_allowed()),
    };
    Ok(reply::document(StatusCode::OK, encoding, &scale))
}

/// How webhooks see an object that is scaled.
struct Scaled<'a> {
    resource: &'a Resource,
}

impl Lens for Scaled<'_> {
    fn kind(&self) -> GroupVersionKind {
        GroupVersionKind::new("autoscaling", "v1", "Scale")
    }

    fn view(&self, object: &Value) -> Value {
        view(self.resource, object)
    }

    fn with(&self, object: &Value, view: &Value) -> Result<Value, ApiStatus> {
        scaled(self.resource, object, view, object::name(object))
    }
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
    let mut status = json!({"replicas": number(&paths.status_replicas).unwrap_or(0)});
    if let Some(selector) = paths.selector.as_ref().and_then(|path| object::at(live, path)) {
        status["selector"] = json!(kedge_kinds::scale_selector(selector));
    }
    let mut spec = json!({});
    if let Some(replicas) = number(&paths.replicas).filter(|replicas| *replicas != 0) {
        spec["replicas"] = json!(replicas);
    }
    json!({"kind": "Scale", "apiVersion": API_VERSION, "metadata": metadata, "spec": spec, "status": status})
}

async fn change(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Result<Value, ApiStatus> {
    let options = WriteOptions::of(call)?;
    let sent = match call.verb {
        "update" => Sent::Whole(write::read_object(core, call, expected(), options.validation).await?),
        _ => Sent::Patch(patch::read(core, call, &options).await?),
    };
    let target = call.resource().clone();
    if let Sent::Patch(Patch::Apply { patch, .. }) = &sent {
        let place = resource.kind.namespaced.then_some(target.namespace.as_str());
        patch::check_applied(patch, (API_VERSION, "Scale"), place, &target.name)?;
    }
    let update = Update {
        core,
        user: &call.user,
        resource,
        subresource: "scale",
        part: "",
        namespace: &target.namespace,
        name: &target.name,
        options: &options,
        seen: Seen::Through(&Scaled { resource }),
        now: call.now,
    };
    let time = format_time(call.now);
    let writer =
        Writer { api_version: API_VERSION, kind: "Scale", ..write::writer(resource, "scale", &options.manager, &time) };
    let edit = |live: &Value| edit(resource, live, &sent, &target.name, &writer, options.validation);
    let outcome = update.run(&edit).await?;
    call.warnings.extend(outcome.warnings);
    let mut stored: Value = serde_json::from_slice(&outcome.stored).map_err(ApiStatus::internal)?;
    resource.kind.from_storage(&mut stored);
    Ok(view(resource, &stored))
}

/// What a changed scale makes of its object, and of who owns the replicas.
fn edit(
    resource: &Resource,
    live: &Value,
    sent: &Sent,
    name: &str,
    writer: &Writer<'_>,
    validation: FieldValidation,
) -> Result<Edited, ApiStatus> {
    let (parents, path) = (object::at(live, &["metadata", "managedFields"]), paths(resource).replicas);
    let mut before = view(resource, live);
    if let Some(managers) = kedge_schema::managers_of_scale(parents, &resource.api_version, &path) {
        before["metadata"]["managedFields"] = managers;
    }
    let mut after = match sent {
        Sent::Whole(scale) => Edited::new(scale.clone()),
        Sent::Patch(patch) => patched(&before, patch, expected(), writer, &[], validation)?,
    };
    if !after.has_managers {
        if object::at(&after.object, &["metadata", "managedFields"]).is_none() {
            object::copy_meta(&before, &mut after.object, "managedFields");
        }
        kedge_schema::update_managed_fields(Some(&before), &mut after.object, expected().schema, writer, &[]);
    }
    let scale = object::at(&after.object, &["metadata", "managedFields"]);
    let managers = kedge_schema::managers_after_scale(parents, scale, &resource.api_version, &path);
    let mut object = scaled(resource, live, &after.object, name)?;
    match managers {
        Some(managers) => drop(object::metadata_mut(&mut object).insert("managedFields".to_owned(), managers)),
        None => drop(object::metadata_mut(&mut object).remove("managedFields")),
    }
    Ok(Edited { object, has_managers: true, ..after })
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
    let paths = paths(resource);
    let Some((last, parents)) = paths.replicas.split_last() else { return Ok(object) };
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
