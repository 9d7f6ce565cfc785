//! Commits that have a revision and are not yet visible, in their order, with the newest state of each key they touch.
//!
//! Invariant: the overlay holds a key exactly as long as an unpublished commit touches it.

use std::collections::{HashMap, VecDeque};

use crate::port::{ChangeKind, Key, Record, Revision};
use crate::state::Entry;

#[derive(Debug)]
pub(crate) struct PendingCommit {
    pub(crate) revision: Revision,
    pub(crate) entries: Vec<Entry>,
}

/// What a key will be once everything pending is published.
#[derive(Debug)]
struct Overlaid {
    record: Option<Record>,
    revision: Revision,
    released: bool,
}

#[derive(Debug)]
pub(crate) struct Pending {
    /// The latest assigned revision.
    pub(crate) head: Revision,
    commits: VecDeque<PendingCommit>,
    overlay: HashMap<Key, Overlaid>,
}

impl Pending {
    pub(crate) fn new(head: Revision) -> Self {
        Self { head, commits: VecDeque::new(), overlay: HashMap::new() }
    }

    pub(crate) fn push(&mut self, commit: PendingCommit) {
        self.head = commit.revision;
        for Entry { change, .. } in &commit.entries {
            let record = (change.kind != ChangeKind::Deleted).then(|| change.record.clone());
            let overlaid = Overlaid { record, revision: commit.revision, released: false };
            self.overlay.insert(change.record.key.clone(), overlaid);
        }
        self.commits.push_back(commit);
    }

    /// The newest state of a key that an unpublished commit touches, with that commit; with none where it is released,
    /// as that state may be told already.
    pub(crate) fn newest(&self, key: &Key) -> Option<(Option<&Record>, Revision)> {
        let overlaid = self.overlay.get(key)?;
        let untold = if overlaid.released { Revision::default() } else { overlaid.revision };
        Some((overlaid.record.as_ref(), untold))
    }

    /// The state of a key that a released commit touches.
    pub(crate) fn released(&self, key: &Key) -> Option<Option<&Record>> {
        self.overlay.get(key).filter(|overlaid| overlaid.released).map(|overlaid| overlaid.record.as_ref())
    }

    pub(crate) fn release(&mut self, revision: Revision) {
        let Ok(at) = self.commits.binary_search_by_key(&revision, |commit| commit.revision) else { return };
        for entry in &self.commits[at].entries {
            if let Some(overlaid) = self.overlay.get_mut(&entry.change.record.key) {
                overlaid.released |= overlaid.revision == revision;
            }
        }
    }

    pub(crate) fn pop_through(&mut self, through: Revision) -> Option<PendingCommit> {
        self.commits.front().filter(|commit| commit.revision <= through)?;
        let commit = self.commits.pop_front()?;
        for entry in &commit.entries {
            let key = &entry.change.record.key;
            if self.overlay.get(key).is_some_and(|overlaid| overlaid.revision == commit.revision) {
                self.overlay.remove(key);
            }
        }
        Some(commit)
    }

    pub(crate) fn abandon(&mut self) {
        self.commits.clear();
        self.overlay.clear();
    }
}
