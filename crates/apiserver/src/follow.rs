//! A part of the store, followed by looks: what happened since the last look is told at the next one, and nothing runs in
//! between.
//!
//! Invariant: what was told, put together, is the part as the store had it at one revision, which is not older than the
//! one that was asked for.

use futures::FutureExt;
use kedge_store::{Change, ChangeKind, Key, ListRequest, Record, Revision, Store, StoreError, Watch};

/// How many changes are taken from the store at once.
const BATCH: usize = 1024;

/// What is told.
pub(crate) enum News<'a> {
    /// Nothing that was told before counts any more.
    Anew,
    /// A record is there, in the place of the one with its key.
    There(&'a Record),
    /// The record with this key has gone.
    Gone(&'a Key),
}

/// Who follows the records of a prefix.
pub(crate) struct Follow {
    prefix: String,
    revision: Revision,
    watch: Option<Box<dyn Watch>>,
}

impl Follow {
    /// Nothing has been told yet.
    pub(crate) fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), revision: Revision::default(), watch: None }
    }

    /// The revision of what has been told.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Tells what happened up to `revision`, which the store has, and maybe more.
    pub(crate) async fn catch_up(
        &mut self,
        store: &dyn Store,
        revision: Revision,
        tell: &mut (dyn FnMut(News<'_>) + Send),
    ) -> Result<(), StoreError> {
        if self.watch.is_some() && self.revision >= revision {
            return Ok(());
        }
        if self.drain(tell) { Ok(()) } else { self.begin_anew(store, tell).await }
    }

    /// `false` where the store has forgotten what came next.
    fn drain(&mut self, tell: &mut (dyn FnMut(News<'_>) + Send)) -> bool {
        let Some(watch) = &mut self.watch else { return false };
        while let Some(changes) = watch.next(BATCH).now_or_never() {
            let Ok(changes) = changes else {
                self.watch = None;
                return false;
            };
            for change in changes {
                tell(news(&change));
                self.revision = self.revision.max(change.revision);
            }
        }
        self.revision = self.revision.max(watch.progress());
        true
    }

    async fn begin_anew(
        &mut self,
        store: &dyn Store,
        tell: &mut (dyn FnMut(News<'_>) + Send),
    ) -> Result<(), StoreError> {
        let page = store.list(ListRequest { prefix: self.prefix.clone(), ..ListRequest::default() }).await?;
        let watch = store.watch(&self.prefix, page.revision)?;
        tell(News::Anew);
        page.records.iter().for_each(|record| tell(News::There(record)));
        (self.revision, self.watch) = (page.revision, Some(watch));
        Ok(())
    }
}

fn news(change: &Change) -> News<'_> {
    match change.kind {
        ChangeKind::Deleted => News::Gone(&change.record.key),
        _ => News::There(&change.record),
    }
}
