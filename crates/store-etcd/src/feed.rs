//! Keeps the copy as new as the etcd: loads what is there, then follows one watch of everything below the root.
//!
//! A watch that breaks is opened again behind what is here, on the next member. Where etcd has compacted that meanwhile, or
//! is not what it was (restored from a backup), everything is loaded anew. Invariant: what a message holds of a commit is
//! taken in only when the commit is complete.

use std::sync::Arc;
use std::time::Duration;

use kedge_store::{HistoryLimits, Record, Replayed, Revision, State};
use parking_lot::Mutex;
use rand::Rng;
use tokio_util::sync::CancellationToken;

use crate::copy::Copy;
use crate::failure::Failure;
use crate::layout::{Layout, number, revision};
use crate::rpc::{self, Event, EventType, RangeRequest, RangeResponse, WatchCreateRequest, WatchResponse};
use crate::servers::{Effect, Servers, WatchStream};

/// How many records one call loads.
const PAGE: i64 = 250;

/// The longest pause after a watch broke.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How long a member has to open a watch.
const OPEN_PATIENCE: Duration = Duration::from_secs(3);

/// The feed.
pub(crate) struct Feed {
    pub(crate) servers: Arc<Servers>,
    pub(crate) layout: Arc<Layout>,
    pub(crate) copy: Arc<Copy>,
    pub(crate) limits: HistoryLimits,
    pub(crate) read_timeout: Duration,
    /// Why the watch is down, while it is.
    pub(crate) failure: Arc<Mutex<Option<String>>>,
    /// The etcd that the copy is of.
    cluster: Mutex<u64>,
}

/// Why a watch ended.
#[derive(Debug)]
enum Ended {
    Broken(Failure),
    /// What comes next has been compacted, or never will come.
    Outdated,
}

impl Feed {
    pub(crate) fn new(
        servers: Arc<Servers>,
        layout: Arc<Layout>,
        copy: Arc<Copy>,
        limits: HistoryLimits,
        read_timeout: Duration,
    ) -> Self {
        let (failure, cluster) = (Arc::default(), Mutex::new(0));
        Self { servers, layout, copy, limits, read_timeout, failure, cluster }
    }

