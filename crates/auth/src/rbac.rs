//! Roles and bindings as an index, and the rules that apply to a user.
//!
//! Invariant: a binding grants what its role holds at the time of the question, whichever of the two came first.

use std::collections::HashMap;

use kedge_meta::UserInfo;
use serde::Deserialize;
use serde_json::Value;

use crate::attributes::Attributes;
use crate::rule::PolicyRule;

#[derive(Debug, Deserialize)]
struct RoleObject {
    #[serde(default)]
    rules: Option<Vec<PolicyRule>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BindingObject {
    #[serde(default)]
    subjects: Option<Vec<Subject>>,
    role_ref: RoleRef,
}

#[derive(Debug, Deserialize)]
struct Subject {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Debug, Deserialize)]
struct RoleRef {
    kind: String,
    name: String,
}

impl Subject {
    fn is(&self, user: &UserInfo, binding_namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => self.name == user.username,
            "Group" => user.groups.contains(&self.name),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() { binding_namespace } else { &self.namespace };
                user.username
                    .strip_prefix("system:serviceaccount:")
                    .and_then(|rest| rest.split_once(':'))
                    .is_some_and(|(user_namespace, name)| user_namespace == namespace && name == self.name)
            }
            _ => false,
        }
    }
}

/// All roles and bindings. Roles and bindings of the cluster stand under the empty namespace.
#[derive(Debug, Default)]
pub(crate) struct RbacIndex {
    roles_by_namespace: HashMap<String, HashMap<String, Vec<PolicyRule>>>,
    bindings_by_namespace: HashMap<String, HashMap<String, BindingObject>>,
}

impl RbacIndex {
    /// Takes in a committed change. An object that can't be read grants nothing.
    pub(crate) fn observe(&mut self, resource: &str, namespace: &str, name: &str, object: Option<&Value>) {
        match resource {
            "roles" | "clusterroles" => {
                let roles = self.roles_by_namespace.entry(namespace.to_owned()).or_default();
                match object.and_then(|object| RoleObject::deserialize(object).ok()) {
                    Some(role) => roles.insert(name.to_owned(), role.rules.unwrap_or_default()),
                    None => roles.remove(name),
                };
            }
            "rolebindings" | "clusterrolebindings" => {
                let bindings = self.bindings_by_namespace.entry(namespace.to_owned()).or_default();
                match object.and_then(|object| BindingObject::deserialize(object).ok()) {
                    Some(binding) => bindings.insert(name.to_owned(), binding),
                    None => bindings.remove(name),
                };
            }
            _ => {}
        }
    }

    /// The reason why a request is allowed, where a rule allows it.
    pub(crate) fn allows(&self, attributes: &Attributes<'_>) -> Option<String> {
        let namespace = attributes.resource.as_ref().map_or("", |resource| resource.namespace);
        let mut reason = None;
        self.visit(attributes.user, namespace, |binding, binding_namespace, role, rules| {
            if rules.iter().any(|rule| rule.allows(attributes)) {
                let kind = if binding_namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
                reason = Some(format!(
                    "RBAC: allowed by {kind} \"{binding}\" of {} \"{}\" to the user",
                    role.kind, role.name
                ));
            }
            reason.is_none()
        });
        reason
    }

    /// Every rule that applies to a user in a namespace.
    pub(crate) fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<PolicyRule> {
        let mut found = Vec::new();
        self.visit(user, namespace, |_, _, _, rules| {
            found.extend_from_slice(rules);
            true
        });
        found
    }

    /// Calls `each` with every binding of the user, until it answers false.
    fn visit(
        &self,
        user: &UserInfo,
        namespace: &str,
        mut each: impl FnMut(&str, &str, &RoleRef, &[PolicyRule]) -> bool,
    ) {
        let places = if namespace.is_empty() { &[""][..] } else { &["", namespace][..] };
        for place in places {
            let Some(bindings) = self.bindings_by_namespace.get(*place) else { continue };
            for (name, binding) in bindings {
                let bound = binding.subjects.iter().flatten().any(|subject| subject.is(user, place));
                let role_namespace = if binding.role_ref.kind == "Role" { place } else { &"" };
                if !bound {
                    continue;
                }
                let roles = self.roles_by_namespace.get(*role_namespace);
                let Some(rules) = roles.and_then(|roles| roles.get(&binding.role_ref.name)) else { continue };
                if !each(name, place, &binding.role_ref, rules) {
                    return;
                }
            }
        }
    }
}
