//! What is counted of the requests of one schema at one level.

use kedge_fairness::{Histogram, Refusal};

/// Of durations, in seconds.
const SECONDS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const LENGTHS: &[f64] = &[0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const ESTIMATES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
const WATCHERS: &[f64] = &[0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0];

/// Of a level's seats.
pub(super) const UTILIZATION_BOUNDS: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
/// Of a level's requests.
pub(super) const WAITING_BOUNDS: &[f64] = &[0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0];
/// Of a level's demand.
pub(super) const SEAT_BOUNDS: &[f64] = &[0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8, 4.0, 6.0];

/// One schema at one level.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) dispatched: u64,
    /// In the order of [`REASONS`].
    pub(super) rejected: [u64; 3],
    pub(super) waiting: u64,
    pub(super) waiting_seats: u64,
    pub(super) executing: u64,
    pub(super) executing_seats: u64,
    /// Of those that ran, and of those that did not.
    pub(super) waited: [Histogram; 2],
    /// Of watches' beginnings, and of everything else.
    pub(super) executed: [Histogram; 2],
    pub(super) lengths: Histogram,
    pub(super) estimated: Histogram,
    pub(super) watchers: Histogram,
}

/// Labels of refusals.
pub(super) const REASONS: [Refusal; 3] = [Refusal::ConcurrencyLimit, Refusal::QueueFull, Refusal::TimeOut];

impl Default for Counts {
    fn default() -> Self {
        let seconds = || Histogram::new(SECONDS);
        Self {
            dispatched: 0,
            rejected: [0; 3],
            waiting: 0,
            waiting_seats: 0,
            executing: 0,
            executing_seats: 0,
            waited: [seconds(), seconds()],
            executed: [seconds(), seconds()],
            lengths: Histogram::new(LENGTHS),
            estimated: Histogram::new(ESTIMATES),
            watchers: Histogram::new(WATCHERS),
        }
    }
}

impl Counts {
    pub(super) fn is_busy(&self) -> bool {
        self.waiting > 0 || self.executing > 0
    }

    pub(super) fn queued(&mut self, length: usize, seats: u64) {
        self.waiting += 1;
        self.waiting_seats += seats;
        self.lengths.observe(length as f64);
    }

    pub(super) fn left_queue(&mut self, seats: u64) {
        self.waiting -= 1;
        self.waiting_seats -= seats;
    }

    pub(super) fn started(&mut self, seats: u64, waited: u64) {
        self.dispatched += 1;
        self.executing += 1;
        self.executing_seats += seats;
        self.waited[0].observe(seconds(waited));
    }

    pub(super) fn ended(&mut self, seats: u64, took: u64, is_watch: bool) {
        self.executing -= 1;
        self.executing_seats -= seats;
        self.executed[usize::from(!is_watch)].observe(seconds(took));
    }

    pub(super) fn refused(&mut self, refusal: Refusal, waited: Option<u64>) {
        if let Some(index) = REASONS.iter().position(|reason| *reason == refusal) {
            self.rejected[index] += 1;
        }
        if let Some(waited) = waited {
            self.waited[1].observe(seconds(waited));
        }
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
