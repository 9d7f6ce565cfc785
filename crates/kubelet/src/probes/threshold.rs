//! How many outcomes in a row make a verdict.
//!
//! Pure. Invariant: an outcome that is not known leaves the counts as they are.

use k8s_openapi::api::core::v1::Probe;

/// What one attempt found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    Failure,
    Unknown,
}

/// Counts outcomes in a row.
pub(super) struct Threshold {
    success: u32,
    failure: u32,
    last: Option<Outcome>,
    run: u32,
}

impl Threshold {
    pub(super) fn new(probe: &Probe) -> Self {
        let at_least_one = |value: Option<i32>, default: u32| {
            value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default).max(1)
        };
        Self {
            success: at_least_one(probe.success_threshold, 1),
            failure: at_least_one(probe.failure_threshold, 3),
            last: None,
            run: 0,
        }
    }

    /// Takes an outcome; the verdict, where there were enough of its kind in a row.
    pub(super) fn observe(&mut self, outcome: Outcome) -> Option<bool> {
        if outcome == Outcome::Unknown {
            return None;
        }
        if self.last == Some(outcome) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(outcome);
            self.run = 1;
        }
        match outcome {
            Outcome::Success if self.run >= self.success => Some(true),
            Outcome::Failure if self.run >= self.failure => Some(false),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Failure, Success, Unknown};
    use super::*;

    #[test]
    fn verdicts_need_enough_in_a_row() {
        let check = |success: Option<i32>, failure: Option<i32>, steps: &[(Outcome, Option<bool>)]| {
            let probe = Probe { success_threshold: success, failure_threshold: failure, ..Probe::default() };
            let mut threshold = Threshold::new(&probe);
            for (index, (outcome, verdict)) in steps.iter().enumerate() {
                assert_eq!(threshold.observe(*outcome), *verdict, "step {index}");
            }
        };
        check(None, None, &[(Success, Some(true)), (Failure, None), (Failure, None), (Failure, Some(false))]);
        check(Some(2), Some(1), &[(Success, None), (Success, Some(true)), (Failure, Some(false)), (Success, None)]);
        check(None, None, &[(Failure, None), (Failure, None), (Unknown, None), (Failure, Some(false))]);
        check(None, None, &[(Failure, None), (Success, Some(true)), (Failure, None)]);
    }
}
