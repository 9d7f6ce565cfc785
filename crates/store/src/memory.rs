//! A store in memory: the [`State`] under a lock. For tests, and for what need not survive the process.
//!
//! Invariant: a commit is visible when its answer leaves. It makes no promise beyond the life of the process; `Relaxed` and
//! `Durable` are the same.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use kedge_meta::{Clock, SystemClock};
use parking_lot::{Mutex, RwLock};

use crate::history::HistoryLimits;
use crate::port::{
    CommitError, Committed, Key, ListPage, ListRequest, Record, Revision, Store, StoreError, StoreStats, Transaction,
    Watch,
};
use crate::state::State;

/// How often keys with a time to live are looked at.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// How many keys one commit expires at most.
const EXPIRY_BATCH: usize = 100;

/// The store in memory. Clones share it.
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

struct Inner {
    state: RwLock<Open>,
    clock: Box<dyn Clock>,
    /// Whether the thread that expires keys runs; it ends when no key has a time to live.
    expiring: Mutex<bool>,
}

struct Open {
    state: State,
    closed: bool,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store with the machine's clock and the default limits.
    pub fn new() -> Self {
        Self::with(HistoryLimits::default(), SystemClock)
    }

    /// An empty store with these limits and this clock.
    pub fn with(limits: HistoryLimits, clock: impl Clock) -> Self {
        let state = RwLock::new(Open { state: State::new(limits), closed: false });
        Self { inner: Arc::new(Inner { state, clock: Box::new(clock), expiring: Mutex::new(false) }) }
    }

    /// Deletes the keys whose time has passed. Done by itself once a second.
    pub fn expire(&self) {
        self.inner.expire();
    }
}

impl Inner {
    fn now(&self) -> u64 {
        self.clock.now().as_millisecond().max(0) as u64
    }

    fn commit(&self, transaction: &Transaction) -> Result<Committed, CommitError> {
        let now = self.now();
        let mut open = self.state.write();
        if open.closed {
            return Err(StoreError::Closed.into());
        }
        let prepared = open.state.prepare(transaction, now);
        let prepared =
            prepared.map_err(|refusal| CommitError::Conflict { key: refusal.key, current: refusal.current })?;
        let published = open.state.publish(prepared.committed.revision, now);
        drop(open);
        published.wakeups.wake();
        Ok(prepared.committed)
    }

    fn expire(&self) {
        let now = self.now();
        loop {
            let mut open = self.state.write();
            if open.closed {
                return;
            }
            let Some(prepared) = open.state.expire(now, EXPIRY_BATCH) else { return };
            let published = open.state.publish(prepared.committed.revision, now);
            drop(open);
            published.wakeups.wake();
        }
    }

    fn reading<T>(&self, read: impl FnOnce(&State) -> T) -> Result<T, StoreError> {
        let open = self.state.read();
        if open.closed { Err(StoreError::Closed) } else { Ok(read(&open.state)) }
    }

    /// Whether the expiring thread has work left; notes that it ends where it has none.
    fn goes_on_expiring(&self) -> bool {
        let mut expiring = self.expiring.lock();
        let open = self.state.read();
        *expiring = !open.closed && open.state.next_expiry().is_some();
        *expiring
    }
}

fn ensure_expiring(inner: &Arc<Inner>) {
    let mut expiring = inner.expiring.lock();
    if *expiring {
        return;
    }
    let weak = Arc::downgrade(inner);
    let spawned = std::thread::Builder::new().name("store-expiry".into()).spawn(move || expire_until_done(&weak));
    // Without the thread keys only stay longer; the next commit tries again.
    *expiring = spawned.is_ok();
}

fn expire_until_done(inner: &Weak<Inner>) {
    loop {
        std::thread::sleep(EXPIRY_INTERVAL);
        let Some(inner) = inner.upgrade() else { return };
        inner.expire();
        if !inner.goes_on_expiring() {
            return;
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn revision(&self) -> Revision {
        self.inner.state.read().state.visible()
    }

    fn oldest(&self) -> Revision {
        self.inner.state.read().state.floor()
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.inner.reading(|state| state.get(key).cloned())
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage, StoreError> {
        self.inner.reading(|state| state.list(&request))?
    }

    async fn count(&self, prefix: &str) -> Result<usize, StoreError> {
        self.inner.reading(|state| state.count(prefix))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let expires =
            transaction.writes.iter().any(|write| matches!(write, crate::port::Write::Put { ttl: Some(_), .. }));
        let committed = self.inner.commit(&transaction)?;
        if expires {
            ensure_expiring(&self.inner);
        }
        Ok(committed)
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let mut open = self.inner.state.write();
        if open.closed {
            return Err(StoreError::Closed);
        }
        Ok(Box::new(open.state.watch(prefix, after)?))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let dropped = self.inner.state.write().state.compact(revision)?;
        drop(dropped);
        Ok(())
    }

    fn stats(&self) -> StoreStats {
        let open = self.inner.state.read();
        StoreStats {
            keys: open.state.keys(),
            value_bytes: open.state.value_bytes(),
            history: open.state.history_len(),
            ..StoreStats::default()
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        let wakeups = {
            let mut open = self.inner.state.write();
            open.closed = true;
            open.state.close()
        };
        wakeups.wake();
        Ok(())
    }
}
