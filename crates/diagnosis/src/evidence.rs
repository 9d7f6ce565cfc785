//! What was seen, typed, with its time, its place and its origin.
//!
//! Invariant: an item says what is, never what it means; what could not be looked at is an item of its own kind.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::facts::{
    CertificateFact, Fact, FileKind, LogFact, ManifestFact, MeasureFact, NetworkFact, ProcessFact, UnitFact,
};
use crate::finding::Subject;
use crate::items::Items;

/// Everything that was seen, and from when.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// When it was gathered; certificates and ages are held against it.
    pub gathered: Timestamp,
    /// What was seen.
    pub items: Items,
    /// What was not.
    #[serde(default)]
    pub unseen: Vec<Unseen>,
}

/// One thing that was seen.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// When it happened, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// Where.
    pub place: Place,
    /// Where it was read, as a person would look it up: a path, a command.
    pub origin: String,
    /// What.
    pub fact: Fact,
}

/// Where something was seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// In the API.
    Cluster,
    /// On a machine.
    Node(String),
}

/// What could not be looked at, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unseen {
    /// What, as in `pods of all namespaces`.
    pub what: String,
    /// Why, as in `pods is forbidden: ...`.
    pub why: String,
}

impl Evidence {
    /// Whether objects of a kind were asked for and could not be had: their absence then means nothing.
    pub fn is_unseen(&self, what: &str) -> bool {
        self.unseen.iter().any(|unseen| unseen.what == what)
    }

    /// Facts that a function picks, with their index, of all that are neither objects nor lines of logs.
    pub(crate) fn pick<'a, T>(
        &'a self,
        pick: impl Fn(&'a Fact) -> Option<T> + 'a,
    ) -> impl Iterator<Item = (usize, &'a Item, T)> + 'a {
        let facts = self.items.facts().iter().map(|&index| (index, &self.items[index]));
        facts.filter_map(move |(index, item)| pick(&item.fact).map(|fact| (index, item, fact)))
    }

    /// Objects of a kind.
    pub(crate) fn objects<'a>(&'a self, kind: &str) -> impl Iterator<Item = (usize, &'a Item, &'a Value)> + 'a {
        self.items.of_kind(kind).iter().filter_map(|&index| match &self.items[index] {
            item @ Item { fact: Fact::Object(object), .. } => Some((index, item, object)),
            _ => None,
        })
    }

    /// An object by who it is.
    pub(crate) fn object(&self, subject: &Subject) -> Option<(usize, &Item, &Value)> {
        let index = self.items.of_subject(subject)?;
        match &self.items[index] {
            item @ Item { fact: Fact::Object(object), .. } => Some((index, item, object)),
            _ => None,
        }
    }

    pub(crate) fn manifests(&self) -> impl Iterator<Item = (usize, &Item, &ManifestFact)> {
        self.pick(|fact| match fact {
            Fact::Manifest(manifest) => Some(manifest),
            _ => None,
        })
    }

    pub(crate) fn certificates(&self) -> impl Iterator<Item = (usize, &Item, &CertificateFact)> {
        self.pick(|fact| match fact {
            Fact::Certificate(certificate) => Some(certificate),
            _ => None,
        })
    }

    /// What lies at a path of a machine.
    pub(crate) fn file(&self, place: &Place, path: &str) -> Option<(usize, FileKind)> {
        let files = self.pick(|fact| match fact {
            Fact::File(file) => Some(file),
            _ => None,
        });
        let mut files = files.filter(|(_, item, file)| item.place == *place && file.path == path);
        files.next().map(|(index, _, file)| (index, file.kind))
    }

    /// A setting of the kernel on each machine that was looked at.
    pub(crate) fn settings<'a>(&'a self, wanted: &'a str) -> impl Iterator<Item = (usize, &'a Item, Option<&'a str>)> {
        self.pick(move |fact| match fact {
            Fact::Setting { name, value } if name == wanted => Some(value.as_deref()),
            _ => None,
        })
    }

    /// Lines of logs, in their order within each source.
    pub(crate) fn logs(&self) -> impl Iterator<Item = (usize, &Item, &LogFact)> {
        self.items.lines().iter().filter_map(|&index| match &self.items[index] {
            item @ Item { fact: Fact::Log(line), .. } => Some((index, item, line)),
            _ => None,
        })
    }

    pub(crate) fn units(&self) -> impl Iterator<Item = (usize, &Item, &UnitFact)> {
        self.pick(|fact| match fact {
            Fact::Unit(unit) => Some(unit),
            _ => None,
        })
    }

    pub(crate) fn processes(&self) -> impl Iterator<Item = (usize, &Item, &ProcessFact)> {
        self.pick(|fact| match fact {
            Fact::Process(process) => Some(process),
            _ => None,
        })
    }

    /// Measurements of a name.
    pub(crate) fn measures<'a>(&'a self, wanted: &'a str) -> impl Iterator<Item = (usize, &'a Item, &'a MeasureFact)> {
        self.pick(move |fact| match fact {
            Fact::Measure(measure) if measure.name == wanted => Some(measure),
            _ => None,
        })
    }

    /// Documents of a kind: configurations as they are written.
    pub(crate) fn documents<'a>(&'a self, wanted: &'a str) -> impl Iterator<Item = (usize, &'a Item, &'a Value)> {
        self.pick(move |fact| match fact {
            Fact::Document { name, content: Ok(content), .. } if name == wanted => Some(content),
            _ => None,
        })
    }

    pub(crate) fn networks(&self) -> impl Iterator<Item = (usize, &Item, &NetworkFact)> {
        self.pick(|fact| match fact {
            Fact::Network(network) => Some(network),
            _ => None,
        })
    }
}
