//! The operations of a resource, before they are written in either version of OpenAPI.

use super::definitions::META;
use super::{ServedResource, ServedSubresource};
use crate::facts::type_by_gvk;

/// One HTTP operation.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    /// `get`, `post`, ...
    pub(super) method: &'static str,
    /// `x-kubernetes-action`
    pub(super) action: &'static str,
    pub(super) id: String,
    pub(super) tag: String,
    /// Group, version and kind it is about.
    pub(super) kind: (String, String, String),
    pub(super) query: Vec<Parameter>,
    /// Definition of the body and whether it must be there.
    pub(super) body: Option<(String, bool)>,
    /// Definition of the answer; `None` for a stream of bytes.
    pub(super) answer: Option<String>,
    /// Types of the body of a patch.
    pub(super) patch_types: &'static [&'static str],
    /// Codes beside 200 under which the answer may come.
    pub(super) codes: &'static [(&'static str, &'static str)],
}

/// A query parameter and its type.
pub(super) type Parameter = (&'static str, &'static str);

/// What a built-in kind takes; the others have no merge keys of strategic patches, and kubectl tells them apart by this list.
const PATCH_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

const CREATED: &[(&str, &str)] = &[("201", "Created")];
const CREATED_ACCEPTED: &[(&str, &str)] = &[("201", "Created"), ("202", "Accepted")];
const ACCEPTED: &[(&str, &str)] = &[("202", "Accepted")];

const WRITE: [Parameter; 3] = [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const DELETE: [Parameter; 5] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const SELECT: [Parameter; 8] = [
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
];
const WATCH: [Parameter; 2] = [("allowWatchBookmarks", "boolean"), ("watch", "boolean")];
const LOG: [Parameter; 9] = [
    ("container", "string"),
    ("follow", "boolean"),
    ("insecureSkipTLSVerifyBackend", "boolean"),
    ("limitBytes", "integer"),
    ("previous", "boolean"),
    ("sinceSeconds", "integer"),
    ("stream", "string"),
    ("tailLines", "integer"),
    ("timestamps", "boolean"),
];
const EXEC: [Parameter; 6] = [
    ("command", "string"),
    ("container", "string"),
    ("stderr", "boolean"),
    ("stdin", "boolean"),
    ("stdout", "boolean"),
    ("tty", "boolean"),
];

/// Where the operations of one path act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// All objects of the cluster.
    Cluster,
    /// All objects of a namespaced resource, across namespaces.
    AllNamespaces,
    /// The objects of one namespace.
    Namespace,
}

/// `core_v1`, `rbacAuthorization_v1`
pub(super) fn tag(group: &str, version: &str) -> String {
    format!("{}_{version}", group_identifier(group))
}

/// `core`, `rbacAuthorization`
fn group_identifier(group: &str) -> String {
    let group = if group.is_empty() { "core" } else { group.trim_end_matches(".k8s.io") };
    let mut parts = group.split('.');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |identifier, part| identifier + &capitalized(part))
}

pub(super) fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

struct Namer<'r> {
    resource: &'r ServedResource,
    scope: Scope,
}

impl Namer<'_> {
    fn group_version(&self) -> String {
        let group = capitalized(&group_identifier(&self.resource.group));
        group + &capitalized(&self.resource.version)
    }

    fn id(&self, verb: &str, suffix: &str) -> String {
        let namespaced = if self.scope == Scope::Namespace { "Namespaced" } else { "" };
        let everywhere = if self.scope == Scope::AllNamespaces { "ForAllNamespaces" } else { "" };
        format!("{verb}{}{namespaced}{}{suffix}{everywhere}", self.group_version(), self.resource.kind)
    }

    fn operation(&self, method: &'static str, action: &'static str, id: String) -> Operation {
        let resource = self.resource;
        let is_built_in = type_by_gvk(&resource.group, &resource.version, &resource.kind).is_some();
        Operation {
            method,
            action,
            id,
            tag: tag(&resource.group, &resource.version),
            kind: (resource.group.clone(), resource.version.clone(), resource.kind.clone()),
            query: Vec::new(),
            body: None,
            answer: None,
            patch_types: if is_built_in { &PATCH_TYPES } else { &PATCH_TYPES[..3] },
            codes: &[],
        }
    }
}

/// Name of a kind's definition.
pub(super) fn definition_of(group: &str, version: &str, kind: &str) -> String {
    match type_by_gvk(group, version, kind) {
        Some(ty) => ty.name.to_owned(),
        None => {
            let mut parts: Vec<&str> = group.split('.').filter(|part| !part.is_empty()).collect();
            parts.reverse();
            parts.extend([version, kind]);
            parts.join(".")
        }
    }
}

