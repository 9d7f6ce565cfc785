//! The copy in memory: the state that reads and watches are served from, and how far it got.
//!
//! It is fed from two sides: by the watch of etcd, and by this process's own commits, whose answers often come first.
//! Invariant: the visible revision moves on only over revisions that are completely known, in their order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kedge_meta::Clock;
use kedge_store::{HistoryLimits, Published, Record, Replayed, Revision, State, StoreError};
use parking_lot::RwLock;
use tokio::sync::watch;

/// The copy.
pub(crate) struct Copy {
    core: RwLock<Core>,
    clock: Arc<dyn Clock>,
    visible: watch::Sender<Revision>,
}

/// What the lock guards.
pub(crate) struct Core {
    pub(crate) state: State,
    pub(crate) closed: bool,
    /// Commits of this process that came before one that is still missing.
    early: BTreeMap<Revision, Vec<Replayed>>,
}

impl Copy {
    pub(crate) fn new(limits: HistoryLimits, clock: Arc<dyn Clock>) -> Self {
        let state = State::restore(limits, Revision(0));
        let visible = watch::Sender::new(state.visible());
        Self { core: RwLock::new(Core { state, closed: false, early: BTreeMap::new() }), clock, visible }
    }

    /// Milliseconds since the epoch.
    fn now(&self) -> u64 {
        self.clock.now().as_millisecond().max(0) as u64
    }

    /// Looks at the state.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.core.read().state)
    }

    /// Looks at the state of a store that is open.
    pub(crate) fn reading<T>(&self, look: impl FnOnce(&State) -> T) -> Result<T, StoreError> {
        let core = self.core.read();
        if core.closed { Err(StoreError::Closed) } else { Ok(look(&core.state)) }
    }

    /// Changes the state of a store that is open.
    pub(crate) fn changing<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, StoreError> {
        let mut core = self.core.write();
        if core.closed { Err(StoreError::Closed) } else { Ok(change(&mut core.state)) }
    }

    /// What etcd holds at `revision`, in the place of everything.
    pub(crate) fn reset(&self, records: Vec<Record>, revision: Revision) {
        let mut core = self.core.write();
        core.early.clear();
        let (wakeups, dropped) = core.state.reset(records, revision);
        let visible = core.state.visible();
        drop(core);
        wakeups.wake();
        drop(dropped);
        self.visible.send_replace(visible);
    }

    /// Commits that the watch delivers: whole ones, in their order, without one missing between them.
    pub(crate) fn absorb(&self, commits: Vec<(Revision, Vec<Replayed>)>) {
        let now = self.now();
        let mut published = Vec::with_capacity(commits.len());
        let mut core = self.core.write();
        for (revision, writes) in commits {
            published.push(core.state.absorb(revision, writes, now));
        }
        core.absorb_early(now, &mut published);
        self.finish(core, published);
    }

    /// A commit of this process, as soon as everything before it is here.
    pub(crate) fn absorb_own(&self, revision: Revision, writes: Vec<Replayed>) {
        let now = self.now();
        let mut published = Vec::new();
        let mut core = self.core.write();
        core.state.expect(revision);
        if revision > core.state.visible() {
            core.early.insert(revision, writes);
        }
        core.absorb_early(now, &mut published);
        self.finish(core, published);
    }

    /// Nothing of this store happened up to `revision` that is not here.
    pub(crate) fn advance(&self, revision: Revision) {
        let mut core = self.core.write();
        core.state.advance(revision);
        let mut published = Vec::new();
        core.absorb_early(self.now(), &mut published);
        self.finish(core, published);
    }

    fn finish(&self, core: parking_lot::RwLockWriteGuard<'_, Core>, published: Vec<Published>) {
        let visible = core.state.visible();
        drop(core);
        for Published { wakeups, dropped } in published {
            wakeups.wake();
            drop(dropped);
        }
        self.visible.send_if_modified(|seen| std::mem::replace(seen, visible.max(*seen)) < visible);
    }

    /// Waits until `revision` is visible; `false` where it is not by then.
    pub(crate) async fn reaches(&self, revision: Revision, within: Duration) -> bool {
        if self.read(State::visible) >= revision {
            return true;
        }
        let mut visible = self.visible.subscribe();
        let reached = visible.wait_for(|visible| *visible >= revision);
        tokio::time::timeout(within, reached).await.is_ok()
    }

    /// No more commits and reads; watches end after what they have not delivered.
    pub(crate) fn close(&self) {
        let mut core = self.core.write();
        core.closed = true;
        let wakeups = core.state.close();
        drop(core);
        wakeups.wake();
    }
}

impl Core {
    fn absorb_early(&mut self, now: u64, published: &mut Vec<Published>) {
        while let Some(first) = self.early.first_entry() {
            let visible = self.state.visible();
            if first.key().0 > visible.0 + 1 {
                return;
            }
            let (revision, writes) = first.remove_entry();
            // One that the watch has delivered meanwhile is left out there.
            published.push(self.state.absorb(revision, writes, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kedge_meta::SystemClock;
    use kedge_store::Key;

    use super::*;

    fn put(key: &str, revision: u64) -> Replayed {
        let (value, modified) = (Bytes::new(), Revision(revision));
        let record = Record { key: Key::new(key), value, splice_at: None, created: modified, modified };
        Replayed::Put { record, expires: None }
    }

    fn fresh() -> Copy {
        Copy::new(HistoryLimits::default(), Arc::new(SystemClock))
    }

    #[test]
    fn own_commits_wait_for_what_is_missing_before_them() {
        let copy = fresh();
        copy.absorb_own(Revision(2), vec![put("/a", 2)]);
        assert_eq!(copy.read(State::visible), Revision(2), "nothing can be missing");
        copy.absorb_own(Revision(5), vec![put("/c", 5)]);
        copy.absorb_own(Revision(4), vec![put("/b", 4)]);
        assert_eq!((copy.read(State::visible), copy.read(State::keys)), (Revision(2), 1));
        copy.absorb(vec![(Revision(3), vec![put("/d", 3)])]);
        assert_eq!((copy.read(State::visible), copy.read(State::keys)), (Revision(5), 4));
        copy.absorb(vec![(Revision(4), vec![put("/b", 4)]), (Revision(5), vec![put("/c", 5)])]);
        assert_eq!((copy.read(State::visible), copy.read(State::history_len)), (Revision(5), 4), "each one once");
    }

    #[test]
    fn progress_over_foreign_revisions_lets_own_commits_in() {
        let copy = fresh();
        copy.absorb_own(Revision(9), vec![put("/a", 9)]);
        assert_eq!(copy.read(State::visible), Revision(1));
        copy.advance(Revision(8));
        assert_eq!((copy.read(State::visible), copy.read(State::keys)), (Revision(9), 1));
    }

    #[test]
    fn after_a_reset_every_watcher_has_lagged() {
        let copy = fresh();
        copy.absorb(vec![(Revision(2), vec![put("/a", 2)])]);
        let mut level = copy.changing(|state| state.watch("/", Revision(2))).expect("open").expect("it starts");
        copy.reset(Vec::new(), Revision(7));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let next = runtime.block_on(kedge_store::Watch::next(&mut level, 1));
        assert!(matches!(next, Err(kedge_store::WatchError::Lagged { oldest: Revision(7) })), "{next:?}");
        assert_eq!((copy.read(State::visible), copy.read(State::keys)), (Revision(7), 0));
        assert_eq!(copy.read(State::floor), Revision(7));
    }
}
