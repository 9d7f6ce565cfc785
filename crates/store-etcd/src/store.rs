//! The store: the port's operations over the copy and the etcd.
//!
//! Reads come from the copy, once it is proven fresh; commits are etcd's transactions. Invariant: an answer leaves only when
//! what it says is durable in etcd and visible here, except that a commit's answer does not wait for a watch that is down.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kedge_store::{
    CommitError, Committed, Key, Latency, ListPage, ListRequest, Record, Revision, State, Store, StoreError,
    StoreStats, Transaction, Watch, Write,
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::compaction::{self, Compaction};
use crate::copy::Copy;
use crate::failure::Failure;
use crate::feed::Feed;
use crate::fresh::Fresh;
use crate::layout::{Layout, number};
use crate::leases::Leases;
use crate::options::{EtcdError, Options, Tls};
use crate::rpc;
use crate::servers::{Effect, Servers};
use crate::transaction::{Outcome, Plan};

/// How long a commit's answer waits for its commit to be visible here.
const VISIBLE_PATIENCE: Duration = Duration::from_secs(5);

/// How long the watch of an open store may take to deliver the past.
const OPEN_PATIENCE: Duration = Duration::from_secs(2);

/// Pause between attempts to open.
const OPEN_PAUSE: Duration = Duration::from_millis(200);

/// A store in an etcd. Dropping it ends what runs for it.
pub struct EtcdStore {
    servers: Arc<Servers>,
    layout: Arc<Layout>,
    copy: Arc<Copy>,
    fresh: Fresh,
    leases: Leases,
    latency: Mutex<Latency>,
    failure: Arc<Mutex<Option<String>>>,
    commit_timeout: Duration,
    shutdown: CancellationToken,
}

impl EtcdStore {
    /// New connections to the members use other certificates from now on.
    ///
    /// # Errors
    /// Where they cannot be used; those before stay.
    pub fn replace_tls(&self, tls: &Tls) -> Result<(), EtcdError> {
        self.servers.replace_tls(tls)
    }

    /// Connects, and reads what is there. Ends when the copy is as new as etcd was when this was called.
    ///
    /// # Errors
    /// [`EtcdError::NoAnswer`] where no server answers in time; others where the options make no sense.
    pub async fn open(options: Options) -> Result<Self, EtcdError> {
        let servers = Arc::new(Servers::new(&options)?);
        let layout = Arc::new(Layout::new(&options.within, &options.prefix));
        let copy = Arc::new(Copy::new(options.limits, options.clock.clone()));
        let (parts, timeout) = ((servers.clone(), layout.clone(), copy.clone()), options.read_timeout);
        let feed = Arc::new(Feed::new(parts.0, parts.1, parts.2, options.limits, timeout));
        let failure = feed.failure.clone();
        let shutdown = CancellationToken::new();
        let fresh = Fresh::new(servers.clone(), layout.clone(), copy.clone(), timeout);
        let store = Self {
            servers,
            layout,
            copy,
            fresh,
            leases: Leases::default(),
            latency: Mutex::default(),
            failure,
            commit_timeout: options.commit_timeout,
            shutdown,
        };
        store.start(feed, &options).await?;
        Ok(store)
    }

    async fn start(&self, feed: Arc<Feed>, options: &Options) -> Result<(), EtcdError> {
        let started = Instant::now();
        let no_answer = |why: String| EtcdError::NoAnswer {
            endpoints: self.servers.endpoints(),
            seconds: options.open_timeout.as_secs(),
            why,
        };
        let head = loop {
            match feed.load().await {
                Ok(head) => break head,
                Err(failure) if started.elapsed() + OPEN_PAUSE > options.open_timeout => {
                    return Err(no_answer(failure.into_store_error().to_string()));
                }
                Err(_) => tokio::time::sleep(OPEN_PAUSE).await,
            }
        };
        tokio::spawn(feed.run(self.shutdown.clone()));
        // The watch begins in the past, which takes etcd a moment; what does not come then is of somebody else's keys.
        self.copy.reaches(head, OPEN_PATIENCE).await;
        self.fresh.ensure().await.map_err(|error| no_answer(error.to_string()))?;
        if let Some(interval) = options.compaction_interval {
            let (servers, layout, timeout) = (self.servers.clone(), self.layout.clone(), self.commit_timeout);
            let compaction = Compaction { servers, layout, interval, timeout };
            tokio::spawn(compaction.run(self.shutdown.clone()));
        }
        let (keys, revision) = self.copy.read(|state| (state.keys(), state.visible().0));
        tracing::info!(keys, revision, took_ms = started.elapsed().as_millis() as u64, "the store in etcd is open");
        Ok(())
    }

