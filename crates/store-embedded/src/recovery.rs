//! From what lies on disk to a state that can serve: replay, and the revision to go on from.
//!
//! Invariant: no revision that may have been shown before a crash is given to another commit.

use std::path::Path;

use kedge_store::{FIRST_REVISION, HistoryLimits, Replayed, Revision, State};

use crate::engine::{Engine, Header};
use crate::error::EmbeddedError;
use crate::gaps::Gaps;

/// How many revisions are reserved ahead, so that a relaxed commit can be shown before it is on disk.
pub(crate) const RESERVED: u64 = 4096;

/// A state ready to serve.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) gaps: Gaps,
    /// Revisions up to this may be shown before they are on disk.
    pub(crate) ceiling: Revision,
}

/// Reads everything, and marks the store as open.
pub(crate) fn recover(
    engine: &Engine,
    directory: &Path,
    limits: HistoryLimits,
    now: u64,
) -> Result<Recovered, EmbeddedError> {
    let failed = |source| EmbeddedError::engine(directory, source);
    let header = engine.read_header().map_err(failed)?;
    let (state, gaps) = match header {
        Some(header) => replay(engine, header, limits, now).map_err(failed)?,
        None => (State::new(limits), Gaps::default()),
    };
    let ceiling = Revision(state.head().0 + RESERVED);
    let (floor, opened_at, relaxed) = (state.floor(), state.head(), gaps.noted());
    let header = Header { floor, ceiling, opened_at, closed_at: None, relaxed };
    engine.write_header(&header).map_err(failed)?;
    Ok(Recovered { state, gaps, ceiling })
}

fn replay(
    engine: &Engine,
    header: Header,
    limits: HistoryLimits,
    now: u64,
) -> Result<(State, Gaps), crate::engine::EngineError> {
    let mut state = State::restore(limits, header.floor);
    let mut on_disk = header.opened_at.max(header.floor).max(FIRST_REVISION);
    engine.read_rows(|replayed| {
        let revision = match &replayed {
            Replayed::Put { record, .. } => record.modified,
            Replayed::Delete { revision, .. } => *revision,
        };
        on_disk = on_disk.max(revision);
        state.replay(replayed, now);
    })?;
    let go_on_from = header.closed_at.unwrap_or(header.ceiling.max(on_disk));
    state.skip_to(go_on_from);
    let lost = header.closed_at.is_none().then_some((on_disk, go_on_from));
    let floor = state.floor();
    Ok((state, Gaps::restore(header.relaxed, lost, floor)))
}
