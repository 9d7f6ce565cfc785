//! The paths of the served resources with their operations.

use super::operations::{Operation, Scope, on_collection, on_object, on_subresource};
use super::{ServedResource, operations};

/// One path.
#[derive(Debug, Clone)]
pub(super) struct PathItem {
    pub(super) path: String,
    /// `name`, `namespace` as the path has them.
    pub(super) parameters: Vec<&'static str>,
    pub(super) operations: Vec<Operation>,
}

/// `/api/v1` or `/apis/apps/v1`
pub(super) fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// Calls `visit` with each path of the resources, sorted.
pub(super) fn of_resources(resources: &[&ServedResource]) -> Vec<PathItem> {
    let mut items = Vec::new();
    for resource in resources {
        let base = root(&resource.group, &resource.version);
        let collection = format!("{base}/{}", resource.resource);
        if resource.namespaced {
            push(&mut items, collection, &[], on_collection(resource, Scope::AllNamespaces));
            let collection = format!("{base}/namespaces/{{namespace}}/{}", resource.resource);
            of_scope(&mut items, resource, &collection, Scope::Namespace);
        } else {
            of_scope(&mut items, resource, &collection, Scope::Cluster);
        }
    }
    items.sort_by(|a, b| a.path.cmp(&b.path));
    items
}

fn of_scope(items: &mut Vec<PathItem>, resource: &ServedResource, collection: &str, scope: Scope) {
    let namespace: &[&'static str] = if scope == Scope::Namespace { &["namespace"] } else { &[] };
    let name = ["name"].iter().chain(namespace).copied().collect::<Vec<_>>();
    push(items, collection.to_owned(), namespace, on_collection(resource, scope));
    push(items, format!("{collection}/{{name}}"), &name, on_object(resource, scope));
    for sub in &resource.subresources {
        let path = format!("{collection}/{{name}}/{}", sub.name);
        push(items, path, &name, on_subresource(resource, sub, scope));
    }
}

fn push(items: &mut Vec<PathItem>, path: String, parameters: &[&'static str], operations: Vec<Operation>) {
    if !operations.is_empty() {
        items.push(PathItem { path, parameters: parameters.to_vec(), operations });
    }
}

/// Names of the definitions that the paths refer to.
pub(super) fn definitions(items: &[PathItem]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for operation in items.iter().flat_map(|item| &item.operations) {
        names.extend(operation.answer.as_deref());
        names.extend(operation.body.as_ref().map(|(name, _)| name.as_str()));
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// `Deployment` in `update ... Deployment`: what tools show for an operation.
pub(super) fn vendor(operation: &Operation) -> [(&'static str, serde_json::Value); 2] {
    let (group, version, kind) = &operation.kind;
    [
        ("x-kubernetes-action", operation.action.into()),
        ("x-kubernetes-group-version-kind", serde_json::json!({"group": group, "version": version, "kind": kind})),
    ]
}

/// The tag of a group version's own paths.
pub(super) fn tag(group: &str, version: &str) -> String {
    operations::tag(group, version)
}
