//! How much of each quota is used, by the objects themselves.
//!
//! Made by the first creation that a quota is asked about, and brought up to date by each one after it, so that a creation
//! costs what has changed since the last and not what is there. Invariant: a tally is the sum over all objects of one
//! resource in the quota's namespace, as the store had them at a revision that is not older than the question.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuotaSpec;
use kedge_kinds::Kind;
use kedge_meta::{ApiStatus, Quantity};
use kedge_quota::Amounts;
use kedge_store::{Key, Record};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use super::usage::{Source, Subject};
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
    /// What the objects of a request's resource in its namespace use of what a quota limits.
    pub(super) async fn used(
        &self,
        attributes: &Attributes<'_>,
        quota: &Key,
        spec: &ResourceQuotaSpec,
    ) -> Result<Amounts, ApiStatus> {
        let prefix = attributes.resource.kind.prefix(attributes.namespace);
        let now = attributes.core.clock.now();
        let tally = self.find(quota, &prefix, now);
        let mut tally = tally.lock().await;
        if tally.counts.spec != *spec {
            *tally = Tally::new(prefix, spec.clone());
        }
        tally.catch_up(attributes, now).await?;
        Ok(tally.counts.sums.clone())
    }

    fn find(&self, quota: &Key, prefix: &str, now: Timestamp) -> Arc<AsyncMutex<Tally>> {
        let mut by_quota = self.by_quota.lock();
        let place = (quota.clone(), prefix.to_owned());
        if let Some(known) = by_quota.get_mut(&place) {
            known.asked = now;
            return Arc::clone(&known.tally);
        }
        by_quota.retain(|_, known| known.asked + IDLE > now);
        let tally = Arc::new(AsyncMutex::new(Tally::new(prefix.to_owned(), ResourceQuotaSpec::default())));
        by_quota.insert(place, Known { tally: Arc::clone(&tally), asked: now });
        tally
    }
}

struct Tally {
    follow: Follow,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    /// Of the quota: what it limits, and which objects it looks at.
    spec: ResourceQuotaSpec,
    /// What each object uses of what is limited.
    by_object: HashMap<Key, Amounts>,
    /// What some will use after a time.
    later: HashMap<Key, (Timestamp, Amounts)>,
    sums: Amounts,
}

impl Tally {
    fn new(prefix: String, spec: ResourceQuotaSpec) -> Self {
        Self { follow: Follow::new(prefix), counts: Counts { spec, ..Counts::default() } }
    }

    async fn catch_up(&mut self, attributes: &Attributes<'_>, now: Timestamp) -> Result<(), ApiStatus> {
        let (kind, store) = (&attributes.resource.kind, &*attributes.core.store);
        let Self { follow, counts } = self;
        let tell = &mut |news: News<'_>| counts.hear(news, kind, now);
        follow.catch_up(store, store.revision(), tell).await.map_err(store_error)?;
        counts.grow_older(now);
        Ok(())
    }
}

impl Counts {
    fn hear(&mut self, news: News<'_>, kind: &Kind, now: Timestamp) {
        match news {
            News::Anew => *self = Self { spec: std::mem::take(&mut self.spec), ..Self::default() },
            News::There(record) => self.count(record, kind, now),
            News::Gone(key) => {
                self.later.remove(key);
                self.replace(key, Amounts::new());
            }
        }
    }

    fn count(&mut self, record: &Record, kind: &Kind, now: Timestamp) {
        let subject = Subject::of(kind, Source::Stored(&record.value));
        let is_seen = subject.is_seen_by(&self.spec);
        let used = |at: Timestamp| if is_seen { self.limited(subject.uses(at)) } else { Amounts::new() };
        let later = subject.changes_after(now).map(|until| (until, used(until + Duration::from_nanos(1))));
        let used = used(now);
        match later {
            Some(later) => self.later.insert(record.key.clone(), later),
            None => self.later.remove(&record.key),
        };
        self.replace(&record.key, used);
    }

    fn limited(&self, mut used: Amounts) -> Amounts {
        used.retain(|name, _| self.spec.hard.as_ref().is_some_and(|hard| hard.contains_key(name)));
        used
    }

    /// Takes in what has changed by time alone.
    fn grow_older(&mut self, now: Timestamp) {
        let due: Vec<Key> =
            self.later.iter().filter(|(_, (until, _))| now > *until).map(|(key, _)| key.clone()).collect();
        for key in due {
            if let Some((_, used)) = self.later.remove(&key) {
                self.replace(&key, used);
            }
        }
    }

    fn replace(&mut self, key: &Key, now: Amounts) {
        for (name, amount) in &now {
            let sum = self.sums.entry(name.clone()).or_insert(Quantity::ZERO);
            *sum = *sum + *amount;
        }
        let before = if now.is_empty() { self.by_object.remove(key) } else { self.by_object.insert(key.clone(), now) };
        for (name, amount) in before.into_iter().flatten() {
            if let Some(sum) = self.sums.get_mut(&name) {
                *sum = *sum - amount;
            }
        }
    }
}
