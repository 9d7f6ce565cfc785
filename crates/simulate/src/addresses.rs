//! Addresses for nodes and pods, out of ranges that no real network has: nodes from the one for benchmarks (RFC 2544),
//! pods from the shared one (RFC 6598).
//!
//! Invariant: an address is with one owner at a time.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

/// A range from which owners get addresses.
#[derive(Debug)]
pub(crate) struct Pool {
    base: u32,
    size: u32,
    next: u32,
    taken: HashSet<u32>,
    /// What was given and is not known to be in use yet.
    given: HashMap<String, u32>,
}

impl Pool {
    /// 198.18.0.0/15.
    pub(crate) fn for_nodes() -> Self {
        Self::new(Ipv4Addr::new(198, 18, 0, 0), 1 << 17)
    }

    /// 100.64.0.0/10.
    pub(crate) fn for_pods() -> Self {
        Self::new(Ipv4Addr::new(100, 64, 0, 0), 1 << 22)
    }

    fn new(base: Ipv4Addr, size: u32) -> Self {
        Self { base: base.to_bits(), size, next: 1, taken: HashSet::new(), given: HashMap::new() }
    }

    /// The address of an owner that has none yet: the same until it is seen in use or given back.
    pub(crate) fn give(&mut self, owner: &str) -> Option<Ipv4Addr> {
        if let Some(offset) = self.given.get(owner) {
            return Some(self.address(*offset));
        }
        if self.taken.len() + 2 >= self.size as usize {
            return None;
        }
        while self.taken.contains(&self.next) {
            self.next = if self.next + 2 >= self.size { 1 } else { self.next + 1 };
        }
        self.taken.insert(self.next);
        self.given.insert(owner.to_owned(), self.next);
        Some(self.address(self.next))
    }

    /// An address is in use, by this owner.
    pub(crate) fn seen(&mut self, owner: &str, address: &str) {
        if let Some(offset) = self.offset(address) {
            self.taken.insert(offset);
            if self.given.get(owner) == Some(&offset) {
                self.given.remove(owner);
            }
        }
    }

    /// An owner is gone, with the address it had.
    pub(crate) fn take_back(&mut self, owner: &str, address: Option<&str>) {
        let given = self.given.remove(owner);
        if let Some(offset) = address.and_then(|address| self.offset(address)).or(given) {
            self.taken.remove(&offset);
        }
    }

    fn address(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + offset)
    }

    fn offset(&self, address: &str) -> Option<u32> {
        let address: Ipv4Addr = address.parse().ok()?;
        address.to_bits().checked_sub(self.base).filter(|offset| *offset < self.size)
    }
}

/// The pod range that a node of the simulation's own names: 256 addresses. Pods get theirs from one pool for all nodes.
pub(crate) fn pod_range(number: u32) -> String {
    format!("{}/24", Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() + number * 256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_with_one_owner_at_a_time() {
        let mut pool = Pool::new(Ipv4Addr::new(192, 0, 2, 0), 6);
        pool.seen("old", "192.0.2.2");
        let mut give = |owner| pool.give(owner).map(|address| address.to_string());
        assert_eq!(give("a").as_deref(), Some("192.0.2.1"));
        assert_eq!(give("a").as_deref(), Some("192.0.2.1"), "the same until it is in use");
        assert_eq!(give("b").as_deref(), Some("192.0.2.3"));
        assert_eq!(give("c").as_deref(), Some("192.0.2.4"));
        assert_eq!(give("d"), None);
        pool.seen("a", "192.0.2.1");
        pool.take_back("a", Some("192.0.2.1"));
        pool.take_back("b", None);
        assert_eq!(pool.give("d").unwrap().to_string(), "192.0.2.1");
        assert_eq!(pool.give("e").unwrap().to_string(), "192.0.2.3");
    }

    #[test]
    fn every_node_names_a_range() {
        assert_eq!(pod_range(0), "100.64.0.0/24");
        assert_eq!(pod_range(5000), "100.83.136.0/24");
        assert_eq!(pod_range((1 << 14) - 1), "100.127.255.0/24");
    }
}
