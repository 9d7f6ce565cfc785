//! The port itself: types and the [`Store`] trait.
//!
//! Invariants every backend keeps: revisions grow by one with each commit that changes anything and never go back, also
//! across power loss; all writes of one commit share its revision; an acknowledged `Durable` commit survives kill -9 and
//! power loss; a watch delivers every change of its prefix exactly once, in revision order, whole commits at a time.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

/// A position in the store's history. `Revision(0)` is before everything; a fresh store stands at `Revision(1)`, so that
/// a list of an empty store never shows `resourceVersion: "0"`, which means something else to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key such as `/registry/pods/default/web-0`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// From its text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Bytes to store, with the place where the store inserts the decimal revision of the commit (the object's
/// `resourceVersion`). `splice_at == None` stores the bytes as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The bytes without the revision.
    pub bytes: Bytes,
    /// Offset into `bytes` at which the digits go.
    pub splice_at: Option<u32>,
}

impl Template {
    /// The bytes as clients get them once they are committed at `revision`.
    pub fn render(&self, revision: Revision) -> Bytes {
        let Some(at) = self.splice_at else { return self.bytes.clone() };
        let digits = revision.to_string();
        let (head, tail) = self.bytes.split_at(at as usize);
        let mut rendered = BytesMut::with_capacity(self.bytes.len() + digits.len());
        rendered.extend_from_slice(head);
        rendered.extend_from_slice(digits.as_bytes());
        rendered.extend_from_slice(tail);
        rendered.freeze()
    }
}

/// A stored key with its value, as of one revision. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Key,
    /// The value, with the revision spliced in.
    pub value: Bytes,
    /// Where the digits of the revision stand in `value`, if anywhere.
    pub splice_at: Option<u32>,
    /// The commit that created the key.
    pub created: Revision,
    /// The commit that wrote this value.
    pub modified: Revision,
}

impl Record {
    /// The value with another revision in the place of its own: how a deletion shows its last state.
    pub fn value_at(&self, revision: Revision) -> Bytes {
        let Some(at) = self.splice_at else { return self.value.clone() };
        let digits = self.modified.to_string().len();
        let mut bytes = BytesMut::with_capacity(self.value.len() + 4);
        bytes.extend_from_slice(&self.value[..at as usize]);
        bytes.extend_from_slice(revision.to_string().as_bytes());
        bytes.extend_from_slice(&self.value[at as usize + digits..]);
        bytes.freeze()
    }
}

/// What a key must be for a commit to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists and was last written at this revision.
    Modified(Revision),
    /// The key exists.
    Present,
}

/// A condition of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The key.
    pub key: Key,
    /// What it must be.
    pub expect: Expect,
}

/// One write of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Creates or replaces.
    Put {
        /// The key.
        key: Key,
        /// The new value.
        value: Template,
        /// Time to live: the store deletes the key when it has passed (events). Rewriting a key replaces it.
        ttl: Option<Duration>,
    },
    /// Deletes; nothing happens where the key is absent.
    Delete {
        /// The key.
        key: Key,
    },
}

/// When a commit is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// After it is on disk.
    #[default]
    Durable,
    /// At once; it reaches the disk with the next durable commit or within a second. For leases and events, whose loss
    /// is harmless.
    Relaxed,
}

/// Several conditions and writes that go through together or not at all. At most one write for each key.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// All are done, at one revision.
    pub writes: Vec<Write>,
    /// When the commit is acknowledged.
    pub durability: Durability,
}

/// What a commit did.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The commit's revision; the store's current one where nothing changed.
    pub revision: Revision,
    /// The new record for each `Put`, in the order of the writes.
    pub records: Vec<Record>,
}

/// Which keys to list.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Only keys that start with this. Ends with `/` where a whole path segment is meant.
    pub prefix: String,
    /// Only keys after this one.
    pub start_after: Option<Key>,
    /// At most this many.
    pub limit: Option<usize>,
    /// As of this revision; the current one where absent.
    pub at: Option<Revision>,
}

/// One page of a list, by key.
#[derive(Debug, Clone)]
pub struct ListPage {
    /// The records.
    pub records: Vec<Record>,
    /// The revision of which this is the state.
    pub revision: Revision,
    /// How many keys of the prefix come after the last record.
    pub remaining: usize,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was created.
    Created,
    /// It was replaced.
    Modified,
    /// It was deleted; `record` is its last state before that.
    Deleted,
}

