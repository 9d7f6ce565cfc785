//! The API servers that are known, how they are, and which one a new connection tries first.
//!
//! Pure. Invariants: an empty list is never learned, as that would leave the node without a way; what is kept for a server
//! that is no longer named goes with its last connection.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::memory::KnownServer;
use crate::track::{Health, Seen, Track};

/// More API servers than this no cluster has.
const MOST_SERVERS: usize = 32;

/// What is known of one server.
#[derive(Debug)]
struct Server {
    track: Track,
    since: Option<Timestamp>,
    why: String,
    connections: usize,
    /// Ends its connections.
    cut: CancellationToken,
    counts: Counts,
}

/// What happened with one server since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) connections: u64,
    pub(crate) failures: u64,
    pub(crate) cut: u64,
}

impl Server {
    fn new() -> Self {
        Self {
            track: Track::new(),
            since: None,
            why: String::new(),
            connections: 0,
            cut: CancellationToken::new(),
            counts: Counts::default(),
        }
    }
}

/// All servers.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    own: Vec<IpAddr>,
    learned: Vec<SocketAddr>,
    servers: BTreeMap<SocketAddr, Server>,
    /// Where the turn is, among those that are alike.
    turn: usize,
}

/// What metrics say of one server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) server: SocketAddr,
    pub(crate) health: Health,
    pub(crate) open: usize,
    pub(crate) counts: Counts,
}

impl Pool {
    pub(crate) fn new(own: Vec<IpAddr>) -> Self {
        Self { own, ..Self::default() }
    }

    /// Takes in which servers there are; whether that is news.
    pub(crate) fn learn(&mut self, servers: &[SocketAddr]) -> bool {
        let mut servers: Vec<SocketAddr> = servers.to_vec();
        servers.sort_unstable();
        servers.dedup();
        servers.truncate(MOST_SERVERS);
        if servers.is_empty() || servers == self.learned {
            return false;
        }
        for server in &servers {
            self.servers.entry(*server).or_insert_with(Server::new);
        }
        self.learned = servers;
        self.servers.retain(|address, server| server.connections > 0 || self.learned.contains(address));
        true
    }

    /// The servers that are known, in order.
    pub(crate) fn learned(&self) -> &[SocketAddr] {
        &self.learned
    }

    /// The servers in the order in which a new connection tries them: those that are well, this node's own one before the
    /// others, those with few connections before those with many; then the `seeds`; last those that are down.
    pub(crate) fn order(&mut self, seeds: &[SocketAddr]) -> Vec<SocketAddr> {
        self.turn = self.turn.wrapping_add(1);
        let count = self.learned.len();
        let rank = |index: usize, address: &SocketAddr| {
            let server = self.servers.get(address);
            let health = server.map_or(Health::Unknown, |server| server.track.health);
            let open = server.map_or(0, |server| server.connections);
            (health, !self.own.contains(&address.ip()), open, (index + self.turn) % count.max(1))
        };
        let mut ranked: Vec<_> =
            self.learned.iter().enumerate().map(|(index, address)| (rank(index, address), *address)).collect();
        ranked.sort_unstable();
        let is_down = |(rank, _): &&((Health, bool, usize, usize), SocketAddr)| rank.0 == Health::Down;
        let address = |(_, address): &(_, SocketAddr)| *address;
        let mut order: Vec<SocketAddr> = ranked.iter().filter(|entry| !is_down(entry)).map(address).collect();
        order.extend(seeds.iter().filter(|seed| !self.learned.contains(seed)));
        order.extend(ranked.iter().filter(is_down).map(address));
        order
    }

    /// Takes in what was seen of a server, and why; its new health, where that changed.
    pub(crate) fn observe(&mut self, address: SocketAddr, seen: Seen, why: &str, now: Timestamp) -> Option<Health> {
        // Where servers are asked, a connection that the kernel took for one of them says less than its answers.
        let is_asked = self.learned.len() > 1;
        let server = self.servers.get_mut(&address).filter(|_| seen != Seen::Connected || !is_asked)?;
        if seen == Seen::Silent {
            server.counts.failures += 1;
        }
        if !server.track.observe(seen) {
            return None;
        }
        server.since = Some(now);
        server.why = why.to_owned();
        if server.track.health == Health::Down {
            server.counts.cut += server.connections as u64;
            std::mem::take(&mut server.cut).cancel();
        }
        Some(server.track.health)
    }

    /// Whether one more failure makes a server `Down`.
    pub(crate) fn is_in_doubt(&self, address: SocketAddr) -> bool {
        self.servers.get(&address).is_some_and(|server| server.track.is_in_doubt())
    }

    /// Notes a connection to a server; it ends when the token says so.
    pub(crate) fn open(&mut self, address: SocketAddr) -> CancellationToken {
        let server = self.servers.entry(address).or_insert_with(Server::new);
        server.connections += 1;
        server.counts.connections += 1;
        server.cut.clone()
    }

