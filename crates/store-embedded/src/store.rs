//! The store: the port's operations over the shared state and the writer.
//!
//! Reads come from memory and wait for nobody. Invariant: an answer leaves only when what it says is visible to everybody,
//! except that of a relaxed commit behind a slow disk, which is released after [`RELAXED_PATIENCE`].

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kedge_meta::{Clock, SystemClock};
use kedge_store::{
    CommitError, Committed, HistoryLimits, Key, Latency, ListPage, ListRequest, Record, Revision, Store, StoreError,
    StoreStats, Transaction, Watch,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use crate::engine::Engine;
use crate::error::EmbeddedError;

use crate::lock::Lock;
use crate::queue::Queue;
use crate::recovery::{Recovered, recover};
use crate::shared::{Core, Phase, Shared, Submitted, Waiting};
use crate::writer::{Reopen, Writer};

/// How long the answer of a relaxed commit waits for durable commits before it. Longer than a healthy disk takes for a
/// sync, and much shorter than a lease's renewal deadline: a disk that stalls must not cost anybody a lease.
const RELAXED_PATIENCE: Duration = Duration::from_millis(50);

/// How an embedded store is run.
#[derive(Clone)]
pub struct Options {
    /// How much history is kept, in memory and on disk.
    pub limits: HistoryLimits,
    /// Where the time of expiries comes from.
    pub clock: Arc<dyn Clock>,
    /// Within which a relaxed commit is on disk, if no durable one takes it there sooner.
    pub relaxed_delay: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let (limits, relaxed_delay) = (HistoryLimits::default(), Duration::from_secs(1));
        Self { limits, clock: Arc::new(SystemClock), relaxed_delay }
    }
}

/// A durable store in a directory of its own. Dropping it closes it.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedStore {
    /// Opens the store in the directory `path`, or makes it. Blocks while it reads what is there.
    ///
    /// # Errors
    /// [`EmbeddedError::Locked`] where another process has it; others where the directory or its data cannot be used.
    pub fn open(path: &Path, options: Options) -> Result<Self, EmbeddedError> {
        let lock = Lock::take(path)?;
        let again = path.to_owned();
        let reopen: Reopen = Box::new(move || Engine::open(&again));
        Self::start(Engine::open(path)?, reopen, Some(lock), path, options)
    }

    pub(crate) fn start(
        engine: Engine,
        reopen: Reopen,
        lock: Option<Lock>,
        path: &Path,
        options: Options,
    ) -> Result<Self, EmbeddedError> {
        let Options { limits, clock, relaxed_delay } = options;
        let started = Instant::now();
        let now = clock.now().as_millisecond().max(0) as u64;
        let Recovered { state, gaps, ceiling } = recover(&engine, path, limits, now)?;
        tracing::info!(
            keys = state.keys(),
            revision = state.head().0,
            took_ms = started.elapsed().as_millis() as u64,
            "the store is open"
        );
        let shared = Arc::new(Shared {
            core: RwLock::new(Core { state, gaps, ceiling, phase: Phase::Running, failure: None }),
            queue: Queue::default(),
            latency: Mutex::new(Latency::default()),
            clock,
            relaxed_delay,
            ended: watch::Sender::new(false),
        });
        let writer = Writer { shared: Arc::clone(&shared), engine, reopen, lock };
        let builder = std::thread::Builder::new().name("store-writer".into());
        let thread = builder.spawn(move || writer.run()).map_err(EmbeddedError::Thread)?;
        Ok(Self { shared, writer: Mutex::new(Some(thread)) })
    }

    /// Deletes the keys whose time has passed. Done by itself when they are due.
    pub fn expire(&self) {
        self.shared.expire();
    }

    /// Why the storage fails, if it does: the store then serves reads and refuses writes, and tries again by itself.
    pub fn failure(&self) -> Option<String> {
        self.shared.core.read().failure.clone()
    }

    fn reading<T>(&self, read: impl FnOnce(&Core) -> T) -> Result<T, StoreError> {
        let core = self.shared.core.read();
        core.check_readable()?;
        Ok(read(&core))
    }

    /// Waits until `at` is visible where it is on its way.
    async fn settle(&self, at: Revision) -> Result<(), StoreError> {
        let answer = {
            let core = self.shared.core.read();
            if core.check_writable().is_err() || at <= core.state.visible() || at > core.state.head() {
                return Ok(());
            }
            self.shared.wait_for_queue()
        };
        written(answer).await
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.shared.begin_close();
        if let Some(writer) = self.writer.lock().take() {
            // A panic of the writer has been reported where it happened.
            let _ = writer.join();
        }
    }
}

/// Waits for the writer.
async fn written(answer: oneshot::Receiver<Result<(), String>>) -> Result<(), StoreError> {
    match answer.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err(StoreError::Storage(failure)),
        Err(_) => Err(StoreError::Storage("the store's writer failed".into())),
    }
}

impl Shared {
    async fn wait(&self, waiting: Waiting) -> Result<Committed, CommitError> {
        let Waiting { outcome, answer, releasable } = waiting;
        match releasable {
            None => written(answer).await?,
            Some(revision) => match tokio::time::timeout(RELAXED_PATIENCE, written(answer)).await {
                Ok(written) => written?,
                Err(_) => self.core.write().state.release(revision),
            },
        }
        outcome
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    fn revision(&self) -> Revision {
        self.shared.core.read().state.visible()
    }

    fn oldest(&self) -> Revision {
        self.shared.core.read().state.floor()
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.reading(|core| core.state.get(key).cloned())
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage, StoreError> {
        if let Some(at) = request.at {
            self.settle(at).await?;
        }
        self.reading(|core| {
            request.at.map_or(Ok(()), |at| core.gaps.check(&request.prefix, at))?;
            core.state.list(&request)
        })?
    }

    async fn count(&self, prefix: &str) -> Result<usize, StoreError> {
        self.reading(|core| core.state.count(prefix))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        match self.shared.submit(&transaction) {
            Submitted::Answered(outcome) => outcome,
            Submitted::Waits(waiting) => self.shared.wait(waiting).await,
        }
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let mut core = self.shared.core.write();
        core.check_readable()?;
        core.gaps.check(prefix, after)?;
        Ok(Box::new(core.state.watch(prefix, after)?))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let mut core = self.shared.core.write();
        core.check_writable()?;
        let before = core.state.floor();
        let dropped = core.state.compact(revision)?;
        if core.state.floor() > before {
            self.shared.supersede(&core, &dropped);
        }
        Ok(())
    }

    fn stats(&self) -> StoreStats {
        let core = self.shared.core.read();
        let state = &core.state;
        let (keys, value_bytes, history) = (state.keys(), state.value_bytes(), state.history_len());
        drop(core);
        let mut latency = self.shared.latency.lock();
        let (last_sync, slowest_sync) = (latency.last(), latency.slowest(Instant::now()));
        StoreStats { keys, value_bytes, history, last_sync, slowest_sync }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.shared.begin_close();
        let mut ended = self.shared.ended.subscribe();
        // The sender lives as long as the store.
        let _ = ended.wait_for(|ended| *ended).await;
        match &self.shared.core.read().failure {
            Some(failure) => Err(StoreError::Storage(failure.clone())),
            None => Ok(()),
        }
    }
}
