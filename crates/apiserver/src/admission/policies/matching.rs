//! Which requests a policy or a binding is about: rules, exclusions, selectors of namespaces and objects, other versions.
//!
//! Not aware of policies: only of `MatchResources` objects.

use std::sync::Arc;

use kedge_meta::LabelSelector;
use serde_json::Value;

use crate::admission::{Attributes, Operation};
use crate::object;
use crate::registry::Resource;

/// `admissionregistration.k8s.io` `MatchResources`, read once.
#[derive(Debug, Default)]
pub(super) struct Criteria {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// An absent one has an operator that there is not.
    namespaces: Option<LabelSelector>,
    objects: Option<LabelSelector>,
    is_exact: bool,
}

#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    scope: String,
}

/// The objects and labels that selectors look at.
pub(super) struct Looked<'a> {
    pub(super) object: Option<&'a Value>,
    /// The labels of the request's namespace, or of the namespace that the request is about; absent for what is in none.
    pub(super) namespace_labels: Option<&'a Value>,
}

impl Criteria {
    /// Reads a `MatchResources` object; one that says nothing is about everything.
    pub(super) fn read(resources: &Value) -> Self {
        let rules = |name: &str| object::list(resources, &[name]).iter().map(Rule::read).collect();
        Self {
            rules: rules("resourceRules"),
            excluded: rules("excludeResourceRules"),
            namespaces: LabelSelector::from_object(&resources["namespaceSelector"]),
            objects: LabelSelector::from_object(&resources["objectSelector"]),
            is_exact: object::text(resources, &["matchPolicy"]) == "Exact",
        }
    }

    /// As which resource a request is matched, if it is; an error where the criteria cannot be asked.
    pub(super) fn matches(
        &self,
        attributes: &Attributes<'_>,
        looked: &Looked<'_>,
    ) -> Result<Option<Arc<Resource>>, String> {
        let namespaces = self.namespaces.as_ref().map(|selector| {
            // What is in no namespace is not left out by a selector of namespaces.
            looked.namespace_labels.is_none_or(|labels| selects(selector, labels))
        });
        let objects = self.objects.as_ref().map(|selector| self.selects_object(selector, attributes, looked));
        if namespaces == Some(false) || objects == Some(false) {
            return Ok(None);
        }
        if self.find(&self.excluded, attributes).is_some() {
            return Ok(None);
        }
        let found = match self.rules.is_empty() {
            true => own(attributes),
            false => self.find(&self.rules, attributes),
        };
        match (found, namespaces, objects) {
            (Some(_), None, _) => Err("invalid namespaceSelector: not a valid label selector operator".to_owned()),
            (Some(_), _, None) => Err("invalid objectSelector: not a valid label selector operator".to_owned()),
            (found, _, _) => Ok(found),
        }
    }

    fn selects_object(&self, selector: &LabelSelector, attributes: &Attributes<'_>, looked: &Looked<'_>) -> bool {
        if selector.is_everything() {
            return true;
        }
        [looked.object, attributes.old].into_iter().flatten().any(|one| selects(selector, &one["metadata"]["labels"]))
    }

    fn find(&self, rules: &[Rule], attributes: &Attributes<'_>) -> Option<Arc<Resource>> {
        let own = own(attributes)?;
        if rules.iter().any(|rule| rule.matches(attributes, &own)) {
            return Some(own);
        }
        if self.is_exact {
            return None;
        }
        let registry = attributes.core.registry.load();
        let is_other = |other: &&Arc<Resource>| {
            other.kind.storage_prefix == own.kind.storage_prefix && other.api_version != own.api_version
        };
        let equivalents: Vec<&Arc<Resource>> = registry.all().filter(is_other).collect();
        let mut pairs = rules.iter().flat_map(|rule| equivalents.iter().map(move |other| (rule, *other)));
        pairs.find(|(rule, other)| rule.matches(attributes, other)).map(|(_, other)| Arc::clone(other))
    }
}

/// The resource of the request itself.
fn own(attributes: &Attributes<'_>) -> Option<Arc<Resource>> {
    let kind = &attributes.resource.kind;
    attributes.core.registry.load().find(&kind.group, &kind.version, &kind.resource).cloned()
}

/// Whether labels (null where there are none) are selected.
fn selects(selector: &LabelSelector, labels: &Value) -> bool {
    selector.matches_with(|key| labels.get(key).and_then(Value::as_str))
}

impl Rule {
    fn read(rule: &Value) -> Self {
        let texts = |name: &str| {
            object::list(rule, &[name]).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources"),
            names: texts("resourceNames"),
            scope: object::text(rule, &["scope"]).to_owned(),
        }
    }

    fn matches(&self, attributes: &Attributes<'_>, resource: &Resource) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
        let is_namespaced = resource.kind.namespaced;
        let scope = match self.scope.as_str() {
            "Namespaced" => is_namespaced,
            "Cluster" => !is_namespaced,
            _ => true,
        };
        scope
            && has(&self.operations, operation(attributes.operation))
            && has(&self.groups, &resource.kind.group)
            && has(&self.versions, &resource.kind.version)
            && self.resources.iter().any(|rule| is_resource(rule, &resource.kind.resource, attributes.subresource))
            && (self.names.is_empty() || self.names.iter().any(|name| name == attributes.name))
    }
}

/// `pods`, `pods/status`, `pods/*`, `*`, `*/*`, `*/status`.
fn is_resource(rule: &str, resource: &str, subresource: &str) -> bool {
    let (name, part) = rule.split_once('/').unwrap_or((rule, ""));
    (name == "*" || name == resource) && (part == "*" || part == subresource)
}

/// An operation in the words of rules.
pub(super) fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_matched_as_upstream_does() {
        let check = |rule: &str, subresource: &str, expected: bool| {
            assert_eq!(is_resource(rule, "pods", subresource), expected, "{rule} {subresource}");
        };
        check("pods", "", true);
        check("pods", "status", false);
        check("pods/status", "status", true);
        check("pods/status", "", false);
        check("pods/*", "", true);
        check("pods/*", "exec", true);
        check("*", "", true);
        check("*", "status", false);
        check("*/*", "status", true);
        check("*/status", "status", true);
        check("services", "", false);
    }
}
