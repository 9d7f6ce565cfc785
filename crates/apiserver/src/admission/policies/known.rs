//! The policies and bindings that there are, compiled, kept as new as the store.
//!
//! Invariant: a request sees every policy and binding that was acknowledged before it came.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use kedge_meta::ApiStatus;
use kedge_store::{Key, Record, Revision, Store, StoreError};
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;

use super::policy::{Binding, Policy};
use crate::follow::{Follow, News};
use crate::reply::store_error;

/// Policies of one kind, with their bindings.
pub(super) struct Known {
    policies: Feed<Policy>,
    bindings: Feed<Binding>,
}

impl Known {
    /// Of policies and bindings by the names of their resources.
    pub(super) fn new(policies: &str, bindings: &str) -> Self {
        Self { policies: Feed::new(policies), bindings: Feed::new(bindings) }
    }

    /// All policies, by name, each with its bindings by name. Empty in most clusters.
    pub(super) async fn all(&self, store: &dyn Store) -> Result<Vec<(Arc<Policy>, Vec<Arc<Binding>>)>, ApiStatus> {
        let policies = self.policies.all(store).await?;
        if policies.is_empty() {
            return Ok(Vec::new());
        }
        let bindings = self.bindings.all(store).await?;
        let of = |policy: &Policy| {
            bindings.values().filter(|binding| binding.policy == policy.name).cloned().collect::<Vec<_>>()
        };
        let bound = policies.values().map(|policy| (Arc::clone(policy), of(policy)));
        Ok(bound.filter(|(_, bindings)| !bindings.is_empty()).collect())
    }
}

type Objects<T> = Arc<BTreeMap<Key, Arc<T>>>;

/// A part of the store that is followed.
struct Feed<T> {
    /// The revision up to which `objects` are known.
    seen: AtomicU64,
    objects: ArcSwap<BTreeMap<Key, Arc<T>>>,
    follow: AsyncMutex<Follow>,
}

/// What is read from an object once.
pub(super) trait Read: Sized + Send + Sync {
    fn read(object: &Value) -> Self;
}

impl<T: Read> Feed<T> {
    fn new(resource: &str) -> Self {
        let kind = kedge_kinds::builtin_by_resource("admissionregistration.k8s.io", "v1", resource)
            .expect("policies and bindings are built in");
        let follow = AsyncMutex::new(Follow::new(kind.prefix("")));
        Self { seen: AtomicU64::new(0), objects: ArcSwap::default(), follow }
    }

    async fn all(&self, store: &dyn Store) -> Result<Objects<T>, ApiStatus> {
        let revision = store.revision();
        if self.seen.load(Ordering::Acquire) < revision.0 {
            self.catch_up(store, revision).await.map_err(store_error)?;
            self.seen.fetch_max(revision.0, Ordering::AcqRel);
        }
        Ok(self.objects.load_full())
    }

    async fn catch_up(&self, store: &dyn Store, revision: Revision) -> Result<(), StoreError> {
        let mut follow = self.follow.lock().await;
        let mut next = None;
        let mut tell = |news: News<'_>| {
            let next = next.get_or_insert_with(|| BTreeMap::clone(&self.objects.load()));
            observe(news, next);
        };
        follow.catch_up(store, revision, &mut tell).await?;
        if let Some(next) = next {
            self.objects.store(Arc::new(next));
        }
        Ok(())
    }
}

fn observe<T: Read>(news: News<'_>, objects: &mut BTreeMap<Key, Arc<T>>) {
    match news {
        News::Anew => objects.clear(),
        News::There(record) => match decoded(record) {
            Some(object) => drop(objects.insert(record.key.clone(), Arc::new(object))),
            None => drop(objects.remove(&record.key)),
        },
        News::Gone(key) => drop(objects.remove(key)),
    }
}

fn decoded<T: Read>(record: &Record) -> Option<T> {
    crate::core::decode(record).ok().map(|object| T::read(&object))
}
