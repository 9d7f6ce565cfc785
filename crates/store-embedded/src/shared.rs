//! What the clients of the store and its writer share: the state, the queue, and the rules of when a commit is visible.
//!
//! Commits become visible in the order of their revisions. A durable one does once it is on disk. A relaxed one does at
//! once where everything before it is visible, else together with the last durable one before it; it never waits for a
//! sync of its own. Invariant: a revision is given out, and its commit queued, under one hold of the state's lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kedge_meta::Clock;
use kedge_store::{
    Change, ChangeKind, CommitError, Committed, Durability, Latency, Prepared, Refusal, Revision, State, StoreError,
    Transaction,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use crate::gaps::{Gaps, part_of};

use crate::queue::{Item, Queue, Superseded};

/// Relaxed commits are treated as durable ones while more than this waits for the disk.
const RELAXED_BYTES: usize = 8 << 20;

/// How many keys one commit expires at most.
const EXPIRY_BATCH: usize = 100;

/// How far the store is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    /// Takes no commits; what is queued goes to disk.
    Closing,
    Closed,
}

/// What the lock guards.
pub(crate) struct Core {
    pub(crate) state: State,
    pub(crate) gaps: Gaps,
    /// Revisions up to this may be shown before they are on disk.
    pub(crate) ceiling: Revision,
    pub(crate) phase: Phase,
    pub(crate) failure: Option<String>,
}

pub(crate) struct Shared {
    pub(crate) core: RwLock<Core>,
    pub(crate) queue: Queue,
    pub(crate) latency: Mutex<Latency>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Within which a relaxed commit is on disk.
    pub(crate) relaxed_delay: Duration,
    /// Whether the writer has ended and everything is released.
    pub(crate) ended: watch::Sender<bool>,
}

/// A commit that has been taken in.
pub(crate) enum Submitted {
    /// It is answered already.
    Answered(Result<Committed, CommitError>),
    /// Its answer leaves when the writer says so.
    Waits(Waiting),
}

/// An answer on its way.
pub(crate) struct Waiting {
    pub(crate) outcome: Result<Committed, CommitError>,
    pub(crate) answer: oneshot::Receiver<Result<(), String>>,
    /// The revision that may be released where the answer takes long.
    pub(crate) releasable: Option<Revision>,
}

impl Core {
    pub(crate) fn check_writable(&self) -> Result<(), StoreError> {
        match (&self.failure, self.phase) {
            (_, Phase::Closing | Phase::Closed) => Err(StoreError::Closed),
            (Some(failure), Phase::Running) => Err(StoreError::Storage(failure.clone())),
            (None, Phase::Running) => Ok(()),
        }
    }

    pub(crate) fn check_readable(&self) -> Result<(), StoreError> {
        if self.phase == Phase::Closed { Err(StoreError::Closed) } else { Ok(()) }
    }
}