/// Operations on the collection.
pub(super) fn on_collection(resource: &ServedResource, scope: Scope) -> Vec<Operation> {
    let namer = Namer { resource, scope };
    let serves = |verb: &str| resource.verbs.iter().any(|served| served == verb);
    let definition = definition_of(&resource.group, &resource.version, &resource.kind);
    let mut operations = Vec::new();
    if serves("list") {
        let query = SELECT.iter().chain(&WATCH).copied().collect();
        let list = definition_of(&resource.group, &resource.version, &format!("{}List", resource.kind));
        let operation = namer.operation("get", "list", namer.id("list", ""));
        operations.push(Operation { query, answer: Some(list), ..operation });
    }
    if scope == Scope::AllNamespaces {
        return operations;
    }
    if serves("create") {
        let operation = namer.operation("post", "post", namer.id("create", ""));
        operations.push(Operation {
            query: WRITE.to_vec(),
            body: Some((definition.clone(), true)),
            answer: Some(definition),
            codes: CREATED_ACCEPTED,
            ..operation
        });
    }
    if serves("deletecollection") {
        let id =
            namer.id("delete", "").replacen(&namer.group_version(), &format!("{}Collection", namer.group_version()), 1);
        let operation = namer.operation("delete", "deletecollection", id);
        let query = SELECT.iter().chain(&DELETE).copied().collect();
        let body = Some((format!("{META}DeleteOptions"), false));
        operations.push(Operation { query, body, answer: Some(format!("{META}Status")), ..operation });
    }
    operations
}

/// Operations on one object.
pub(super) fn on_object(resource: &ServedResource, scope: Scope) -> Vec<Operation> {
    let namer = Namer { resource, scope };
    let definition = definition_of(&resource.group, &resource.version, &resource.kind);
    let mut operations = read_and_write(&namer, &resource.verbs, &definition, "");
    if resource.verbs.iter().any(|verb| verb == "delete") {
        let operation = namer.operation("delete", "delete", namer.id("delete", ""));
        let body = Some((format!("{META}DeleteOptions"), false));
        let answer = Some(format!("{META}Status"));
        operations.push(Operation { query: DELETE.to_vec(), body, answer, codes: ACCEPTED, ..operation });
    }
    operations
}

fn read_and_write(namer: &Namer<'_>, verbs: &[String], definition: &str, suffix: &str) -> Vec<Operation> {
    let mut operations = Vec::new();
    for verb in verbs {
        let (method, action, word) = match verb.as_str() {
            "get" => ("get", "get", "read"),
            "update" => ("put", "put", "replace"),
            "patch" => ("patch", "patch", "patch"),
            _ => continue,
        };
        let mut operation = namer.operation(method, action, namer.id(word, suffix));
        operation.answer = Some(definition.to_owned());
        if verb != "get" {
            operation.query = WRITE.to_vec();
            operation.codes = CREATED;
            operation.body = Some((definition.to_owned(), true));
        }
        if verb == "patch" {
            operation.query.push(("force", "boolean"));
            operation.body = Some((format!("{META}Patch"), true));
        }
        operations.push(operation);
    }
    operations
}

/// Operations on a subresource of one object.
pub(super) fn on_subresource(resource: &ServedResource, sub: &ServedSubresource, scope: Scope) -> Vec<Operation> {
    let namer = Namer { resource, scope };
    let suffix = capitalized(&sub.name);
    let mut operations = if sub.kind.ends_with("Options") {
        connections(&namer, sub, &suffix)
    } else {
        plain_subresource(&namer, sub, &suffix)
    };
    for operation in &mut operations {
        operation.kind = (sub.group.clone(), sub.version.clone(), sub.kind.clone());
    }
    operations
}

fn plain_subresource(namer: &Namer<'_>, sub: &ServedSubresource, suffix: &str) -> Vec<Operation> {
    let definition = definition_of(&sub.group, &sub.version, &sub.kind);
    let mut operations = read_and_write(namer, &sub.verbs, &definition, suffix);
    if sub.verbs.iter().any(|verb| verb == "create") {
        let operation = namer.operation("post", "post", namer.id("create", suffix));
        operations.push(Operation {
            query: WRITE.to_vec(),
            body: Some((definition.clone(), true)),
            answer: Some(definition),
            codes: CREATED_ACCEPTED,
            ..operation
        });
    }
    if sub.name == "log" {
        for operation in &mut operations {
            operation.query = LOG.to_vec();
            operation.answer = None;
        }
    }
    operations
}

fn connections(namer: &Namer<'_>, sub: &ServedSubresource, suffix: &str) -> Vec<Operation> {
    let query: &[Parameter] = match sub.name.as_str() {
        "exec" => &EXEC,
        "attach" => &EXEC[1..],
        "portforward" => &[("ports", "integer")],
        _ => &[("path", "string")],
    };
    let mut operations = Vec::new();
    for verb in &sub.verbs {
        let method = match verb.as_str() {
            "get" => "get",
            "create" => "post",
            "update" => "put",
            "patch" => "patch",
            "delete" => "delete",
            _ => continue,
        };
        let id = namer.id("connect", suffix);
        let id = id.replacen(&namer.group_version(), &format!("{}{}", namer.group_version(), capitalized(method)), 1);
        operations.push(Operation { query: query.to_vec(), ..namer.operation(method, "connect", id) });
    }
    operations
}
