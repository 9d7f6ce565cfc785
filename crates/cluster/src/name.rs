//! Names of clusters and of their nodes: node 2 of the cluster `demo` is `demo-2`, so that a node's name says where it is.
//!
//! Pure. Invariant: a name that was parsed can stand in a path, in a host name and in the name of a network namespace.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Leaves room for the number in a host name, and for the path of containerd's socket.
const LONGEST: usize = 40;

/// The name of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

/// The name of a node of some cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName {
    cluster: ClusterName,
    number: u8,
}

impl ClusterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its node with this number; numbers begin with 1.
    pub fn node(&self, number: u8) -> NodeName {
        NodeName { cluster: self.clone(), number }
    }

    /// The name of the network namespace with its bridge.
    pub(crate) fn namespace(&self) -> String {
        format!("kedge-{}", self.0)
    }

    /// The name of its context in kubeconfigs.
    pub(crate) fn context(&self) -> String {
        format!("kedge-{}", self.0)
    }
}

impl NodeName {
    /// The cluster.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The number within the cluster, from 1 on.
    pub fn number(&self) -> u8 {
        self.number
    }
}

impl FromStr for ClusterName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |why: &str| Error::Name { name: text.to_owned(), why: why.to_owned() };
        let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty() || !text.chars().all(is_good) {
            return Err(refuse("it must consist of lower-case letters, digits and `-`"));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(refuse("it must begin and end with a letter or digit"));
        }
        if text.len() > LONGEST {
            return Err(refuse(&format!("it is longer than {LONGEST} characters")));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for NodeName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = || Error::Name {
            name: text.to_owned(),
            why: "a node is named by its cluster and a number, like demo-2".to_owned(),
        };
        let (cluster, number) = text.rsplit_once('-').ok_or_else(refuse)?;
        if number.starts_with(['0', '+']) {
            return Err(refuse());
        }
        Ok(Self { cluster: cluster.parse()?, number: number.parse().map_err(|_| refuse())? })
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.cluster, self.number)
    }
}

impl TryFrom<String> for ClusterName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<String> for NodeName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_stand_in_a_path_or_host_name_are_refused() {
        let check = |text: &str, is_good: bool| assert_eq!(text.parse::<ClusterName>().is_ok(), is_good, "{text:?}");
        check("demo", true);
        check("a-1", true);
        check("", false);
        check("../etc", false);
        check("Demo", false);
        check("-a", false);
        check("a-", false);
        check("a.b", false);
        check(&"a".repeat(40), true);
        check(&"a".repeat(41), false);
    }

    #[test]
    fn a_nodes_name_says_its_cluster() {
        let check = |text: &str, expected: Option<(&str, u8)>| {
            let parsed = text.parse::<NodeName>().ok();
            let shown = parsed.as_ref().map(|node| (node.cluster().as_str(), node.number()));
            assert_eq!(shown, expected, "{text:?}");
            assert!(parsed.is_none_or(|node| node.to_string() == text));
        };
        check("demo-2", Some(("demo", 2)));
        check("a-1-12", Some(("a-1", 12)));
        check("demo", None);
        check("demo-x", None);
        check("demo-02", None);
        check("demo-+2", None);
        check("demo-300", None);
    }
}
