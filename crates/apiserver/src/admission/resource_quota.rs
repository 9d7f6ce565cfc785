//! ResourceQuota: nothing is created in a namespace, and nothing in it grows, beyond its quotas.
//!
//! What is used is counted here ([`tally`]), so it is right also where no controller keeps the status, and the quota's
//! status is written in the same commit as the object. Invariant: two creations never share the last place, since both need
//! the quota as they saw it.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::ResourceQuotaSpec;
use kedge_meta::{ApiStatus, Quantity};
use kedge_quota::{Amounts, format};
use kedge_store::{Condition, Expect, Record, Write};
use serde_json::{Map, Value};

use super::pod_amounts::has_pod_level;
use super::{Attributes, Effects, Operation, Plugin, records};
use crate::{encode, object};

mod tally;
mod usage;

use tally::Tallies;
use usage::{Source, Subject};

#[derive(Default)]
pub(super) struct ResourceQuota {
    tallies: Tallies,
}

#[async_trait]
impl Plugin for ResourceQuota {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let resource = attributes.resource;
        let may_grow = match (attributes.operation, attributes.subresource) {
            (Operation::Create, "") => true,
            (Operation::Update, "resize") => resource.is("", "pods"),
            (Operation::Update, "status") => resource.is("", "persistentvolumeclaims"),
            (Operation::Update, "") => {
                ["pods", "services", "persistentvolumeclaims"].iter().any(|name| resource.is("", name))
            }
            _ => false,
        };
        may_grow && resource.kind.namespaced && resource.is_stored()
    }

    async fn reserve(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Value,
        effects: &mut Effects,
    ) -> Result<(), ApiStatus> {
        if !may_use_more(attributes, object) {
            return Ok(());
        }
        let quotas = records(attributes.core, "", "resourcequotas", attributes.namespace).await?;
        for record in quotas {
            let quota = crate::core::decode(&record)?;
            self.charge(attributes, object, &record, quota, effects).await?;
        }
        Ok(())
    }
}

impl ResourceQuota {
    /// Adds the object to what its quota says is used, or refuses it.
    async fn charge(
        &self,
        attributes: &Attributes<'_>,
        new: &Value,
        record: &Record,
        mut quota: Value,
        effects: &mut Effects,
    ) -> Result<(), ApiStatus> {
        let (kind, now) = (&attributes.resource.kind, attributes.core.clock.now());
        let spec: ResourceQuotaSpec = serde_json::from_value(quota["spec"].clone()).map_err(ApiStatus::internal)?;
        let subject = Subject::of(kind, Source::Object(new));
        if !subject.is_seen_by(&spec) {
            return Ok(());
        }
        let hard = object::at(&quota, &["spec", "hard"]).and_then(Value::as_object).cloned().unwrap_or_default();
        // An update is held to what it uses more of, and a creation to everything.
        let had = attributes.old.map(|old| Subject::of(kind, Source::Object(old)));
        let had = had.filter(|had| had.is_seen_by(&spec)).map(|had| had.uses(now)).unwrap_or_default();
        let stated = match attributes.old {
            None => subject.uses(now),
            Some(_) => grown(subject.uses(now), &had),
        };
        let touched: Vec<String> = hard.keys().filter(|name| stated.contains_key(*name)).cloned().collect();
        check_stated(attributes, &quota, &hard, new)?;
        if touched.is_empty() {
            return Ok(());
        }
        let before = self.tallies.used(attributes, &record.key, &spec).await?;
        let mut used = object::at(&quota, &["status", "used"]).and_then(Value::as_object).cloned().unwrap_or_default();
        let over = add_up(&hard, &before, &stated, &touched, &mut used);
        if !over.is_empty() {
            return Err(exceeded(attributes, object::name(&quota), &over));
        }
        let status = object::child_mut(&mut quota, "status");
        status.insert("hard".to_owned(), hard.into());
        status.insert("used".to_owned(), used.into());
        let value = encode::template(&quota);
        // Written also where it says what it said before: the new revision is what makes another creation look again.
        effects.writes.push(Write::Put { key: record.key.clone(), value, ttl: None });
        effects.conditions.push(Condition { key: record.key.clone(), expect: Expect::Modified(record.modified) });
        Ok(())
    }
}

