//! Priority: a pod's `priorityClassName` becomes a number and a preemption policy.

use async_trait::async_trait;
use kedge_meta::ApiStatus;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, objects};
use crate::object;

#[derive(Debug, Default)]
pub(super) struct Priority;

#[async_trait]
impl Plugin for Priority {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let creates = attributes.operation == Operation::Create;
        (attributes.is_main("", "pods") && creates)
            || (attributes.is_main("scheduling.k8s.io", "priorityclasses")
                && matches!(attributes.operation, Operation::Create | Operation::Update))
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiStatus> {
        if !attributes.is_main("", "pods") {
            return Ok(());
        }
        let class = class_of(attributes, object).await?;
        apply(attributes, object, class.as_ref())
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiStatus> {
        if attributes.is_main("", "pods") || object.get("globalDefault") != Some(&Value::Bool(true)) {
            return Ok(());
        }
        let classes = objects(attributes.core, "scheduling.k8s.io", "priorityclasses", "").await?;
        let other = classes.iter().find(|class| is_default(class) && object::name(class) != attributes.name);
        match other {
            None => Ok(()),
            Some(other) => {
                let name = object::name(other);
                let why = format!("PriorityClass {name} is already marked as default. Only one default can exist");
                Err(attributes.forbidden(&why))
            }
        }
    }
}

fn is_default(class: &Value) -> bool {
    class.get("globalDefault") == Some(&Value::Bool(true))
}

async fn class_of(attributes: &Attributes<'_>, pod: &Value) -> Result<Option<Value>, ApiStatus> {
    let name = object::text(pod, &["spec", "priorityClassName"]);
    if name.is_empty() {
        let classes = objects(attributes.core, "scheduling.k8s.io", "priorityclasses", "").await?;
        return Ok(classes.into_iter().filter(is_default).min_by_key(value_of));
    }
    let found = attributes.core.object("scheduling.k8s.io", "priorityclasses", "", name).await?;
    let why = || attributes.forbidden(&format!("no PriorityClass with name {name} was found"));
    found.map(|(_, class)| Some(class)).ok_or_else(why)
}

fn value_of(class: &Value) -> i64 {
    class.get("value").and_then(Value::as_i64).unwrap_or(0)
}

fn apply(attributes: &Attributes<'_>, pod: &mut Value, class: Option<&Value>) -> Result<(), ApiStatus> {
    let priority = class.map_or(0, value_of);
    let policy = class.map(|class| object::text(class, &["preemptionPolicy"])).filter(|policy| !policy.is_empty());
    let policy = policy.unwrap_or("PreemptLowerPriority");
    if let Some(given) =
        object::at(pod, &["spec", "priority"]).and_then(Value::as_i64).filter(|given| *given != priority)
    {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        );
        return Err(attributes.forbidden(&why));
    }
    let given = object::text(pod, &["spec", "preemptionPolicy"]);
    if !given.is_empty() && given != policy {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        );
        return Err(attributes.forbidden(&why));
    }
    let spec = object::child_mut(pod, "spec");
    if let Some(class) = class {
        spec.insert("priorityClassName".to_owned(), object::name(class).into());
    }
    spec.insert("priority".to_owned(), priority.into());
    spec.insert("preemptionPolicy".to_owned(), policy.into());
    Ok(())
}
