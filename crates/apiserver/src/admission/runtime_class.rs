//! RuntimeClass: a pod's overhead, node selector and tolerations out of its runtime class.

use async_trait::async_trait;
use kedge_meta::ApiStatus;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::object;

#[derive(Debug, Default)]
pub(super) struct RuntimeClass;

#[async_trait]
impl Plugin for RuntimeClass {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_main("", "pods") && attributes.operation == Operation::Create
    }

    async fn admit(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiStatus> {
        let name = object::text(pod, &["spec", "runtimeClassName"]).to_owned();
        if name.is_empty() {
            return match object::at(pod, &["spec", "overhead"]) {
                Some(_) => Err(attributes
                    .forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")),
                None => Ok(()),
            };
        }
        let found = attributes.core.object("node.k8s.io", "runtimeclasses", "", &name).await?;
        let (_, class) =
            found.ok_or_else(|| attributes.forbidden(&format!("pod rejected: RuntimeClass \"{name}\" not found")))?;
        set_overhead(attributes, pod, &class)?;
        set_scheduling(attributes, pod, &class)
    }
}

fn set_overhead(attributes: &Attributes<'_>, pod: &mut Value, class: &Value) -> Result<(), ApiStatus> {
    let fixed = object::at(class, &["overhead", "podFixed"]);
    let given = object::at(pod, &["spec", "overhead"]);
    if given.is_some_and(|given| Some(given) != fixed) {
        return Err(attributes.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"));
    }
    if let Some(fixed) = fixed {
        object::child_mut(pod, "spec").insert("overhead".to_owned(), fixed.clone());
    }
    Ok(())
}

fn set_scheduling(attributes: &Attributes<'_>, pod: &mut Value, class: &Value) -> Result<(), ApiStatus> {
    let wanted = object::at(class, &["scheduling", "nodeSelector"]).and_then(Value::as_object);
    for (key, value) in wanted.into_iter().flatten() {
        let selector = object::child_mut(pod, "spec").entry("nodeSelector").or_insert_with(|| json!({}));
        match selector.get(key) {
            Some(own) if own != value => {
                let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
                let (own, value) = (text(own), text(value));
                let why = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
                );
                return Err(attributes.forbidden(&why));
            }
            _ => selector[key] = value.clone(),
        }
    }
    let mut tolerations = object::list(pod, &["spec", "tolerations"]).to_vec();
    for toleration in object::list(class, &["scheduling", "tolerations"]) {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    if !tolerations.is_empty() {
        object::child_mut(pod, "spec").insert("tolerations".to_owned(), tolerations.into());
    }
    Ok(())
}
