//! What is worth a warning in a pod spec, though it is taken.

use kedge_meta::Quantity;
use serde_json::Value;

use crate::formats;
use crate::path::Path;
use crate::value::{entries, int, items, text};

/// Warnings about a pod or a pod template; `name` is the pod's own name, empty in templates.
pub(crate) fn pod_warnings(spec: &Value, name: &str, path: &Path<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let wrong = formats::label(name);
    if !name.is_empty() && !wrong.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is \
             recommended: [{}]",
            wrong.join(" ")
        ));
    }
    for (index, secret) in items(spec, &["imagePullSecrets"]).iter().enumerate() {
        if text(secret, &["name"]).is_empty() {
            let list = path.child("imagePullSecrets");
            warnings.push(format!("{}: invalid empty name \"\"", list.index(index).child("name").build()));
        }
    }
    for list in ["initContainers", "containers"] {
        for (index, container) in items(spec, &[list]).iter().enumerate() {
            let field = path.child(list);
            container_warnings(container, &field.index(index), &mut warnings);
        }
    }
    if int(spec, &["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0) {
        let path = path.child("terminationGracePeriodSeconds").build();
        warnings.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    warnings
}

fn container_warnings(container: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let resources = path.child("resources");
    for list in ["limits", "requests"] {
        for (name, amount) in entries(container, &["resources", list]) {
            let parsed = amount.as_str().and_then(|amount| amount.parse::<Quantity>().ok());
            let fractional = parsed.is_some_and(|amount| amount.millis() % 1000 != 0);
            if fractional && matches!(name.as_str(), "memory" | "ephemeral-storage") {
                let path = resources.child(list).key(name).build();
                let amount = amount.as_str().unwrap_or_default();
                warnings.push(format!("{path}: fractional byte value {amount:?} is invalid, must be an integer"));
            }
        }
    }
    let variables = items(container, &["env"]);
    for (index, variable) in variables.iter().enumerate() {
        let name = text(variable, &["name"]);
        // A value that refers to the earlier one is meant to build on it.
        let builds_on = text(variable, &["value"]).contains(&format!("$({name})"));
        if !builds_on && variables[..index].iter().any(|earlier| text(earlier, &["name"]) == name) {
            let list = path.child("env");
            let path = list.index(index).build();
            warnings
                .push(format!("{path}: hides previous definition of {name:?}, which may be dropped when using apply"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn doubtful_pods_are_warned_of() {
        let spec = json!({"imagePullSecrets": [{}], "terminationGracePeriodSeconds": -1, "containers": [{
            "resources": {"limits": {"memory": "100m", "cpu": "100m"}},
            "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A", "value": "3"}]}]});
        assert_eq!(
            pod_warnings(&spec, "a.b", &Path::root("spec")),
            [
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is \
                 recommended: [must not contain dots]",
                "spec.imagePullSecrets[0].name: invalid empty name \"\"",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ]
        );
        assert_eq!(pod_warnings(&json!({"containers": [{"name": "a"}]}), "web", &Path::root("spec")), [""; 0]);
    }
}
