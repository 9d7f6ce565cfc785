//! What is remembered of the API servers: a file that a start reads, and that says to others how they are.
//!
//! Invariant: the file appears whole; one that can't be read counts as none.

use std::net::SocketAddr;
use std::path::Path;

use jiff::Timestamp;
use kedge_pki::{PkiError, write_public};
use serde::{Deserialize, Serialize};

use crate::track::Health;

/// Its name, in the directory of a node's kubelet.
pub const MEMORY_FILE: &str = "api-balancer.json";

/// A balancer's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The API servers.
    pub servers: Vec<KnownServer>,
    /// By what the cluster was found.
    pub seeds: Vec<String>,
}

/// An API server that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownServer {
    /// Where it is.
    pub address: SocketAddr,
    /// How it is.
    pub health: Health,
    /// Since when; never asked where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why it is so, where it is not well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

impl Memory {
    /// Reads a file; `None` where there is none that makes sense.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), PkiError> {
        write_public(path, &serde_json::to_vec_pretty(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api-balancer.json");
        assert_eq!(Memory::read(&path), None);
        let server = KnownServer {
            address: "[fd00::1]:6443".parse().unwrap(),
            health: Health::Down,
            since: Some(Timestamp::UNIX_EPOCH),
            why: "no answer".to_owned(),
        };
        let memory =
            Memory { listen: crate::DEFAULT_LISTEN, servers: vec![server], seeds: vec!["lb.example:6443".to_owned()] };
        memory.write(&path).unwrap();
        assert_eq!(Memory::read(&path), Some(memory));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Memory::read(&path), None);
    }
}
