//! Nobody grants what they do not have: checks of roles and bindings against their writer's own rules.

use async_trait::async_trait;
use kedge_auth::{Attributes as Question, PolicyRule, ResourceAttributes};
use kedge_meta::ApiStatus;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::object;

const GROUP: &str = "rbac.authorization.k8s.io";

#[derive(Debug, Default)]
pub(super) struct RbacEscalation;

#[async_trait]
impl Plugin for RbacEscalation {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.resource.kind.group == GROUP
            && matches!(attributes.operation, Operation::Create | Operation::Update)
            && !attributes.user.groups.iter().any(|group| group == "system:masters")
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiStatus> {
        let unchanged = |fields: &[&str]| {
            attributes.old.is_some_and(|old| fields.iter().all(|field| old.get(*field) == object.get(*field)))
        };
        match &*attributes.resource.kind.resource {
            "roles" | "clusterroles" => {
                if unchanged(&["rules", "aggregationRule"]) || may(attributes, "escalate", "").await? {
                    return Ok(());
                }
                check_rules(attributes, rules_of(object)).await
            }
            "rolebindings" | "clusterrolebindings" => {
                if unchanged(&["subjects", "roleRef"]) {
                    return Ok(());
                }
                check_binding(attributes, object).await
            }
            _ => Ok(()),
        }
    }
}

async fn check_binding(attributes: &Attributes<'_>, binding: &Value) -> Result<(), ApiStatus> {
    let (kind, name) = (object::text(binding, &["roleRef", "kind"]), object::text(binding, &["roleRef", "name"]));
    if may(attributes, "bind", name).await? {
        return Ok(());
    }
    let (resource, namespace) = match kind {
        "Role" => ("roles", attributes.namespace),
        _ => ("clusterroles", ""),
    };
    let found = attributes.core.object(GROUP, resource, namespace, name).await?;
    let Some((_, role)) = found else {
        let group = kedge_meta::GroupResource { group: GROUP.to_owned(), resource: resource.to_owned() };
        return Err(ApiStatus::not_found(&group, name));
    };
    check_rules(attributes, rules_of(&role)).await
}

fn rules_of(role: &Value) -> Vec<PolicyRule> {
    let rules = object::list(role, &["rules"]).iter();
    rules.filter_map(|rule| serde_json::from_value(rule.clone()).ok()).collect()
}

/// Whether the writer has the verb that lifts the check.
async fn may(attributes: &Attributes<'_>, verb: &str, role: &str) -> Result<bool, ApiStatus> {
    let binds = verb == "bind";
    let of_binding = &*attributes.resource.kind.resource == "rolebindings";
    let resource = match (binds, of_binding) {
        (false, _) => &*attributes.resource.kind.resource,
        (true, true) => "roles",
        (true, false) => "clusterroles",
    };
    let mut candidates = vec![resource];
    if binds && of_binding {
        candidates.push("clusterroles");
    }
    for resource in candidates {
        let name = if binds { role } else { attributes.name };
        let namespace = attributes.namespace;
        let asked = ResourceAttributes {
            group: GROUP,
            version: "v1",
            resource,
            namespace,
            name,
            ..ResourceAttributes::default()
        };
        let question = Question { user: attributes.user, verb, resource: Some(asked), path: "" };
        if attributes.core.access.decide(&question).await?.is_allowed() {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn check_rules(attributes: &Attributes<'_>, rules: Vec<PolicyRule>) -> Result<(), ApiStatus> {
    let authorizer = attributes.core.access.authorizer(attributes.user).await?;
    let Err(missing) = authorizer.covers(attributes.user, attributes.namespace, &rules) else { return Ok(()) };
    let user = attributes.user;
    let groups: Vec<String> = user.groups.iter().map(|group| format!("\"{group}\"")).collect();
    let missing: Vec<String> = missing.iter().map(print).collect();
    let why = format!(
        "user \"{}\" (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.username,
        groups.join(" "),
        missing.join("\n")
    );
    Err(attributes.forbidden(&why))
}

/// Upstream's compact form of a rule.
fn print(rule: &PolicyRule) -> String {
    let list = |name: &str, values: &[String]| {
        let quoted: Vec<String> = values.iter().map(|value| format!("\"{value}\"")).collect();
        (!values.is_empty()).then(|| format!("{name}:[{}]", quoted.join(" ")))
    };
    let parts = [
        list("APIGroups", &rule.api_groups),
        list("Resources", &rule.resources),
        list("ResourceNames", &rule.resource_names),
        list("NonResourceURLs", &rule.non_resource_urls),
        list("Verbs", &rule.verbs),
    ];
    format!("{{{}}}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}
