//! Watched prefixes: for each one a ring of the changes it is to see, shared by every watcher of the prefix, and the
//! cursor that is a watcher.
//!
//! A change costs as much as there are prefixes that match it, whatever the number of watchers; a watcher that lags
//! costs nothing, and learns that it lagged when its place was dropped. Invariant: the changes of one commit enter a ring
//! at once, so no watcher sees half of a commit; `Position::visible` moves on only after the rings have the changes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::history::History;
use crate::port::{Change, Revision, Watch, WatchError};

/// Where the store stands; read by cursors without taking the store's lock.
#[derive(Debug)]
pub(crate) struct Position {
    visible: AtomicU64,
    floor: AtomicU64,
}

impl Position {
    pub(crate) fn new(visible: Revision, floor: Revision) -> Self {
        Self { visible: AtomicU64::new(visible.0), floor: AtomicU64::new(floor.0) }
    }

    pub(crate) fn visible(&self) -> Revision {
        Revision(self.visible.load(Ordering::Acquire))
    }

    pub(crate) fn set_visible(&self, revision: Revision) {
        self.visible.store(revision.0, Ordering::Release);
    }

    pub(crate) fn set_floor(&self, revision: Revision) {
        self.floor.store(revision.0, Ordering::Release);
    }
}

#[derive(Debug)]
struct Topic {
    ring: Mutex<Ring>,
    moved: Notify,
}

/// The changes of a prefix, from where its watchers began or its history ends.
#[derive(Debug)]
struct Ring {
    changes: VecDeque<Arc<Change>>,
    /// The number of the first change; they are numbered for good.
    first: u64,
    /// Every change after this is here.
    complete_after: Revision,
    closed: bool,
}

impl Ring {
    /// Numbers begin in the middle, as a ring may grow at both ends.
    fn new(complete_after: Revision) -> Self {
        Self { changes: VecDeque::new(), first: 1 << 62, complete_after, closed: false }
    }

    /// Takes in the changes after `after`, so that only what watchers ask for is ever looked through.
    fn reach_back(&mut self, prefix: &str, after: Revision, history: &History) {
        if after >= self.complete_after {
            return;
        }
        let past = history.after(after).take_while(|change| change.revision <= self.complete_after);
        let past: Vec<_> = past.filter(|change| change.record.key.as_str().starts_with(prefix)).cloned().collect();
        self.first -= past.len() as u64;
        past.into_iter().rev().for_each(|change| self.changes.push_front(change));
        self.complete_after = after;
    }

    fn drop_through(&mut self, floor: Revision) {
        let count = self.changes.partition_point(|change| change.revision <= floor);
        self.changes.drain(..count);
        self.first += count as u64;
        self.complete_after = self.complete_after.max(floor);
        if self.changes.capacity() > 1024 && self.changes.len() < self.changes.capacity() / 4 {
            self.changes.shrink_to(self.changes.len() * 2);
        }
    }
}

/// Watchers to wake, once the store's lock is free.
#[derive(Debug, Default)]
#[must_use = "watchers sleep until they are woken"]
pub struct Wakeups(Vec<Arc<Topic>>);

impl Wakeups {
    /// Wakes them.
    pub fn wake(self) {
        for topic in self.0 {
            topic.moved.notify_waiters();
        }
    }
}

/// The changes of one publication, sorted by the prefix that is to see them.
#[derive(Debug, Default)]
pub(crate) struct Deliveries(Vec<(Arc<Topic>, Vec<Arc<Change>>)>);

impl Deliveries {
    fn add(&mut self, topic: Arc<Topic>, change: &Arc<Change>) {
        match self.0.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &topic)) {
            Some((_, changes)) => changes.push(Arc::clone(change)),
            None => self.0.push((topic, vec![Arc::clone(change)])),
        }
    }

    /// Puts everything into the rings.
    pub(crate) fn deliver(self) -> Wakeups {
        let topics = self.0.into_iter().map(|(topic, changes)| {
            topic.ring.lock().changes.extend(changes);
            topic
        });
        Wakeups(topics.collect())
    }
}

/// The watched prefixes of a store.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    by_prefix: HashMap<String, Weak<Topic>>,
    /// Lengths of the prefixes that do not end at a `/`, with how many prefixes have them: the others are found at the
    /// slashes of a key.
    odd_lengths: BTreeMap<usize, usize>,
    /// Clean up when the map has grown to this.
    sweep_at: usize,
}

impl Topics {
    /// A cursor behind everything up to `after`, which lies at or above the history's floor.
    pub(crate) fn watch(
        &mut self,
        prefix: &str,
        after: Revision,
        history: &History,
        position: &Arc<Position>,
    ) -> Cursor {
        let visible = position.visible();
        let topic = self.by_prefix.get(prefix).and_then(Weak::upgrade).unwrap_or_else(|| self.add(prefix, visible));
        let mut ring = topic.ring.lock();
        ring.reach_back(prefix, after, history);
        let next = ring.first + ring.changes.partition_point(|change| change.revision <= after) as u64;
        drop(ring);
        Cursor { topic, position: Arc::clone(position), next, delivered: after }
    }

