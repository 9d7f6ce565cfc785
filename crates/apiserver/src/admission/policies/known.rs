//! The policies and bindings that there are, compiled, kept as new as the store.
//!
//! Invariant: a request sees every policy and binding that was acknowledged before it came.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use futures::FutureExt;
use kedge_meta::ApiStatus;
use kedge_store::{Change, ChangeKind, Key, ListRequest, Record, Store, Watch};
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;

use super::policy::{Binding, Policy};
use crate::reply::store_error;

/// How many changes are taken from the store at once.
const BATCH: usize = 256;

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
    prefix: String,
    /// The revision up to which `objects` are known.
    seen: AtomicU64,
    objects: ArcSwap<BTreeMap<Key, Arc<T>>>,
    watch: AsyncMutex<Option<Box<dyn Watch>>>,
}

/// What is read from an object once.
pub(super) trait Read: Sized {
    fn read(object: &Value) -> Self;
}

impl<T: Read> Feed<T> {
    fn new(resource: &str) -> Self {
        let kind = kedge_kinds::builtin_by_resource("admissionregistration.k8s.io", "v1", resource)
            .expect("policies and bindings are built in");
        let prefix = kind.prefix("");
        Self { prefix, seen: AtomicU64::new(0), objects: ArcSwap::default(), watch: AsyncMutex::default() }
    }

    async fn all(&self, store: &dyn Store) -> Result<Objects<T>, ApiStatus> {
        let revision = store.revision().0;
        if self.seen.load(Ordering::Acquire) < revision {
            let mut watch = self.watch.lock().await;
            if !self.drain(watch.as_mut()) {
                self.reload(&mut watch, store).await?;
            }
            self.seen.fetch_max(revision, Ordering::AcqRel);
        }
        Ok(self.objects.load_full())
    }

    /// Takes in what happened; `false` where it must begin anew.
    fn drain(&self, watch: Option<&mut Box<dyn Watch>>) -> bool {
        let Some(watch) = watch else { return false };
        while let Some(changes) = watch.next(BATCH).now_or_never() {
            let Ok(changes) = changes else { return false };
            let mut next = BTreeMap::clone(&self.objects.load());
            changes.iter().for_each(|change| observe(change, &mut next));
            self.objects.store(Arc::new(next));
        }
        true
    }

    async fn reload(&self, watch: &mut Option<Box<dyn Watch>>, store: &dyn Store) -> Result<(), ApiStatus> {
        let request = ListRequest { prefix: self.prefix.clone(), ..ListRequest::default() };
        let page = store.list(request).await.map_err(store_error)?;
        let read = page.records.iter().filter_map(|record| Some((record.key.clone(), Arc::new(decoded(record)?))));
        self.objects.store(Arc::new(read.collect()));
        *watch = Some(store.watch(&self.prefix, page.revision).map_err(store_error)?);
        self.drain(watch.as_mut());
        Ok(())
    }
}

fn observe<T: Read>(change: &Change, objects: &mut BTreeMap<Key, Arc<T>>) {
    let record = &change.record;
    match decoded(record).filter(|_| change.kind != ChangeKind::Deleted) {
        Some(object) => objects.insert(record.key.clone(), Arc::new(object)),
        None => objects.remove(&record.key),
    };
}

fn decoded<T: Read>(record: &Record) -> Option<T> {
    crate::core::decode(record).ok().map(|object| T::read(&object))
}
