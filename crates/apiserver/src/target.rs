//! What a request is about, read from its path alone: an object, a collection, or something that is no resource.
//!
//! The rules are upstream's `RequestInfo`. Nothing is looked up here, so that authorization sees the same words whether
//! a resource exists or not.

use http::Method;

use crate::query::{Query, decode};

/// The parts of a resource path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ResourceTarget {
    pub(crate) group: String,
    pub(crate) version: String,
    /// Empty for cluster-scoped objects and for collections over all namespaces.
    pub(crate) namespace: String,
    pub(crate) resource: String,
    /// Empty for collections.
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// What comes after the subresource (the path to proxy to), with its leading slash, still percent-encoded.
    pub(crate) rest: String,
    /// The path had upstream's deprecated `/watch/` prefix.
    pub(crate) watch_prefix: bool,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Resource(ResourceTarget),
    Other,
}

/// Subresources of namespaces; any other word there is a resource in the namespace.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl Target {
    pub(crate) fn of(path: &str) -> Self {
        match parse(path) {
            Some(target) if !target.resource.is_empty() => Self::Resource(target),
            _ => Self::Other,
        }
    }
}

fn parse(path: &str) -> Option<ResourceTarget> {
    let trimmed = path.trim_start_matches('/');
    let mut target = ResourceTarget::default();
    let (root, rest) = trimmed.split_once('/')?;
    let mut rest = match root {
        "api" => rest,
        "apis" => {
            let (group, rest) = rest.split_once('/')?;
            target.group = decode(group, false);
            rest
        }
        _ => return None,
    };
    let version = segment(&mut rest)?;
    target.version = decode(version, false);
    let mut word = segment(&mut rest)?;
    if word == "watch" {
        target.watch_prefix = true;
        word = segment(&mut rest)?;
    } else if word == "proxy" {
        return None;
    }
    fill_names(&mut target, word, rest);
    Some(target)
}

fn fill_names(target: &mut ResourceTarget, first: &str, mut rest: &str) {
    target.resource = decode(first, false);
    if first == "namespaces" && target.group.is_empty() {
        if let Some(namespace) = segment(&mut rest) {
            target.namespace = decode(namespace, false);
            let mut below = rest;
            match segment(&mut below) {
                Some(word) if !NAMESPACE_SUBRESOURCES.contains(&word) => {
                    target.resource = decode(word, false);
                    rest = below;
                }
                _ => target.name = target.namespace.clone(),
            }
        }
    } else if first == "namespaces" {
        namespace_in_group(target, &mut rest);
    }
    if target.name.is_empty() {
        target.name = segment(&mut rest).map(|name| decode(name, false)).unwrap_or_default();
    }
    target.subresource = segment(&mut rest).map(|name| decode(name, false)).unwrap_or_default();
    if !rest.is_empty() {
        target.rest = format!("/{rest}");
    }
}

fn namespace_in_group(target: &mut ResourceTarget, rest: &mut &str) {
    let Some(namespace) = segment(rest) else { return };
    target.namespace = decode(namespace, false);
    // `/apis/GROUP/VERSION/namespaces/NAME` leads nowhere: only the core group has the resource.
    target.resource = segment(rest).map(|word| decode(word, false)).unwrap_or_else(|| "namespaces".to_owned());
}

/// Takes the next path segment. A trailing slash is kept in `rest` as an empty remainder.
fn segment<'a>(rest: &mut &'a str) -> Option<&'a str> {
    if rest.is_empty() {
        return None;
    }
    let (word, after) = rest.split_once('/').unwrap_or((rest, ""));
    *rest = after;
    if word.is_empty() { None } else { Some(word) }
}

/// The API verb of a request on a resource.
pub(crate) fn verb(method: &Method, target: &ResourceTarget, query: &Query) -> &'static str {
    let named = !target.name.is_empty();
    if target.watch_prefix {
        return "watch";
    }
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD if named => "get",
        Method::GET | Method::HEAD if query.flag("watch") => "watch",
        Method::GET | Method::HEAD => "list",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Option<[&str; 7]>) {
        let actual = match Target::of(path) {
            Target::Other => None,
            Target::Resource(target) => Some(target),
        };
        let actual = actual.as_ref().map(|t| {
            [&t.group, &t.version, &t.namespace, &t.resource, &t.name, &t.subresource, &t.rest].map(String::as_str)
        });
        assert_eq!(actual, expected, "{path}");
    }

    #[test]
    fn paths() {
        check("/api/v1/pods", Some(["", "v1", "", "pods", "", "", ""]));
        check("/api/v1/namespaces/a/pods", Some(["", "v1", "a", "pods", "", "", ""]));
        check("/api/v1/namespaces/a/pods/b", Some(["", "v1", "a", "pods", "b", "", ""]));
        check("/api/v1/namespaces/a/pods/b/log", Some(["", "v1", "a", "pods", "b", "log", ""]));
        check("/api/v1/namespaces/a/pods/b/proxy/x/y%20", Some(["", "v1", "a", "pods", "b", "proxy", "/x/y%20"]));
        check(
            "/api/v1/namespaces/a/services/https:b:1/proxy/",
            Some(["", "v1", "a", "services", "https:b:1", "proxy", ""]),
        );
        check("/api/v1/namespaces/a", Some(["", "v1", "a", "namespaces", "a", "", ""]));
        check("/api/v1/namespaces/a/status", Some(["", "v1", "a", "namespaces", "a", "status", ""]));
        check("/api/v1/namespaces/a/finalize", Some(["", "v1", "a", "namespaces", "a", "finalize", ""]));
        check("/api/v1/namespaces", Some(["", "v1", "", "namespaces", "", "", ""]));
        check("/api/v1/nodes/n/status", Some(["", "v1", "", "nodes", "n", "status", ""]));
        check(
            "/apis/apps/v1/namespaces/a/deployments/b/scale",
            Some(["apps", "v1", "a", "deployments", "b", "scale", ""]),
        );
        check(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            Some(["rbac.authorization.k8s.io", "v1", "", "clusterroles", "system:node", "", ""]),
        );
        for path in ["/", "/api", "/api/v1", "/apis/apps/v1", "/apis/apps", "/healthz", "/api/v1/"] {
            check(path, None);
        }
    }

    #[test]
    fn verbs() {
        for (method, path, query, expected) in [
            (Method::GET, "/api/v1/pods", "", "list"),
            (Method::GET, "/api/v1/pods", "watch=true", "watch"),
            (Method::GET, "/api/v1/pods", "watch=0", "list"),
            (Method::GET, "/api/v1/watch/pods", "", "watch"),
            (Method::GET, "/api/v1/namespaces/a/pods/b", "", "get"),
            (Method::DELETE, "/api/v1/namespaces/a/pods", "", "deletecollection"),
            (Method::DELETE, "/api/v1/namespaces/a/pods/b", "", "delete"),
            (Method::PATCH, "/api/v1/namespaces/a/pods/b", "", "patch"),
            (Method::OPTIONS, "/api/v1/pods", "", ""),
        ] {
            let Target::Resource(target) = Target::of(path) else { panic!("{path}") };
            assert_eq!(verb(&method, &target, &Query::parse(query)), expected, "{method} {path}?{query}");
        }
    }
}
