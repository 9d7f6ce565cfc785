//! The quality-of-service class of a pod, out of its requests and limits of CPU and memory.

use kedge_meta::Quantity;
use serde_json::Value;

use crate::value::{items, text};

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn qos_class(spec: &Value) -> &'static str {
    if spec.get("resources").is_some_and(|resources| Amounts::of(resources).any()) {
        return Amounts::of(&spec["resources"]).class();
    }
    let mut guaranteed = true;
    let mut best_effort = true;
    for list in ["containers", "initContainers"] {
        for container in items(spec, &[list]) {
            let class = container.get("resources").map_or("BestEffort", |resources| Amounts::of(resources).class());
            guaranteed &= class == "Guaranteed";
            best_effort &= class == "BestEffort";
        }
    }
    match (best_effort, guaranteed) {
        (true, _) => "BestEffort",
        (_, true) => "Guaranteed",
        _ => "Burstable",
    }
}

/// Requests and limits of CPU and memory that are above zero.
struct Amounts {
    requests: [Option<Quantity>; 2],
    limits: [Option<Quantity>; 2],
}

impl Amounts {
    fn of(resources: &Value) -> Self {
        let read = |list: &str| {
            ["cpu", "memory"].map(|name| {
                let amount = text(resources, &[list, name]).parse::<Quantity>().ok();
                amount.filter(|amount| *amount > Quantity::ZERO)
            })
        };
        Self { requests: read("requests"), limits: read("limits") }
    }

    fn any(&self) -> bool {
        self.requests.iter().chain(&self.limits).any(Option::is_some)
    }

    fn class(&self) -> &'static str {
        match self.any() {
            false => "BestEffort",
            true if self.limits.iter().all(Option::is_some) && self.requests == self.limits => "Guaranteed",
            true => "Burstable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        for (containers, class) in [
            (json!([{}]), "BestEffort"),
            (json!([{"resources": {"requests": {"cpu": "0"}}}]), "BestEffort"),
            (json!([{"resources": {"requests": {"cpu": "1"}}}]), "Burstable"),
            (json!([{"resources": full}]), "Guaranteed"),
            (json!([{"resources": full}, {}]), "Burstable"),
            (json!([{"resources": {"limits": {"ephemeral-storage": "1"}}}]), "BestEffort"),
        ] {
            assert_eq!(qos_class(&json!({"containers": containers})), class, "{containers}");
        }
        assert_eq!(qos_class(&json!({"resources": full, "containers": [{}]})), "Guaranteed");
    }
}
