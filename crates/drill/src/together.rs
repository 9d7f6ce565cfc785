//! Several drills at once: one scenario made of several, whose causes do not depend on each other.
//!
//! Pure. Invariant: each keeps its objects in a namespace of its own, and all of their true causes are asked for.

use serde_json::Value;

use crate::error::Error;
use crate::scenario::{Other, Par, Scenario, Where};

/// Between the ids of scenarios that are done at once.
const AND: char = '+';
/// What scenarios call the namespace of their objects.
const NAMESPACE: &str = "$(namespace)";

/// The scenario of an id, or the one that several ids with `+` between them make.
pub(crate) fn find(scenarios: &[Scenario], ids: &str) -> Result<Scenario, Error> {
    let known = |id: &str| {
        let found = scenarios.iter().find(|scenario| scenario.id == id);
        found.ok_or_else(|| Error::Refused(format!("there is no scenario {id}; see `kedge drill list`")))
    };
    let mut ids = ids.split(AND);
    let mut all = known(ids.next().unwrap_or_default())?.clone();
    for (number, id) in ids.enumerate() {
        let other = in_namespace(known(id)?, &format!("{NAMESPACE}-{}", number + 2))?;
        all = join(all, other)?;
    }
    Ok(all)
}

/// The same with its objects elsewhere.
fn in_namespace(scenario: &Scenario, namespace: &str) -> Result<Scenario, Error> {
    let unusable = |error: serde_json::Error| Error::Scenario { id: scenario.id.clone(), why: error.to_string() };
    let value = serde_json::to_value(scenario).map_err(unusable)?;
    serde_json::from_value(renamed(value, namespace)).map_err(unusable)
}

fn renamed(value: Value, namespace: &str) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace(NAMESPACE, namespace)),
        Value::Array(items) => items.into_iter().map(|item| renamed(item, namespace)).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, field)| (name, renamed(field, namespace)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other,
    }
}

fn join(mut one: Scenario, other: Scenario) -> Result<Scenario, Error> {
    if one.causes().contains(&other.cause.as_str()) {
        let why = format!("{} has the same cause, {}: nobody could tell them apart", other.id, other.cause);
        return Err(Error::Scenario { id: one.id, why });
    }
    one.id = format!("{}{AND}{}", one.id, other.id);
    one.title = format!("{}; {}", one.title, lower(&other.title));
    one.story.push_str(&other.story);
    one.level = one.level.max(other.level);
    one.place = Where {
        static_pods: one.place.static_pods || other.place.static_pods,
        test_hosts: one.place.test_hosts || other.place.test_hosts,
        shell: one.place.shell || other.place.shell,
        nodes: one.place.nodes.max(other.place.nodes),
    };
    one.others.push(Other { cause: other.cause, diagnose: other.diagnose });
    // What one breaks may be in the way of what the other does: who looks at the cluster does so first.
    one.steps.extend(other.steps);
    one.symptoms.extend(other.symptoms);
    one.within = one.within.saturating_add(other.within);
    one.hints.extend(other.hints);
    one.repair.extend(other.repair);
    one.fix = one.fix && other.fix;
    one.repaired.extend(other.repaired);
    one.touches.extend(other.touches);
    one.par = Par { detect: one.par.detect + other.par.detect, repair: one.par.repair + other.par.repair };
    Ok(one)
}

fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Look;

    fn builtin() -> Vec<Scenario> {
        crate::catalogue::builtin().expect("they are read")
    }

    #[test]
    fn two_have_two_causes_and_two_namespaces() {
        let both = find(&builtin(), "quota+configmap-missing").expect("both are there");
        assert_eq!(both.causes(), ["H11", "I14"]);
        assert_eq!(both.looks(), [(Look::Cluster, vec!["H11", "I14"])]);
        let text = serde_json::to_string(&both).expect("it is JSON");
        assert!(text.contains("\"name\":\"$(namespace)\"") && text.contains("\"name\":\"$(namespace)-2\""), "{text}");
        let steps = |id: &str| find(&builtin(), id).expect("it is there").steps.len();
        assert_eq!(both.steps.len(), steps("quota") + steps("configmap-missing"));
    }

    #[test]
    fn what_one_needs_both_need_and_what_only_one_has_is_not_both() {
        let both = find(&builtin(), "quota+scheduler-program").expect("both are there");
        assert!(both.place.static_pods && !both.fix);
        assert_eq!(both.looks().len(), 2);
        let fixed = find(&builtin(), "controller-manager-kubeconfig+scheduler-program").expect("both are there");
        assert!(fixed.fix && fixed.looks().len() == 1);
    }

    #[test]
    fn the_same_cause_twice_and_unknown_ones_are_refused() {
        let refused = |ids: &str| find(&builtin(), ids).expect_err("it is refused").to_string();
        assert!(refused("image-missing+image-never-pulled").contains("the same cause, E21"));
        assert!(refused("quota+nothing").contains("there is no scenario nothing"));
        assert!(refused("").contains("there is no scenario"));
    }
}
