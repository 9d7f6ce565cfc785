//! Exponential back-off with jitter, as a value: no clock inside.

use std::time::Duration;

use rand::Rng;

/// Doubles from `initial` to `maximum`; each delay is spread by up to a half so that clients do not come back at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    maximum: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `initial`.
    pub fn new(initial: Duration, maximum: Duration) -> Self {
        Self { initial, maximum, next: initial }
    }

    /// The delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let base = self.next;
        self.next = (self.next * 2).min(self.maximum);
        base.mul_f64(1.0 + rand::rng().random_range(0.0..0.5))
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.next = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(4));
        for (least, most) in [(1.0, 1.5), (2.0, 3.0), (4.0, 6.0), (4.0, 6.0)] {
            let delay = backoff.next_delay().as_secs_f64();
            assert!((least..=most).contains(&delay), "{delay} is not in {least}..={most}");
        }
        backoff.reset();
        assert!(backoff.next_delay() < Duration::from_secs_f64(1.6));
    }
}
