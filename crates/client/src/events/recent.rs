//! A map that forgets what has not been asked for lately.
//!
//! Invariant: the `most` keys that were asked for last are there, and never more than twice as many; no call looks through
//! the map, so that one more object costs the same in a cluster of any size.

use std::collections::HashMap;
use std::hash::Hash;

pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    /// What was young before it were too many.
    old: HashMap<K, V>,
    most: usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), most }
    }

    /// The value of a key, which is remembered for longer by that.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get_mut(key)
    }

    /// The value of a key, `value` where there is none.
    pub(super) fn get_or_insert(&mut self, key: K, value: V) -> &mut V {
        match self.old.remove(&key) {
            Some(known) => self.insert(key, known),
            None if self.young.contains_key(&key) => self.young.get_mut(&key).expect("it is there"),
            None => self.insert(key, value),
        }
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    fn insert(&mut self, key: K, value: V) -> &mut V {
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.entry(key).or_insert(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let mut recent = Recent::new(3);
        for number in 0..100 {
            *recent.get_or_insert(number, 0) += 1;
            *recent.get_or_insert(-1, 0) += 1;
            assert!(recent.young.len() + recent.old.len() <= 6, "{number}");
        }
        assert_eq!(recent.get_mut(&-1), Some(&mut 100), "it was asked for all the time");
        assert_eq!([99, 98, 50].map(|number| recent.get_mut(&number).copied()), [Some(1), Some(1), None]);
        recent.remove(&99);
        assert_eq!(recent.get_mut(&99), None);
    }
}
