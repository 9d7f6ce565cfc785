//! The writer: the one thread that writes. It takes everything that waits, writes it with one sync, and makes it visible.
//!
//! Invariant: a durable commit is published, and answered, only after the engine said that it is on disk. After a failure
//! nothing is written before the engine was opened anew (`mending.rs`): what it did with a failed batch is not known.

use std::sync::Arc;
use std::time::Instant;

use kedge_store::{Published, Revision};

use crate::engine::{Batch, Engine, EngineError};
use crate::error::EmbeddedError;
use crate::lock::Lock;
use crate::mending::Patience;
use crate::queue::{Answer, Work};
use crate::recovery::RESERVED;
use crate::shared::{Phase, Shared};

/// Opens the engine anew, after it failed.
pub(crate) type Reopen = Box<dyn Fn() -> Result<Engine, EmbeddedError> + Send>;

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) engine: Engine,
    pub(crate) reopen: Reopen,
    /// Held until the engine is closed.
    pub(crate) lock: Option<Lock>,
}

impl Writer {
    /// Writes until the store is closed.
    pub(crate) fn run(self) {
        let Self { shared, engine, reopen, lock } = self;
        let guard = EndGuard(Arc::clone(&shared));
        let mut engine = Some(engine);
        let mut patience = Patience::default();
        while let Some(open) = engine.take() {
            let failed = write_until_failure(&shared, &open);
            // Its file can only be opened again once it is closed.
            drop(open);
            engine = failed.and_then(|failed| shared.mend(failed, &reopen, &mut patience));
        }
        drop(lock);
        drop(guard);
    }
}

/// A batch that could not be written, and why.
pub(crate) struct Failed {
    pub(crate) work: Work,
    pub(crate) why: String,
}

/// Writes until the store is closed (`None`) or the engine fails.
fn write_until_failure(shared: &Shared, engine: &Engine) -> Option<Failed> {
    loop {
        shared.expire();
        let Some(mut work) = shared.queue.take(shared.next_expiry()) else { continue };
        let closing = work.closing;
        if let Err(error) = shared.process(engine, &mut work) {
            return Some(Failed { work, why: error.to_string() });
        }
        if closing {
            return None;
        }
    }
}

impl Shared {
    fn process(&self, engine: &Engine, work: &mut Work) -> Result<(), EngineError> {
        let started = Instant::now();
        let ceiling = self.persist(engine, work)?;
        if let Some(took) = ceiling.is_some().then(|| started.elapsed()) {
            self.latency.lock().record(started, took);
        }
        let answers = work.items.iter_mut().filter_map(|item| item.answer.take()).collect();
        self.publish(work, ceiling, answers);
        Ok(())
    }

    /// Writes what there is to write. Returns the ceiling that holds from now on, or nothing where nothing was written.
    fn persist(&self, engine: &Engine, work: &Work) -> Result<Option<Revision>, EngineError> {
        let core = self.core.read();
        let (head, ceiling) = (core.state.head(), core.ceiling);
        drop(core);
        // Half the reserve is left when it is renewed, so that relaxed commits do not have to wait for that.
        let renewed = (head.0 + RESERVED / 2 > ceiling.0).then_some(Revision(head.0 + RESERVED));
        let batch = Batch {
            entries: work.items.iter().flat_map(|item| &item.entries).collect(),
            superseded: work.superseded.clone(),
            floor: work.floor,
            ceiling: renewed,
            relaxed: work.items.iter().flat_map(|item| &item.parts).map(String::as_str).collect(),
            closed_at: work.closing.then_some(head),
        };
        if batch.entries.is_empty() && batch.superseded.is_empty() && batch.floor.is_none() && !work.closing {
            return Ok(None);
        }
        engine.write(&batch)?;
        Ok(Some(renewed.unwrap_or(ceiling)))
    }

    /// Makes visible what was written, and the relaxed commits that waited for it, and answers.
    fn publish(&self, work: &Work, ceiling: Option<Revision>, mut answers: Vec<Answer>) {
        let now = self.now();
        let mut core = self.core.write();
        core.ceiling = ceiling.unwrap_or(core.ceiling);
        for part in work.items.iter().flat_map(|item| &item.parts) {
            core.gaps.note(part.clone());
        }
        let through = work.items.iter().map(|item| item.revision).max().unwrap_or_default();
        let written = core.state.publish(through, now);
        let (relaxed_through, relaxed_answers) = self.queue.take_relaxed_answers();
        let relaxed = relaxed_through.map(|through| core.state.publish(through, now)).unwrap_or_default();
        answers.extend(relaxed_answers);
        for published in [&written, &relaxed] {
            if !published.dropped.is_empty() {
                self.supersede(&core, &published.dropped);
            }
        }
        drop(core);
        for Published { wakeups, dropped: _ } in [written, relaxed] {
            wakeups.wake();
        }
        for answer in answers {
            // Whoever asked may have gone.
            let _ = answer.send(Ok(()));
        }
    }
}

/// Marks the end of the writer, also where it panics: nobody waits for it in vain.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.refuse("the store's writer panicked");
        }
        let wakeups = {
            let mut core = self.0.core.write();
            if core.phase == Phase::Closing {
                core.phase = Phase::Closed;
            }
            core.state.close()
        };
        wakeups.wake();
        self.0.ended.send_replace(true);
    }
}
