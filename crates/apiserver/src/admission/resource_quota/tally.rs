//! How much of each quota is used, by the objects themselves.
//!
//! Made by the first creation that a quota is asked about, and brought up to date by each one after it, so that a creation
//! costs what has changed since the last and not what is there. Invariant: a tally is the sum over all objects of one
//! resource in the quota's namespace, as the store had them at a revision that is not older than the question.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kedge_meta::{ApiStatus, Quantity};
use kedge_store::{Key, Record};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;

use super::usage::{counts, in_scopes, usage};
use crate::admission::Attributes;
use crate::follow::{Follow, News};
use crate::reply::store_error;

/// A tally that nobody asked for that long is given up.
const IDLE: Duration = Duration::from_secs(600);

/// The tallies, by quota and resource.
#[derive(Default)]
pub(super) struct Tallies {
    by_quota: Mutex<HashMap<(Key, String), Known>>,
}

struct Known {
    tally: Arc<AsyncMutex<Tally>>,
    asked: Timestamp,
}

impl Tallies {
    /// What the objects of a request's resource in its namespace use of what a quota limits, by name.
    pub(super) async fn used(
        &self,
        attributes: &Attributes<'_>,
        quota: &Key,
        spec: &Value,
    ) -> Result<BTreeMap<String, Quantity>, ApiStatus> {
        let prefix = attributes.resource.kind.prefix(attributes.namespace);
        let tally = self.find(quota, &prefix, attributes.core.clock.now());
        let mut tally = tally.lock().await;
        if tally.spec != *spec {
            *tally = Tally { spec: spec.clone(), ..Tally::new(prefix) };
        }
        tally.catch_up(attributes).await?;
        Ok(tally.sums.clone())
    }

    fn find(&self, quota: &Key, prefix: &str, now: Timestamp) -> Arc<AsyncMutex<Tally>> {
        let mut by_quota = self.by_quota.lock();
        let place = (quota.clone(), prefix.to_owned());
        if let Some(known) = by_quota.get_mut(&place) {
            known.asked = now;
            return Arc::clone(&known.tally);
        }
        by_quota.retain(|_, known| known.asked + IDLE > now);
        let tally = Arc::new(AsyncMutex::new(Tally::new(prefix.to_owned())));
        by_quota.insert(place, Known { tally: Arc::clone(&tally), asked: now });
        tally
    }
}

struct Tally {
    /// Of the quota: what it limits, and which objects it looks at.
    spec: Value,
    follow: Follow,
    /// What each object uses of what is limited.
    counted: HashMap<Key, Vec<(String, Quantity)>>,
    sums: BTreeMap<String, Quantity>,
}

impl Tally {
    fn new(prefix: String) -> Self {
        let (follow, counted, sums) = (Follow::new(prefix), HashMap::new(), BTreeMap::new());
        Self { spec: Value::Null, follow, counted, sums }
    }

    async fn catch_up(&mut self, attributes: &Attributes<'_>) -> Result<(), ApiStatus> {
        let (kind, store) = (&attributes.resource.kind, &*attributes.core.store);
        let Self { spec, follow, counted, sums } = self;
        let of = |record: &Record| amounts(spec, &kind.group, &kind.resource, record);
        let tell = &mut |news: News<'_>| match news {
            News::Anew => (*counted, *sums) = Default::default(),
            News::There(record) => replace(counted, sums, &record.key, of(record)),
            News::Gone(key) => replace(counted, sums, key, Vec::new()),
        };
        follow.catch_up(store, store.revision(), tell).await.map_err(store_error)
    }
}

/// What an object uses of what the quota with this `spec` limits.
fn amounts(spec: &Value, group: &str, resource: &str, record: &Record) -> Vec<(String, Quantity)> {
    let Ok(object) = crate::core::decode(record) else { return Vec::new() };
    let is_pod = group.is_empty() && resource == "pods";
    if !counts(&object) || !in_scopes(spec, &object, is_pod) {
        return Vec::new();
    }
    let is_limited = |name: &str| spec["hard"].get(name).is_some();
    usage(group, resource, &object).into_iter().filter(|(name, _)| is_limited(name)).collect()
}

fn replace(
    counted: &mut HashMap<Key, Vec<(String, Quantity)>>,
    sums: &mut BTreeMap<String, Quantity>,
    key: &Key,
    now: Vec<(String, Quantity)>,
) {
    for (name, amount) in &now {
        let sum = sums.entry(name.clone()).or_insert(Quantity::ZERO);
        *sum = *sum + *amount;
    }
    let before = if now.is_empty() { counted.remove(key) } else { counted.insert(key.clone(), now) };
    for (name, amount) in before.into_iter().flatten() {
        if let Some(sum) = sums.get_mut(&name) {
            *sum = *sum - amount;
        }
    }
}
