//! Custom resources: follows the definitions in the store, serves what they define, and writes their status.
//!
//! Every server of a store does so on its own; writes are conditional, so that they do not disturb each other. What a
//! status becomes is decided by `kedge_custom`. Invariant: what is announced as established is served by this server.

mod cleanup;
mod serving;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kedge_custom::{NameBook, has_condition, settle};
use kedge_meta::{ApiStatus, format_time};
use kedge_store::{Key, ListRequest, Record, Revision};
use serde_json::{Value, json};

use crate::admission::Effects;
use crate::core::{Core, decode};
use crate::registry::Resource;
use crate::reply::store_error;
use crate::write::{self, Refusal};
use crate::{encode, object};

/// How long it waits after something went wrong.
const PAUSE: Duration = Duration::from_secs(1);

/// How often it looks whether instances are gone that somebody else keeps.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(1);

/// How many changes are taken at once.
const BATCH: usize = 256;

/// Serves what is defined already, and follows what will be.
pub(crate) async fn start(core: &Arc<Core>) -> Result<(), ApiStatus> {
    let mut follower = Follower { core: Arc::clone(core), known: BTreeMap::new() };
    follower.step().await?;
    tokio::spawn(async move {
        let shutdown = follower.core.shutdown.clone();
        shutdown.run_until_cancelled(follower.run()).await;
    });
    Ok(())
}

/// What is remembered of a definition.
struct Known {
    modified: Revision,
    /// Its group and accepted names, as a definition has them.
    names: Value,
    /// Whether all names that it asks for were accepted.
    is_accepted: bool,
    /// Whether its deletion has begun.
    ends: bool,
}

/// Follows the definitions.
struct Follower {
    core: Arc<Core>,
    known: BTreeMap<Key, Known>,
}

impl Follower {
    async fn run(mut self) {
        loop {
            if let Err(error) = self.follow().await {
                tracing::warn!(error = %error.message, "the definitions of custom resources cannot be followed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn follow(&mut self) -> Result<(), ApiStatus> {
        let resource = self.resource()?;
        loop {
            let revision = self.core.store.refresh().await.map_err(store_error)?;
            let mut watch = self.core.store.watch(&resource.kind.prefix(""), revision).map_err(store_error)?;
            // Anything that changes from here on wakes the watch.
            let is_waiting = self.step().await?;
            let changed = watch.next(BATCH);
            let outcome = match is_waiting {
                true => tokio::time::timeout(CLEANUP_INTERVAL, changed).await.unwrap_or(Ok(Vec::new())),
                false => changed.await,
            };
            outcome.map_err(|error| ApiStatus::internal(format!("the watch of definitions ended: {error}")))?;
        }
    }

    fn resource(&self) -> Result<Arc<Resource>, ApiStatus> {
        let registry = self.core.registry.load();
        let found = registry.storage("apiextensions.k8s.io", "customresourcedefinitions");
        found.cloned().ok_or_else(|| ApiStatus::internal("definitions of custom resources are not served"))
    }

    /// Brings everything up to date; `true` where a deletion waits for instances.
    async fn step(&mut self) -> Result<bool, ApiStatus> {
        let resource = self.resource()?;
        let request = ListRequest { prefix: resource.kind.prefix(""), ..ListRequest::default() };
        let records = self.core.store.list(request).await.map_err(store_error)?.records;
        let freed = self.forget(&records);
        let mut is_waiting = false;
        for record in &records {
            let known = self.known.get(&record.key);
            let is_current = known.is_some_and(|known| {
                known.modified == record.modified
                    && (known.is_accepted || !freed.contains(object::text(&known.names, &["spec", "group"])))
            });
            if !is_current {
                self.settle(&resource, record, decode(record)?).await?;
            }
            let ends = self.known.get(&record.key).is_some_and(|known| known.ends);
            is_waiting |= ends && cleanup::clean_up(&self.core, &resource, record).await?;
        }
        Ok(is_waiting)
    }

    /// Serves no longer what is not defined any more; the groups that have names to give since.
    fn forget(&mut self, records: &[Record]) -> BTreeSet<String> {
        let present: BTreeSet<&Key> = records.iter().map(|record| &record.key).collect();
        let gone: Vec<Key> = self.known.keys().filter(|key| !present.contains(key)).cloned().collect();
        let mut freed = BTreeSet::new();
        for key in gone {
            let name = key.as_str().rsplit('/').next().unwrap_or_default();
            serving::serve(&self.core, name, Vec::new());
            if let Some(known) = self.known.remove(&key) {
                freed.insert(object::text(&known.names, &["spec", "group"]).to_owned());
            }
        }
        freed
    }

    /// Settles a definition's status, serves it where it is established, and says so.
    async fn settle(&mut self, resource: &Arc<Resource>, record: &Record, old: Value) -> Result<(), ApiStatus> {
        let name = object::name(&old).to_owned();
        let mut new = old.clone();
        let others = self.known.iter().filter(|(key, _)| **key != record.key).map(|(_, known)| &known.names);
        let book = NameBook::of(object::text(&old, &["spec", "group"]), others);
        if !object::is_deleting(&old) {
            settle(&mut new, &book, &format_time(self.core.clock.now()));
        }
        let kinds = if has_condition(&new, "Established") { serving::resources(&self.core, &new) } else { Vec::new() };
        serving::serve(&self.core, &name, kinds);
        let modified = match new == old {
            true => record.modified,
            // Somebody else's change is seen by the next step.
            false => store(&self.core, resource, record, &new).await?.unwrap_or(Revision(0)),
        };
        let names = json!({"spec": {"group": new["spec"]["group"]}, "status": {"acceptedNames": new["status"]["acceptedNames"]}});
        let is_accepted = has_condition(&new, "NamesAccepted");
        self.known.insert(record.key.clone(), Known { modified, names, is_accepted, ends: object::is_deleting(&new) });
        Ok(())
    }
}

/// Writes a definition in the place of what was read; `None` where somebody else was faster.
async fn store(
    core: &Core,
    resource: &Arc<Resource>,
    record: &Record,
    new: &Value,
) -> Result<Option<Revision>, ApiStatus> {
    let template = encode::template(new);
    match write::put(core, resource, record.key.clone(), template, Some(record), Effects::default()).await {
        Ok(record) => Ok(Some(record.modified)),
        Err(Refusal::Conflict) => Ok(None),
        Err(Refusal::Status(status)) => Err(status),
    }
}
