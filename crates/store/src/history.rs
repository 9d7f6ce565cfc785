//! The ring of past changes: what watches resume from and what lists in the past are computed from.
//!
//! It knows nothing of live keys or watchers. Invariant: it holds exactly the changes after its floor, in revision order;
//! the changes of one commit are dropped together.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::port::{Change, Revision};

/// What a change costs besides the value it keeps alive: the two records, their keys and the places that share it.
const CHANGE_OVERHEAD: usize = 256;

/// How much history a store keeps. Whichever bound is reached first drops the oldest changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryLimits {
    /// At most about this many changes.
    pub changes: usize,
    /// At most about this many bytes that only the history keeps alive: replaced and deleted values.
    pub bytes: usize,
    /// Nothing much older than this; upstream compacts every five minutes.
    pub age: Duration,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { changes: 100_000, bytes: 32 << 20, age: Duration::from_secs(300) }
    }
}

/// The ring.
#[derive(Debug)]
pub(crate) struct History {
    changes: VecDeque<(Arc<Change>, u64)>,
    bytes: usize,
    floor: Revision,
    limits: HistoryLimits,
}

impl History {
    pub(crate) fn new(limits: HistoryLimits, floor: Revision) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, floor, limits }
    }

    /// The revision from which on everything is there.
    pub(crate) fn floor(&self) -> Revision {
        self.floor
    }

    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// The last change's revision, or the floor where there is none.
    pub(crate) fn newest(&self) -> Revision {
        self.changes.back().map_or(self.floor, |(change, _)| change.revision)
    }

    /// Begins anew after `floor`, which may lie before what was. Nothing is in it.
    pub(crate) fn restart(&mut self, floor: Revision) {
        debug_assert!(self.changes.is_empty(), "what was is dropped by now");
        self.floor = floor;
    }

    /// Appends a change that happened at `now` (milliseconds).
    pub(crate) fn push(&mut self, change: Arc<Change>, now: u64) {
        self.bytes += cost(&change);
        self.changes.push_back((change, now));
    }

    /// The changes after `revision`, oldest first.
    pub(crate) fn after(&self, revision: Revision) -> impl Iterator<Item = &Arc<Change>> {
        let from = self.changes.partition_point(|(change, _)| change.revision <= revision);
        self.changes.range(from..).map(|(change, _)| change)
    }

    /// The floor that the limits ask for, if that is a new one. Waits until a limit is passed by a sixteenth, so that
    /// dropping (which visits every watched prefix) comes seldom and in bulk.
    pub(crate) fn plan_floor(&self, now: u64) -> Option<Revision> {
        let limits = &self.limits;
        let age = limits.age.as_millis() as u64;
        let aged = self.changes.front().is_some_and(|(_, at)| at + age + age / 16 < now);
        let over = |value: usize, limit: usize| value > limit.saturating_add(limit / 16);
        if !aged && !over(self.changes.len(), limits.changes) && !over(self.bytes, limits.bytes) {
            return None;
        }
        let (mut kept, mut bytes) = (self.changes.len(), self.bytes);
        let mut floor = None;
        for (change, at) in &self.changes {
            if at + age >= now && kept <= limits.changes && bytes <= limits.bytes {
                break;
            }
            kept -= 1;
            bytes -= cost(change);
            floor = Some(change.revision);
        }
        floor
    }

    /// Drops everything up to `floor` and hands it out, so that the caller frees it where no lock is held.
    pub(crate) fn drop_through(&mut self, floor: Revision) -> Vec<Arc<Change>> {
        self.floor = self.floor.max(floor);
        let count = self.changes.partition_point(|(change, _)| change.revision <= floor);
        let dropped: Vec<_> = self.changes.drain(..count).map(|(change, _)| change).collect();
        self.bytes -= dropped.iter().map(|change| cost(change)).sum::<usize>();
        if self.changes.capacity() > 1024 && self.changes.len() < self.changes.capacity() / 4 {
            self.changes.shrink_to(self.changes.len() * 2);
        }
        dropped
    }
}

fn cost(change: &Change) -> usize {
    CHANGE_OVERHEAD + change.previous.as_ref().map_or(0, |record| record.value.len())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::port::{ChangeKind, Key, Record};

    fn change(revision: u64, previous: usize) -> Arc<Change> {
        let record = |size: usize| Record {
            key: Key::new("/a"),
            value: Bytes::from(vec![b'x'; size]),
            splice_at: None,
            created: Revision(1),
            modified: Revision(revision),
        };
        let previous = (previous > 0).then(|| record(previous));
        Arc::new(Change { kind: ChangeKind::Modified, revision: Revision(revision), record: record(1), previous })
    }

    fn check(limits: HistoryLimits, pushes: &[(u64, usize, u64)], now: u64, floor: Option<u64>) {
        let mut history = History::new(limits, Revision(0));
        for (revision, previous, at) in pushes {
            history.push(change(*revision, *previous), *at);
        }
        let planned = history.plan_floor(now);
        assert_eq!(planned, floor.map(Revision), "{limits:?} {pushes:?}");
        let Some(planned) = planned else { return };
        history.drop_through(planned);
        assert_eq!(history.floor(), planned);
        assert!(history.after(Revision(0)).all(|change| change.revision > planned));
        assert_eq!(history.plan_floor(now), None, "one drop is enough");
    }

    #[test]
    fn each_limit_drops_the_oldest_commits_whole() {
        let wide = HistoryLimits { changes: 100, bytes: 1 << 20, age: Duration::from_millis(1600) };
        check(wide, &[(2, 0, 0), (3, 0, 10)], 20, None);
        check(HistoryLimits { changes: 2, ..wide }, &[(2, 0, 0), (3, 0, 0), (4, 0, 0)], 0, Some(2));
        check(HistoryLimits { changes: 2, ..wide }, &[(2, 0, 0), (2, 0, 0), (2, 0, 0), (3, 0, 0)], 0, Some(2));
        check(HistoryLimits { bytes: 2000, ..wide }, &[(2, 1000, 0), (3, 1000, 0)], 0, Some(2));
        check(wide, &[(2, 0, 0), (3, 0, 1000)], 1699, None);
        check(wide, &[(2, 0, 0), (3, 0, 1000)], 1701, Some(2));
    }
}
