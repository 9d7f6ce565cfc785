//! What waits for the writer: commits in the order of their revisions, answers that wait for one of them, and rows that
//! are to go.
//!
//! Invariant: commits enter in the order of their revisions, because whoever gives out a revision holds the state's lock
//! until its commit is queued.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use kedge_store::{Entry, Key, Revision};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// Rows that go with one batch at most, unless one commit has more: so that a write never waits for a big clean-up.
const SUPERSEDED_PER_BATCH: usize = 512;

/// Told that its commit is visible and, where it asked for that, on disk; or why not.
pub(crate) type Answer = oneshot::Sender<Result<(), String>>;

/// A commit on its way to disk, or an answer that waits for those before it.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) revision: Revision,
    pub(crate) entries: Vec<Entry>,
    /// Whether it is to be on disk before it is visible.
    pub(crate) durable: bool,
    /// Parts of the key space to note on disk with it.
    pub(crate) parts: Vec<String>,
    pub(crate) answer: Option<Answer>,
}

/// A row that a later change made superfluous once that change left the history.
#[derive(Debug)]
pub(crate) struct Superseded {
    pub(crate) row: (Revision, Key),
    /// The change that left.
    pub(crate) by: Revision,
}

/// What the writer takes at once.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) items: Vec<Item>,
    pub(crate) superseded: Vec<(Revision, Key)>,
    /// The history on disk begins after this, once the superseded rows are gone.
    pub(crate) floor: Option<Revision>,
    pub(crate) closing: bool,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    items: VecDeque<Item>,
    bytes: usize,
    /// Items that somebody waits for.
    urgent: usize,
    /// When the oldest item that nobody waits for is to be on disk.
    due: Option<Instant>,
    superseded: VecDeque<Superseded>,
    floor: Option<Revision>,
    closing: bool,
}

impl Queue {
    /// Appends an item. One that is not urgent is taken within `delay`.
    pub(crate) fn push(&self, item: Item, delay: Duration) {
        let mut inner = self.inner.lock();
        inner.bytes += item.entries.iter().map(|entry| entry.change.record.value.len()).sum::<usize>();
        inner.urgent += usize::from(item.is_urgent());
        if !item.entries.is_empty() && inner.due.is_none() {
            inner.due = Some(Instant::now() + delay);
        }
        inner.items.push_back(item);
        drop(inner);
        self.filled.notify_one();
    }

    /// Appends rows that are to go; history begins after `floor`.
    pub(crate) fn supersede(&self, rows: impl Iterator<Item = Superseded>, floor: Revision, delay: Duration) {
        let mut inner = self.inner.lock();
        inner.superseded.extend(rows);
        inner.floor = Some(floor);
        inner.due.get_or_insert_with(|| Instant::now() + delay);
        drop(inner);
        self.filled.notify_one();
    }

    /// How many bytes wait.
    pub(crate) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }

    /// No more work will come.
    pub(crate) fn close(&self) {
        self.inner.lock().closing = true;
        self.filled.notify_one();
    }

    /// Waits until there is something to do, or until `wake`, when it returns nothing.
    pub(crate) fn take(&self, wake: Option<Instant>) -> Option<Work> {
        let mut inner = self.inner.lock();
        loop {
            let now = Instant::now();
            if inner.urgent > 0 || inner.closing || inner.due.is_some_and(|due| due <= now) {
                return Some(inner.take());
            }
            match [inner.due, wake].into_iter().flatten().min() {
                Some(until) if until <= now => return None,
                Some(until) => drop(self.filled.wait_until(&mut inner, until)),
                None => self.filled.wait(&mut inner),
            }
        }
    }

    /// Waits until the store is closed or `until` comes; whether it was closed. The store has failed meanwhile.
    pub(crate) fn is_closed_by(&self, until: Instant) -> bool {
        let mut inner = self.inner.lock();
        while !inner.closing && Instant::now() < until {
            self.filled.wait_until(&mut inner, until);
        }
        inner.closing
    }

    /// Revisions of the relaxed commits at the front, which need not wait for anything any more, with their answers.
    pub(crate) fn take_relaxed_answers(&self) -> (Option<Revision>, Vec<Answer>) {
        let mut inner = self.inner.lock();
        let (mut through, mut answers) = (None, Vec::new());
        let mut urgent = 0;
        for item in inner.items.iter_mut().take_while(|item| !item.durable) {
            urgent += usize::from(item.is_urgent());
            if !item.entries.is_empty() {
                through = Some(item.revision);
            }
            answers.extend(item.answer.take());
        }
        inner.urgent -= urgent;
        (through, answers)
    }

    /// Takes every item: the store has failed. Rows that are to go stay, in their order.
    pub(crate) fn take_items(&self) -> Vec<Item> {
        let mut inner = self.inner.lock();
        (inner.urgent, inner.bytes) = (0, 0);
        inner.due = (!inner.superseded.is_empty()).then(|| Instant::now() + CLEAN_UP_INTERVAL);
        inner.items.drain(..).collect()
    }
}

impl Item {
    /// Whether the writer is to begin at once. A relaxed commit waits for those before it, not for itself.
    fn is_urgent(&self) -> bool {
        self.durable || (self.entries.is_empty() && self.answer.is_some())
    }
}

impl Inner {
    fn take(&mut self) -> Work {
        let mut superseded = Vec::new();
        let mut floor = None;
        while let Some(first) = self.superseded.front() {
            if superseded.len() >= SUPERSEDED_PER_BATCH && floor != Some(first.by) {
                break;
            }
            floor = Some(first.by);
            superseded.extend(self.superseded.pop_front().map(|superseded| superseded.row));
        }
        if self.superseded.is_empty() {
            floor = self.floor.take().or(floor);
        }
        let items = self.items.drain(..).collect();
        (self.bytes, self.urgent) = (0, 0);
        self.due = (!self.superseded.is_empty()).then(|| Instant::now() + CLEAN_UP_INTERVAL);
        Work { items, superseded, floor, closing: self.closing }
    }
}

/// How soon the next batch of superseded rows goes while nobody writes.
const CLEAN_UP_INTERVAL: Duration = Duration::from_millis(100);
