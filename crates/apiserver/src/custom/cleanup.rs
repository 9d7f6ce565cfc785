//! What happens when a definition is deleted: its instances go first, then its finalizer, then itself.

use std::sync::Arc;

use kedge_custom::{CLEANUP_FINALIZER, Condition, has_condition, set_condition};
use kedge_meta::{ApiStatus, UserInfo, format_time};
use kedge_store::{ListRequest, Record};
use serde_json::Value;

use crate::admission::{Notes, Seen};
use crate::core::{Core, decode};
use crate::delete::{DeleteOptions, Deletion};
use crate::object;
use crate::registry::Resource;
use crate::reply::store_error;
use crate::update::is_finished;
use crate::write::{self, Refusal};

/// Goes on with the deletion of a definition; `true` where it waits for instances.
pub(super) async fn clean_up(core: &Core, resource: &Arc<Resource>, record: &Record) -> Result<bool, ApiStatus> {
    // As it is now: its status may have been written a moment ago.
    let Some(record) = core.store.get(&record.key).await.map_err(store_error)? else { return Ok(false) };
    let old = decode(&record)?;
    if !object::is_deleting(&old) || !object::finalizers(&old).contains(&CLEANUP_FINALIZER) {
        return Ok(false);
    }
    let now = format_time(core.clock.now());
    let mut new = old.clone();
    let condition = |holds, reason, message| Condition { kind: "Terminating", holds, reason, message };
    let message = "CustomResource deletion is in progress";
    set_condition(&mut new, &condition(true, "InstanceDeletionInProgress", message), &now);
    if new != old {
        // From here on nothing new is created; the change wakes the next step.
        super::store(core, resource, &record, &new).await?;
        return Ok(true);
    }
    match instances(core, &old) {
        _ if !has_condition(&old, "Established") => {
            set_condition(&mut new, &condition(false, "NeverEstablished", "resource was never established"), &now);
        }
        None => {
            let message = "instances overlap with built-in resources in storage";
            set_condition(&mut new, &condition(false, "OverlappingBuiltInResource", message), &now);
        }
        Some(instances) => {
            if !delete_all(core, &instances).await? {
                return Ok(true);
            }
            let message = "removed all instances";
            set_condition(&mut new, &condition(false, "InstanceDeletionCompleted", message), &now);
        }
    }
    release(core, resource, &record, new).await
}

/// The resource whose instances go.
fn instances(core: &Core, definition: &Value) -> Option<Arc<Resource>> {
    let text = |path: &[&str]| object::text(definition, path).to_owned();
    let registry = core.registry.load();
    let found = registry.storage(&text(&["spec", "group"]), &text(&["spec", "names", "plural"]));
    match found {
        Some(found) => Some(Arc::clone(found)).filter(|found| found.custom.is_some()),
        // A definition may serve no version at all and have instances all the same.
        None => {
            let mut all = definition.clone();
            for version in all["spec"]["versions"].as_array_mut().into_iter().flatten() {
                version["served"] = Value::Bool(true);
            }
            super::serving::resources(core, &all).into_iter().next()
        }
    }
}

/// Deletes the instances; whether none is left.
async fn delete_all(core: &Core, resource: &Arc<Resource>) -> Result<bool, ApiStatus> {
    let list = || core.store.list(ListRequest { prefix: resource.kind.prefix(""), ..ListRequest::default() });
    let user = UserInfo::authenticated("system:apiserver", ["system:masters"]);
    let (options, notes) = (DeleteOptions::default(), Notes::default());
    for record in list().await.map_err(store_error)?.records {
        let instance = decode(&record)?;
        if object::is_deleting(&instance) {
            continue;
        }
        let (namespace, name) = (object::namespace(&instance), object::name(&instance));
        let now = core.clock.now();
        let (user, options, notes, seen) = (&user, &options, &notes, Seen::Nothing);
        let deletion = Deletion { core, user, resource, namespace, name, options, notes, seen, now };
        match deletion.run().await {
            Ok(_) => {}
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    Ok(list().await.map_err(store_error)?.records.is_empty())
}

/// Takes the finalizer away, and with the last one the definition.
async fn release(core: &Core, resource: &Arc<Resource>, record: &Record, mut new: Value) -> Result<bool, ApiStatus> {
    let kept = object::finalizers(&new).into_iter().filter(|name| *name != CLEANUP_FINALIZER).map(str::to_owned);
    let kept = kept.collect();
    object::set_finalizers(&mut new, kept);
    if !is_finished(resource, &new) {
        super::store(core, resource, record, &new).await?;
        return Ok(false);
    }
    match write::remove(core, resource, record, &new).await {
        Ok(_) | Err(Refusal::Conflict) => Ok(false),
        Err(Refusal::Status(status)) => Err(status),
    }
}
