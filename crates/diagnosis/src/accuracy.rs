//! How often the first cause is the true one, as the tests of this crate measure it.
//!
//! Figures for documents; what they are held to stands in `combined.rs`. Invariant: a test fails where what is measured is
//! less than what stands here.

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Those that are right.
    pub right: usize,
    /// All of them.
    pub all: usize,
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accuracy {
    /// Fixtures of all rules, in old and new wordings: the true cause is the first.
    pub fixtures: Share,
    /// Two troubles of different entries of the catalogue at once: both are named, or one as the cause of the other, and
    /// nothing else is.
    pub combined: Share,
}

/// The figures of the last run (`cargo test -p kedge-diagnosis every_pair -- --ignored`).
pub const ACCURACY: Accuracy =
    Accuracy { fixtures: Share { right: 493, all: 493 }, combined: Share { right: 13485, all: 13485 } };

impl Share {
    /// Tenths of a percent, rounded down; all of nothing is right.
    #[must_use]
    pub fn permille(self) -> usize {
        (self.right * 1000).checked_div(self.all).unwrap_or(1000)
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let permille = self.permille();
        write!(formatter, "{} of {} ({}.{} %)", self.right, self.all, permille / 10, permille % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_down() {
        assert_eq!(Share { right: 1999, all: 2000 }.to_string(), "1999 of 2000 (99.9 %)");
        assert_eq!(Share { right: 0, all: 0 }.permille(), 1000);
    }
}
