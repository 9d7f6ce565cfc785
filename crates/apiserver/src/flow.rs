//! How many requests run at once: `--max-requests-inflight` and `--max-mutating-requests-inflight`.
//!
//! Watches and streams are not counted, and `system:masters` are never refused, so that an operator can get in.
//! DIVERGES: upstream's API Priority and Fairness with its queues is not implemented; its objects are stored and have no
//! effect. A request beyond the limit is refused with 429 at once instead of being queued.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kedge_meta::ApiStatus;

use crate::reply::too_many_requests;

/// The two limits and what counts against them.
#[derive(Debug)]
pub(crate) struct Flow {
    reading: Arc<Lane>,
    writing: Arc<Lane>,
}

#[derive(Debug)]
struct Lane {
    limit: usize,
    running: AtomicUsize,
}

/// A request's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Lane>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Flow {
    pub(crate) fn new(reading: usize, writing: usize) -> Self {
        let lane = |limit| Arc::new(Lane { limit, running: AtomicUsize::new(0) });
        Self { reading: lane(reading), writing: lane(writing) }
    }

    /// Takes a place.
    pub(crate) fn enter(&self, mutating: bool, exempt: bool) -> Result<Place, ApiStatus> {
        let lane = if mutating { &self.writing } else { &self.reading };
        let before = lane.running.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(lane));
        if before >= lane.limit && !exempt {
            return Err(too_many_requests("Too many requests, please try again later.", 1));
        }
        Ok(place)
    }

    /// How many reading and writing requests run.
    pub(crate) fn running(&self) -> (usize, usize) {
        (self.reading.running.load(Ordering::Relaxed), self.writing.running.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_given_back() {
        let flow = Flow::new(1, 1);
        let first = flow.enter(false, false).unwrap();
        assert_eq!(flow.enter(false, false).unwrap_err().code, 429);
        let exempt = flow.enter(false, true).unwrap();
        let writing = flow.enter(true, false).unwrap();
        assert_eq!(flow.running(), (2, 1));
        drop((first, exempt, writing));
        assert_eq!(flow.running(), (0, 0));
        flow.enter(false, false).unwrap();
    }
}
