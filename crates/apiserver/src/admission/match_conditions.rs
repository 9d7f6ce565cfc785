//! `matchConditions` of webhook configurations: what can't be an expression is refused when it is written. Upstream's
//! validation does this.

use async_trait::async_trait;
use kedge_meta::{ApiStatus, FieldError, FieldPath, is_qualified_name};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::object;

/// Upstream's bound for the conditions of a webhook.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct MatchConditions;

#[async_trait]
impl Plugin for MatchConditions {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        const GROUP: &str = "admissionregistration.k8s.io";
        matches!(attributes.operation, Operation::Create | Operation::Update)
            && ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"]
                .iter()
                .any(|resource| attributes.is_main(GROUP, resource))
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiStatus> {
        let old = attributes.old.map_or(&[][..], |old| object::list(old, &["webhooks"]));
        let mut errors = Vec::new();
        for (index, webhook) in object::list(object, &["webhooks"]).iter().enumerate() {
            let conditions = object::list(webhook, &["matchConditions"]);
            // What was taken once may stay.
            if old.get(index).is_some_and(|old| object::list(old, &["matchConditions"]) == conditions) {
                continue;
            }
            check(conditions, &FieldPath::new("webhooks").index(index).child("matchConditions"), &mut errors);
        }
        if errors.is_empty() {
            return Ok(());
        }
        let kind = &attributes.resource.kind;
        Err(ApiStatus::invalid(&kind.group, &kind.kind, attributes.name, &errors))
    }
}

fn check(conditions: &[Value], path: &FieldPath, errors: &mut Vec<FieldError>) {
    if conditions.len() > MOST {
        errors.push(FieldError::too_many(path, conditions.len(), MOST));
    }
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        let (name, expression) = (object::text(condition, &["name"]), object::text(condition, &["expression"]).trim());
        if expression.is_empty() {
            errors.push(FieldError::required(&path.child("expression"), ""));
        } else if let Err(why) = kedge_webhooks::check_expression(expression) {
            errors.push(FieldError::invalid(&path.child("expression"), &json!(expression), &why));
        }
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else if !is_qualified_name(name) {
            let why = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
                       an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                       validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
            errors.push(FieldError::invalid(&path.child("name"), &json!(name), why));
        }
        if !name.is_empty() && conditions[..index].iter().any(|earlier| object::text(earlier, &["name"]) == name) {
            errors.push(FieldError::duplicate(&path.child("name"), &json!(name)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_checked() {
        let conditions = [
            json!({"name": "a", "expression": "object.metadata.name == 'x'"}),
            json!({"name": "a", "expression": "... [}"}),
            json!({"name": "", "expression": " "}),
        ];
        let mut errors = Vec::new();
        check(&conditions, &FieldPath::new("c"), &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(texts[0].starts_with("c[1].expression: Invalid value: \"... [}\": compilation failed"), "{texts:?}");
        assert_eq!(
            texts[1..],
            ["c[1].name: Duplicate value: \"a\"", "c[2].expression: Required value", "c[2].name: Required value",]
        );
    }
}
