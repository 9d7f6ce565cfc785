//! Histories for property tests: what happened, and what of it a controller heard.
//!
//! Events may come late, twice, in another order or not at all; only the last look at the world is sure to be at its newest
//! state. A controller that is driven by levels ends where a model says, whatever it heard before.

use std::collections::BTreeMap;

use kube::Resource;
use proptest::prelude::*;

/// Up to `steps` things that happened, each a choice out of so many with a number of its own; and the moments, as indexes
/// into them, at which the controller looked, in the order in which it did.
pub(crate) fn history(choices: u8, steps: usize) -> impl Strategy<Value = (Vec<(u8, u16)>, Vec<usize>)> {
    let happened = prop::collection::vec((0..choices, any::<u16>()), 1..steps);
    happened.prop_flat_map(|happened| {
        let looks = prop::collection::vec(0..happened.len(), 0..happened.len() * 2);
        (Just(happened), looks)
    })
}

/// Objects of one kind by name, as they are and as a controller's cache shows them; and what the controller wrote that its
/// cache does not show yet, which a controller waits for.
pub(crate) struct Cached<K> {
    pub(crate) real: BTreeMap<String, K>,
    pub(crate) seen: BTreeMap<String, K>,
    /// Names and uids.
    created: BTreeMap<String, String>,
    deleted: BTreeMap<String, String>,
}

fn uid<K: Resource>(object: &K) -> String {
    object.meta().uid.clone().unwrap_or_default()
}

impl<K: Resource + Clone> Cached<K> {
    pub(crate) fn new() -> Self {
        let (created, deleted) = (BTreeMap::new(), BTreeMap::new());
        Self { real: BTreeMap::new(), seen: BTreeMap::new(), created, deleted }
    }

    /// One of the names there are; `None` where there are none.
    pub(crate) fn nth(&self, number: u16) -> Option<String> {
        self.real.keys().nth(usize::from(number) % self.real.len().max(1)).cloned()
    }

    /// One of the names that the cache shows.
    pub(crate) fn nth_seen(&self, number: u16) -> Option<String> {
        self.seen.keys().nth(usize::from(number) % self.seen.len().max(1)).cloned()
    }

    /// The cache shows the newest state of one object.
    pub(crate) fn hear(&mut self, name: &str) {
        match self.real.get(name) {
            Some(object) => drop(self.seen.insert(name.to_owned(), object.clone())),
            None => drop(self.seen.remove(name)),
        }
        // What came and went unseen is given up.
        self.created.remove(name);
        let is_there =
            |uid_then: &String, object: &K| uid(object) == *uid_then && object.meta().deletion_timestamp.is_none();
        let seen = &self.seen;
        self.deleted.retain(|other, then| other != name || seen.get(name).is_some_and(|object| is_there(then, object)));
    }

    /// The cache shows the newest state of one of the objects that there are, or of one of those that it knows.
    pub(crate) fn hear_one(&mut self, is_there: bool, number: u16) {
        let name = if is_there { self.nth(number) } else { self.nth_seen(number) };
        name.iter().for_each(|name| self.hear(name));
    }

    pub(crate) fn hear_everything(&mut self) {
        self.seen = self.real.clone();
        self.created.clear();
        self.deleted.clear();
    }

    /// Whether the cache shows all that the controller wrote.
    pub(crate) fn shows_writes(&self) -> bool {
        self.created.is_empty() && self.deleted.is_empty()
    }

    /// The controller creates an object; whether its name was free.
    pub(crate) fn create(&mut self, object: K) -> bool {
        let name = object.meta().name.clone().unwrap_or_default();
        if self.real.contains_key(&name) {
            return false;
        }
        self.created.insert(name.clone(), uid(&object));
        self.real.insert(name, object);
        true
    }

    /// The controller asks to delete an object that it saw; whether it is still the one that it saw.
    pub(crate) fn ask_to_delete(&mut self, seen: &K) -> bool {
        let name = seen.meta().name.clone().unwrap_or_default();
        let is_same = self.real.get(&name).is_some_and(|real| uid(real) == uid(seen));
        if is_same {
            self.deleted.insert(name, uid(seen));
        }
        is_same
    }

    /// Changes one object, where it exists.
    pub(crate) fn change(&mut self, name: Option<&String>, with: impl FnOnce(K) -> K) {
        if let Some(object) = name.and_then(|name| self.real.get_mut(name)) {
            *object = with(object.clone());
        }
    }
}
