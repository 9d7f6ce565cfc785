//! Administrative access to devices: claims and templates may ask for it only in namespaces that carry a label for it.
//!
//! Upstream checks this where it stores claims; the answer is the same. Invariant: what others use can't be read along by
//! whoever may create claims, unless somebody who may label namespaces has agreed.

use async_trait::async_trait;
use kedge_meta::{ApiStatus, FieldError, FieldPath};
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::object;

const GROUP: &str = "resource.k8s.io";
const LABEL: &str = "resource.kubernetes.io/admin-access";

#[derive(Debug, Default)]
pub(super) struct DeviceAdminAccess;

#[async_trait]
impl Plugin for DeviceAdminAccess {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        match attributes.operation {
            Operation::Create => {
                attributes.is_main(GROUP, "resourceclaims") || attributes.is_main(GROUP, "resourceclaimtemplates")
            }
            Operation::Update => attributes.resource.is(GROUP, "resourceclaims") && attributes.subresource == "status",
            Operation::Delete | Operation::Connect => false,
        }
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiStatus> {
        let Some(path) = place(attributes, object) else { return Ok(()) };
        let found = attributes.core.object("", "namespaces", "", attributes.namespace).await?;
        let label = found.as_ref().map(|(_, namespace)| object::text(namespace, &["metadata", "labels", LABEL]));
        if label == Some("true") {
            return Ok(());
        }
        let why = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
        let kind = &attributes.resource.kind;
        Err(ApiStatus::invalid(&kind.group, &kind.kind, attributes.name, &[FieldError::forbidden(&path, &why)]))
    }
}

/// Where it is asked for, or given for the first time.
fn place(attributes: &Attributes<'_>, object: &Value) -> Option<FieldPath> {
    if attributes.operation == Operation::Create {
        let requests = FieldPath::new("spec").child("devices").child("requests");
        return asking(object).map(|index| requests.index(index).child("adminAccess"));
    }
    if attributes.old.is_some_and(|old| given(old).is_some()) {
        return None;
    }
    let results = FieldPath::new("status").child("allocation").child("devices").child("results");
    given(object).map(|index| results.index(index).child("adminAccess"))
}

/// The first device that is allocated with it.
fn given(claim: &Value) -> Option<usize> {
    let results = object::list(claim, &["status", "allocation", "devices", "results"]);
    results.iter().position(|result| result["adminAccess"] == true)
}

/// The first request of a claim or a template that asks for it.
fn asking(object: &Value) -> Option<usize> {
    let of_template = object::list(object, &["spec", "spec", "devices", "requests"]);
    let requests = match of_template.is_empty() {
        true => object::list(object, &["spec", "devices", "requests"]),
        false => of_template,
    };
    requests.iter().position(|request| object::at(request, &["exactly", "adminAccess"]) == Some(&Value::Bool(true)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_for_admin_access_are_found() {
        let requests = |access: &[Option<bool>]| -> Vec<Value> {
            access.iter().map(|access| json!({"name": "r", "exactly": {"adminAccess": access}})).collect()
        };
        for (access, expected) in
            [(&[None, Some(false)][..], None), (&[None, Some(true)], Some(1)), (&[Some(true)], Some(0))]
        {
            let spec = json!({"devices": {"requests": requests(access)}});
            assert_eq!(asking(&json!({"spec": spec})), expected);
            assert_eq!(asking(&json!({"spec": {"spec": spec}})), expected);
        }
    }
}
