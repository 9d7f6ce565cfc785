//! Flow schemas and priority levels: made where they are missing, brought back where they are not to be changed.

use kedge_fairness::{Revision, bootstrap_objects, revise};
use kedge_kinds::Kind;
use kedge_meta::ApiStatus;
use kedge_store::{Condition, Expect, ListRequest, Transaction, Write};
use serde_json::Value;

use super::{ATTEMPTS, is_done, plan};
use crate::core::{Core, decode};
use crate::reply::store_error;
use crate::{encode, object};

const RESOURCES: [(&str, &str); 2] =
    [("prioritylevelconfigurations", "PriorityLevelConfiguration"), ("flowschemas", "FlowSchema")];

/// Does so. What others write meanwhile is looked at again.
pub(super) async fn ensure(core: &Core) -> Result<(), ApiStatus> {
    for _ in 0..ATTEMPTS {
        let mut transaction = Transaction::default();
        let objects = bootstrap_objects();
        for (resource, kind) in RESOURCES {
            let wanted = objects.iter().filter(|object| object["kind"] == kind);
            plan_resource(core, resource, wanted.cloned().collect(), &mut transaction).await?;
        }
        if is_done(core, transaction).await? {
            return Ok(());
        }
    }
    Err(ApiStatus::internal("other servers keep changing the flow schemas"))
}

async fn plan_resource(
    core: &Core,
    resource: &str,
    mut wanted: Vec<Value>,
    transaction: &mut Transaction,
) -> Result<(), ApiStatus> {
    let registry = core.registry.load();
    let Some(resource) = registry.storage("flowcontrol.apiserver.k8s.io", resource) else { return Ok(()) };
    let request = ListRequest { prefix: resource.kind.prefix(""), ..ListRequest::default() };
    let page = core.store.list(request).await.map_err(store_error)?;
    for record in page.records {
        let present = decode(&record)?;
        let place = wanted.iter().position(|object| object::name(object) == object::name(&present));
        let mine = place.map(|place| defaulted(&resource.kind, wanted.swap_remove(place)));
        let key = record.key;
        match revise(&present, mine.as_ref()) {
            Revision::Keep => continue,
            Revision::Delete => transaction.writes.push(Write::Delete { key: key.clone() }),
            Revision::Replace(revised) => {
                transaction.writes.push(Write::Put { key: key.clone(), value: encode::template(&revised), ttl: None });
            }
        }
        transaction.conditions.push(Condition { key, expect: Expect::Modified(record.modified) });
    }
    for object in wanted {
        plan(core, object, core.clock.now(), transaction).await?;
    }
    Ok(())
}

fn defaulted(kind: &Kind, mut object: Value) -> Value {
    kind.default(&mut object);
    object
}
