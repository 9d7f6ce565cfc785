//! Compacts etcd's history every few minutes to what is older than that.
//!
//! All processes over one prefix share a key that holds the revision of the last round. Who replaces it compacts; who finds it
//! replaced takes over the round of the other. Invariant: what is compacted is at least one interval old.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::layout::{Layout, number, revision};
use crate::rpc::{
    self, CompactionRequest, CompactionResponse, Compare, CompareResult, CompareTarget, PutRequest, RangeRequest,
    Request, RequestOp, Response, Target, TxnRequest, TxnResponse,
};
use crate::servers::{Effect, Servers};

/// The task that compacts.
pub(crate) struct Compaction {
    pub(crate) servers: Arc<Servers>,
    pub(crate) layout: Arc<Layout>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

/// A round: how often the key was written by then, and etcd's revision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Round {
    version: i64,
    revision: i64,
}

impl Compaction {
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut round = Round::default();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.interval) => {}
            }
            match self.step(round).await {
                Ok(next) => round = next,
                Err(failure) => tracing::warn!(why = %failure.into_store_error(), "etcd's history was not compacted"),
            }
        }
    }

    /// One round after another one.
    pub(crate) async fn step(&self, round: Round) -> Result<Round, Failure> {
        let key = self.layout.internal("compaction");
        let compare = Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Version as i32,
            key: key.clone(),
            target_union: Some(Target::Version(round.version)),
        };
        let value = Bytes::from(round.revision.to_string());
        let put = Request::Put(PutRequest { key: key.clone(), value, lease: 0 });
        let range = Request::Range(RangeRequest { key, ..RangeRequest::default() });
        let operation = |request| vec![RequestOp { request: Some(request) }];
        let request = TxnRequest { compare: vec![compare], success: operation(put), failure: operation(range) };
        // Twice is harmless: the second one finds the key replaced.
        let answer: TxnResponse = self.servers.call(rpc::TXN, request, Effect::None, self.timeout).await?;
        let now = answer.header.as_ref().map_or(0, |header| header.revision);
        if !answer.succeeded {
            return Ok(Round { version: found_version(&answer), revision: now });
        }
        if round.revision > 0 {
            compact(&self.servers, round.revision, self.timeout).await?;
        }
        Ok(Round { version: round.version + 1, revision: now })
    }
}

fn found_version(answer: &TxnResponse) -> i64 {
    match answer.responses.first().and_then(|response| response.response.as_ref()) {
        Some(Response::Range(found)) => found.kvs.first().map_or(0, |kv| kv.version),
        _ => 0,
    }
}

/// Compacts to `to`. What is compacted already is fine.
pub(crate) async fn compact(servers: &Servers, to: i64, timeout: Duration) -> Result<(), Failure> {
    let request = CompactionRequest { revision: to };
    let compacted = servers.call(rpc::COMPACT, request, Effect::None, timeout).await;
    match compacted.map(|_: CompactionResponse| ()) {
        Err(Failure::Compacted) => Ok(()),
        Ok(()) => {
            tracing::debug!(revision = number(revision(to)), "etcd's history is compacted");
            Ok(())
        }
        other => other,
    }
}
