//! Proves that the copy has everything that anybody was told: asks etcd for its revision, and waits until that is here.
//!
//! Calls that come while a question is on its way share the next one, so reads cost etcd one question for as many of them as
//! there are. Where the revision belongs to somebody else's keys the watch does not show it; then a key of the store's own
//! is written, whose event proves it. (etcd's answer to a progress request would be cheaper, but up to 3.4.30 and 3.5.12 it
//! may come before events that belong before it.) Invariant: a question is asked after the calls that use its answer came.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kedge_store::{Revision, State, StoreError};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::copy::Copy;
use crate::layout::{Layout, revision};
use crate::rpc::{self, PutRequest, RangeRequest, RangeResponse, Request, RequestOp, TxnRequest, TxnResponse};
use crate::servers::{Effect, Servers};

/// How long the watch may take before the store asks whether it has more to say. Events need a millisecond or two.
const PATIENCE: Duration = Duration::from_millis(25);

/// How long to wait for the event of a key written for that, before another one is written.
const BARRIER_PATIENCE: Duration = Duration::from_secs(1);

/// The proof.
pub(crate) struct Fresh {
    pub(crate) servers: Arc<Servers>,
    pub(crate) layout: Arc<Layout>,
    pub(crate) copy: Arc<Copy>,
    pub(crate) timeout: Duration,
    /// How many questions were begun.
    begun: AtomicU64,
    /// The last question's number and answer.
    last: Mutex<(u64, Result<Revision, StoreError>)>,
    /// Held by who writes a barrier.
    barrier: Mutex<()>,
}

impl Fresh {
    pub(crate) fn new(servers: Arc<Servers>, layout: Arc<Layout>, copy: Arc<Copy>, timeout: Duration) -> Self {
        let (begun, last, barrier) = (AtomicU64::new(0), Mutex::new((0, Err(StoreError::Closed))), Mutex::new(()));
        Self { servers, layout, copy, timeout, begun, last, barrier }
    }

    /// Waits until everything is visible that anybody was told before this call.
    pub(crate) async fn ensure(&self) -> Result<Revision, StoreError> {
        let head = self.head().await?;
        if self.copy.read(State::visible) < head {
            self.catch_up(head).await?;
        }
        Ok(self.copy.read(State::visible))
    }

    /// The revision of etcd at some time after this call began.
    async fn head(&self) -> Result<Revision, StoreError> {
        let before = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        if last.0 > before {
            return last.1.clone();
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let key = self.layout.internal("barrier");
        let question = RangeRequest { key, count_only: true, ..RangeRequest::default() };
        let answer = self.servers.call(rpc::RANGE, question, Effect::None, self.timeout).await;
        let answer = answer.map(|answer: RangeResponse| revision(answer.header.map_or(0, |header| header.revision)));
        let answer = answer.map_err(|failure| match failure.into_store_error() {
            // A read has no outcome that could be unknown.
            StoreError::Timeout(why) => StoreError::Unavailable(why),
            error => error,
        });
        *last = (number, answer.clone());
        answer
    }

    async fn catch_up(&self, head: Revision) -> Result<(), StoreError> {
        // A key that is not there yet may be watched from here.
        self.copy.changing(|state| state.expect(head))?;
        let deadline = Instant::now() + self.timeout;
        if self.copy.reaches(head, PATIENCE).await {
            return Ok(());
        }
        while Instant::now() < deadline {
            let _writing = self.barrier.lock().await;
            if self.copy.read(State::visible) >= head {
                return Ok(());
            }
            self.write_barrier().await?;
            if self.copy.reaches(head, BARRIER_PATIENCE).await {
                return Ok(());
            }
        }
        Err(StoreError::Unavailable("the watch of etcd does not keep up".to_owned()))
    }

    async fn write_barrier(&self) -> Result<(), StoreError> {
        let put = PutRequest { key: self.layout.internal("barrier"), ..PutRequest::default() };
        let success = vec![RequestOp { request: Some(Request::Put(put)) }];
        let write = TxnRequest { success, ..TxnRequest::default() };
        let written = self.servers.call(rpc::TXN, write, Effect::None, self.timeout).await;
        let answer: TxnResponse = written.map_err(crate::failure::Failure::into_store_error)?;
        let at = revision(answer.header.map_or(0, |header| header.revision));
        self.copy.changing(|state| state.expect(at))
    }
}
