//! How an API server is, by what was seen of it.
//!
//! Pure. Invariant: one failure ends no connection; a server that answers is never `Down`.

use serde::{Deserialize, Serialize};

/// As many failures in a row make a server `Down`.
const FAILURES: u32 = 2;

/// How an API server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Health {
    /// It says that it is ready.
    Ready,
    /// Nobody has asked, or what it would say is not known.
    Unknown,
    /// It answers, and not that it is ready.
    NotReady,
    /// It does not answer.
    Down,
}

impl Health {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Unknown => "Unknown",
            Self::NotReady => "NotReady",
            Self::Down => "Down",
        }
    }
}

/// What was seen of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It answered that it is ready.
    Ready,
    /// It answered something else, or is not who it should be.
    NotReady,
    /// It takes connections.
    Connected,
    /// No connection, or no answer in time.
    Silent,
}

/// Health, and how far the next change is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Track {
    pub(crate) health: Health,
    failures: u32,
}

impl Track {
    pub(crate) fn new() -> Self {
        Self { health: Health::Unknown, failures: 0 }
    }

    /// Takes in what was seen; whether the health is another one now.
    pub(crate) fn observe(&mut self, seen: Seen) -> bool {
        self.failures = if seen == Seen::Silent { self.failures.saturating_add(1) } else { 0 };
        let health = match seen {
            Seen::Ready => Health::Ready,
            Seen::NotReady => Health::NotReady,
            Seen::Connected if self.health == Health::Down => Health::Unknown,
            Seen::Silent if self.failures >= FAILURES => Health::Down,
            Seen::Connected | Seen::Silent => self.health,
        };
        std::mem::replace(&mut self.health, health) != health
    }

    /// Whether one more failure makes it `Down`.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.failures > 0 && self.health != Health::Down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_follows_what_is_seen() {
        let check = |seen: &[Seen], expected: Health| {
            let mut track = Track::new();
            for each in seen {
                track.observe(*each);
            }
            assert_eq!(track.health, expected, "{seen:?}");
        };
        use Seen::{Connected, NotReady, Ready, Silent};
        check(&[], Health::Unknown);
        check(&[Ready], Health::Ready);
        check(&[Silent], Health::Unknown);
        check(&[Ready, Silent], Health::Ready);
        check(&[Ready, Silent, Silent], Health::Down);
        check(&[Ready, Silent, Ready, Silent], Health::Ready);
        check(&[Ready, Silent, Connected, Silent], Health::Ready);
        check(&[Silent, Silent, Silent, Connected], Health::Unknown);
        check(&[Silent, Silent, Ready], Health::Ready);
        check(&[Ready, NotReady], Health::NotReady);
        check(&[NotReady, Connected], Health::NotReady);
        check(&[NotReady, Silent, Silent], Health::Down);
    }

    #[test]
    fn only_changes_are_told() {
        let mut track = Track::new();
        let told: Vec<bool> =
            [Seen::Ready, Seen::Ready, Seen::Silent, Seen::Silent, Seen::Silent].map(|seen| track.observe(seen)).into();
        assert_eq!(told, [true, false, false, true, false]);
        assert!(!track.is_in_doubt());
    }
}
