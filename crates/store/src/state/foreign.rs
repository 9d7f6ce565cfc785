//! What a state takes over from a store elsewhere, which gives out the revisions: an etcd, of which this is a copy.
//!
//! Nothing here is prepared or pending; each commit arrives whole and is visible at once. Invariant: `visible` is a revision
//! up to which the copy has everything, so the caller moves it on only over revisions that it knows completely.

use std::sync::Arc;

use super::{Entry, Published, Replayed, State, replayed_entry};
use crate::port::{Change, Record, Revision};
use crate::topics::{Deliveries, Wakeups};

impl State {
    /// Takes in a commit that was made elsewhere, with no other one between the visible revision and this one that this
    /// state is to see. One that is here already is left out.
    pub fn absorb(&mut self, revision: Revision, writes: Vec<Replayed>, now: u64) -> Published {
        if revision <= self.visible() {
            return Published::default();
        }
        let entries = writes.into_iter().filter_map(|write| self.foreign_entry(write, revision));
        let mut entries: Vec<Entry> = entries.collect();
        entries.sort_by(|a, b| a.change.record.key.cmp(&b.change.record.key));
        let mut deliveries = Deliveries::default();
        for entry in entries {
            self.topics.collect(&entry.change, &mut deliveries);
            self.apply(&entry);
            self.history.push(entry.change, now);
        }
        let wakeups = deliveries.deliver();
        self.advance(revision);
        let dropped = self.history.plan_floor(now).map(|floor| self.drop_through(floor)).unwrap_or_default();
        Published { wakeups, dropped }
    }

    fn foreign_entry(&self, write: Replayed, revision: Revision) -> Option<Entry> {
        let key = match &write {
            Replayed::Put { record, .. } => &record.key,
            Replayed::Delete { key, .. } => key,
        };
        let previous = self.live.get(key).cloned();
        replayed_entry(write, previous, revision)
    }

    /// Up to `revision` nothing happened that this state is to see and has not seen.
    pub fn advance(&mut self, revision: Revision) {
        self.expect(revision);
        self.position.set_visible(revision.max(self.visible()));
    }

    /// Notes that the store elsewhere has reached `revision`: watches may start after it, though it is not here yet.
    pub fn expect(&mut self, revision: Revision) {
        self.pending.head = self.pending.head.max(revision);
    }

    /// Replaces everything by what the store elsewhere holds at `revision`. What happened before is unknown, so every
    /// watcher has lagged, also one that had seen everything.
    pub fn reset(&mut self, records: Vec<Record>, revision: Revision) -> (Wakeups, Vec<Arc<Change>>) {
        self.pending.abandon();
        self.live = records.into_iter().map(|record| (record.key.clone(), record)).collect();
        self.value_bytes = self.live.values().map(|record| record.value.len()).sum();
        let newest = self.history.newest();
        let dropped = self.history.drop_through(newest);
        self.history.restart(revision);
        self.position.set_floor(revision);
        let wakeups = self.topics.interrupt(revision);
        let visible = revision.max(super::FIRST_REVISION);
        self.pending.head = visible;
        self.position.set_visible(visible);
        (wakeups, dropped)
    }
}
