//! The items of evidence in their order, found by their kind and by who they are.
//!
//! A cluster has hundreds of thousands of them and a rule base has hundreds of rules: none of them looks at all items.
//! Items are only ever added. Invariant: the index says of every item what the item says of itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::evidence::Item;
use crate::facts::Fact;
use crate::finding::Subject;
use crate::object::{subject, text};

/// The items of evidence. They read as a slice; what is added keeps its place.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Item>", into = "Vec<Item>")]
pub struct Items {
    all: Vec<Item>,
    /// Objects by their kind.
    objects: BTreeMap<String, Vec<usize>>,
    /// Lines of logs.
    lines: Vec<usize>,
    /// Facts other than objects and lines.
    facts: Vec<usize>,
    /// Objects other than events, by who they are.
    subjects: HashMap<Subject, usize>,
    /// Objects that are only known to be well.
    well: HashSet<Subject>,
}

impl Items {
    /// Adds an item at the end.
    pub fn push(&mut self, item: Item) {
        let index = self.all.len();
        match &item.fact {
            Fact::Object(object) => {
                let kind = text(&object["kind"]);
                match self.objects.get_mut(kind) {
                    Some(known) => known.push(index),
                    None => drop(self.objects.insert(kind.to_owned(), vec![index])),
                }
                if kind != "Event" {
                    self.subjects.entry(subject(object)).or_insert(index);
                }
            }
            Fact::Well(well) => self.well.extend(well.names.iter().map(|name| Subject {
                kind: well.kind.clone(),
                namespace: well.namespace.clone(),
                name: name.clone(),
            })),
            Fact::Log(_) => self.lines.push(index),
            _ => self.facts.push(index),
        }
        self.all.push(item);
    }

    /// Where the objects of a kind are.
    pub(crate) fn of_kind(&self, kind: &str) -> &[usize] {
        self.objects.get(kind).map_or(&[], Vec::as_slice)
    }

    /// Where the lines of logs are.
    pub(crate) fn lines(&self) -> &[usize] {
        &self.lines
    }

    /// Where the facts are that are neither objects nor lines of logs.
    pub(crate) fn facts(&self) -> &[usize] {
        &self.facts
    }

    /// Whether an object is known to be well, and nothing else is known of it.
    pub(crate) fn is_well(&self, subject: &Subject) -> bool {
        self.well.contains(subject)
    }

    /// Where an object is; the first, where it was seen from several places.
    pub(crate) fn of_subject(&self, subject: &Subject) -> Option<usize> {
        self.subjects.get(subject).copied()
    }
}

impl Deref for Items {
    type Target = [Item];

    fn deref(&self) -> &[Item] {
        &self.all
    }
}

impl Extend<Item> for Items {
    fn extend<T: IntoIterator<Item = Item>>(&mut self, items: T) {
        items.into_iter().for_each(|item| self.push(item));
    }
}

impl FromIterator<Item> for Items {
    fn from_iter<T: IntoIterator<Item = Item>>(items: T) -> Self {
        let mut all = Self::default();
        all.extend(items);
        all
    }
}

impl From<Vec<Item>> for Items {
    fn from(items: Vec<Item>) -> Self {
        items.into_iter().collect()
    }
}

impl From<Items> for Vec<Item> {
    fn from(items: Items) -> Self {
        items.all
    }
}

impl<'a> IntoIterator for &'a Items {
    type Item = &'a Item;
    type IntoIter = std::slice::Iter<'a, Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter()
    }
}

impl IntoIterator for Items {
    type Item = Item;
    type IntoIter = std::vec::IntoIter<Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixtures::{event_of, json, logged, node, now, on, pod, setting};

    #[test]
    fn items_are_found_by_kind_and_by_who_they_are() {
        let object = |value| on("one", Fact::Object(value));
        let mut items: Items = vec![
            object(node("one", json!([]))),
            logged("kubelet", "x"),
            object(pod("a", "web", json!({}), json!({}))),
            setting("x", None),
        ]
        .into();
        items.push(object(event_of("Pod", "web", "x", "y")));
        items.push(object(pod("a", "web", json!({}), json!({}))));
        let web = Subject { kind: "Pod".to_owned(), namespace: "a".to_owned(), name: "web".to_owned() };
        assert_eq!((items.of_kind("Pod"), items.lines(), items.facts()), (&[2, 5][..], &[1][..], &[3][..]));
        assert_eq!((items.of_subject(&web), items.of_subject(&Subject::new("Node", "two"))), (Some(2), None));
        assert!(!items.is_well(&web));
        let (kind, namespace, names) = ("Pod".to_owned(), "a".to_owned(), vec!["web".to_owned()]);
        items.push(on("one", Fact::Well(crate::facts::WellFact { kind, namespace, names })));
        assert!(items.is_well(&web));
        // The index is not written, and made again when read.
        let evidence = crate::Evidence { gathered: now(), items, unseen: Vec::new() };
        let written = serde_json::to_value(&evidence).expect("it is written");
        assert!(written["items"].is_array());
        let read: crate::Evidence = serde_json::from_value(written).expect("it is read");
        assert_eq!(read.items.of_kind("Pod"), [2, 5]);
    }
}
