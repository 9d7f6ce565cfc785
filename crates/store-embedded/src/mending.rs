//! From a failed batch back to a store that writes, without a restart: when a disk has room again, say.
//!
//! Memory is what counts. What clients were told is in it: durable commits that are on disk, and relaxed ones of which some
//! are not. What failed was never seen and is gone from it, but may be on disk all the same. So the first batch after the
//! engine was opened anew brings the disk to what is in memory. Invariant: until that batch is written, every write is
//! refused, and reads go on.

use std::time::{Duration, Instant};

use kedge_store::{Entry, Key, Revision};

use crate::engine::{Batch, Engine};
use crate::queue::Item;
use crate::recovery::RESERVED;
use crate::shared::Shared;
use crate::writer::{Failed, Reopen};

/// How long after a failure the engine is opened anew, doubled after each attempt that failed too.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A storage that works for so long works again; one that fails sooner is not tried as often.
const WORKS_AGAIN: Duration = Duration::from_secs(60);

/// How patient the next attempts are.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    pause: Option<Duration>,
    mended: Option<Instant>,
}

impl Patience {
    /// It failed at `now`.
    fn begin(&mut self, now: Instant) {
        if self.mended.is_some_and(|mended| now.saturating_duration_since(mended) >= WORKS_AGAIN) {
            self.pause = None;
        }
    }

    /// How long to wait before the next attempt.
    fn next(&mut self) -> Duration {
        let pause = self.pause.unwrap_or(FIRST_PAUSE);
        self.pause = Some((pause * 2).min(LONGEST_PAUSE));
        pause
    }
}

/// What the disk has to be told once it works again.
#[derive(Debug, Default)]
struct Unsaved {
    /// Changes that everybody may have seen.
    entries: Vec<Entry>,
    /// Rows that nobody needs, among them those of commits that failed.
    superseded: Vec<(Revision, Key)>,
    floor: Option<Revision>,
}

impl Shared {
    /// Refuses writes until the engine works again, and returns it; `None` where the store was closed first.
    pub(crate) fn mend(&self, failed: Failed, reopen: &Reopen, patience: &mut Patience) -> Option<Engine> {
        let Failed { mut work, why } = failed;
        let waiting = self.refuse(&why);
        answer_all(&mut work.items, &why);
        let visible = self.core.read().state.visible();
        let unsaved = unsaved(visible, work.items, waiting, work.superseded, work.floor);
        let began = Instant::now();
        patience.begin(began);
        loop {
            if work.closing || self.queue.is_closed_by(Instant::now() + patience.next()) {
                return None;
            }
            match self.try_to_mend(&unsaved, reopen) {
                Ok(engine) => {
                    let seconds = began.elapsed().as_secs();
                    patience.mended = Some(Instant::now());
                    tracing::info!(seconds, "the storage works again; the store accepts writes");
                    return Some(engine);
                }
                Err(why) => {
                    tracing::debug!(why, "the storage still fails");
                    self.core.write().failure = Some(why);
                }
            }
        }
    }

    fn try_to_mend(&self, unsaved: &Unsaved, reopen: &Reopen) -> Result<Engine, String> {
        let engine = reopen().map_err(|error| chain(&error))?;
        let head = self.core.read().state.head();
        let ceiling = Revision(head.0 + RESERVED);
        let batch = Batch {
            entries: unsaved.entries.iter().collect(),
            superseded: unsaved.superseded.clone(),
            floor: unsaved.floor,
            ceiling: Some(ceiling),
            ..Batch::default()
        };
        engine.write(&batch).map_err(|error| error.to_string())?;
        let mut core = self.core.write();
        core.ceiling = ceiling;
        // What failed had revisions, and nothing is left between them.
        core.state.skip_to(head);
        core.failure = None;
        Ok(engine)
    }

    /// No more writes; reads go on. Answers whoever waits, and hands out what waited.
    pub(crate) fn refuse(&self, failure: &str) -> Vec<Item> {
        tracing::error!(failure, "the storage failed; the store refuses writes until it works again");
        let mut core = self.core.write();
        core.failure = Some(failure.to_owned());
        core.state.abandon();
        let mut waiting = self.queue.take_items();
        drop(core);
        answer_all(&mut waiting, failure);
        waiting
    }
}

fn answer_all(items: &mut [Item], failure: &str) {
    for answer in items.iter_mut().filter_map(|item| item.answer.take()) {
        // Whoever asked may have gone.
        let _ = answer.send(Err(failure.to_owned()));
    }
}

/// What of a failed batch, and of what waited behind it, has to get to the disk, and what must not stay there.
fn unsaved(
    visible: Revision,
    failed: Vec<Item>,
    waiting: Vec<Item>,
    superseded: Vec<(Revision, Key)>,
    floor: Option<Revision>,
) -> Unsaved {
    let mut unsaved = Unsaved { entries: Vec::new(), superseded, floor };
    for item in failed {
        if item.revision <= visible {
            unsaved.entries.extend(item.entries);
        } else {
            let rows = item.entries.iter().map(|entry| (entry.change.revision, entry.change.record.key.clone()));
            unsaved.superseded.extend(rows);
        }
    }
    unsaved.entries.extend(waiting.into_iter().filter(|item| item.revision <= visible).flat_map(|item| item.entries));
    unsaved
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storage_that_fails_again_soon_is_tried_less_often() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut patience = Patience::default();
        patience.begin(at(0));
        assert_eq!([patience.next(), patience.next()], [FIRST_PAUSE, FIRST_PAUSE * 2]);
        patience.mended = Some(at(10));
        patience.begin(at(20));
        assert_eq!(patience.next(), FIRST_PAUSE * 4);
        for _ in 0..9 {
            patience.next();
        }
        assert_eq!(patience.next(), LONGEST_PAUSE);
        patience.mended = Some(at(100));
        patience.begin(at(160));
        assert_eq!(patience.next(), FIRST_PAUSE);
    }
}
