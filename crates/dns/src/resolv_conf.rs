//! The machine's resolvers, out of resolv.conf(5). Pure.

use std::net::{IpAddr, SocketAddr};

/// The resolvers to ask.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Upstreams {
    /// In the order of the file.
    pub servers: Vec<SocketAddr>,
    /// Those that would lead back to us.
    pub loops: Vec<IpAddr>,
}

/// glibc's bound; more are not asked by anybody else either.
const SERVERS_MAX: usize = 3;

/// Reads the text of a resolv.conf. Addresses in `own` (those this server or its Service has) are left out, as a question
/// would come back for ever.
pub fn parse_resolv_conf(text: &str, own: &[IpAddr]) -> Upstreams {
    let mut upstreams = Upstreams::default();
    let lines = text.lines().map(|line| line.split(['#', ';']).next().unwrap_or_default());
    for line in lines {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(server) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        if own.contains(&server) {
            upstreams.loops.push(server);
        } else if upstreams.servers.len() < SERVERS_MAX {
            upstreams.servers.push(SocketAddr::new(server, 53));
        }
    }
    upstreams
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_and_loops_left_out() {
        let text = "# a comment\nsearch example.org\nnameserver 10.96.0.10\n nameserver 8.8.8.8 # quad\nnameserver fe80::1%eth0\n\
                    nameserver ::1\noptions ndots:5\nnameserver oops\nnameserver 1.1.1.1\nnameserver 9.9.9.9\n";
        let upstreams = parse_resolv_conf(text, &["10.96.0.10".parse().unwrap()]);
        assert_eq!(upstreams.servers, ["8.8.8.8:53", "[::1]:53", "1.1.1.1:53"].map(|server| server.parse().unwrap()));
        assert_eq!(upstreams.loops, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(parse_resolv_conf("", &[]), Upstreams::default());
    }
}
