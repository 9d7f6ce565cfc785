//! Lists by label without looking at every object: for each resource that is listed so, an index from `key=value` to the
//! records that carry it.
//!
//! An index is made by the first list that needs it and catches up with the store when the next one comes; nothing runs
//! in between, and a resource that is never listed by label costs nothing. Invariant: a lookup shows the store as it was
//! at one revision, which is at least the one that was current when the lookup began.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kedge_meta::{LabelSelector, Operator};
use kedge_store::{Key, Record, Revision, Store, StoreError};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use crate::follow::{Follow, News};
use crate::scan;

/// The indexes, by store prefix of the resource.
#[derive(Default)]
pub(crate) struct LabelIndexes {
    by_prefix: Mutex<HashMap<String, Arc<AsyncMutex<Index>>>>,
}

/// What an index knows.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) records: Vec<Record>,
    pub(crate) revision: Revision,
    /// Whether the labels of these are all that the selector asks for.
    pub(crate) is_exact: bool,
}

struct Index {
    follow: Follow,
    terms: Terms,
}

#[derive(Default)]
struct Terms {
    records: BTreeMap<Key, Record>,
    /// By `key=value`; neither can hold the sign.
    keys_by_term: HashMap<String, BTreeSet<Key>>,
}

impl LabelIndexes {
    /// The records under `prefix` that carry every label that `selector` asks for by value, with keys starting with
    /// `below`, in order; `None` where the selector names no value, so that an index is of no use. The caller checks the
    /// rest of the selector, where there is any.
    pub(crate) async fn lookup(
        &self,
        store: &dyn Store,
        prefix: &str,
        below: &str,
        selector: &LabelSelector,
    ) -> Result<Option<Found>, StoreError> {
        let wanted = selector.requirements().iter().filter(|requirement| requirement.operator == Operator::In);
        let wanted: Vec<_> = wanted.collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let index = Arc::clone(self.by_prefix.lock().entry(prefix.to_owned()).or_insert_with(|| Index::new(prefix)));
        let mut index = index.lock().await;
        index.catch_up(store).await?;
        let Index { follow, terms: index } = &*index;
        // The requirement with the fewest candidates decides.
        let candidates = |requirement: &&kedge_meta::Requirement| -> Vec<&BTreeSet<Key>> {
            let terms = requirement.values.iter().map(|value| term(&requirement.key, value));
            terms.filter_map(|term| index.keys_by_term.get(&term)).collect()
        };
        let best = wanted.iter().map(candidates).min_by_key(|sets| sets.iter().map(|set| set.len()).sum::<usize>());
        let best = best.unwrap_or_default();
        let record = |key: &&Key| index.records.get(*key).cloned();
        let is_below = |key: &&Key| key.as_str().starts_with(below);
        let records = match best.as_slice() {
            [keys] => keys.iter().filter(is_below).filter_map(|key| record(&key)).collect(),
            several => {
                let keys: BTreeSet<&Key> = several.iter().copied().flatten().collect();
                keys.into_iter().filter(is_below).filter_map(|key| record(&key)).collect()
            }
        };
        let is_exact = selector.requirements().len() == 1;
        Ok(Some(Found { records, revision: follow.revision(), is_exact }))
    }
}

impl Index {
    fn new(prefix: &str) -> Arc<AsyncMutex<Self>> {
        Arc::new(AsyncMutex::new(Self { follow: Follow::new(prefix), terms: Terms::default() }))
    }

    /// Takes in what happened up to now.
    async fn catch_up(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let Self { follow, terms } = self;
        follow.catch_up(store, store.refresh().await?, &mut |news| terms.apply(news)).await
    }
}

impl Terms {
    fn apply(&mut self, news: News<'_>) {
        match news {
            News::Anew => *self = Self::default(),
            News::There(record) => {
                self.remove(&record.key);
                self.insert(record.clone());
            }
            News::Gone(key) => self.remove(key),
        }
    }

    fn insert(&mut self, record: Record) {
        for term in terms(&record) {
            self.keys_by_term.entry(term).or_default().insert(record.key.clone());
        }
        self.records.insert(record.key.clone(), record);
    }

    fn remove(&mut self, key: &Key) {
        let Some(record) = self.records.remove(key) else { return };
        for term in terms(&record) {
            if let Some(keys) = self.keys_by_term.get_mut(&term) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys_by_term.remove(&term);
                }
            }
        }
    }
}

fn terms(record: &Record) -> Vec<String> {
    let labels = scan::field(&record.value, &["metadata", "labels"]);
    labels.map(|raw| scan::strings(raw).map(|(key, value)| term(&key, &value)).collect()).unwrap_or_default()
}

fn term(key: &str, value: &str) -> String {
    [key, "=", value].concat()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kedge_store::{Durability, MemoryStore, Template, Transaction, Write};

    use super::*;

    async fn put(store: &MemoryStore, name: &str, labels: &str) {
        let bytes = Bytes::from(format!("{{\"metadata\":{{\"labels\":{labels},\"name\":\"{name}\"}}}}"));
        let write =
            Write::Put { key: Key::new(format!("/p/{name}")), value: Template { bytes, splice_at: None }, ttl: None };
        commit(store, write).await;
    }

    async fn commit(store: &MemoryStore, write: Write) {
        let transaction = Transaction { conditions: vec![], writes: vec![write], durability: Durability::Durable };
        store.commit(transaction).await.unwrap();
    }

    async fn check(indexes: &LabelIndexes, store: &MemoryStore, selector: &str, expected: Option<&[&str]>) {
        let selector = LabelSelector::parse(selector).unwrap();
        let found = indexes.lookup(store, "/p/", "/p/", &selector).await.unwrap();
        let names = found
            .as_ref()
            .map(|found| found.records.iter().map(|record| &record.key.as_str()[3..]).collect::<Vec<_>>());
        assert_eq!(names.as_deref(), expected, "{selector}");
        let is_exact = selector.requirements().len() == 1;
        assert!(found.is_none_or(|found| found.revision == store.revision() && found.is_exact == is_exact));
    }

    #[tokio::test]
    async fn an_index_follows_the_store() {
        let (store, indexes) = (MemoryStore::new(), LabelIndexes::default());
        put(&store, "a", r#"{"app":"web","tier":"1"}"#).await;
        put(&store, "b", r#"{"app":"web"}"#).await;
        put(&store, "c", r#"{"app":"api"}"#).await;
        check(&indexes, &store, "app=web", Some(&["a", "b"])).await;
        check(&indexes, &store, "app in (web,api)", Some(&["a", "b", "c"])).await;
        check(&indexes, &store, "app=web,tier=1", Some(&["a"])).await;
        check(&indexes, &store, "tier", None).await;
        put(&store, "b", r#"{"app":"api"}"#).await;
        commit(&store, Write::Delete { key: Key::new("/p/c") }).await;
        check(&indexes, &store, "app=web", Some(&["a"])).await;
        check(&indexes, &store, "app=api", Some(&["b"])).await;
        store.compact(store.revision()).await.unwrap();
        put(&store, "d", r#"{"app":"api"}"#).await;
        store.compact(store.revision()).await.unwrap();
        check(&indexes, &store, "app=api", Some(&["b", "d"])).await;
    }
}
