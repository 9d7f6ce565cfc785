//! Whether a request belongs to a schema.
//!
//! On the way of every request: nothing is allocated.

use crate::objects::{FlowSchema, PathRule, ResourceRule, Rule, Subject};

/// What a request is, as far as schemas look at it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Digest<'a> {
    /// Who asks.
    pub user: &'a str,
    /// Groups of the user.
    pub groups: &'a [String],
    /// The API verb.
    pub verb: &'a str,
    /// The path, for what is no resource.
    pub path: &'a str,
    /// Whether it is about a resource.
    pub is_resource: bool,
    /// API group.
    pub group: &'a str,
    /// Plural name.
    pub resource: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Empty where it has none.
    pub namespace: &'a str,
}

impl FlowSchema {
    /// Whether one of its rules fits.
    pub fn matches(&self, digest: &Digest<'_>) -> bool {
        self.rules.iter().any(|rule| rule.matches(digest))
    }
}

impl Rule {
    fn matches(&self, digest: &Digest<'_>) -> bool {
        self.subjects.iter().any(|subject| subject.matches(digest))
            && match digest.is_resource {
                true => self.resource_rules.iter().any(|rule| rule.matches(digest)),
                false => self.non_resource_rules.iter().any(|rule| rule.matches(digest)),
            }
    }
}

impl Subject {
    fn matches(&self, digest: &Digest<'_>) -> bool {
        match (self.kind.as_str(), &self.user, &self.group, &self.service_account) {
            ("User", Some(user), ..) => user.name == "*" || user.name == digest.user,
            ("Group", _, Some(group), _) => group.name == "*" || digest.groups.contains(&group.name),
            ("ServiceAccount", .., Some(account)) => {
                let rest = digest.user.strip_prefix("system:serviceaccount:");
                let rest = rest.and_then(|rest| rest.strip_prefix(account.namespace.as_str()));
                let name = rest.and_then(|rest| rest.strip_prefix(':'));
                name.is_some_and(|name| account.name == "*" || account.name == name)
            }
            _ => false,
        }
    }
}

impl ResourceRule {
    fn matches(&self, digest: &Digest<'_>) -> bool {
        has(&self.verbs, digest.verb)
            && self.has_resource(digest)
            && has(&self.api_groups, digest.group)
            && match digest.namespace {
                "" => self.cluster_scope,
                namespace => has(&self.namespaces, namespace),
            }
    }

    fn has_resource(&self, digest: &Digest<'_>) -> bool {
        let is_it = |name: &String| match digest.subresource {
            "" => name == digest.resource,
            subresource => name.split_once('/') == Some((digest.resource, subresource)),
        };
        is_all(&self.resources) || self.resources.iter().any(is_it)
    }
}

impl PathRule {
    fn matches(&self, digest: &Digest<'_>) -> bool {
        let below = |url: &str| {
            let url = url.strip_suffix('*').unwrap_or(url);
            let rest = digest.path.strip_prefix(url);
            rest.is_some_and(|rest| url.ends_with('/') || rest.starts_with('/'))
        };
        has(&self.verbs, digest.verb) && self.urls.iter().any(|url| url == "*" || url == digest.path || below(url))
    }
}

/// The wildcard stands alone or for nothing.
fn is_all(words: &[String]) -> bool {
    matches!(words, [word] if word == "*")
}

fn has(words: &[String], word: &str) -> bool {
    is_all(words) || words.iter().any(|one| one == word)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::objects::read_schema;

    fn schema(rules: &Value) -> FlowSchema {
        let spec = json!({"priorityLevelConfiguration": {"name": "l"}, "rules": rules});
        read_schema(json!({"metadata": {"name": "s"}, "spec": spec}).to_string().as_bytes()).unwrap()
    }

    fn get<'a>(user: &'a str, groups: &'a [String], resource: &'a str, namespace: &'a str) -> Digest<'a> {
        Digest { user, groups, verb: "get", is_resource: true, resource, namespace, ..Digest::default() }
    }

    #[test]
    fn subjects() {
        let everything = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]);
        let groups = ["g".to_owned()];
        for (subject, user, expected) in [
            (json!({"kind": "User", "user": {"name": "a"}}), "a", true),
            (json!({"kind": "User", "user": {"name": "a"}}), "b", false),
            (json!({"kind": "User", "user": {"name": "*"}}), "b", true),
            (json!({"kind": "User"}), "b", false),
            (json!({"kind": "Group", "group": {"name": "g"}}), "b", true),
            (json!({"kind": "Group", "group": {"name": "h"}}), "b", false),
            (json!({"kind": "Group", "group": {"name": "*"}}), "b", true),
            (
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "n", "name": "*"}}),
                "system:serviceaccount:n:x",
                true,
            ),
            (
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "n", "name": "y"}}),
                "system:serviceaccount:n:x",
                false,
            ),
            (
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "n", "name": "x"}}),
                "system:serviceaccount:n:x",
                true,
            ),
            (
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "n", "name": "*"}}),
                "system:serviceaccount:nn:x",
                false,
            ),
        ] {
            let schema = schema(&json!([{"subjects": [subject], "resourceRules": everything}]));
            assert_eq!(schema.matches(&get(user, &groups, "pods", "n")), expected, "{subject} {user}");
        }
    }

    #[test]
    fn resources_and_paths() {
        let all = json!([{"kind": "Group", "group": {"name": "*"}}]);
        let rule = |resources: Value, namespaces: Value, cluster: bool| {
            schema(
                &json!([{"subjects": all, "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": resources, "namespaces": namespaces, "clusterScope": cluster}]}]),
            )
        };
        let pods = rule(json!(["pods", "nodes/status"]), json!(["a"]), false);
        let status = |namespace| Digest { subresource: "status", ..get("u", &[], "nodes", namespace) };
        assert!(pods.matches(&get("u", &[], "pods", "a")) && pods.matches(&status("a")));
        assert!(!pods.matches(&get("u", &[], "pods", "b")) && !pods.matches(&get("u", &[], "pods", "")));
        assert!(!pods.matches(&get("u", &[], "nodes", "a")));
        assert!(!pods.matches(&Digest { verb: "list", ..get("u", &[], "pods", "a") }));
        assert!(!pods.matches(&Digest { group: "x", ..get("u", &[], "pods", "a") }));
        assert!(rule(json!(["*"]), json!([]), true).matches(&status("")));
        let paths = schema(
            &json!([{"subjects": all, "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/a/*"]}]}]),
        );
        for (path, expected) in [
            ("/healthz", true),
            ("/healthz/x", true),
            ("/healthzz", false),
            ("/a/b", true),
            ("/a", false),
            ("/", false),
        ] {
            assert_eq!(paths.matches(&Digest { verb: "get", path, ..Digest::default() }), expected, "{path}");
        }
    }
}
