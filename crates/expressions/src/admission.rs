//! The names that expressions of admission may use, with their types.

use crate::check::{Scope, Type};

/// The names of expressions about a request: objects are of the type `object`; parameters and the authorizer are there only
/// where they are given.
pub fn admission_scope(object: &Type, params: Option<&Type>, authorizer: bool) -> Scope {
    let mut scope = Scope::new([
        ("object", object.clone()),
        ("oldObject", object.clone()),
        ("request", request()),
        ("namespaceObject", namespace()),
    ]);
    if let Some(params) = params {
        scope.declare("params", params.clone());
    }
    if authorizer {
        scope.declare("authorizer", Type::opaque("kubernetes.authorization.Authorizer"));
        scope.declare("authorizer.requestResource", Type::opaque("kubernetes.authorization.ResourceCheck"));
    }
    scope
}

fn texts<'a>(names: &[&'a str]) -> Vec<(&'a str, Type)> {
    names.iter().map(|name| (*name, Type::String)).collect()
}

fn request() -> Type {
    let kind = Type::object("kubernetes.GroupVersionKind", texts(&["group", "version", "kind"]));
    let resource = Type::object("kubernetes.GroupVersionResource", texts(&["group", "version", "resource"]));
    let user = texts(&["username", "uid"]).into_iter();
    let lists = [("groups", Type::list(Type::String)), ("extra", Type::map(Type::list(Type::String)))];
    let user = Type::object("kubernetes.UserInfo", user.chain(lists));
    let plain = texts(&["subResource", "requestSubResource", "name", "namespace", "operation"]).into_iter();
    let more = [
        ("kind", kind.clone()),
        ("resource", resource.clone()),
        ("requestKind", kind),
        ("requestResource", resource),
        ("userInfo", user),
        ("dryRun", Type::Bool),
        ("options", Type::Dyn),
    ];
    Type::object("kubernetes.AdmissionRequest", plain.chain(more))
}

fn namespace() -> Type {
    let condition = texts(&["status", "type", "message", "reason"]).into_iter();
    let condition =
        Type::object("kubernetes.NamespaceCondition", condition.chain([("lastTransitionTime", Type::Timestamp)]));
    let metadata = texts(&["name", "generateName", "namespace", "UID", "resourceVersion"]).into_iter().chain([
        ("labels", Type::map(Type::String)),
        ("annotations", Type::map(Type::String)),
        ("creationTimestamp", Type::Timestamp),
        ("deletionTimestamp", Type::Timestamp),
        ("deletionGracePeriodSeconds", Type::Int),
        ("generation", Type::Int),
        ("finalizers", Type::list(Type::String)),
    ]);
    let status = [("conditions", Type::list(condition)), ("phase", Type::String)];
    Type::object(
        "kubernetes.Namespace",
        [
            ("metadata", Type::object("kubernetes.NamespaceMetadata", metadata)),
            ("spec", Type::object("kubernetes.NamespaceSpec", [("finalizers", Type::list(Type::String))])),
            ("status", Type::object("kubernetes.NamespaceStatus", status)),
        ],
    )
}