    /// Replaces the copy by what etcd holds where its history, or as much of it as is wanted, begins. Gives the revision up
    /// to which the watch must come before the copy is as new as etcd was.
    pub(crate) async fn load(&self) -> Result<Revision, Failure> {
        loop {
            let (head, cluster) = self.head().await?;
            let wanted = Revision(head.0.saturating_sub(self.limits.changes as u64));
            let from = self.compacted().await?.max(wanted);
            // Nothing is older than revision one, so the whole history is there.
            let from = if from.0 <= 1 { Revision(0) } else { from };
            match self.records(from).await {
                Ok(records) => {
                    *self.cluster.lock() = cluster;
                    self.copy.reset(records, from);
                    return Ok(head);
                }
                // Compacted between the question and the answer.
                Err(Failure::Compacted) => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Etcd's revision, and which etcd it is.
    async fn head(&self) -> Result<(Revision, u64), Failure> {
        let probe = RangeRequest { key: self.layout.internal("barrier"), count_only: true, ..RangeRequest::default() };
        let answer: RangeResponse = self.servers.call(rpc::RANGE, probe, Effect::None, self.read_timeout).await?;
        let header = answer.header.unwrap_or_default();
        Ok((revision(header.revision), header.cluster_id))
    }

    /// The revision that etcd has compacted; the first one where it has none.
    async fn compacted(&self) -> Result<Revision, Failure> {
        let key = self.layout.internal("barrier");
        let first = RangeRequest { key: key.clone(), count_only: true, revision: 1, ..RangeRequest::default() };
        let asked = self.servers.call(rpc::RANGE, first, Effect::None, self.read_timeout).await;
        match asked.map(|_: RangeResponse| ()) {
            Ok(()) => return Ok(Revision(1)),
            Err(Failure::Compacted) => {}
            Err(failure) => return Err(failure),
        }
        // Only a watch that comes too late is told the number.
        let create = WatchCreateRequest { key, start_revision: 1, ..WatchCreateRequest::default() };
        let mut stream = self.servers.watch(create, OPEN_PATIENCE).await?;
        loop {
            let message = tokio::time::timeout(OPEN_PATIENCE, stream.responses.message()).await;
            let message = message.map_err(|_| Failure::Unclear("a watch is not answered".to_owned()))?;
            match message.map_err(|status| Failure::of(&status))? {
                Some(response) if response.compact_revision > 0 => return Ok(revision(response.compact_revision)),
                Some(response) if response.created && !response.canceled => {}
                _ => return Err(Failure::Unclear("a watch ended without a word".to_owned())),
            }
        }
    }

    /// Every record as of `at`.
    async fn records(&self, at: Revision) -> Result<Vec<Record>, Failure> {
        let mut records = Vec::new();
        if at == Revision(0) {
            return Ok(records);
        }
        let (mut key, range_end) = self.layout.range();
        loop {
            let request = RangeRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                limit: PAGE,
                revision: number(at),
                ..RangeRequest::default()
            };
            let page: RangeResponse = self.servers.call(rpc::RANGE, request, Effect::None, self.read_timeout).await?;
            records.extend(page.kvs.iter().filter_map(|kv| self.layout.read(kv)));
            let Some(last) = page.kvs.last().filter(|_| page.more) else { return Ok(records) };
            key = [&last.key[..], b"\0"].concat().into();
        }
    }

    /// Follows etcd until `shutdown`.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let following = async {
            let mut pause = FIRST_PAUSE;
            loop {
                let before = self.copy.read(State::visible);
                let failure = match self.follow().await {
                    Ended::Broken(failure) => failure,
                    Ended::Outdated => {
                        tracing::warn!(
                            revision = before.0,
                            "etcd's history does not reach back; reading everything anew"
                        );
                        match self.load().await {
                            Ok(_) => continue,
                            Err(failure) => failure,
                        }
                    }
                };
                if self.copy.read(State::visible) > before {
                    pause = FIRST_PAUSE;
                }
                self.note(Some(failure.into_store_error().to_string()));
                let pause_now = pause.mul_f64(rand::rng().random_range(0.5..1.0));
                pause = (pause * 2).min(LONGEST_PAUSE);
                tokio::time::sleep(pause_now).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = following => {}
        }
    }

    /// Says once why the watch is down, and once that it is up again.
    fn note(&self, failure: Option<String>) {
        let mut noted = self.failure.lock();
        match (&*noted, &failure) {
            (None, Some(why)) => tracing::warn!(%why, "the watch of etcd broke; opening it again"),
            (Some(_), None) => tracing::info!("the watch of etcd is open again"),
            _ => {}
        }
        *noted = failure;
    }

    /// Opens a watch behind what is here and takes in what it delivers, until it ends.
    async fn follow(&self) -> Ended {
        let after = self.copy.read(State::visible);
        // An etcd that is behind would keep the watch waiting for revisions that mean something else.
        match self.head().await {
            Ok((head, cluster)) if head < after || cluster != *self.cluster.lock() => {
                tracing::error!(head = head.0, seen = after.0, "etcd is not what it was; was it restored?");
                return Ended::Outdated;
            }
            Ok(_) => {}
            Err(failure) => return Ended::Broken(failure),
        }
        let (key, range_end) = self.layout.range();
        let start_revision = number(after) + 1;
        let create = WatchCreateRequest { key, range_end, start_revision, progress_notify: true, fragment: true };
        match self.servers.watch(create, OPEN_PATIENCE).await {
            Ok(stream) => self.drain(stream).await,
            Err(failure) => Ended::Broken(failure),
        }
    }

    async fn drain(&self, mut stream: WatchStream) -> Ended {
        let mut unfinished = Vec::new();
        loop {
            let broken = match stream.responses.message().await {
                Ok(Some(response)) if response.compact_revision > 0 => return Ended::Outdated,
                Ok(Some(response)) if response.canceled => {
                    Failure::Unclear(format!("the watch was cancelled: {}", response.cancel_reason))
                }
                Ok(Some(response)) => {
                    self.take_in(response, &mut unfinished);
                    continue;
                }
                Ok(None) => Failure::Unclear("the watch ended".to_owned()),
                Err(status) => Failure::of(&status),
            };
            self.servers.leave(stream.at);
            return Ended::Broken(broken);
        }
    }

    fn take_in(&self, response: WatchResponse, unfinished: &mut Vec<Event>) {
        if response.created {
            return self.note(None);
        }
        let is_progress = response.events.is_empty() && unfinished.is_empty() && !response.fragment;
        unfinished.extend(response.events);
        if is_progress {
            return self.copy.advance(revision(response.header.map_or(0, |header| header.revision)));
        }
        let commits = take_commits(&self.layout, unfinished, response.fragment);
        self.copy.absorb(commits);
    }
}

/// The complete commits of what was delivered. The last one stays where more of it may come.
fn take_commits(layout: &Layout, events: &mut Vec<Event>, more_to_come: bool) -> Vec<(Revision, Vec<Replayed>)> {
    let revision_of = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
    let complete = match events.last().map(revision_of) {
        Some(last) if more_to_come => events.partition_point(|event| revision_of(event) < last),
        _ => events.len(),
    };
    let taken: Vec<_> = events.drain(..complete).collect();
    let commits = taken.chunk_by(|a, b| revision_of(a) == revision_of(b));
    commits.map(|commit| (revision(revision_of(&commit[0])), writes(layout, commit))).collect()
}

fn writes(layout: &Layout, events: &[Event]) -> Vec<Replayed> {
    let write = |event: &Event| {
        let kv = event.kv.as_ref()?;
        if event.r#type == EventType::Delete as i32 {
            let key = layout.read_key(&kv.key)?;
            return Some(Replayed::Delete { key, revision: revision(kv.mod_revision) });
        }
        layout.read(kv).map(|record| Replayed::Put { record, expires: None })
    };
    events.iter().filter_map(write).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::rpc::KeyValue;

    fn event(key: &'static str, modified: i64) -> Event {
        let key = Bytes::from_static(key.as_bytes());
        let kv = KeyValue { key, create_revision: modified, mod_revision: modified, ..KeyValue::default() };
        Event { r#type: EventType::Put as i32, kv: Some(kv) }
    }

    fn check(events: &[Event], more_to_come: bool, taken: &[(u64, usize)], left: usize) {
        let mut events = events.to_vec();
        let commits = take_commits(&Layout::new("", "/k"), &mut events, more_to_come);
        let shown: Vec<_> = commits.iter().map(|(revision, writes)| (revision.0, writes.len())).collect();
        assert_eq!((shown.as_slice(), events.len()), (taken, left));
    }

    #[test]
    fn commits_are_taken_whole() {
        let events = [event("/k/a", 2), event("/k/b", 2), event("/k/.kedge/barrier", 3), event("/k/a", 5)];
        check(&events, false, &[(2, 2), (3, 0), (5, 1)], 0);
        check(&events, true, &[(2, 2), (3, 0)], 1);
        check(&events[..2], true, &[], 2);
        check(&[], true, &[], 0);
    }
}
