//! NamespaceLifecycle: nothing is created in a namespace that does not exist or is being deleted, and the namespaces that
//! every cluster has cannot be deleted.

use async_trait::async_trait;
use kedge_meta::{ApiStatus, GroupResource, StatusCause};
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::scan;

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-public", "kube-system"];

#[derive(Debug, Default)]
pub(super) struct NamespaceLifecycle;

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        match attributes.operation {
            Operation::Create => attributes.resource.kind.namespaced && attributes.subresource.is_empty(),
            Operation::Delete => attributes.is_main("", "namespaces"),
            Operation::Update | Operation::Connect => false,
        }
    }

    async fn validate(&self, attributes: &Attributes<'_>, _object: &Value) -> Result<(), ApiStatus> {
        if attributes.operation == Operation::Delete {
            return match IMMORTAL.contains(&attributes.name) {
                true => Err(attributes.forbidden("this namespace may not be deleted")),
                false => Ok(()),
            };
        }
        check_namespace(attributes).await
    }
}

async fn check_namespace(attributes: &Attributes<'_>) -> Result<(), ApiStatus> {
    // Reviews are answered and not stored: only what stays needs the namespace.
    if !attributes.resource.is_stored() {
        return Ok(());
    }
    let namespace = attributes.namespace;
    let registry = attributes.core.registry.load();
    let namespaces = registry.storage("", "namespaces").expect("namespaces are built in");
    let Some(record) = attributes.core.find(namespaces, "", namespace).await? else {
        let resource = GroupResource { group: String::new(), resource: "namespaces".to_owned() };
        return Err(ApiStatus::not_found(&resource, namespace));
    };
    if scan::text(&record.value, &["status", "phase"]) != "Terminating" {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut status = attributes.forbidden(&why);
    if let Some(details) = &mut status.details {
        let message = format!("namespace {namespace} is being terminated");
        details.causes.push(StatusCause {
            reason: "NamespaceTerminating".to_owned(),
            message,
            field: "metadata.namespace".to_owned(),
        });
    }
    Err(status)
}
