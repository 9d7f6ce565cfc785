//! The APIServices of groups that this server answers for itself: what is built in, and custom resources.
//!
//! They tell clients which groups there are and in which order. Those of custom resources come and go with the groups.

use std::collections::BTreeSet;

use kedge_meta::{ApiStatus, format_time};
use kedge_store::Record;
use serde_json::{Value, json};

use super::check;
use crate::core::Core;
use crate::write::{self, Refusal};
use crate::{bootstrap, object};

/// Who keeps an APIService: `onstart` is made where it is missing, `true` follows what is served.
const KEPT: &str = "kube-aggregator.kubernetes.io/automanaged";

/// The places of groups that are built in, as upstream has them. Others come after them, by their order.
const GROUPS: [(&str, i64); 22] = [
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("admissionregistration.k8s.io", 16_700),
    ("apiextensions.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("resource.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("internal.apiserver.k8s.io", 16_000),
    ("storagemigration.k8s.io", 15_800),
];

/// The places of versions of built-in groups, where it is not the usual one.
const VERSIONS: [(&str, &str, i64); 4] = [
    ("", "v1", 1),
    ("autoscaling", "v2", 30),
    ("flowcontrol.apiserver.k8s.io", "v1", 21),
    ("resource.k8s.io", "v1", 21),
];
const USUAL_VERSION: i64 = 15;

/// The place of a group of custom resources, and of its versions.
const CUSTOM: (i64, i64) = (1000, 100);

/// Makes those of the groups that are built in, where they are missing.
pub(super) async fn ensure_built_in(core: &Core) -> Result<(), ApiStatus> {
    let registry = core.registry.load_full();
    let now = core.clock.now();
    let kinds = registry.all().filter(|resource| resource.custom.is_none()).map(|resource| &resource.kind);
    // Their own group is not announced by itself.
    let served: BTreeSet<(&str, &str)> = kinds
        .filter(|kind| kind.group != "apiregistration.k8s.io")
        .map(|kind| (&*kind.group, &*kind.version))
        .collect();
    let objects = served.into_iter().map(|(group, version)| {
        let place = GROUPS.iter().find(|(known, _)| *known == group).map_or(15_000, |(_, place)| *place);
        let own = VERSIONS.iter().find(|(known, own, _)| (*known, *own) == (group, version));
        let mut object = api_service(group, version, (place, own.map_or(USUAL_VERSION, |own| own.2)), "onstart");
        object["status"] = json!({"conditions": [condition(now)]});
        object
    });
    bootstrap::commit(core, objects).await
}

/// Makes those of the groups of custom resources that are served, and removes those of groups that are not any more.
/// `known` are all APIServices that there are.
pub(super) async fn keep_custom(core: &Core, known: &[(Value, Record)]) -> Result<(), ApiStatus> {
    let registry = core.registry.load_full();
    let custom = registry.all().filter(|resource| resource.custom.is_some()).map(|resource| &resource.kind);
    let served: BTreeSet<(&str, &str)> = custom.map(|kind| (&*kind.group, &*kind.version)).collect();
    let Some(resource) = registry.storage("apiregistration.k8s.io", "apiservices") else { return Ok(()) };
    let mut there = BTreeSet::new();
    for (object, record) in known {
        let own = (object::text(object, &["spec", "group"]), object::text(object, &["spec", "version"]));
        let is_kept = object["metadata"]["labels"][KEPT] == "true";
        if is_kept && !served.contains(&own) {
            remove(core, resource, record, object).await?;
        }
        there.insert(own);
    }
    for (group, version) in served {
        if !there.contains(&(group, version)) {
            let mut object = api_service(group, version, CUSTOM, "true");
            object["status"] = json!({"conditions": [condition(core.clock.now())]});
            bootstrap::commit(core, [object].into_iter()).await?;
        }
    }
    Ok(())
}

async fn remove(
    core: &Core,
    resource: &crate::registry::Resource,
    record: &Record,
    object: &Value,
) -> Result<(), ApiStatus> {
    match write::remove(core, resource, record, object).await {
        Ok(_) | Err(Refusal::Conflict) => Ok(()),
        Err(Refusal::Status(status)) => Err(status),
    }
}

fn condition(now: jiff::Timestamp) -> Value {
    let mut condition = check::local();
    condition["lastTransitionTime"] = json!(format_time(now));
    condition
}

fn api_service(group: &str, version: &str, place: (i64, i64), kept: &str) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {KEPT: kept}},
        "spec": {"group": group, "version": version, "groupPriorityMinimum": place.0, "versionPriority": place.1},
    })
}