/// Whether an object can use more of anything than it did, or come into the scope of another quota.
fn may_use_more(attributes: &Attributes<'_>, object: &Value) -> bool {
    let is_terminating = |pod: &Value| object::at(pod, &["spec", "activeDeadlineSeconds"]).is_some();
    let Some(old) = attributes.old else { return true };
    match (attributes.is_main("", "pods"), attributes.subresource) {
        (true, _) => is_terminating(old) != is_terminating(object),
        (false, "status") => {
            let fields = ["allocatedResources", "currentVolumeAttributesClassName", "modifyVolumeStatus"];
            fields.iter().any(|field| object::at(old, &["status", field]) != object::at(object, &["status", field]))
        }
        _ => old.get("spec") != object.get("spec"),
    }
}

/// What there is more of than there was.
fn grown(now: Amounts, had: &Amounts) -> Amounts {
    let before = |name: &str| had.get(name).copied().unwrap_or(Quantity::ZERO);
    let more = now.into_iter().map(|(name, amount)| (before(&name), name, amount));
    more.filter(|(before, _, amount)| amount > before).map(|(before, name, amount)| (name, amount - before)).collect()
}

/// Something that there would be too much of, each amount as text.
struct Excess {
    name: String,
    requested: String,
    used: String,
    limited: String,
}

/// Notes in `used` what will be used, and gives back what that is too much of.
fn add_up(
    hard: &Map<String, Value>,
    before: &Amounts,
    wanted: &Amounts,
    touched: &[String],
    used: &mut Map<String, Value>,
) -> Vec<Excess> {
    let mut over = Vec::new();
    for name in touched {
        let of = |amounts: &Amounts| amounts.get(name).copied().unwrap_or(Quantity::ZERO);
        let (before, wanted) = (of(before), of(wanted));
        let limited = hard[name].as_str().unwrap_or("0").to_owned();
        used.insert(name.clone(), format(name, before + wanted).into());
        if before + wanted > limited.parse().unwrap_or(Quantity::ZERO) {
            let (requested, used) = (format(name, wanted), format(name, before));
            over.push(Excess { name: name.clone(), requested, used, limited });
        }
    }
    over
}

fn exceeded(attributes: &Attributes<'_>, quota: &str, over: &[Excess]) -> ApiStatus {
    let list = |pick: fn(&Excess) -> &String| {
        over.iter().map(|excess| format!("{}={}", excess.name, pick(excess))).collect::<Vec<_>>().join(",")
    };
    let (requested, used, limited) = (list(|o| &o.requested), list(|o| &o.used), list(|o| &o.limited));
    attributes.forbidden(&format!("exceeded quota: {quota}, requested: {requested}, used: {used}, limited: {limited}"))
}

/// A quota on compute resources wants every container to say what it takes.
fn check_stated(
    attributes: &Attributes<'_>,
    quota: &Value,
    hard: &Map<String, Value>,
    pod: &Value,
) -> Result<(), ApiStatus> {
    if !attributes.resource.is("", "pods") || has_pod_level(pod) {
        return Ok(());
    }
    let mut missing = Vec::new();
    for (name, kind, resource) in [
        ("cpu", "requests", "cpu"),
        ("limits.cpu", "limits", "cpu"),
        ("limits.memory", "limits", "memory"),
        ("memory", "requests", "memory"),
        ("requests.cpu", "requests", "cpu"),
        ("requests.memory", "requests", "memory"),
    ] {
        if !hard.contains_key(name) {
            continue;
        }
        let containers = ["containers", "initContainers"].iter().flat_map(|list| object::list(pod, &["spec", list]));
        let mut silent: Vec<&str> = containers
            .filter(|container| object::at(container, &["resources", kind, resource]).is_none())
            .map(|container| object::text(container, &["name"]))
            .collect();
        silent.sort_unstable();
        if !silent.is_empty() {
            missing.push(format!("{name} for: {}", silent.join(",")));
        }
    }
    match missing.is_empty() {
        true => Ok(()),
        false => {
            let why = format!("failed quota: {}: must specify {}", object::name(quota), missing.join("; "));
            Err(attributes.forbidden(&why))
        }
    }
}
