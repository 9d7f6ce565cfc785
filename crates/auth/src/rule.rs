//! One RBAC rule, and what it covers.

use serde::{Deserialize, Serialize};

use crate::attributes::{Attributes, ResourceAttributes};

/// `rbac.authorization.k8s.io/v1 PolicyRule`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    /// Verbs; `*` is all.
    pub verbs: Vec<String>,
    /// API groups; `*` is all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// Resources, `resource/subresource`, `*/subresource` or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Object names; none is all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Paths, which may end with `*`.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

impl PolicyRule {
    /// Whether the rule allows a request.
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        has(&self.verbs, attributes.verb)
            && match &attributes.resource {
                Some(resource) => self.allows_resource(resource),
                None => self.non_resource_urls.iter().any(|pattern| path_matches(pattern, attributes.path)),
            }
    }

    fn allows_resource(&self, asked: &ResourceAttributes<'_>) -> bool {
        has(&self.api_groups, asked.group)
            && self.resources.iter().any(|resource| resource_matches(resource, asked.resource, asked.subresource))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|name| name == asked.name))
    }

    /// Splits the rule into rules of one verb on one thing each, for escalation checks.
    pub(crate) fn atoms(&self) -> Vec<PolicyRule> {
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            for url in &self.non_resource_urls {
                let (verbs, non_resource_urls) = (vec![verb.clone()], vec![url.clone()]);
                atoms.push(PolicyRule { verbs, non_resource_urls, ..PolicyRule::default() });
            }
            for group in &self.api_groups {
                for resource in &self.resources {
                    let names: Vec<Vec<String>> = match self.resource_names.is_empty() {
                        true => vec![Vec::new()],
                        false => self.resource_names.iter().map(|name| vec![name.clone()]).collect(),
                    };
                    atoms.extend(names.into_iter().map(|resource_names| PolicyRule {
                        verbs: vec![verb.clone()],
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        resource_names,
                        non_resource_urls: Vec::new(),
                    }));
                }
            }
        }
        atoms
    }

    /// Whether this rule alone grants everything an atom asks for.
    pub(crate) fn covers(&self, atom: &PolicyRule) -> bool {
        let all = |have: &[String], want: &[String]| want.iter().all(|want| has(have, want));
        let resource_covered = |want: &String| {
            let (resource, subresource) = want.split_once('/').unwrap_or((want, ""));
            self.resources.iter().any(|have| have == want || resource_matches(have, resource, subresource))
        };
        let names_covered = self.resource_names.is_empty()
            || (!atom.resource_names.is_empty() && all(&self.resource_names, &atom.resource_names));
        all(&self.verbs, &atom.verbs)
            && all(&self.api_groups, &atom.api_groups)
            && atom.resources.iter().all(resource_covered)
            && names_covered
            && atom
                .non_resource_urls
                .iter()
                .all(|url| self.non_resource_urls.iter().any(|pattern| path_matches(pattern, url)))
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    match pattern.split_once('/') {
        None => subresource.is_empty() && pattern == resource,
        Some(("*", wanted)) => wanted == subresource,
        Some((wanted_resource, wanted)) => wanted_resource == resource && (wanted == subresource),
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}
