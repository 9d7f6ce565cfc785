//! What the kernel holds of one table, as `nft --json --terse list table` tells it: names and rule counts, no elements.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// The shape of a table in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// How many rules each chain has.
    pub rules_by_chain: BTreeMap<String, usize>,
    /// The names of the sets.
    pub sets: BTreeSet<String>,
    /// The names of the maps.
    pub maps: BTreeSet<String>,
}

/// nft's answer is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("nft listed a table in a form that is not understood")]
pub struct ParseSnapshotError(#[from] serde_json::Error);

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Item {
    Metainfo(serde::de::IgnoredAny),
    Table(serde::de::IgnoredAny),
    Chain(Named),
    Rule(InChain),
    Set(Named),
    Map(Named),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct InChain {
    chain: String,
}

impl Snapshot {
    /// Reads nft's JSON.
    pub fn parse(json: &str) -> Result<Self, ParseSnapshotError> {
        let listing: Listing = serde_json::from_str(json)?;
        let mut snapshot = Self::default();
        for item in listing.nftables {
            match item {
                Item::Chain(chain) => {
                    snapshot.rules_by_chain.entry(chain.name).or_default();
                }
                Item::Rule(rule) => *snapshot.rules_by_chain.entry(rule.chain).or_default() += 1,
                Item::Set(set) => {
                    snapshot.sets.insert(set.name);
                }
                Item::Map(map) => {
                    snapshot.maps.insert(map.name);
                }
                Item::Metainfo(_) | Item::Table(_) | Item::Other => {}
            }
        }
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read() {
        let json = r#"{"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "ip", "name": "t", "handle": 1}},
            {"map": {"family": "ip", "name": "m", "table": "t", "type": ["ipv4_addr"], "map": "verdict"}},
            {"set": {"family": "ip", "name": "s", "table": "t", "type": "ipv4_addr"}},
            {"chain": {"family": "ip", "table": "t", "name": "a", "handle": 1}},
            {"chain": {"family": "ip", "table": "t", "name": "b", "handle": 2}},
            {"rule": {"family": "ip", "table": "t", "chain": "a", "handle": 8, "expr": [{"drop": null}]}},
            {"rule": {"family": "ip", "table": "t", "chain": "a", "handle": 9, "expr": []}}]}"#;
        let snapshot = Snapshot::parse(json).unwrap();
        assert_eq!(snapshot.rules_by_chain, BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 0)]));
        assert_eq!(snapshot.sets, BTreeSet::from(["s".to_owned()]));
        assert_eq!(snapshot.maps, BTreeSet::from(["m".to_owned()]));
        assert!(Snapshot::parse("Error: no").is_err());
    }
}
