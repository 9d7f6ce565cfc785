//! The routes that peers announced. Pure: the time comes in as an argument.
//!
//! Invariant: a route is there as long as its peer stands by it, and after its session broke for as long as routes may be
//! stale: a peer that restarts forwards packets all the while, as its kernel keeps the routes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

/// Where a prefix is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LearnedRoute {
    /// The next hop.
    pub next_hop: IpAddr,
    /// The peer that said so.
    pub peer: IpAddr,
    /// Whether its session is down.
    pub is_stale: bool,
}

#[derive(Debug, Clone, Default)]
struct PeerRoutes {
    next_hops: BTreeMap<IpNet, IpAddr>,
    /// Those of before the session broke, and when.
    stale: BTreeMap<IpNet, IpAddr>,
    broken_since: Option<Instant>,
}

/// All routes by peer.
#[derive(Debug, Clone)]
pub struct Rib {
    peers: BTreeMap<IpAddr, PeerRoutes>,
    stale_for: Duration,
}

impl Rib {
    /// An empty one, that keeps the routes of a broken session for so long.
    pub fn new(stale_for: Duration) -> Self {
        Self { peers: BTreeMap::new(), stale_for }
    }

    /// A peer announces prefixes.
    pub fn announce(&mut self, peer: IpAddr, prefixes: impl IntoIterator<Item = IpNet>, next_hop: IpAddr) {
        let routes = self.peers.entry(peer).or_default();
        for prefix in prefixes {
            routes.stale.remove(&prefix);
            routes.next_hops.insert(prefix, next_hop);
        }
    }

    /// A peer takes prefixes back.
    pub fn withdraw(&mut self, peer: IpAddr, prefixes: impl IntoIterator<Item = IpNet>) {
        let routes = self.peers.entry(peer).or_default();
        for prefix in prefixes {
            routes.stale.remove(&prefix);
            routes.next_hops.remove(&prefix);
        }
    }

    /// A peer has said all that it has of a family, given as whether it is IPv6: what it did not repeat after a break is
    /// gone.
    pub fn end_of_routes(&mut self, peer: IpAddr, ipv6: bool) {
        if let Some(routes) = self.peers.get_mut(&peer) {
            routes.stale.retain(|prefix, _| prefix.addr().is_ipv6() != ipv6);
            if routes.stale.is_empty() {
                routes.broken_since = None;
            }
        }
    }

    /// The session broke; its routes stay for a while.
    pub fn broke(&mut self, peer: IpAddr, now: Instant) {
        if let Some(routes) = self.peers.get_mut(&peer) {
            let fresh = std::mem::take(&mut routes.next_hops);
            if !fresh.is_empty() {
                routes.stale = fresh;
                routes.broken_since = Some(now);
            }
        }
    }

    /// The peer said goodbye, or is none any more.
    pub fn forget(&mut self, peer: IpAddr) {
        self.peers.remove(&peer);
    }

    /// Drops what has been stale for too long; says when there is something to drop next.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        let mut next = None;
        for routes in self.peers.values_mut() {
            let Some(until) = routes.broken_since.map(|since| since + self.stale_for) else { continue };
            if until <= now {
                routes.stale.clear();
                routes.broken_since = None;
            } else {
                next = Some(next.map_or(until, |next: Instant| next.min(until)));
            }
        }
        next
    }

    /// How many routes a peer announces.
    pub fn count(&self, peer: IpAddr) -> usize {
        self.peers.get(&peer).map_or(0, |routes| routes.next_hops.len())
    }

    /// The route of each prefix: a fresh one before a stale one, the peer with the lowest address among equals.
    pub fn best(&self) -> BTreeMap<IpNet, LearnedRoute> {
        let mut best = BTreeMap::new();
        for is_stale in [false, true] {
            for (peer, routes) in &self.peers {
                let next_hops = if is_stale { &routes.stale } else { &routes.next_hops };
                for (prefix, next_hop) in next_hops {
                    let route = LearnedRoute { next_hop: *next_hop, peer: *peer, is_stale };
                    best.entry(*prefix).or_insert(route);
                }
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn shown(rib: &Rib) -> Vec<String> {
        let show = |(prefix, route): (IpNet, LearnedRoute)| {
            format!("{prefix} via {}{}", route.next_hop, if route.is_stale { " stale" } else { "" })
        };
        rib.best().into_iter().map(show).collect()
    }

    #[test]
    fn the_lowest_peer_wins_until_it_withdraws() {
        let mut rib = Rib::new(Duration::from_secs(60));
        rib.announce(B, [net("10.244.1.0/24")], B);
        rib.announce(A, [net("10.244.1.0/24"), net("10.244.2.0/24")], A);
        assert_eq!(shown(&rib), ["10.244.1.0/24 via 192.0.2.1", "10.244.2.0/24 via 192.0.2.1"]);
        assert_eq!((rib.count(A), rib.count(B)), (2, 1));
        rib.withdraw(A, [net("10.244.1.0/24")]);
        assert_eq!(shown(&rib), ["10.244.1.0/24 via 192.0.2.2", "10.244.2.0/24 via 192.0.2.1"]);
        rib.forget(A);
        assert_eq!(shown(&rib), ["10.244.1.0/24 via 192.0.2.2"]);
    }

    #[test]
    fn a_broken_session_keeps_its_routes_for_a_while() {
        let start = Instant::now();
        let mut rib = Rib::new(Duration::from_secs(60));
        rib.announce(A, [net("10.244.1.0/24"), net("10.244.2.0/24")], A);
        rib.broke(A, start);
        assert_eq!(shown(&rib), ["10.244.1.0/24 via 192.0.2.1 stale", "10.244.2.0/24 via 192.0.2.1 stale"]);
        assert_eq!(rib.expire(start + Duration::from_secs(59)), Some(start + Duration::from_secs(60)));
        rib.announce(B, [net("10.244.2.0/24")], B);
        assert_eq!(shown(&rib), ["10.244.1.0/24 via 192.0.2.1 stale", "10.244.2.0/24 via 192.0.2.2"]);
        assert_eq!(rib.expire(start + Duration::from_secs(60)), None);
        assert_eq!(shown(&rib), ["10.244.2.0/24 via 192.0.2.2"]);
    }

    #[test]
    fn what_is_not_repeated_after_a_break_goes() {
        let start = Instant::now();
        let mut rib = Rib::new(Duration::from_secs(60));
        rib.announce(A, [net("10.244.1.0/24"), net("10.244.2.0/24")], A);
        rib.broke(A, start);
        rib.broke(A, start + Duration::from_secs(30));
        rib.announce(A, [net("10.244.2.0/24")], A);
        assert_eq!(shown(&rib), ["10.244.1.0/24 via 192.0.2.1 stale", "10.244.2.0/24 via 192.0.2.1"]);
        rib.end_of_routes(A, true);
        assert_eq!(shown(&rib).len(), 2, "that was another family");
        rib.end_of_routes(A, false);
        assert_eq!(shown(&rib), ["10.244.2.0/24 via 192.0.2.1"]);
        assert_eq!(rib.expire(start + Duration::from_secs(600)), None);
    }
}
