//! What one reader of a machine found, before it is known which machine it is.
//!
//! Readers run beside one another. Invariant: what a reader cannot look at is in `unseen`, never left out.

use jiff::Timestamp;
use kedge_diagnosis::{Evidence, Fact, Item, LogFact, LogSource, MeasureFact, Place, Unseen};
use serde_json::Value;

use crate::node::unseen;

/// Facts with their time and origin, and what could not be looked at.
#[derive(Debug, Default)]
pub(super) struct Reading {
    facts: Vec<(Option<Timestamp>, String, Fact)>,
    unseen: Vec<Unseen>,
}

impl Reading {
    pub(super) fn add(&mut self, origin: impl Into<String>, fact: Fact) {
        self.facts.push((None, origin.into(), fact));
    }

    pub(super) fn add_at(&mut self, time: Option<Timestamp>, origin: impl Into<String>, fact: Fact) {
        self.facts.push((time, origin.into(), fact));
    }

    /// A line of a log.
    pub(super) fn line(&mut self, time: Option<Timestamp>, origin: &str, source: LogSource, text: &str) {
        self.add_at(time, origin, Fact::Log(LogFact { source, text: kedge_bundle::redact_text(text) }));
    }

    /// Something counted.
    pub(super) fn measure(&mut self, origin: &str, name: &str, of: &str, value: f64, limit: Option<f64>) {
        let (name, of) = (name.to_owned(), of.to_owned());
        self.add(origin, Fact::Measure(MeasureFact { name, of, value, limit }));
    }

    /// A configuration file.
    pub(super) fn document(&mut self, name: &str, path: &str, content: Result<Value, String>) {
        let fact = Fact::Document { name: name.to_owned(), path: path.to_owned(), content };
        self.add(format!("cat {path}"), fact);
    }

    pub(super) fn miss(&mut self, what: impl Into<String>, why: impl std::fmt::Display) {
        self.unseen.push(unseen(what, why));
    }

    /// What follows it.
    pub(super) fn append(&mut self, mut other: Self) {
        self.facts.append(&mut other.facts);
        self.unseen.append(&mut other.unseen);
    }

    /// Becomes evidence of a machine.
    pub(super) fn hand_over(self, place: &Place, evidence: &mut Evidence) {
        let item = |(time, origin, fact)| Item { time, place: place.clone(), origin, fact };
        evidence.items.extend(self.facts.into_iter().map(item));
        evidence.unseen.extend(self.unseen);
    }

    #[cfg(test)]
    pub(super) fn facts(&self) -> impl Iterator<Item = (Option<Timestamp>, &Fact)> {
        self.facts.iter().map(|(time, _, fact)| (*time, fact))
    }

    #[cfg(test)]
    pub(super) fn missed(&self) -> Vec<&str> {
        self.unseen.iter().map(|unseen| unseen.what.as_str()).collect()
    }
}
