//! DefaultTolerationSeconds: pods stay five minutes on a node that is not ready or unreachable, unless they say otherwise.

use async_trait::async_trait;
use kedge_meta::ApiStatus;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::object;

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

#[derive(Debug, Default)]
pub(super) struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        // Also at updates: whoever replaces the list does not mean to take away what was added to it.
        let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
        writes && attributes.is_main("", "pods")
    }

    async fn admit(&self, _attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiStatus> {
        tolerate(pod);
        Ok(())
    }
}

fn tolerate(pod: &mut Value) {
    let mut tolerations = object::list(pod, &["spec", "tolerations"]).to_vec();
    let covers = |toleration: &Value, taint: &str| {
        let (key, effect) = (object::text(toleration, &["key"]), object::text(toleration, &["effect"]));
        (key == taint || key.is_empty()) && matches!(effect, "NoExecute" | "")
    };
    for taint in TAINTS {
        if !tolerations.iter().any(|toleration| covers(toleration, taint)) {
            tolerations
                .push(json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
        }
    }
    if !tolerations.is_empty() {
        object::child_mut(pod, "spec").insert("tolerations".to_owned(), tolerations.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_tolerations_are_added() {
        for (tolerations, count) in [
            (json!([]), 2),
            (json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoExecute"}]), 2),
            (json!([{"operator": "Exists"}]), 1),
            (json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoSchedule"}]), 3),
        ] {
            let mut pod = json!({"spec": {"tolerations": tolerations}});
            tolerate(&mut pod);
            assert_eq!(object::list(&pod, &["spec", "tolerations"]).len(), count, "{pod}");
        }
    }
}
