//! Which thresholds are due and which pressures the node reports, from one look to the next.
//!
//! Pure: times are those of a steady clock, as durations since its start. Invariant: a threshold that was met stays so
//! until its minimum reclaim is there, and a pressure stays for the transition period after it was last seen.

use std::collections::BTreeMap;
use std::time::Duration;

use super::threshold::{Pressure, Signal, Threshold};

/// What is there of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Observation {
    pub(crate) available: i64,
    pub(crate) capacity: i64,
}

/// What was seen in one look; a signal that could not be read is absent.
pub(crate) type Observations = BTreeMap<Signal, Observation>;

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub(crate) struct State {
    first_met: Vec<(Threshold, Duration)>,
    last_seen: BTreeMap<Pressure, Duration>,
    due: Vec<Threshold>,
}

/// What follows from one look.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// The pressures that the node reports.
    pub(crate) pressures: Vec<Pressure>,
    /// The thresholds that ask for eviction now, the most urgent first.
    pub(crate) due: Vec<Threshold>,
}

/// The thresholds that are met, without regard to their grace periods.
pub(crate) fn met(thresholds: &[Threshold], seen: &Observations, with_reclaim: bool) -> Vec<Threshold> {
    let is_met = |threshold: &&Threshold| {
        let Some(observation) = seen.get(&threshold.signal) else { return false };
        let reclaim = threshold.minimum_reclaim.filter(|_| with_reclaim);
        let reclaim = reclaim.map_or(0, |amount| amount.of(observation.capacity));
        threshold.value.of(observation.capacity).saturating_add(reclaim) > observation.available
    };
    thresholds.iter().filter(is_met).copied().collect()
}

impl State {
    /// Takes one look into account.
    pub(crate) fn look(
        &mut self,
        thresholds: &[Threshold],
        seen: &Observations,
        transition: Duration,
        now: Duration,
    ) -> Verdict {
        let mut current = met(thresholds, seen, false);
        for unresolved in met(&self.due, seen, true) {
            if !current.iter().any(|threshold| threshold.same(&unresolved)) {
                current.push(unresolved);
            }
        }
        let since = |threshold: &Threshold| {
            let known = self.first_met.iter().find(|(known, _)| known.same(threshold));
            known.map_or(now, |(_, at)| *at)
        };
        self.first_met = current.iter().map(|threshold| (*threshold, since(threshold))).collect();
        for threshold in &current {
            self.last_seen.insert(threshold.signal.pressure(), now);
        }
        self.last_seen.retain(|_, at| now.saturating_sub(*at) < transition);
        let ripe = self.first_met.iter().filter(|(threshold, at)| now.saturating_sub(*at) >= threshold.grace_period);
        self.due = ripe.map(|(threshold, _)| *threshold).collect();
        let mut due = self.due.clone();
        // Memory first: nothing else can end the whole machine as quickly.
        due.sort_by_key(|threshold| threshold.signal.pressure() != Pressure::Memory);
        Verdict { pressures: self.last_seen.keys().copied().collect(), due }
    }
}

