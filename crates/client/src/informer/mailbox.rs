//! Changes that a subscriber has not taken yet: one entry for each object, so that its size is bounded by the cache's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kedge_meta::ObjectKey;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Change;
use super::held::Held;

/// A mailbox that has grown beyond this gives its memory back once it is empty.
const LARGE: usize = 1024;

pub(super) struct Mailbox<K> {
    pending: Mutex<Pending<K>>,
    arrived: Notify,
}

struct Pending<K> {
    order: BTreeMap<u64, ObjectKey>,
    entries: HashMap<ObjectKey, Entry<K>>,
    sequence: u64,
}

struct Entry<K> {
    sequence: u64,
    before: Option<Arc<Held<K>>>,
    after: Option<Arc<Held<K>>>,
}

impl<K> Mailbox<K> {
    pub(super) fn new() -> Self {
        let pending = Pending { order: BTreeMap::new(), entries: HashMap::new(), sequence: 0 };
        Self { pending: Mutex::new(pending), arrived: Notify::new() }
    }

    pub(super) fn deliver(&self, key: &ObjectKey, old: Option<Arc<Held<K>>>, new: Option<Arc<Held<K>>>) {
        let mut pending = self.pending.lock();
        if let Some(entry) = pending.entries.get_mut(key) {
            entry.after = new;
        } else {
            pending.sequence += 1;
            let sequence = pending.sequence;
            pending.order.insert(sequence, key.clone());
            pending.entries.insert(key.clone(), Entry { sequence, before: old, after: new });
        }
        drop(pending);
        self.arrived.notify_one();
    }

    pub(super) fn take(&self) -> Option<Change<K>> {
        loop {
            let entry = self.pending.lock().pop()?;
            match (entry.before, entry.after) {
                (None, Some(new)) => return Some(Change::Added(new.object())),
                (Some(old), Some(new)) => return Some(Change::Updated { old: old.object(), new: new.object() }),
                (Some(old), None) => return Some(Change::Deleted(old.object())),
                // Came and went before anybody looked.
                (None, None) => {}
            }
        }
    }

    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

impl<K> Pending<K> {
    fn pop(&mut self) -> Option<Entry<K>> {
        let (sequence, key) = self.order.pop_first()?;
        let entry = self.entries.remove(&key).expect("every ordered key has an entry");
        debug_assert_eq!(entry.sequence, sequence);
        if self.entries.is_empty() && self.entries.capacity() > LARGE {
            self.entries.shrink_to_fit();
        }
        Some(entry)
    }
}