    /// Adds a prefix whose changes after `visible` will come.
    fn add(&mut self, prefix: &str, visible: Revision) -> Arc<Topic> {
        let topic = Arc::new(Topic { ring: Mutex::new(Ring::new(visible)), moved: Notify::new() });
        if self.by_prefix.len() >= self.sweep_at {
            self.sweep();
        }
        let replaced = self.by_prefix.insert(prefix.to_owned(), Arc::downgrade(&topic));
        if replaced.is_none() && !ends_at_slash(prefix) {
            *self.odd_lengths.entry(prefix.len()).or_default() += 1;
        }
        topic
    }

    /// Forgets the prefixes that nobody watches any more.
    fn sweep(&mut self) {
        self.by_prefix.retain(|_, topic| topic.strong_count() > 0);
        self.sweep_at = (self.by_prefix.len() * 2).max(64);
        self.odd_lengths.clear();
        for prefix in self.by_prefix.keys().filter(|prefix| !ends_at_slash(prefix)) {
            *self.odd_lengths.entry(prefix.len()).or_default() += 1;
        }
    }

    /// Notes a change for each prefix that is to see it.
    pub(crate) fn collect(&self, change: &Arc<Change>, deliveries: &mut Deliveries) {
        let key = change.record.key.as_str();
        let slashes = key.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at + 1);
        let at_slash = std::iter::once(0).chain(slashes).map(|length| &key[..length]);
        let odd = self.odd_lengths.range(..=key.len()).filter_map(|(length, _)| key.get(..*length));
        for prefix in at_slash.chain(odd.filter(|prefix| !ends_at_slash(prefix))) {
            if let Some(topic) = self.by_prefix.get(prefix).and_then(Weak::upgrade) {
                deliveries.add(topic, change);
            }
        }
    }

    /// Drops what lies at or below `floor` from every ring.
    pub(crate) fn drop_through(&self, floor: Revision) {
        for topic in self.by_prefix.values().filter_map(Weak::upgrade) {
            topic.ring.lock().drop_through(floor);
        }
    }

    /// Something is missing between what the rings have and `revision`: every watcher of before has lagged, also one
    /// that had taken everything.
    pub(crate) fn interrupt(&self, revision: Revision) -> Wakeups {
        let topics = self.by_prefix.values().filter_map(Weak::upgrade).inspect(|topic| {
            let mut ring = topic.ring.lock();
            ring.first += ring.changes.len() as u64 + 1;
            ring.changes.clear();
            ring.complete_after = revision;
        });
        Wakeups(topics.collect())
    }

    /// Ends every watch, after what it has not delivered yet.
    pub(crate) fn close(&self) -> Wakeups {
        let topics = self.by_prefix.values().filter_map(Weak::upgrade).inspect(|topic| topic.ring.lock().closed = true);
        Wakeups(topics.collect())
    }
}

/// Whether a prefix is found by looking at the slashes of a key; the empty one always is.
fn ends_at_slash(prefix: &str) -> bool {
    prefix.is_empty() || prefix.ends_with('/')
}

/// A watcher: a place in the ring of its prefix.
#[derive(Debug)]
pub struct Cursor {
    topic: Arc<Topic>,
    position: Arc<Position>,
    next: u64,
    delivered: Revision,
}

impl Cursor {
    /// What is there for this watcher, or `None` where it has to wait.
    fn take(&mut self, limit: usize) -> Option<Result<Vec<Arc<Change>>, WatchError>> {
        let ring = self.topic.ring.lock();
        if self.next < ring.first {
            return Some(Err(WatchError::Lagged { oldest: Revision(self.position.floor.load(Ordering::Acquire)) }));
        }
        let mut batch: Vec<Arc<Change>> = Vec::new();
        for change in ring.changes.range((self.next - ring.first) as usize..) {
            let starts_commit = batch.last().is_none_or(|last| last.revision != change.revision);
            if starts_commit && batch.len() >= limit.max(1) {
                break;
            }
            self.next += 1;
            // A watch may start after a revision that is assigned and not yet visible.
            if change.revision > self.delivered {
                batch.push(Arc::clone(change));
            }
        }
        match batch.last() {
            Some(last) => {
                self.delivered = last.revision;
                Some(Ok(batch))
            }
            None if ring.closed => Some(Err(WatchError::Closed)),
            None => None,
        }
    }
}

#[async_trait]
impl Watch for Cursor {
    async fn next(&mut self, limit: usize) -> Result<Vec<Arc<Change>>, WatchError> {
        let topic = Arc::clone(&self.topic);
        loop {
            // Made before looking: a wake-up between the look and the wait is not lost.
            let moved = topic.moved.notified();
            if let Some(taken) = self.take(limit) {
                return taken;
            }
            moved.await;
        }
    }

    fn progress(&mut self) -> Revision {
        // Read before the ring: what is visible is in the ring already.
        let visible = self.position.visible();
        let ring = self.topic.ring.lock();
        if self.next == ring.first + ring.changes.len() as u64 {
            self.delivered = self.delivered.max(visible);
        }
        self.delivered
    }
}