/// The thresholds that are watched: those that are set, and for memory also that of the cgroup of all pods.
pub(crate) fn with_allocatable(thresholds: &[Threshold], enforced: bool) -> Vec<Threshold> {
    let mut all = thresholds.to_vec();
    let own = thresholds.iter().filter(|threshold| threshold.signal == Signal::MemoryAvailable && threshold.is_hard());
    if enforced {
        all.extend(own.map(|threshold| Threshold { signal: Signal::AllocatableMemoryAvailable, ..*threshold }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::threshold::Amount;
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn threshold(signal: Signal, value: i64, grace_seconds: u64, reclaim: Option<i64>) -> Threshold {
        Threshold {
            signal,
            value: Amount::Bytes(value),
            grace_period: Duration::from_secs(grace_seconds),
            minimum_reclaim: reclaim.map(Amount::Bytes),
        }
    }

    fn seen(entries: &[(Signal, i64)]) -> Observations {
        let observation = |available: i64| Observation { available, capacity: 1000 };
        entries.iter().map(|(signal, available)| (*signal, observation(*available))).collect()
    }

    /// Looks at these times at this much of one signal: the due signals and the pressures.
    fn check(thresholds: &[Threshold], looks: &[(u64, i64, &[Signal], &[Pressure])]) {
        let mut state = State::default();
        for (second, available, due, pressures) in looks {
            let seen = seen(&[(thresholds[0].signal, *available)]);
            let verdict = state.look(thresholds, &seen, MINUTE, Duration::from_secs(*second));
            let signals: Vec<Signal> = verdict.due.iter().map(|threshold| threshold.signal).collect();
            assert_eq!((signals.as_slice(), verdict.pressures.as_slice()), (*due, *pressures), "at {second} s");
        }
    }

    #[test]
    fn a_hard_threshold_is_due_at_once_and_its_pressure_lasts() {
        use Pressure::Memory;
        use Signal::MemoryAvailable;
        let hard = [threshold(MemoryAvailable, 100, 0, None)];
        check(
            &hard,
            &[
                (0, 100, &[], &[]),
                (10, 99, &[MemoryAvailable], &[Memory]),
                (20, 100, &[], &[Memory]),
                (69, 500, &[], &[Memory]),
                (70, 500, &[], &[]),
            ],
        );
    }

    #[test]
    fn a_soft_threshold_waits_and_forgets() {
        use Pressure::Disk;
        use Signal::NodefsAvailable;
        let soft = [threshold(NodefsAvailable, 100, 30, None)];
        check(
            &soft,
            &[
                (0, 50, &[], &[Disk]),
                (29, 50, &[], &[Disk]),
                (30, 50, &[NodefsAvailable], &[Disk]),
                (31, 200, &[], &[Disk]),
                (32, 50, &[], &[Disk]),
                (61, 50, &[], &[Disk]),
                (62, 50, &[NodefsAvailable], &[Disk]),
            ],
        );
    }

    #[test]
    fn what_was_due_stays_so_until_the_minimum_reclaim_is_there() {
        use Pressure::Memory;
        use Signal::MemoryAvailable;
        let hard = [threshold(MemoryAvailable, 100, 0, Some(50))];
        check(
            &hard,
            &[
                (0, 120, &[], &[]),
                (1, 99, &[MemoryAvailable], &[Memory]),
                (2, 120, &[MemoryAvailable], &[Memory]),
                (3, 150, &[], &[Memory]),
                (4, 120, &[], &[Memory]),
            ],
        );
    }

    #[test]
    fn memory_comes_first_and_unreadable_signals_count_for_nothing() {
        let thresholds = [
            threshold(Signal::PidAvailable, 10, 0, None),
            threshold(Signal::ImagefsAvailable, 10, 0, None),
            threshold(Signal::MemoryAvailable, 10, 0, None),
        ];
        let mut state = State::default();
        let seen = seen(&[(Signal::PidAvailable, 1), (Signal::MemoryAvailable, 1)]);
        let verdict = state.look(&thresholds, &seen, MINUTE, Duration::ZERO);
        let due: Vec<Signal> = verdict.due.iter().map(|threshold| threshold.signal).collect();
        assert_eq!(due, [Signal::MemoryAvailable, Signal::PidAvailable]);
        assert_eq!(verdict.pressures, [Pressure::Memory, Pressure::Pid]);
    }

    #[test]
    fn the_cgroup_of_all_pods_has_the_hard_memory_threshold() {
        let thresholds =
            [threshold(Signal::MemoryAvailable, 10, 0, None), threshold(Signal::MemoryAvailable, 20, 5, None)];
        let all = with_allocatable(&thresholds, true);
        assert_eq!(all[2..], [threshold(Signal::AllocatableMemoryAvailable, 10, 0, None)]);
        assert_eq!(with_allocatable(&thresholds, false), thresholds);
    }
}
