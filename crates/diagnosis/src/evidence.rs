//! What was seen, typed, with its time, its place and its origin.
//!
//! Invariant: an item says what is, never what it means; what could not be looked at is an item of its own kind.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Everything that was seen, and from when.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// When it was gathered; certificates and ages are held against it.
    pub gathered: Timestamp,
    /// What was seen.
    pub items: Vec<Item>,
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

/// What was seen.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fact {
    /// An object of the API, whole.
    Object(Value),
    /// A file of the directory of static pods.
    Manifest(ManifestFact),
    /// A file that something refers to.
    File(FileFact),
    /// A certificate in a file.
    Certificate(CertificateFact),
    /// A setting of the kernel: its name in sysctl's notation and its value, absent where there is no such setting.
    Setting {
        /// As in `net.ipv4.ip_forward`.
        name: String,
        /// Its text.
        value: Option<String>,
    },
    /// A mounted file system.
    FileSystem(FileSystemFact),
    /// A server of the cluster was called, and how it ended.
    Call {
        /// What was called, as in `https://127.0.0.1:6443/readyz`.
        target: String,
        /// The error, if it failed.
        error: Option<String>,
    },
}

/// A file of the directory of static pods.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestFact {
    /// The file.
    pub path: String,
    /// The pod in it, or why there is none.
    pub pod: Result<Value, String>,
}

/// A file, as it is found.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileFact {
    /// Its path.
    pub path: String,
    /// What lies there.
    pub kind: FileKind,
}

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FileKind {
    /// Nothing.
    Missing,
    /// A file without content.
    EmptyFile,
    /// A file.
    File,
    /// A directory without entries.
    EmptyDirectory,
    /// A directory.
    Directory,
    /// A socket, a device or something else.
    Other,
}

/// A certificate in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFact {
    /// The file.
    pub path: String,
    /// The subject's common name.
    pub common_name: String,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// Whether it is an authority's.
    pub is_authority: bool,
}

/// A mounted file system.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileSystemFact {
    /// A path on it.
    pub path: String,
    /// Size, in bytes.
    pub size: u64,
    /// What may still be written, in bytes.
    pub available: u64,
    /// Number of inodes; 0 where the file system has no such bound.
    pub inodes: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
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

    /// Items with their index, of those facts that a function picks.
    pub(crate) fn pick<'a, T>(
        &'a self,
        pick: impl Fn(&'a Fact) -> Option<T> + 'a,
    ) -> impl Iterator<Item = (usize, &'a Item, T)> + 'a {
        self.items.iter().enumerate().filter_map(move |(index, item)| pick(&item.fact).map(|fact| (index, item, fact)))
    }

    /// Objects of a kind.
    pub(crate) fn objects<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (usize, &'a Item, &'a Value)> + 'a {
        self.pick(move |fact| match fact {
            Fact::Object(object) if object["kind"] == kind => Some(object),
            _ => None,
        })
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
}
