//! Who may write which part of a ResourceClaim's status: allocations are for schedulers, and what is reported of a device for
//! its driver.
//!
//! Upstream checks this where it stores claims. Invariant: the right to the status as a whole is not enough for either.

use std::collections::BTreeSet;

use async_trait::async_trait;
use kedge_auth::{Attributes as Question, ResourceAttributes};
use kedge_meta::{ApiStatus, FieldError, FieldPath, UserInfo};
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::object;

const GROUP: &str = "resource.k8s.io";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

#[derive(Debug, Default)]
pub(super) struct ClaimStatusRights;

#[async_trait]
impl Plugin for ClaimStatusRights {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update
            && attributes.resource.is(GROUP, "resourceclaims")
            && attributes.subresource == "status"
    }

    async fn validate(&self, attributes: &Attributes<'_>, claim: &Value) -> Result<(), ApiStatus> {
        let old = attributes.old.unwrap_or(&Value::Null);
        let mut errors = Vec::new();
        errors.extend(check_binding(attributes, claim, old).await?);
        if object::at(claim, &["status", "allocation"]).is_some() {
            errors.extend(check_drivers(attributes, claim, old).await?);
        }
        if errors.is_empty() {
            return Ok(());
        }
        let kind = &attributes.resource.kind;
        Err(ApiStatus::invalid(&kind.group, &kind.kind, attributes.name, &errors))
    }
}

/// The verb of a request for a change.
fn verb(attributes: &Attributes<'_>) -> &'static str {
    match attributes.told.options["kind"] == "PatchOptions" {
        true => "patch",
        false => "update",
    }
}

async fn check_binding(
    attributes: &Attributes<'_>,
    claim: &Value,
    old: &Value,
) -> Result<Option<FieldError>, ApiStatus> {
    let allocation = |claim: &Value| object::at(claim, &["status", "allocation"]).cloned();
    let consumers = |claim: &Value| object::list(claim, &["status", "reservedFor"]).to_vec();
    if allocation(claim) == allocation(old) && consumers(claim) == consumers(old) {
        return Ok(None);
    }
    let verb = verb(attributes);
    let asked = ResourceAttributes { subresource: "binding", ..asked(attributes) };
    let Some(denied) = denied(attributes, verb, asked).await? else { return Ok(None) };
    let why = format!(
        "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"{verb}\" \
         permission: {denied}"
    );
    Ok(Some(FieldError::forbidden(&FieldPath::new("status").child("allocation"), &why)))
}

async fn check_drivers(attributes: &Attributes<'_>, claim: &Value, old: &Value) -> Result<Vec<FieldError>, ApiStatus> {
    let verb = verb(attributes);
    let mut verbs = vec![format!("arbitrary-node:{verb}")];
    if node_of(claim).is_some_and(|node| is_account_on(attributes.user, node)) {
        verbs.insert(0, format!("associated-node:{verb}"));
    }
    let mut errors = Vec::new();
    for driver in changed_drivers(claim, old) {
        let mut first = None;
        for verb in &verbs {
            let asked = ResourceAttributes {
                subresource: "driver",
                namespace: attributes.namespace,
                name: driver,
                ..asked(attributes)
            };
            match denied(attributes, verb, asked).await? {
                None => {
                    first = None;
                    break;
                }
                Some(denied) => drop(first.get_or_insert(denied)),
            }
        }
        if let Some(denied) = first {
            let why = format!(
                "changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[{}]\" permission: {denied}",
                verbs.join(" ")
            );
            errors.push(FieldError::forbidden(&FieldPath::new("status").child("devices"), &why));
        }
    }
    Ok(errors)
}

fn asked<'a>(attributes: &Attributes<'a>) -> ResourceAttributes<'a> {
    let version = &attributes.resource.kind.version;
    ResourceAttributes { group: GROUP, version, resource: "resourceclaims", ..ResourceAttributes::default() }
}