    /// Notes the end of a connection.
    pub(crate) fn close(&mut self, address: SocketAddr) {
        let Some(server) = self.servers.get_mut(&address) else { return };
        server.connections = server.connections.saturating_sub(1);
        if server.connections == 0 && !self.learned.contains(&address) {
            self.servers.remove(&address);
        }
    }

    /// The known servers, as they are remembered and shown.
    pub(crate) fn known(&self) -> Vec<KnownServer> {
        let of = |address: &SocketAddr| {
            let server = self.servers.get(address)?;
            Some(KnownServer {
                address: *address,
                health: server.track.health,
                since: server.since,
                why: server.why.clone(),
            })
        };
        self.learned.iter().filter_map(of).collect()
    }

    /// What metrics say.
    pub(crate) fn figures(&self) -> Vec<Figures> {
        let figures = |(address, server): (&SocketAddr, &Server)| Figures {
            server: *address,
            health: server.track.health,
            open: server.connections,
            counts: server.counts,
        };
        self.servers.iter().map(figures).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 6443))
    }

    fn pool(servers: &[u8]) -> Pool {
        let mut pool = Pool::new(Vec::new());
        pool.learn(&servers.iter().map(|last| address(*last)).collect::<Vec<_>>());
        pool
    }

    fn lasts(order: &[SocketAddr]) -> Vec<u8> {
        order.iter().map(|address| address.to_string()[8..9].parse().unwrap()).collect()
    }

    fn see(pool: &mut Pool, last: u8, seen: &[Seen]) -> Option<Health> {
        seen.iter().fold(None, |_, seen| pool.observe(address(last), *seen, "", Timestamp::UNIX_EPOCH))
    }

    #[test]
    fn the_best_comes_first_and_the_dead_last() {
        let mut pool = pool(&[1, 2, 3, 4]);
        see(&mut pool, 1, &[Seen::Silent, Seen::Silent]);
        see(&mut pool, 2, &[Seen::NotReady]);
        see(&mut pool, 4, &[Seen::Ready]);
        assert_eq!(lasts(&pool.order(&[address(9), address(4)])), [4, 3, 2, 9, 1]);
    }

    #[test]
    fn connections_spread_and_the_own_server_goes_before_others() {
        let mut pool = pool(&[1, 2, 3]);
        let mut chosen = [0; 4];
        for _ in 0..9 {
            let first = pool.order(&[])[0];
            pool.open(first);
            chosen[usize::from(lasts(&[first])[0])] += 1;
        }
        assert_eq!(chosen, [0, 3, 3, 3]);
        pool.close(address(2));
        assert_eq!(lasts(&pool.order(&[])[..1]), [2]);
        pool.own = vec![address(3).ip()];
        assert_eq!(lasts(&pool.order(&[])[..1]), [3]);
        see(&mut pool, 3, &[Seen::NotReady]);
        assert_eq!(lasts(&pool.order(&[])[..1]), [2]);
    }

    #[test]
    fn those_that_are_alike_take_turns() {
        let mut pool = pool(&[1, 2]);
        let first: Vec<u8> = (0..4).map(|_| lasts(&pool.order(&[]))[0]).collect();
        assert_eq!(first.iter().filter(|last| **last == 1).count(), 2, "{first:?}");
    }

    #[test]
    fn a_dead_server_loses_its_connections_and_gets_new_ones_when_it_is_back() {
        let mut pool = pool(&[1, 2]);
        let cut = pool.open(address(1));
        assert_eq!(see(&mut pool, 1, &[Seen::Silent]), None);
        assert!(pool.is_in_doubt(address(1)) && !cut.is_cancelled());
        assert_eq!(see(&mut pool, 1, &[Seen::Silent]), Some(Health::Down));
        assert!(cut.is_cancelled());
        pool.close(address(1));
        assert_eq!(see(&mut pool, 1, &[Seen::Ready]), Some(Health::Ready));
        assert!(!pool.open(address(1)).is_cancelled());
        let counts = pool.figures()[0].counts;
        assert_eq!(counts, Counts { connections: 2, failures: 2, cut: 1 });
    }

    #[test]
    fn a_connection_tells_only_where_nobody_asks() {
        for (servers, expected) in [(&[1][..], Some(Health::Unknown)), (&[1, 2], None)] {
            let mut pool = pool(servers);
            see(&mut pool, 1, &[Seen::Silent, Seen::Silent]);
            assert_eq!(see(&mut pool, 1, &[Seen::Connected]), expected, "{servers:?}");
        }
    }

    #[test]
    fn nothing_is_learned_from_an_empty_list_and_nothing_is_kept_of_who_is_gone() {
        let mut pool = pool(&[1, 2]);
        assert!(!pool.learn(&[]));
        assert!(!pool.learn(&[address(2), address(1), address(1)]));
        pool.open(address(1));
        assert!(pool.learn(&[address(2), address(3)]));
        assert_eq!(pool.figures().len(), 3);
        pool.close(address(1));
        assert_eq!(pool.figures().len(), 2);
        assert_eq!(see(&mut pool, 1, &[Seen::Silent]), None);
        assert_eq!(pool.known().len(), 2);
    }
}
