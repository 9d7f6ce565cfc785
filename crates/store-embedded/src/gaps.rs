//! Which relaxed commits may have been lost in a crash, and so which watches must not resume. Pure.
//!
//! A relaxed commit is seen before it is on disk. A watcher that stands between the last revision on disk and the highest
//! one that may have been shown has perhaps seen a commit that is gone, and must list again; but only where relaxed
//! commits were made at all. Invariant: a part of the key space is noted on disk before its first relaxed commit is seen.

use std::collections::HashMap;

use kedge_store::{Key, Revision, StoreError};

/// The parts of the key space that have relaxed commits, each with the revisions between which some may be lost.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    lost_by_part: HashMap<String, (Revision, Revision)>,
}

impl Gaps {
    /// What is left to know after a start. `lost` is the range of a crash; history begins after `floor`.
    pub(crate) fn restore(
        noted: Vec<(String, Revision, Revision)>,
        lost: Option<(Revision, Revision)>,
        floor: Revision,
    ) -> Self {
        let mut lost_by_part = HashMap::new();
        for (part, from, to) in noted {
            let older = (to > floor).then_some((from, to));
            let gap = match (older, lost) {
                (Some((from, _)), Some((_, to))) => Some((from, to)),
                (older, lost) => older.or(lost),
            };
            lost_by_part.extend(gap.map(|gap| (part, gap)));
        }
        Self { lost_by_part }
    }

    /// As it is kept on disk.
    pub(crate) fn noted(&self) -> Vec<(String, Revision, Revision)> {
        self.lost_by_part.iter().map(|(part, (from, to))| (part.clone(), *from, *to)).collect()
    }

    /// Whether relaxed commits to `part` are noted already.
    pub(crate) fn knows(&self, part: &str) -> bool {
        self.lost_by_part.contains_key(part)
    }

    /// Notes a part, which is on disk.
    pub(crate) fn note(&mut self, part: String) {
        self.lost_by_part.entry(part).or_default();
    }

    /// Whether a reader of `prefix` that stands at `at` has missed nothing.
    pub(crate) fn check(&self, prefix: &str, at: Revision) -> Result<(), StoreError> {
        let touches = |part: &str| part.starts_with(prefix) || prefix.starts_with(part);
        let missed = |(_, (from, to)): &(&String, &(Revision, Revision))| at > *from && at < *to;
        match self.lost_by_part.iter().filter(missed).find(|(part, _)| touches(part)) {
            Some((_, (_, to))) => Err(StoreError::Compacted { requested: at, oldest: *to }),
            None => Ok(()),
        }
    }
}

/// The part of the key space that a key belongs to: its first two segments, so that there are few.
pub(crate) fn part_of(key: &Key) -> &str {
    let text = key.as_str();
    let mut slashes = text.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at + 1);
    let end = slashes.by_ref().take(3).last().unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_two_segments() {
        for (key, part) in [
            ("/registry/events/default/a", "/registry/events/"),
            ("/registry/events/a", "/registry/events/"),
            ("/registry/a", "/registry/"),
            ("a", ""),
        ] {
            assert_eq!(part_of(&Key::new(key)), part);
        }
    }

    fn check(gaps: &Gaps, prefix: &str, at: u64, oldest: Option<u64>) {
        let error = gaps.check(prefix, Revision(at)).err();
        let found = error.map(|error| match error {
            StoreError::Compacted { oldest, .. } => oldest.0,
            other => panic!("{other}"),
        });
        assert_eq!(found, oldest, "{prefix} at {at}");
    }

    #[test]
    fn only_who_may_have_seen_what_is_lost_is_turned_away() {
        let noted = vec![("/r/events/".to_owned(), Revision(0), Revision(0))];
        let gaps = Gaps::restore(noted, Some((Revision(10), Revision(20))), Revision(5));
        for prefix in ["", "/r/", "/r/events/", "/r/events/default/"] {
            check(&gaps, prefix, 10, None);
            check(&gaps, prefix, 11, Some(20));
            check(&gaps, prefix, 19, Some(20));
            check(&gaps, prefix, 20, None);
        }
        check(&gaps, "/r/pods/", 15, None);

        let again = Gaps::restore(gaps.noted(), Some((Revision(25), Revision(30))), Revision(5));
        check(&again, "/r/events/", 15, Some(30));
        check(&again, "/r/events/", 26, Some(30));
        let later = Gaps::restore(again.noted(), None, Revision(6));
        check(&later, "/r/events/", 15, Some(30));
        let compacted = Gaps::restore(later.noted(), None, Revision(30));
        assert!(!compacted.knows("/r/events/"), "history begins after it");
    }
}