/// What is said to who may not do something.
async fn denied(
    attributes: &Attributes<'_>,
    verb: &str,
    asked: ResourceAttributes<'_>,
) -> Result<Option<String>, ApiStatus> {
    let question = Question { user: attributes.user, verb, resource: Some(asked), path: "" };
    let decision = attributes.core.access.decide(&question).await?;
    if decision.is_allowed() {
        return Ok(None);
    }
    let why = match decision.reason() {
        "" => question.denial_text(),
        reason => format!("{}: {reason}", question.denial_text()),
    };
    Ok(Some(ApiStatus::forbidden(&attributes.resource.group_resource, asked.name, &why).message))
}

/// The drivers of whose devices something else is reported than before.
fn changed_drivers<'a>(claim: &'a Value, old: &'a Value) -> BTreeSet<&'a str> {
    let [now, before] = [claim, old].map(|claim| object::list(claim, &["status", "devices"]));
    let drivers = drivers_of_others(now, before).chain(drivers_of_others(before, now));
    drivers.collect()
}

/// The drivers of devices of which `others` does not say the same.
fn drivers_of_others<'a>(devices: &'a [Value], others: &'a [Value]) -> impl Iterator<Item = &'a str> {
    let is_other = move |device: &&Value| others.iter().find(|other| key(other) == key(device)) != Some(*device);
    devices.iter().filter(is_other).map(|device| object::text(device, &["driver"]))
}

fn key(device: &Value) -> [&str; 4] {
    ["driver", "pool", "device", "shareID"].map(|field| object::text(device, &[field]))
}

/// The one node that an allocation is for.
fn node_of(claim: &Value) -> Option<&str> {
    let [term] = object::list(claim, &["status", "allocation", "nodeSelector", "nodeSelectorTerms"]) else {
        return None;
    };
    let [field] = object::list(term, &["matchFields"]) else { return None };
    let is_name = field["key"] == "metadata.name" && field["operator"] == "In";
    match object::list(field, &["values"]) {
        [node] if is_name && object::list(term, &["matchExpressions"]).is_empty() => node.as_str(),
        _ => None,
    }
}

/// Whether a user is a service account whose pod runs on a node.
fn is_account_on(user: &UserInfo, node: &str) -> bool {
    let is_account = user.username.strip_prefix("system:serviceaccount:").is_some_and(|rest| rest.contains(':'));
    is_account && user.extra.get(NODE_NAME).is_some_and(|nodes| matches!(nodes.as_slice(), [own] if own == node))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn drivers_are_those_of_changed_devices() {
        let claim = |devices: Value| json!({"status": {"devices": devices}});
        let device =
            |driver: &str, data: u8| json!({"driver": driver, "pool": "p", "device": "d", "data": {"x": data}});
        let check = |now: Value, before: Value, expected: &[&str]| {
            let (now, before) = (claim(now), claim(before));
            assert_eq!(changed_drivers(&now, &before).into_iter().collect::<Vec<_>>(), expected);
        };
        check(json!([device("a", 1)]), json!([device("a", 1)]), &[]);
        check(json!([device("a", 2), device("b", 1)]), json!([device("a", 1), device("b", 1)]), &["a"]);
        check(json!([device("b", 1)]), json!([device("a", 1)]), &["a", "b"]);
        check(json!([]), json!([device("a", 1)]), &["a"]);
    }

    #[test]
    fn allocations_are_for_one_node() {
        let claim = |term: Value| json!({"status": {"allocation": {"nodeSelector": {"nodeSelectorTerms": [term]}}}});
        let field = |values: Value| json!({"key": "metadata.name", "operator": "In", "values": values});
        let check = |term: Value, expected: Option<&str>| assert_eq!(node_of(&claim(term)), expected);
        check(json!({"matchFields": [field(json!(["n1"]))]}), Some("n1"));
        check(json!({"matchFields": [field(json!(["n1", "n2"]))]}), None);
        check(json!({"matchExpressions": [{"key": "a"}], "matchFields": [field(json!(["n1"]))]}), None);
        check(json!({}), None);
        let mut user = UserInfo::authenticated("system:serviceaccount:d:driver", []);
        assert!(!is_account_on(&user, "n1"));
        user.extra.insert(NODE_NAME.to_owned(), vec!["n1".to_owned()]);
        assert!(is_account_on(&user, "n1") && !is_account_on(&user, "n2"));
    }
}
