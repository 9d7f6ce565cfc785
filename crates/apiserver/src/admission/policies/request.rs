//! A request as expressions see it: `request`, `namespaceObject`, `object` and `oldObject` in the matched version.

use kedge_meta::{ApiStatus, GroupResource, UserInfo};
use serde_json::{Map, Value, json};

use crate::admission::{Attributes, Operation, Seen};
use crate::convert;
use crate::object;
use crate::registry::Resource;

/// What of a namespace's metadata expressions see.
const METADATA: [&str; 11] = [
    "name",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "finalizers",
];

/// `request`, matched as a request for `resource`.
pub(super) fn request(attributes: &Attributes<'_>, resource: &Resource) -> Value {
    let own = attributes.resource;
    let mut request = Map::new();
    request.insert("kind".to_owned(), kind(attributes, resource));
    request.insert("resource".to_owned(), names(resource));
    request.insert("requestKind".to_owned(), kind(attributes, own));
    request.insert("requestResource".to_owned(), names(own));
    for (name, text) in [
        ("subResource", attributes.subresource),
        ("requestSubResource", attributes.subresource),
        ("name", attributes.name),
        ("namespace", attributes.namespace),
    ] {
        if !text.is_empty() {
            request.insert(name.to_owned(), text.into());
        }
    }
    request.insert("operation".to_owned(), attributes.operation.as_str().into());
    request.insert("userInfo".to_owned(), user_info(attributes.user));
    request.insert("dryRun".to_owned(), attributes.told.dry_run.into());
    request.insert("options".to_owned(), attributes.told.options.clone());
    Value::Object(request)
}

fn kind(attributes: &Attributes<'_>, resource: &Resource) -> Value {
    let kind = match attributes.told.seen {
        Seen::As(seen) => return json!({"group": seen.group, "version": seen.version, "kind": seen.kind}),
        _ => &resource.kind,
    };
    // Subresources may have a kind of their own.
    let own = kind.subresource(attributes.subresource).filter(|_| !attributes.subresource.is_empty());
    match own {
        Some(own) => json!({"group": own.group, "version": own.version, "kind": own.kind}),
        None => json!({"group": kind.group, "version": kind.version, "kind": kind.kind}),
    }
}

fn names(resource: &Resource) -> Value {
    let kind = &resource.kind;
    json!({"group": kind.group, "version": kind.version, "resource": kind.resource})
}

fn user_info(user: &UserInfo) -> Value {
    let mut info = Map::new();
    info.insert("username".to_owned(), user.username.as_str().into());
    if !user.uid.is_empty() {
        info.insert("uid".to_owned(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        info.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(info)
}

/// The namespace of a request, if it is in one; 404 where that is not there.
pub(super) async fn namespace(attributes: &Attributes<'_>) -> Result<Option<Value>, ApiStatus> {
    if attributes.namespace.is_empty() || attributes.resource.is("", "namespaces") {
        return Ok(None);
    }
    let found = attributes.core.object("", "namespaces", "", attributes.namespace).await?;
    let (_, namespace) = found.ok_or_else(|| {
        let resource = GroupResource { group: String::new(), resource: "namespaces".to_owned() };
        ApiStatus::not_found(&resource, attributes.namespace)
    })?;
    Ok(Some(namespace))
}

/// `namespaceObject`.
pub(super) fn namespace_object(namespace: Option<&Value>) -> Value {
    let Some(namespace) = namespace else { return Value::Null };
    let metadata = METADATA.iter().filter_map(|name| {
        let value = namespace["metadata"].get(*name)?;
        Some(((*name).to_owned(), value.clone()))
    });
    let metadata: Map<String, Value> = metadata.collect();
    json!({"metadata": metadata, "spec": namespace["spec"], "status": namespace["status"]})
}

/// An object as the matched version has it.
pub(super) async fn versioned(
    object: &Value,
    seen: Seen<'_>,
    own: &Resource,
    matched: &Resource,
) -> Result<Value, ApiStatus> {
    match seen {
        // It is of another kind, which has one version.
        Seen::As(_) => Ok(object.clone()),
        _ if own.api_version == matched.api_version => Ok(object.clone()),
        _ => convert::between(own, matched, object).await,
    }
}

/// What a request makes of its object: nothing, where it deletes it.
pub(super) fn object_of<'a>(attributes: &Attributes<'_>, object: &'a Value) -> Option<&'a Value> {
    (attributes.operation != Operation::Delete).then_some(object)
}

/// The labels that selectors of namespaces look at.
pub(super) fn namespace_labels<'a>(
    attributes: &Attributes<'_>,
    namespace: Option<&'a Value>,
    object: &'a Value,
) -> Option<&'a Value> {
    match namespace {
        Some(namespace) => Some(&namespace["metadata"]["labels"]),
        None if attributes.resource.is("", "namespaces") => Some(&object["metadata"]["labels"]),
        None => None,
    }
}

/// The name of the object that a request is about, for texts.
pub(super) fn shown_name<'a>(attributes: &Attributes<'a>, object: &'a Value) -> &'a str {
    if attributes.name.is_empty() { object::name(object) } else { attributes.name }
}
