//! Resolvers that lead back to this server, which an address alone does not show: a local forwarder that forwards to the
//! cluster's DNS, say. Pure, but for the random names.
//!
//! Each resolver is sent a question with a name of its own; if that question arrives here, the resolver loops. Invariant: a
//! resolver that loops is known until a later question to it did not come back.

use std::net::SocketAddr;

use hickory_proto::op::Query;
use hickory_proto::rr::{Name, RecordType};

/// What is known of loops.
#[derive(Default)]
pub(crate) struct Loops {
    /// The question that is on its way, whom it was sent to, and whether it came back.
    probe: Option<(Name, SocketAddr, bool)>,
    /// The resolvers that loop.
    pub(crate) found: Vec<SocketAddr>,
}

impl Loops {
    /// A question for a resolver. As CoreDNS does, it asks for HINFO, which nothing else does.
    pub(crate) fn begin(&mut self, server: SocketAddr) -> Query {
        let (first, second): (u64, u64) = (rand::random(), rand::random());
        let name = Name::from_ascii(format!("{first}.{second}.")).expect("numbers are labels");
        self.probe = Some((name.clone(), server, false));
        Query::query(name, RecordType::HINFO)
    }

    /// Whether a question is the one that is on its way.
    pub(crate) fn catches(&mut self, query: &Query) -> bool {
        match &mut self.probe {
            Some((name, _, came_back)) if query.query_type == RecordType::HINFO && *name == query.name => {
                *came_back = true;
                true
            }
            _ => false,
        }
    }

    /// The question was answered, or not in time.
    pub(crate) fn end(&mut self, server: SocketAddr) {
        let came_back = matches!(self.probe.take(), Some((_, probed, true)) if probed == server);
        let known = self.found.contains(&server);
        if came_back && !known {
            tracing::warn!(%server, "this resolver asks this server what it is asked; it is left out");
            self.found.push(server);
        } else if !came_back && known {
            tracing::info!(%server, "this resolver does not lead back here any more");
            self.found.retain(|found| *found != server);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_comes_back_is_a_loop_until_one_does_not() {
        let (mut loops, server) = (Loops::default(), "10.0.0.1:53".parse().unwrap());
        let probe = loops.begin(server);
        let mut other = probe.clone();
        other.set_query_type(RecordType::A);
        assert!(!loops.catches(&other), "somebody asks for the same name");
        loops.end(server);
        assert!(loops.found.is_empty());
        let old = probe;
        let probe = loops.begin(server);
        assert!(!loops.catches(&old) && loops.catches(&probe));
        loops.end(server);
        assert_eq!(loops.found, [server]);
        loops.begin(server);
        loops.end(server);
        assert!(loops.found.is_empty());
    }
}
