//! The state of a store: live records, changes on their way, history and watched prefixes, as one pure state machine that
//! every backend that keeps its records in memory drives under its own lock.
//!
//! A commit passes in two steps. [`State::prepare`] checks it against everything before it, also against what is not yet
//! durable, and gives it its revision; [`State::publish`] makes it visible to reads and watches. In between the backend
//! makes it durable. It does no I/O, reads no clock and wakes nobody by itself. Invariants: revisions become visible in
//! their order, without a gap; what is not published is never read, except through [`State::release`].

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::expiry::Expiries;
use crate::history::{History, HistoryLimits};
use crate::list::{self, Span};
use crate::pending::{Pending, PendingCommit};
use crate::port::{
    Change, ChangeKind, Committed, Condition, Durability, Expect, Key, ListPage, ListRequest, Record, Revision,
    StoreError, Transaction, Write,
};
use crate::topics::{Cursor, Deliveries, Position, Topics, Wakeups};

mod foreign;

/// Where a fresh store stands.
pub const FIRST_REVISION: Revision = Revision(1);

/// A change with what only the store knows about it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The change.
    pub change: Arc<Change>,
    /// When the store is to delete the key, in milliseconds since the epoch.
    pub expires: Option<u64>,
}

/// A commit that has its revision and is not yet visible.
#[derive(Debug)]
pub struct Prepared {
    /// What the client is told once it is acknowledged.
    pub committed: Committed,
    /// The changes, by key; empty where the commit changed nothing.
    pub entries: Vec<Entry>,
    /// The newest unpublished and unreleased commit that this answer rests on. The answer leaves only after that one is
    /// published.
    pub depends_on: Revision,
}

/// A condition that does not hold.
#[derive(Debug)]
pub struct Refusal {
    /// The key.
    pub key: Key,
    /// What it is now.
    pub current: Option<Box<Record>>,
    /// As in [`Prepared`].
    pub depends_on: Revision,
}

/// What a publication leaves to do outside the lock.
#[derive(Debug, Default)]
#[must_use = "watchers sleep until they are woken"]
pub struct Published {
    /// Whom to wake.
    pub wakeups: Wakeups,
    /// Changes that have left the history, oldest first.
    pub dropped: Vec<Arc<Change>>,
}

/// The state machine.
#[derive(Debug)]
pub struct State {
    live: BTreeMap<Key, Record>,
    value_bytes: usize,
    expiries: Expiries,
    pending: Pending,
    history: History,
    topics: Topics,
    position: Arc<Position>,
}

impl State {
    /// An empty state at [`FIRST_REVISION`].
    pub fn new(limits: HistoryLimits) -> Self {
        Self::restore(limits, Revision(0))
    }

    /// An empty state whose history will begin after `floor`; [`State::replay`] fills it.
    pub fn restore(limits: HistoryLimits, floor: Revision) -> Self {
        let head = floor.max(FIRST_REVISION);
        Self {
            live: BTreeMap::new(),
            value_bytes: 0,
            expiries: Expiries::default(),
            pending: Pending::new(head),
            history: History::new(limits, floor),
            topics: Topics::default(),
            position: Arc::new(Position::new(head, floor)),
        }
    }

    /// The latest visible revision.
    pub fn visible(&self) -> Revision {
        self.position.visible()
    }

    /// The latest assigned revision.
    pub fn head(&self) -> Revision {
        self.pending.head
    }

    /// The oldest revision that lists and watches can start from.
    pub fn floor(&self) -> Revision {
        self.history.floor()
    }

    /// How many live keys there are.
    pub fn keys(&self) -> usize {
        self.live.len()
    }

    /// How many bytes their values have.
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// How many changes the history holds.
    pub fn history_len(&self) -> usize {
        self.history.len()
    }

    /// A key's record: the visible one, or a released one that is on its way.
    pub fn get(&self, key: &Key) -> Option<&Record> {
        match self.pending.released(key) {
            Some(released) => released,
            None => self.live.get(key),
        }
    }

    /// Every live record of a prefix, as it is visible now.
    pub fn records(&self, prefix: &str) -> impl Iterator<Item = &Record> {
        self.live.range::<str, _>(Span::of(prefix)).map(|(_, record)| record)
    }

