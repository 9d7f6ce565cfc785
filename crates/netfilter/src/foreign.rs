//! Other people's rules that would drop what we let through: an accept in one table can't undo a drop in another.

use serde::Deserialize;

/// A base chain in the forward hook whose policy is to drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppingChain {
    /// The family of its table.
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    chain: Option<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
}

/// Finds the chains that drop forwarded packets by policy, in the JSON of [`Nft::list_chains`](crate::Nft::list_chains).
/// An answer that is not understood names none.
pub fn forward_drops(chains_json: &str) -> Vec<DroppingChain> {
    let Ok(listing) = serde_json::from_str::<Listing>(chains_json) else { return Vec::new() };
    let chains = listing.nftables.into_iter().filter_map(|item| item.chain);
    let drops = chains.filter(|chain| {
        chain.hook.as_deref() == Some("forward")
            && chain.policy.as_deref() == Some("drop")
            && matches!(chain.family.as_str(), "ip" | "ip6" | "inet")
    });
    drops.map(|chain| DroppingChain { family: chain.family, table: chain.table, chain: chain.name }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_forward_chains_that_drop_are_named() {
        let json = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
          {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "type": "filter", "hook": "forward", "policy": "drop"}},
          {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "type": "filter", "hook": "input", "policy": "drop"}},
          {"chain": {"family": "inet", "table": "f", "name": "forward", "type": "filter", "hook": "forward", "policy": "accept"}},
          {"chain": {"family": "ip", "table": "filter", "name": "DOCKER"}}]}"#;
        let drops = forward_drops(json);
        assert_eq!(drops.len(), 1);
        assert_eq!((drops[0].table.as_str(), drops[0].chain.as_str()), ("filter", "FORWARD"));
        assert!(forward_drops("oops").is_empty());
    }
}