    /// Why the store does not follow etcd, while it does not: reads and commits fail or wait then, and go on by themselves.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    async fn plan_leases(&self, transaction: &Transaction) -> Result<HashMap<Duration, i64>, Failure> {
        let mut leases = HashMap::new();
        for write in &transaction.writes {
            if let Write::Put { ttl: Some(ttl), .. } = write {
                let lease = self.leases.ensure(&self.servers, *ttl, self.commit_timeout).await?;
                leases.insert(*ttl, lease);
            }
        }
        Ok(leases)
    }

    async fn execute(&self, transaction: &Transaction) -> Result<Outcome, CommitError> {
        let mut may_forget = true;
        loop {
            let leases = self.plan_leases(transaction).await.map_err(Failure::into_store_error)?;
            let lease_of = |ttl| leases.get(&ttl).copied().unwrap_or_default();
            let plan = Plan::new(transaction, &self.layout, lease_of)?;
            let request = plan.request.clone();
            let started = Instant::now();
            match self.servers.call(rpc::TXN, request, Effect::Once, self.commit_timeout).await {
                Ok(answer) => {
                    self.latency.lock().record(Instant::now(), started.elapsed());
                    return Ok(plan.read(&answer)?);
                }
                // It expired, or went with a restored backup. Nothing happened.
                Err(Failure::NoLease) if may_forget => {
                    self.leases.forget();
                    may_forget = false;
                }
                Err(failure) => return Err(failure.into_store_error().into()),
            }
        }
    }

    /// What a commit that is done leaves to do here.
    async fn show(&self, revision: Revision, changes: Vec<kedge_store::Replayed>) {
        if changes.is_empty() {
            return;
        }
        self.copy.absorb_own(revision, changes);
        if !self.copy.reaches(revision, VISIBLE_PATIENCE).await {
            tracing::warn!(revision = revision.0, "a commit is in etcd and not yet visible here");
        }
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[async_trait]
impl Store for EtcdStore {
    fn revision(&self) -> Revision {
        self.copy.read(State::visible)
    }

    fn oldest(&self) -> Revision {
        self.copy.read(State::floor)
    }

    async fn refresh(&self) -> Result<Revision, StoreError> {
        self.copy.reading(|_| ())?;
        self.fresh.ensure().await
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.refresh().await?;
        self.copy.reading(|state| state.get(key).cloned())
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage, StoreError> {
        // What is visible here needs no proof to be a past.
        if request.at.is_none_or(|at| at > self.revision()) {
            self.refresh().await?;
        }
        self.copy.reading(|state| state.list(&request))?
    }

    async fn count(&self, prefix: &str) -> Result<usize, StoreError> {
        self.refresh().await?;
        self.copy.reading(|state| state.count(prefix))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        self.copy.reading(|_| ())?;
        match self.execute(&transaction).await? {
            Outcome::Done { revision, records, changes } => {
                self.show(revision, changes).await;
                Ok(Committed { revision, records })
            }
            Outcome::Refused(refusal) => Err(refusal),
        }
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(self.copy.changing(|state| state.watch(prefix, after))??))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.refresh().await?;
        let dropped = self.copy.changing(|state| state.compact(revision))??;
        drop(dropped);
        let compacted = compaction::compact(&self.servers, number(revision), self.commit_timeout).await;
        compacted.map_err(Failure::into_store_error)
    }

    fn stats(&self) -> StoreStats {
        let (keys, value_bytes, history) =
            self.copy.read(|state| (state.keys(), state.value_bytes(), state.history_len()));
        let mut latency = self.latency.lock();
        let (last_sync, slowest_sync) = (latency.last(), latency.slowest(Instant::now()));
        StoreStats { keys, value_bytes, history, last_sync, slowest_sync }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.copy.close();
        self.shutdown.cancel();
        Ok(())
    }
}
