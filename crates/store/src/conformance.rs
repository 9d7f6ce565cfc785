//! The conformance suite: what every backend must show, one test for each word of the contract.
//!
//! A backend's tests call [`crate::conformance!`], which makes one test for each case. The suite sleeps nowhere: time is
//! the backend's clock, and what must come is awaited with a deadline.

mod commits;
mod durability;
mod history;
mod model;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::history::HistoryLimits;
use crate::port::{
    Change, ChangeKind, CommitError, Committed, Condition, Durability, Expect, Key, ListPage, ListRequest, Record,
    Revision, Store, Template, Transaction, Watch, WatchError, Write,
};

/// How long a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(20);

/// A backend under test.
#[async_trait]
pub trait Backend: Send {
    /// Opens the store: the first time an empty one, later (where it is durable) with what is there. The store before
    /// is closed and dropped by then.
    async fn open(&mut self, limits: HistoryLimits) -> Arc<dyn Store>;

    /// Whether what is committed is there again after [`Backend::open`].
    fn durable(&self) -> bool;

    /// Moves the store's clock and lets it delete what is due by then.
    fn advance(&self, by: Duration);
}

/// Makes one `#[tokio::test]` for each case of the suite. Takes an expression that makes a fresh backend, and where the
/// backend needs what a machine may lack, a function that says whether the case of a name is to be skipped.
#[macro_export]
macro_rules! conformance {
    ($backend:expr) => {
        $crate::conformance! { $backend, |_: &str| false }
    };
    ($backend:expr, $skipped:expr) => {
        $crate::conformance! { @cases $backend, $skipped;
            ordered, unique, reliable, atomic, resumable, bookmarkable,
            conditional_commits, commits_of_several_keys, no_change_no_revision, spliced_revision, racing_commits,
            lists_by_prefix, limit_and_continue, lists_in_the_past, future_revision,
            compaction, bounded_history, lagging_watch, time_to_live,
            relaxed_durability, monotonic_revision, reopening, resumable_after_reopening, closing, model
        }
    };
    (@cases $backend:expr, $skipped:expr; $($case:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let skipped: fn(&str) -> bool = $skipped;
                if skipped(stringify!($case)) {
                    return;
                }
                $crate::run_conformance(&mut $backend, stringify!($case)).await;
            }
        )+
    };
}

/// Runs one case by its name. Panics where the backend does not pass.
pub async fn run_conformance(backend: &mut dyn Backend, case: &str) {
    match case {
        "ordered" => watches::ordered(backend).await,
        "unique" => watches::unique(backend).await,
        "reliable" => watches::reliable(backend).await,
        "atomic" => watches::atomic(backend).await,
        "resumable" => watches::resumable(backend).await,
        "bookmarkable" => watches::bookmarkable(backend).await,
        "conditional_commits" => commits::conditional_commits(backend).await,
        "commits_of_several_keys" => commits::commits_of_several_keys(backend).await,
        "no_change_no_revision" => commits::no_change_no_revision(backend).await,
        "spliced_revision" => commits::spliced_revision(backend).await,
        "racing_commits" => commits::racing_commits(backend).await,
        "lists_by_prefix" => history::lists_by_prefix(backend).await,
        "limit_and_continue" => history::limit_and_continue(backend).await,
        "lists_in_the_past" => history::lists_in_the_past(backend).await,
        "future_revision" => history::future_revision(backend).await,
        "compaction" => history::compaction(backend).await,
        "bounded_history" => history::bounded_history(backend).await,
        "lagging_watch" => history::lagging_watch(backend).await,
        "time_to_live" => durability::time_to_live(backend).await,
        "relaxed_durability" => durability::relaxed_durability(backend).await,
        "monotonic_revision" => durability::monotonic_revision(backend).await,
        "reopening" => durability::reopening(backend).await,
        "resumable_after_reopening" => durability::resumable_after_reopening(backend).await,
        "closing" => durability::closing(backend).await,
        "model" => model::model(backend).await,
        other => panic!("there is no case {other}"),
    }
}

async fn open(backend: &mut dyn Backend) -> Arc<dyn Store> {
    backend.open(HistoryLimits::default()).await
}

async fn reopen(backend: &mut dyn Backend, store: Arc<dyn Store>) -> Arc<dyn Store> {
    store.close().await.expect("the store closes");
    drop(store);
    open(backend).await
}

fn write(key: &str, value: &str) -> Write {
    let value = Template { bytes: Bytes::copy_from_slice(value.as_bytes()), splice_at: None };
    Write::Put { key: Key::new(key), value, ttl: None }
}

fn removal(key: &str) -> Write {
    Write::Delete { key: Key::new(key) }
}

fn expecting(key: &str, expect: Expect) -> Condition {
    Condition { key: Key::new(key), expect }
}

async fn commit(store: &dyn Store, writes: Vec<Write>) -> Committed {
    commit_if(store, Vec::new(), writes).await.expect("a commit without conditions goes through")
}

async fn commit_if(
    store: &dyn Store,
    conditions: Vec<Condition>,
    writes: Vec<Write>,
) -> Result<Committed, CommitError> {
    let commit = store.commit(Transaction { conditions, writes, durability: Durability::Durable });
    tokio::time::timeout(DEADLINE, commit).await.expect("a commit is answered")
}

async fn put(store: &dyn Store, key: &str, value: &str) -> Record {
    commit(store, vec![write(key, value)]).await.records.remove(0)
}

async fn delete(store: &dyn Store, key: &str) -> Revision {
    commit(store, vec![removal(key)]).await.revision
}

async fn get(store: &dyn Store, key: &str) -> Option<Record> {
    store.get(&Key::new(key)).await.expect("a get is answered")
}

async fn list(store: &dyn Store, prefix: &str, at: Option<Revision>) -> ListPage {
    let request = ListRequest { prefix: prefix.to_owned(), at, ..ListRequest::default() };
    store.list(request).await.expect("a list is answered")
}

fn watch(store: &dyn Store, prefix: &str, after: Revision) -> Box<dyn Watch> {
    store.watch(prefix, after).expect("a watch starts")
}

/// The next batch of a watch.
async fn batch(watch: &mut dyn Watch, limit: usize) -> Result<Vec<Arc<Change>>, WatchError> {
    tokio::time::timeout(DEADLINE, watch.next(limit)).await.expect("the watch delivers")
}

/// At least `count` changes of a watch.
async fn take(watch: &mut dyn Watch, count: usize) -> Vec<Arc<Change>> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(batch(watch, 7).await.expect("the watch goes on"));
    }
    all
}

/// Whether a watch has nothing to deliver now.
async fn is_idle(watch: &mut dyn Watch) -> bool {
    tokio::time::timeout(Duration::ZERO, watch.next(1)).await.is_err()
}

fn text(record: &Record) -> &str {
    std::str::from_utf8(&record.value).expect("the suite writes text")
}

/// A change as text: `+` created, `~` modified, `-` deleted.
fn shown(changes: &[Arc<Change>]) -> Vec<String> {
    let show = |change: &Arc<Change>| {
        let sign = match change.kind {
            ChangeKind::Created => '+',
            ChangeKind::Modified => '~',
            ChangeKind::Deleted => '-',
        };
        format!("{sign}{}={}", change.record.key.as_str(), text(&change.record))
    };
    changes.iter().map(show).collect()
}

/// Records as text.
fn listed(page: &ListPage) -> Vec<String> {
    page.records.iter().map(|record| format!("{}={}", record.key.as_str(), text(record))).collect()
}
