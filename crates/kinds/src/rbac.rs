//! The kinds of `rbac.authorization.k8s.io`.
//!
//! Not the check against escalation: the API server asks the authorizer.

mod binding;
mod role;

use crate::generic::Generic;
use crate::strategy::Strategy;

/// The group, as `apiGroup` of role references and subjects.
const GROUP: &str = "rbac.authorization.k8s.io";

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "clusterrolebindings" => &binding::Binding { namespaced: false },
        "clusterroles" => &role::Role { namespaced: false },
        "rolebindings" => &binding::Binding { namespaced: true },
        "roles" => &role::Role { namespaced: true },
        _ => &Generic::PLAIN,
    }
}
