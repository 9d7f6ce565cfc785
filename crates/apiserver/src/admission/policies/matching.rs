//! Which requests a policy or a binding is about: rules, exclusions, selectors of namespaces and objects, other versions.
//!
//! Not aware of policies: only of `MatchResources` objects.

use std::sync::Arc;

use kedge_meta::LabelSelector;
use kedge_webhooks::{Asked, Rule};
use serde_json::Value;

use crate::admission::Attributes;
use crate::object;
use crate::registry::Resource;

/// `admissionregistration.k8s.io` `MatchResources`, read once.
#[derive(Debug, Default)]
pub(super) struct Criteria {
    rules: Vec<NamedRule>,
    excluded: Vec<NamedRule>,
    /// An absent one has an operator that there is not.
    namespaces: Option<LabelSelector>,
    objects: Option<LabelSelector>,
    is_exact: bool,
}

#[derive(Debug)]
struct NamedRule {
    rule: Rule,
    /// Of objects; all where empty.
    names: Vec<String>,
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
        let rules = |name: &str| object::list(resources, &[name]).iter().map(NamedRule::read).collect();
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

    fn find(&self, rules: &[NamedRule], attributes: &Attributes<'_>) -> Option<Arc<Resource>> {
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

impl NamedRule {
    fn read(rule: &Value) -> Self {
        let names = object::list(rule, &["resourceNames"]).iter().filter_map(Value::as_str).map(str::to_owned);
        Self { rule: Rule::read(rule), names: names.collect() }
    }

    fn matches(&self, attributes: &Attributes<'_>, resource: &Resource) -> bool {
        let kind = &resource.kind;
        let asked = Asked {
            operation: attributes.operation.as_str(),
            group: &kind.group,
            version: &kind.version,
            resource: &kind.resource,
            subresource: attributes.subresource,
            namespaced: kind.namespaced,
        };
        self.rule.matches(&asked) && (self.names.is_empty() || self.names.iter().any(|name| name == attributes.name))
    }
}