impl Shared {
    /// Milliseconds since the epoch.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now().as_millisecond().max(0) as u64
    }

    /// Checks a transaction, gives it its revision, and sends it on its way.
    pub(crate) fn submit(&self, transaction: &Transaction) -> Submitted {
        let now = self.now();
        let mut core = self.core.write();
        if let Err(error) = core.check_writable() {
            return Submitted::Answered(Err(error.into()));
        }
        match core.state.prepare(transaction, now) {
            Err(Refusal { key, current, depends_on }) => {
                self.answer_after(&core, Err(CommitError::Conflict { key, current }), depends_on)
            }
            Ok(prepared) if prepared.entries.is_empty() => {
                let committed = Committed { revision: core.state.visible(), records: Vec::new() };
                self.answer_after(&core, Ok(committed), prepared.depends_on)
            }
            Ok(prepared) => {
                let (published, submitted) = self.admit(&mut core, prepared, transaction.durability, now);
                drop(core);
                published.wakeups.wake();
                submitted
            }
        }
    }

    /// An answer that shows what `depends_on` did, which must not be seen before that one is.
    fn answer_after(&self, core: &Core, outcome: Result<Committed, CommitError>, depends_on: Revision) -> Submitted {
        if depends_on <= core.state.visible() {
            return Submitted::Answered(outcome);
        }
        Submitted::Waits(Waiting { outcome, answer: self.wait_for_queue(), releasable: None })
    }

    /// Is answered when everything queued so far is visible. The caller holds the state's lock.
    pub(crate) fn wait_for_queue(&self) -> oneshot::Receiver<Result<(), String>> {
        let (sender, answer) = oneshot::channel();
        let (entries, parts) = (Vec::new(), Vec::new());
        let item = Item { revision: Revision::default(), entries, durable: false, parts, answer: Some(sender) };
        self.queue.push(item, self.relaxed_delay);
        answer
    }

    /// Queues a prepared commit, and publishes it where nothing stands in its way.
    fn admit(
        &self,
        core: &mut Core,
        prepared: Prepared,
        durability: Durability,
        now: u64,
    ) -> (kedge_store::Published, Submitted) {
        let Prepared { committed, entries, depends_on } = prepared;
        let revision = committed.revision;
        let parts = if durability == Durability::Relaxed { unknown_parts(core, &entries) } else { Vec::new() };
        let durable = durability == Durability::Durable
            || !parts.is_empty()
            || revision > core.ceiling
            || self.queue.bytes() > RELAXED_BYTES;
        if !durable && revision.0 == core.state.visible().0 + 1 {
            let published = core.state.publish(revision, now);
            self.queue.push(Item { revision, entries, durable, parts, answer: None }, self.relaxed_delay);
            if !published.dropped.is_empty() {
                self.supersede(core, &published.dropped);
            }
            return (published, Submitted::Answered(Ok(committed)));
        }
        let (sender, answer) = oneshot::channel();
        self.queue.push(Item { revision, entries, durable, parts, answer: Some(sender) }, self.relaxed_delay);
        // What it rests on has been told already, so it may be told as well.
        let releasable = (!durable && depends_on <= core.state.visible()).then_some(revision);
        let waiting = Waiting { outcome: Ok(committed), answer, releasable };
        (kedge_store::Published::default(), Submitted::Waits(waiting))
    }

    /// Sends the rows behind dropped changes away, after the floor has moved.
    pub(crate) fn supersede(&self, core: &Core, dropped: &[Arc<Change>]) {
        let rows = dropped.iter().flat_map(|change| superseded(change));
        self.queue.supersede(rows, core.state.floor(), self.relaxed_delay);
    }

    /// Deletes the keys whose time has passed.
    pub(crate) fn expire(&self) {
        let now = self.now();
        loop {
            let mut core = self.core.write();
            if core.check_writable().is_err() {
                return;
            }
            let Some(prepared) = core.state.expire(now, EXPIRY_BATCH) else { return };
            let (published, _) = self.admit(&mut core, prepared, Durability::Relaxed, now);
            drop(core);
            published.wakeups.wake();
        }
    }

    /// When the next key is due.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let due = self.core.read().state.next_expiry()?;
        let left = Duration::from_millis(due.saturating_sub(self.now()));
        // Not too soon, so that expiries come in batches; not too late, should the clock jump.
        Some(Instant::now() + left.clamp(Duration::from_millis(100), Duration::from_secs(10)))
    }

    /// No more commits. The writer writes what is queued, and ends.
    pub(crate) fn begin_close(&self) {
        let mut core = self.core.write();
        if core.phase == Phase::Running {
            core.phase = Phase::Closing;
        }
        drop(core);
        self.queue.close();
    }
}

/// The parts of the key space that are to be noted before a relaxed commit there is seen.
fn unknown_parts(core: &Core, entries: &[kedge_store::Entry]) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for entry in entries {
        let part = part_of(&entry.change.record.key);
        if !core.gaps.knows(part) && !parts.iter().any(|known| known == part) {
            parts.push(part.to_owned());
        }
    }
    parts
}

/// The rows that nobody needs once `change` has left the history.
fn superseded(change: &Change) -> impl Iterator<Item = Superseded> {
    let row = |revision| Superseded { row: (revision, change.record.key.clone()), by: change.revision };
    let replaced = change.previous.as_ref().map(|previous| row(previous.modified));
    let deletion = (change.kind == ChangeKind::Deleted).then(|| row(change.revision));
    replaced.into_iter().chain(deletion)
}
