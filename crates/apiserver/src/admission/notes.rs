//! What admission leaves for whoever made a request, whether it is let pass or not.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// How long a warning may be, and all of them together, in characters: upstream's bounds for what goes into headers.
const LONGEST: usize = 4 * 1024;

/// Kept with the request.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    warnings: Mutex<Vec<String>>,
    /// Nobody reads them as long as there is no audit log.
    annotations: Mutex<BTreeMap<String, String>>,
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

    /// Adds a text for the audit log.
    pub(crate) fn annotate(&self, key: String, text: String) {
        self.annotations.lock().entry(key).or_insert(text);
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
        notes.annotate("k".to_owned(), "1".to_owned());
        assert_eq!(notes.take_warnings(), ["a", "b"]);
        notes.warn(&"x".repeat(2 * LONGEST));
        notes.warn("no room");
        assert_eq!(notes.take_warnings().iter().map(String::len).sum::<usize>(), LONGEST);
    }
}
