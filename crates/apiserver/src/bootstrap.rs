//! The objects that every cluster has, ensured at start in one commit.
//!
//! What is there already is left as it is, except for the `kubernetes` Service's endpoints, which name this server.

use kedge_kinds::WriteContext;
use kedge_meta::ApiStatus;
use kedge_store::{Condition, Expect, Transaction, Write};
use serde_json::Value;

use crate::core::{Core, new_uid};
use crate::reply::store_error;
use crate::{object, write};

mod objects;

/// Ensures them.
pub(crate) async fn ensure(core: &Core, client_ca: Option<&str>) -> Result<(), ApiStatus> {
    let mut objects = objects::all(&core.config, client_ca);
    objects.extend(kedge_auth::bootstrap_policy());
    let mut transaction = Transaction::default();
    let now = core.clock.now();
    for object in objects {
        plan(core, object, now, &mut transaction).await?;
    }
    if transaction.writes.is_empty() {
        return Ok(());
    }
    match core.store.commit(transaction).await {
        Ok(_) => Ok(()),
        Err(kedge_store::CommitError::Store(error)) => Err(store_error(error)),
        Err(error) => Err(ApiStatus::internal(error)),
    }
}

/// Adds the write of one object, if it is needed.
async fn plan(
    core: &Core,
    mut object: Value,
    now: jiff::Timestamp,
    transaction: &mut Transaction,
) -> Result<(), ApiStatus> {
    let (api_version, kind) = (object::text(&object, &["apiVersion"]), object::text(&object, &["kind"]));
    let gvk = kedge_meta::GroupVersionKind::from_fields(api_version, kind);
    let registry = core.registry.load();
    let Some(resource) = registry.find_kind(&gvk.group, &gvk.version, &gvk.kind) else {
        return Err(ApiStatus::internal(format!("{api_version} {kind} is not served")));
    };
    let key = resource.key(object::namespace(&object), object::name(&object));
    if core.store.get(&key).await.map_err(store_error)?.is_some() {
        return Ok(());
    }
    resource.kind.default(&mut object);
    let status = object.get("status").cloned();
    resource.kind.prepare_create(&mut object, &WriteContext { now, uid: &new_uid() });
    if let (Some(status), Some(fields)) = (status, object.as_object_mut()) {
        fields.entry("status").or_insert(status);
    }
    let value = write::template(resource, &object);
    transaction.conditions.push(Condition { key: key.clone(), expect: Expect::Absent });
    transaction.writes.push(Write::Put { key, value, ttl: None });
    Ok(())
}
