//! The ClusterRole aggregation controller: a role with an aggregation rule has the rules of all roles that it selects.
//!
//! Invariant: the rules of such a role are a function of the others; what somebody writes there by hand is replaced.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kedge_client::{Informer, Queue, object_key};
use kedge_meta::ObjectKey;
use kube::api::{Api, PostParams};

use crate::owners::{selector_of, selects};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let roles = starter.informer::<ClusterRole>();
    let queue = Queue::new();
    let all = roles.clone();
    starter.enqueue(&roles, &queue, move |_| {
        all.filter(|role| role.aggregation_rule.is_some()).iter().map(|role| object_key(&**role)).collect()
    });
    let workers = starter.context.config.concurrency;
    let controller = Aggregation { context: starter.context.clone(), roles };
    starter.work(Arc::new(controller), queue, workers);
}

struct Aggregation {
    context: Context,
    roles: Informer<ClusterRole>,
}

impl Controller for Aggregation {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let Some(role) = self.roles.get(key) else { return Ok(Next::Done) };
        let Some(rules) = plan(&role, &self.roles.list()) else { return Ok(Next::Done) };
        let changed = ClusterRole { rules: Some(rules), ..(*role).clone() };
        let roles = Api::<ClusterRole>::all(self.context.client.clone());
        roles.replace(&key.name, &PostParams::default(), &changed).await?;
        Ok(Next::Done)
    }
}

/// The rules that a role should have; `None` where it has them, or aggregates nothing.
fn plan(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let mut sources: Vec<&Arc<ClusterRole>> = Vec::new();
    let mut sorted: Vec<&Arc<ClusterRole>> = all.iter().collect();
    sorted.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    for selector in selectors {
        let Some(selector) = selector_of(Some(selector)) else { continue };
        for source in &sorted {
            let is_known = sources.iter().any(|known| known.metadata.name == source.metadata.name);
            if !is_known && source.metadata.name != role.metadata.name && selects(&selector, &source.metadata) {
                sources.push(source);
            }
        }
    }
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in sources.iter().flat_map(|source| source.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    (role.rules.as_deref().unwrap_or_default() != rules).then_some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::rbac::v1::AggregationRule;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
    use std::collections::BTreeMap;

    #[test]
    fn rules_are_the_union_of_the_selected_roles() {
        let rule = |verb: &str| PolicyRule { verbs: vec![verb.to_owned()], ..PolicyRule::default() };
        let role = |name: &str, label: Option<&str>, verbs: &[&str]| {
            let mut role = ClusterRole::default();
            role.metadata.name = Some(name.to_owned());
            role.metadata.labels = label.map(|label| BTreeMap::from([("aggregate".to_owned(), label.to_owned())]));
            role.rules = Some(verbs.iter().map(|verb| rule(verb)).collect());
            Arc::new(role)
        };
        let labels = BTreeMap::from([("aggregate".to_owned(), "view".to_owned())]);
        let selector = LabelSelector { match_labels: Some(labels), ..LabelSelector::default() };
        let mut view = (*role("view", Some("view"), &["watch"])).clone();
        view.aggregation_rule = Some(AggregationRule { cluster_role_selectors: Some(vec![selector]) });
        let all = [
            Arc::new(view.clone()),
            role("b", Some("view"), &["list", "get"]),
            role("a", Some("view"), &["get"]),
            role("c", Some("edit"), &["delete"]),
            role("d", None, &["patch"]),
        ];
        let rules = plan(&view, &all);
        assert_eq!(rules, Some(vec![rule("get"), rule("list")]));
        view.rules = rules;
        assert_eq!(plan(&view, &all), None);
        assert_eq!(plan(&all[1], &all), None);
    }
}
