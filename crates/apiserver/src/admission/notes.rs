//! What admission leaves for whoever made a request, whether it is let pass or not.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kedge_audit::Level;
use parking_lot::Mutex;

/// How long a warning may be, and all of them together, in characters: upstream's bounds for what goes into headers.
const LONGEST: usize = 4 * 1024;

/// Kept with the request.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    warnings: Mutex<Vec<String>>,
    /// For the audit log; kept only where somebody reads them.
    annotations: Mutex<BTreeMap<String, String>>,
    level: OnceLock<Level>,
    /// Nanoseconds.
    elsewhere: AtomicU64,
}

impl Notes {
    /// Adds a warning; what was said already is not said again.
    pub(crate) fn warn(&self, text: &str) {
        let mut warnings = self.warnings.lock();
        let left = LONGEST.saturating_sub(warnings.iter().map(String::len).sum());
        let text: String = text.chars().take(left).collect();
        if !text.is_empty() && !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// Keeps annotations from now on: the request is in the audit log.
    pub(crate) fn collect(&self, level: Level) {
        // A request has one level.
        let _ = self.level.set(level);
    }

    /// Whether anybody reads annotations.
    pub(crate) fn are_collected(&self) -> bool {
        self.level.get().is_some()
    }

    /// Whether anybody reads annotations that tell what is in an object.
    pub(crate) fn may_show_objects(&self) -> bool {
        self.level.get().is_some_and(|level| *level >= Level::Request)
    }

    /// Adds a text for the audit log. What was said first counts.
    pub(crate) fn annotate(&self, key: String, text: String) {
        if self.are_collected() {
            self.annotations.lock().entry(key).or_insert(text);
        }
    }

    /// What was annotated so far.
    pub(crate) fn annotations(&self) -> BTreeMap<String, String> {
        self.annotations.lock().clone()
    }

    /// The request waited for somebody else for so long: for its turn, or for webhooks.
    pub(crate) fn waited(&self, time: Duration) {
        self.elsewhere.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// For how long it has waited so far.
    pub(crate) fn elsewhere(&self) -> Duration {
        Duration::from_nanos(self.elsewhere.load(Ordering::Relaxed))
    }

    /// The warnings, once.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_said_once_and_bounded() {
        let notes = Notes::default();
        notes.warn("a");
        notes.warn("a");
        notes.warn("b");
        assert_eq!(notes.take_warnings(), ["a", "b"]);
        notes.warn(&"x".repeat(2 * LONGEST));
        notes.warn("no room");
        assert_eq!(notes.take_warnings().iter().map(String::len).sum::<usize>(), LONGEST);
    }

    #[test]
    fn annotations_are_kept_where_somebody_reads_them() {
        let notes = Notes::default();
        let annotate = |text: &str| notes.annotate("k".to_owned(), text.to_owned());
        annotate("0");
        notes.collect(Level::Metadata);
        annotate("1");
        annotate("2");
        assert_eq!(notes.annotations(), BTreeMap::from([("k".to_owned(), "1".to_owned())]));
        assert!(!notes.may_show_objects());
    }
}
