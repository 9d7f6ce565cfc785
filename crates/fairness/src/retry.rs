//! What refused clients are told: after how many seconds to try again.
//!
//! Doubles while many are refused, and goes down by one while few are. Seconds are the caller's.

use std::collections::VecDeque;

/// It never says more than this.
const MOST: u64 = 32;

/// The answer, and the refusals that it comes from.
#[derive(Debug, Clone)]
pub struct RetryAfter {
    seconds: u64,
    raised_at: Option<u64>,
    current: (u64, u64),
    history: VecDeque<(u64, u64)>,
}

impl Default for RetryAfter {
    fn default() -> Self {
        Self { seconds: 1, raised_at: None, current: (0, 0), history: VecDeque::new() }
    }
}

impl RetryAfter {
    /// Notes a refusal in this second, and returns what to say.
    pub fn refused(&mut self, second: u64) -> u64 {
        if self.current.0 == second {
            self.current.1 += 1;
            return self.seconds;
        }
        self.history.push_back(self.current);
        while self.history.front().is_some_and(|(then, _)| second.saturating_sub(*then) > (2 * self.seconds).min(MOST))
        {
            self.history.pop_front();
        }
        self.current = (second, 1);
        self.adjust(second);
        self.seconds
    }

    fn adjust(&mut self, second: u64) {
        let recent = self.history.iter().filter(|(then, _)| second.saturating_sub(*then) <= self.seconds);
        let refused: u64 = recent.map(|(_, count)| count).sum();
        let may_rise = self.raised_at.is_none_or(|then| second.saturating_sub(then) >= self.seconds);
        if may_rise && refused >= 3 * self.seconds {
            self.seconds = (self.seconds * 2).min(MOST);
            self.raised_at = Some(second);
        } else if refused < self.seconds && self.seconds > 1 {
            self.seconds -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_under_load_and_comes_down_slowly() {
        let mut retry = RetryAfter::default();
        let mut said = Vec::new();
        for (second, refusals) in [(100, 5), (101, 5), (102, 9), (103, 9), (104, 9), (120, 1), (121, 1), (122, 1)] {
            (0..refusals).for_each(|_| said.push((second, retry.refused(second))));
        }
        said.dedup();
        assert_eq!(said, [(100, 1), (101, 2), (102, 2), (103, 4), (104, 4), (120, 3), (121, 2), (122, 2)]);
        (200..400).for_each(|second| (0..500).for_each(|_| assert!(retry.refused(second) <= MOST)));
        assert_eq!(retry.refused(400), MOST);
    }
}