    /// One page of a list.
    pub fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        let at = request.at.unwrap_or_else(|| self.visible());
        self.check_at(at)?;
        let start_after = request.start_after.as_ref().map(Key::as_str);
        let span = Span::after(&request.prefix, start_after);
        let past = list::undo(self.history.after(at), &span);
        let live = self.live.range::<str, _>(span);
        Ok(list::page(live, past, request.limit, at))
    }

    fn check_at(&self, at: Revision) -> Result<(), StoreError> {
        if at < self.floor() {
            return Err(StoreError::Compacted { requested: at, oldest: self.floor() });
        }
        if at > self.visible() {
            return Err(StoreError::Future { requested: at, current: self.visible() });
        }
        Ok(())
    }

    /// How many keys there are with a prefix.
    pub fn count(&self, prefix: &str) -> usize {
        self.live.range::<str, _>(Span::of(prefix)).count()
    }

    /// A watcher of every change of `prefix` after `after`, which may be assigned and not yet visible.
    pub fn watch(&mut self, prefix: &str, after: Revision) -> Result<Cursor, StoreError> {
        if after < self.floor() {
            return Err(StoreError::Compacted { requested: after, oldest: self.floor() });
        }
        if after > self.head() {
            return Err(StoreError::Future { requested: after, current: self.visible() });
        }
        Ok(self.topics.watch(prefix, after, &self.history, &self.position))
    }

    /// Checks a transaction against everything before it and gives it the next revision.
    pub fn prepare(&mut self, transaction: &Transaction, now: u64) -> Result<Prepared, Refusal> {
        let mut depends_on = Revision::default();
        for condition in &transaction.conditions {
            let (current, revision) = self.newest(&condition.key);
            depends_on = depends_on.max(revision);
            if !holds(condition, current) {
                let current = current.cloned().map(Box::new);
                return Err(Refusal { key: condition.key.clone(), current, depends_on });
            }
        }
        let revision = Revision(self.head().0 + 1);
        let (mut entries, mut records) = (Vec::new(), Vec::new());
        for write in &transaction.writes {
            let (previous, pending_since) = self.newest(write_key(write));
            depends_on = depends_on.max(pending_since);
            let Some(entry) = plan_entry(write, previous.cloned(), revision, now) else { continue };
            if entry.change.kind != ChangeKind::Deleted {
                records.push(entry.change.record.clone());
            }
            entries.push(entry);
        }
        // One order for a commit's changes, which a backend can give back after a restart.
        entries.sort_by(|a: &Entry, b| a.change.record.key.cmp(&b.change.record.key));
        let revision = if entries.is_empty() { self.head() } else { revision };
        if !entries.is_empty() {
            self.pending.push(PendingCommit { revision, entries: entries.clone() });
        }
        Ok(Prepared { committed: Committed { revision, records }, entries, depends_on })
    }

    /// A key's record as the next commit finds it, with the revision of the untold commit it is from, if any.
    fn newest(&self, key: &Key) -> (Option<&Record>, Revision) {
        match self.pending.newest(key) {
            Some((record, revision)) => (record, revision),
            None => (self.live.get(key), Revision::default()),
        }
    }

    /// Plans the deletion of up to `limit` keys whose time has passed. Their commit is pending like any other.
    pub fn expire(&mut self, now: u64, limit: usize) -> Option<Prepared> {
        let due = self.expiries.due(now, limit);
        let untouched = due.into_iter().filter(|key| self.pending.newest(key).is_none());
        let writes: Vec<_> = untouched.map(|key| Write::Delete { key }).collect();
        if writes.is_empty() {
            return None;
        }
        let transaction = Transaction { conditions: Vec::new(), writes, durability: Durability::Relaxed };
        self.prepare(&transaction, now).ok()
    }

    /// When the next key is due, in milliseconds since the epoch.
    pub fn next_expiry(&self) -> Option<u64> {
        self.expiries.next()
    }

    /// Makes every pending commit up to `through` visible.
    pub fn publish(&mut self, through: Revision, now: u64) -> Published {
        let mut deliveries = Deliveries::default();
        let mut visible = self.visible();
        while let Some(commit) = self.pending.pop_through(through) {
            visible = commit.revision;
            for entry in commit.entries {
                self.topics.collect(&entry.change, &mut deliveries);
                self.apply(&entry);
                self.history.push(entry.change, now);
            }
        }
        let wakeups = deliveries.deliver();
        self.position.set_visible(visible);
        let dropped = self.history.plan_floor(now).map(|floor| self.drop_through(floor)).unwrap_or_default();
        Published { wakeups, dropped }
    }

    fn apply(&mut self, Entry { change, expires }: &Entry) {
        let key = &change.record.key;
        self.expiries.set(key, *expires);
        self.value_bytes -= change.previous.as_ref().map_or(0, |previous| previous.value.len());
        if change.kind == ChangeKind::Deleted {
            self.live.remove(key);
        } else {
            self.value_bytes += change.record.value.len();
            self.live.insert(key.clone(), change.record.clone());
        }
    }

    /// Lets [`State::get`] show what the pending commit `revision` left at its keys, because it was acknowledged before it
    /// became visible. Only for commits whose loss is harmless.
    pub fn release(&mut self, revision: Revision) {
        self.pending.release(revision);
    }

    /// Forgets every pending commit: they could not be made durable. The revisions they had are not used again.
    pub fn abandon(&mut self) {
        self.pending.abandon();
    }

    /// Forgets history up to `floor`. Hands out the changes that are dropped by it, oldest first.
    pub fn compact(&mut self, floor: Revision) -> Result<Vec<Arc<Change>>, StoreError> {
        if floor > self.visible() {
            return Err(StoreError::Future { requested: floor, current: self.visible() });
        }
        Ok(if floor > self.floor() { self.drop_through(floor) } else { Vec::new() })
    }

    fn drop_through(&mut self, floor: Revision) -> Vec<Arc<Change>> {
        self.position.set_floor(floor);
        self.topics.drop_through(floor);
        self.history.drop_through(floor)
    }

    /// Ends every watch, after what it has not delivered yet.
    pub fn close(&mut self) -> Wakeups {
        self.topics.close()
    }

    /// Puts back a write that was made durable earlier. Called in the order of revisions, before anything else.
    pub fn replay(&mut self, write: Replayed, now: u64) {
        let (key, revision) = match &write {
            Replayed::Put { record, .. } => (&record.key, record.modified),
            Replayed::Delete { key, revision } => (key, *revision),
        };
        let previous = self.live.get(key).cloned();
        self.pending.head = self.pending.head.max(revision);
        self.position.set_visible(self.pending.head);
        let Some(entry) = replayed_entry(write, previous, revision) else { return };
        self.apply(&entry);
        if revision > self.floor() {
            self.history.push(entry.change, now);
        }
    }

    /// Moves on to `revision` without a change: what may have been shown to clients before a crash is not used again.
    pub fn skip_to(&mut self, revision: Revision) {
        self.pending.head = self.pending.head.max(revision);
        self.position.set_visible(self.pending.head);
    }
}

