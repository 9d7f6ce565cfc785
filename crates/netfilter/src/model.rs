//! What a table is made of. Names, types and rules are nft's own words, so that `nft list` shows what the code says.
//!
//! Invariant: a container (set or map) keeps its definition for as long as the table lives; only elements, chains and
//! the sets of fragments come and go.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// The address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

impl Family {
    /// The keyword of nft.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
            Family::Inet => "inet",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a base chain hangs, as in `type nat hook prerouting priority dstnat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// `filter`, `nat` or `route`.
    pub kind: &'static str,
    /// `prerouting`, `input`, `forward`, `output` or `postrouting`.
    pub hook: &'static str,
    /// A priority such as `dstnat - 10`.
    pub priority: &'static str,
}

/// A chain of the skeleton.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// The hook of a base chain; absent for a chain that others jump to.
    pub hook: Option<Hook>,
    /// The rules, in order.
    pub rules: Vec<String>,
}

/// The definition of a set, or of a map where `value` is given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetSpec {
    /// The type of the keys, such as `ipv4_addr . inet_proto . inet_service`.
    pub key: String,
    /// The type of the values of a map, such as `verdict`.
    pub value: Option<String>,
    /// Flags such as `interval` or `dynamic,timeout`.
    pub flags: Option<String>,
    /// For how long elements stay where they don't say so themselves, in seconds.
    pub timeout_seconds: Option<u32>,
    /// For people who read the listing.
    pub comment: Option<String>,
}

impl SetSpec {
    /// A plain set.
    pub fn set(key: &str) -> Self {
        Self { key: key.to_owned(), ..Self::default() }
    }

    /// A map to verdicts.
    pub fn verdict_map(key: &str, comment: &str) -> Self {
        Self {
            key: key.to_owned(),
            value: Some("verdict".to_owned()),
            comment: Some(comment.to_owned()),
            ..Self::default()
        }
    }
}

/// The part of a table that is always there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skeleton {
    /// The family.
    pub family: Family,
    /// The name.
    pub name: String,
    /// For people who read the listing.
    pub comment: String,
    /// Sets and maps by name, whose elements come from fragments.
    pub containers: BTreeMap<String, SetSpec>,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
}

/// Names one element of one container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementKey {
    /// The set or map.
    pub container: Cow<'static, str>,
    /// The key, such as `10.96.0.1 . tcp . 443`.
    pub key: String,
}

/// What an element carries besides its key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Element {
    /// The value in a map, such as `goto service-x`.
    pub value: Option<String>,
    /// For people who read the listing.
    pub comment: Option<String>,
}

/// What one owner adds to a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fragment {
    /// Chains with their rules. A name belongs to one owner only.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Sets that the packets fill. A name belongs to one owner only.
    pub sets: BTreeMap<String, SetSpec>,
    /// Elements of the skeleton's containers. Several owners may claim one key: the owner whose name sorts first has
    /// it, and when that one goes the next takes over.
    pub elements: BTreeMap<ElementKey, Element>,
}

impl Fragment {
    /// Adds an element to a map.
    pub fn map(&mut self, container: impl Into<Cow<'static, str>>, key: String, value: String, comment: Option<&str>) {
        let element = Element { value: Some(value), comment: comment.map(str::to_owned) };
        self.elements.insert(ElementKey { container: container.into(), key }, element);
    }

    /// Adds an element to a set.
    pub fn member(&mut self, container: impl Into<Cow<'static, str>>, key: String) {
        self.elements.insert(ElementKey { container: container.into(), key }, Element::default());
    }

    /// Whether it adds nothing.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.sets.is_empty() && self.elements.is_empty()
    }
}
