//! Which keys are due when. Only keys with a time to live cost anything here.
//!
//! Invariant: both maps hold the same pairs.

use std::collections::{BTreeSet, HashMap};

use crate::port::Key;

#[derive(Debug, Default)]
pub(crate) struct Expiries {
    due_by_key: HashMap<Key, u64>,
    keys_by_due: BTreeSet<(u64, Key)>,
}

impl Expiries {
    /// Replaces the time at which `key` is due.
    pub(crate) fn set(&mut self, key: &Key, due: Option<u64>) {
        let before = match due {
            Some(due) => self.due_by_key.insert(key.clone(), due),
            None => self.due_by_key.remove(key),
        };
        if let Some(before) = before {
            self.keys_by_due.remove(&(before, key.clone()));
        }
        if let Some(due) = due {
            self.keys_by_due.insert((due, key.clone()));
        }
    }

    /// Up to `limit` keys that are due at `now`, the longest overdue first.
    pub(crate) fn due(&self, now: u64, limit: usize) -> Vec<Key> {
        self.keys_by_due.iter().take_while(|(due, _)| *due <= now).take(limit).map(|(_, key)| key.clone()).collect()
    }

    pub(crate) fn next(&self) -> Option<u64> {
        self.keys_by_due.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_due_at_the_time_it_was_given_last() {
        let mut expiries = Expiries::default();
        let (a, b) = (Key::new("/a"), Key::new("/b"));
        expiries.set(&a, Some(10));
        expiries.set(&b, Some(20));
        assert_eq!(expiries.due(9, 9), vec![]);
        assert_eq!(expiries.due(20, 9), vec![a.clone(), b.clone()]);
        assert_eq!(expiries.due(20, 1), vec![a.clone()]);
        expiries.set(&a, Some(30));
        assert_eq!((expiries.next(), expiries.due(20, 9)), (Some(20), vec![b.clone()]));
        expiries.set(&b, None);
        assert_eq!(expiries.next(), Some(30));
        expiries.set(&a, None);
        assert_eq!(expiries.next(), None);
    }
}