/// A write as it was made durable.
#[derive(Debug)]
pub enum Replayed {
    /// The record, and when the key is due.
    Put {
        /// The record.
        record: Record,
        /// Milliseconds since the epoch.
        expires: Option<u64>,
    },
    /// A deletion.
    Delete {
        /// The key.
        key: Key,
        /// The commit.
        revision: Revision,
    },
}

fn holds(condition: &Condition, current: Option<&Record>) -> bool {
    match condition.expect {
        Expect::Absent => current.is_none(),
        Expect::Present => current.is_some(),
        Expect::Modified(revision) => current.is_some_and(|record| record.modified == revision),
    }
}

fn write_key(write: &Write) -> &Key {
    match write {
        Write::Put { key, .. } | Write::Delete { key } => key,
    }
}

/// The change that a write makes, or `None` where there is nothing to delete.
fn plan_entry(write: &Write, previous: Option<Record>, revision: Revision, now: u64) -> Option<Entry> {
    match write {
        Write::Put { key, value, ttl } => {
            let record = Record {
                // The key of the record before is shared, so that a key lies in memory once.
                key: previous.as_ref().map_or(key, |previous| &previous.key).clone(),
                value: value.render(revision),
                splice_at: value.splice_at,
                created: previous.as_ref().map_or(revision, |previous| previous.created),
                modified: revision,
            };
            let kind = if previous.is_some() { ChangeKind::Modified } else { ChangeKind::Created };
            let expires = ttl.map(|ttl| now.saturating_add(ttl.as_millis() as u64));
            Some(Entry { change: Arc::new(Change { kind, revision, record, previous }), expires })
        }
        Write::Delete { .. } => previous.map(|last| deletion(last, revision)),
    }
}

fn replayed_entry(write: Replayed, previous: Option<Record>, revision: Revision) -> Option<Entry> {
    match write {
        Replayed::Put { record, expires } => {
            let kind = if previous.is_some() { ChangeKind::Modified } else { ChangeKind::Created };
            Some(Entry { change: Arc::new(Change { kind, revision, record, previous }), expires })
        }
        Replayed::Delete { .. } => previous.map(|last| deletion(last, revision)),
    }
}

fn deletion(last: Record, revision: Revision) -> Entry {
    let change = Change { kind: ChangeKind::Deleted, revision, record: last.clone(), previous: Some(last) };
    Entry { change: Arc::new(change), expires: None }
}