/// One change of one key. Shared by every watcher.
#[derive(Debug, Clone)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The commit.
    pub revision: Revision,
    /// The new record; for a deletion the last one.
    pub record: Record,
    /// The record before, where there was one.
    pub previous: Option<Record>,
}

/// Why a store could not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The revision asked for has been compacted.
    #[error("revision {requested} has been compacted; the oldest one kept is {oldest}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// What is still there.
        oldest: Revision,
    },
    /// The revision asked for has not happened yet.
    #[error("revision {requested} is in the future; the current one is {current}")]
    Future {
        /// What was asked for.
        requested: Revision,
        /// What there is.
        current: Revision,
    },
    /// The storage below failed; nothing that was acknowledged is lost, but the store accepts no more writes.
    #[error("the storage failed: {0}")]
    Storage(String),
    /// The storage is elsewhere and does not answer; nothing happened, and asking again later may help.
    #[error("the storage is not available: {0}")]
    Unavailable(String),
    /// The storage is elsewhere, was asked, and has not answered. Whether a commit happened is unknown.
    #[error("the storage did not answer in time: {0}")]
    Timeout(String),
    /// The store is shut down.
    #[error("the store is closed")]
    Closed,
}

/// Why a commit did not go through.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A condition did not hold. Carries the key's record as it is now.
    #[error("a condition on {} does not hold", key.as_str())]
    Conflict {
        /// The key.
        key: Key,
        /// What it is now.
        current: Option<Box<Record>>,
    },
    /// The store could not answer; whether the commit happened is unknown where the error is `Storage` or
    /// `Timeout`.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The watcher was so slow that the changes it needs were compacted; it must list again.
    #[error("the watch fell behind revision {oldest}, the oldest one kept")]
    Lagged {
        /// The oldest revision kept.
        oldest: Revision,
    },
    /// The store is shut down.
    #[error("the store is closed")]
    Closed,
}

/// A cursor over the changes of a prefix.
#[async_trait]
pub trait Watch: Send {
    /// Waits for the next changes of the prefix and returns all that are there, up to `limit` (but whole commits), in
    /// the order of revisions and within a commit by key. Never returns an empty batch: that the store moved on without
    /// touching the prefix is told by [`Watch::progress`]. Cancel-safe: dropping the future loses nothing.
    async fn next(&mut self, limit: usize) -> Result<Vec<Arc<Change>>, WatchError>;

    /// The revision up to which this watch has delivered everything (for bookmarks). Moves on also while only other
    /// prefixes change, as long as nothing undelivered is pending.
    fn progress(&mut self) -> Revision;
}

/// Sizes, for metrics and the doctor.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreStats {
    /// Live keys.
    pub keys: usize,
    /// Bytes of live values.
    pub value_bytes: usize,
    /// Changes kept for watches and reads in the past.
    pub history: usize,
    /// The latest commit-to-disk latency.
    pub last_sync: Option<Duration>,
    /// The slowest commit-to-disk latency of the last minute.
    pub slowest_sync: Option<Duration>,
}

/// A store. Handles are shared as `Arc<dyn Store>`.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The latest revision.
    fn revision(&self) -> Revision;

    /// The oldest revision that lists and watches can still start from.
    fn oldest(&self) -> Revision;

    /// Waits until everything is visible here that anybody was told before this call, also through another process over
    /// the same storage; the revision that is then visible. For a store that only this process has, that is now.
    async fn refresh(&self) -> Result<Revision, StoreError> {
        Ok(self.revision())
    }

    /// A key's record as it is now.
    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError>;

    /// One page of the keys with a prefix.
    async fn list(&self, request: ListRequest) -> Result<ListPage, StoreError>;

    /// How many keys there are with a prefix.
    async fn count(&self, prefix: &str) -> Result<usize, StoreError>;

    /// Checks all conditions and does all writes, atomically.
    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError>;

    /// A watch that delivers every change after `after`.
    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError>;

    /// Forgets history before `revision`: lists and watches from before it answer `Compacted`.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// Sizes and latencies.
    fn stats(&self) -> StoreStats;

    /// Flushes everything acknowledged to disk and refuses further commits.
    async fn close(&self) -> Result<(), StoreError>;
}
