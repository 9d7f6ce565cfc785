//! The objects that a binding names as parameters of its policy.

use std::sync::Arc;

use kedge_meta::{ApiStatus, LabelSelector};
use kedge_store::ListRequest;
use serde_json::Value;

use super::policy::{Binding, Policy};
use crate::admission::Attributes;
use crate::registry::Resource;
use crate::reply::store_error;
use crate::{convert, object};

/// Why a binding has no parameters: upstream's words, or that the store could not be asked.
pub(super) enum Missing {
    /// The kind that the policy names is not served.
    UnknownKind(String),
    /// What the binding says does not work out.
    Misconfigured(String),
    /// The request cannot be answered.
    Status(ApiStatus),
}

impl From<ApiStatus> for Missing {
    fn from(status: ApiStatus) -> Self {
        Self::Status(status)
    }
}

fn misconfigured<T>(why: impl Into<String>) -> Result<T, Missing> {
    Err(Missing::Misconfigured(why.into()))
}

/// The parameters of a policy as a binding names them: `None` where it has none, and no element where nothing is to be
/// looked at.
pub(super) async fn collect(
    attributes: &Attributes<'_>,
    policy: &Policy,
    binding: &Binding,
) -> Result<Vec<Option<Value>>, Missing> {
    let (Some((api_version, kind)), Some(reference)) = (&policy.param_kind, &binding.param_ref) else {
        return Ok(vec![None]);
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let registry = attributes.core.registry.load();
    let Some(resource) = registry.find_kind(group, version, kind).cloned() else {
        let kind = format!("{group}/{version}, Kind={kind}");
        return Err(Missing::UnknownKind(format!("failed to find resource referenced by paramKind: '{kind}'")));
    };
    let namespace = namespace(attributes, &resource, reference)?;
    let found = match object::text(reference, &["name"]) {
        "" => selected(attributes, &resource, namespace, reference).await?,
        name => {
            let record = attributes.core.find(&resource, namespace, name).await?;
            match record {
                Some(record) => vec![convert::live(&resource, &record).await?],
                None => Vec::new(),
            }
        }
    };
    if found.is_empty() && object::text(reference, &["parameterNotFoundAction"]) == "Deny" {
        return misconfigured("no params found for policy binding with `Deny` parameterNotFoundAction");
    }
    Ok(found.into_iter().map(Some).collect())
}

/// Where the parameters are looked for.
fn namespace<'a>(attributes: &Attributes<'a>, resource: &Resource, reference: &'a Value) -> Result<&'a str, Missing> {
    match (object::text(reference, &["namespace"]), resource.kind.namespaced) {
        ("", false) => Ok(""),
        (_, false) => misconfigured("paramRef.namespace must not be provided for a cluster-scoped `paramKind`"),
        ("", true) if attributes.namespace.is_empty() => {
            misconfigured("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
        }
        ("", true) => Ok(attributes.namespace),
        (namespace, true) => Ok(namespace),
    }
}

async fn selected(
    attributes: &Attributes<'_>,
    resource: &Arc<Resource>,
    namespace: &str,
    reference: &Value,
) -> Result<Vec<Value>, Missing> {
    let Some(selector) = reference.get("selector").filter(|selector| selector.is_object()) else {
        return misconfigured("one of name or selector must be provided");
    };
    let Some(selector) = LabelSelector::from_object(selector) else {
        return misconfigured("not a valid label selector operator");
    };
    let prefix = resource.kind.prefix(namespace);
    let page = attributes.core.store.list(ListRequest { prefix, ..ListRequest::default() }).await;
    let mut found = Vec::new();
    for record in page.map_err(store_error)?.records {
        let param = convert::live(resource, &record).await?;
        let labels = &param["metadata"]["labels"];
        if selector.matches_with(|key| labels.get(key).and_then(Value::as_str)) {
            found.push(param);
        }
    }
    Ok(found)
}
