//! From a packet to its answer: the cluster's names from memory, the rest from others, as the block for the name says.
//!
//! Invariant: what is known here is answered without waiting for anybody; an answer has the name that was asked for; a
//! question that breaks something costs its own answer only.

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::Name;
use ipnet::IpNet;
use parking_lot::RwLock;
use rand::seq::SliceRandom;

use crate::catalog::Catalog;
use crate::forward::Forwarder;
use crate::message::{Received, encode, question, receive, response, udp_limit};
use crate::metrics::{Exchange, Metrics};
use crate::rewrite::rewrite;
use crate::routing::{Block, Routing};
use crate::zone::{Outcome, Zone};

/// How many aliases are followed.
const ALIASES_MAX: usize = 8;
/// What an answer to a packet that can't be read may have over UDP.
const PLAIN_MAX: usize = 512;

/// What answers questions.
pub(crate) struct Resolver {
    pub(crate) zone: Zone,
    pub(crate) catalog: RwLock<Option<Catalog>>,
    pub(crate) routing: RwLock<Arc<Routing>>,
    pub(crate) allowed: Vec<IpNet>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Who asks, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) is_tcp: bool,
}

/// What becomes of a packet.
pub(crate) enum Step {
    /// This answer; or none, and over TCP the end of the connection.
    Done(Option<Vec<u8>>),
    /// Others have to be asked.
    Wait(Box<Pending>),
}

/// A question that others have to be asked for.
pub(crate) struct Pending {
    ticket: Ticket,
    answer: Message,
    query: Query,
    forwarder: Forwarder,
}

/// A question on its way, for what is counted and logged at its end.
struct Ticket {
    client: Client,
    began: Instant,
    asked: Message,
    size: usize,
    block: Arc<Block>,
    /// The name that was asked for instead.
    rewritten: Option<Name>,
}

enum Found {
    Here(Message, &'static str),
    Elsewhere(Message, Query, Forwarder),
}

impl Resolver {
    pub(crate) fn is_allowed(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.allowed.is_empty() || client.is_loopback() || self.allowed.iter().any(|range| range.contains(&client))
    }

    pub(crate) fn routing(&self) -> Arc<Routing> {
        self.routing.read().clone()
    }

    /// Answers a packet, as far as that needs nobody else.
    pub(crate) fn begin(&self, packet: &[u8], client: Client) -> Step {
        let asked = match receive(packet) {
            Received::Question(asked) => *asked,
            Received::Refusal(answer) => {
                let limit = if client.is_tcp { usize::from(u16::MAX) } else { PLAIN_MAX };
                return Step::Done(encode(*answer, limit));
            }
            Received::Garbage => return Step::Done(None),
        };
        let routing = self.routing();
        let Some(block) = routing.block_of(&question(&asked).name).cloned() else { return Step::Done(None) };
        let rewritten = rewrite(&block.rewrites, &question(&asked).name);
        let ticket = Ticket { client, began: Instant::now(), size: packet.len(), block, rewritten, asked };
        let found = catch_unwind(AssertUnwindSafe(|| self.find(&ticket, &routing))).unwrap_or_else(|_| {
            self.metrics.panicked();
            Found::Here(response(&ticket.asked, ResponseCode::ServFail), "")
        });
        match found {
            Found::Here(answer, plugin) => Step::Done(self.end(&ticket, answer, plugin)),
            Found::Elsewhere(answer, query, forwarder) => {
                Step::Wait(Box::new(Pending { ticket, answer, query, forwarder }))
            }
        }
    }

    /// Asks the others.
    pub(crate) async fn finish(&self, pending: Pending) -> Option<Vec<u8>> {
        let Pending { ticket, mut answer, query, forwarder } = pending;
        let answer = match forwarder.ask(&query, wants_dnssec(&ticket.asked)).await {
            Some(known) => merge(answer, known),
            None => {
                answer.metadata.response_code = ResponseCode::ServFail;
                if ticket.block.errors {
                    tracing::warn!(name = %query.name, kind = %query.query_type, "no resolver has answered");
                }
                answer
            }
        };
        self.end(&ticket, answer, "forward")
    }

    fn find(&self, ticket: &Ticket, routing: &Routing) -> Found {
        let (asked, dnssec) = (&ticket.asked, wants_dnssec(&ticket.asked));
        let mut answer = response(asked, ResponseCode::NoError);
        let mut query = question(asked).clone();
        if let Some(other) = &ticket.rewritten {
            query.name = other.clone();
        }
        let mut block = &ticket.block;
        for _ in 0..ALIASES_MAX {
            if let Some(hosts) = &block.hosts {
                if let Some(records) = hosts.answer(&query.name, query.query_type) {
                    answer.metadata.authoritative = true;
                    answer.answers.extend(records);
                    return Found::Here(answer, "hosts");
                }
                if !hosts.falls_through(&query.name) {
                    answer.metadata.response_code = ResponseCode::ServFail;
                    return Found::Here(answer, "hosts");
                }
            }
            let outcome = if block.serves_cluster { self.resolve(&query) } else { Some(Outcome::Foreign) };
            match outcome {
                None => {
                    answer.metadata.response_code = ResponseCode::ServFail;
                    return Found::Here(answer, "kubernetes");
                }
                Some(Outcome::Alias { record, target }) => {
                    answer.metadata.authoritative = true;
                    answer.answers.push(*record);
                    block = routing.block_of(&target).unwrap_or(block);
                    query.name = target;
                }
                Some(Outcome::Foreign) => return elsewhere(answer, query, dnssec, block, routing),
                Some(outcome) => return Found::Here(self.complete(answer, &query, outcome), "kubernetes"),
            }
        }
        answer.metadata.response_code = ResponseCode::ServFail;
        Found::Here(answer, "kubernetes")
    }

    /// `None` before everything is known: an answer about the cluster would be wrong then, and a failure makes the client
    /// ask again. The names of others don't depend on it.
    fn resolve(&self, query: &Query) -> Option<Outcome> {
        match &*self.catalog.read() {
            Some(catalog) => Some(self.zone.resolve(catalog, &query.name, query.query_type)),
            None => match self.zone.resolve(&Catalog::default(), &query.name, query.query_type) {
                Outcome::Foreign => Some(Outcome::Foreign),
                _ => None,
            },
        }
    }

    fn complete(&self, mut answer: Message, query: &Query, outcome: Outcome) -> Message {
        answer.metadata.authoritative = true;
        if let Outcome::Records { mut answers, additionals } = outcome {
            if answers.is_empty() {
                answer.authorities.extend(self.zone.negative_authority(&query.name));
            }
            // Clients take the first; each gets another one.
            answers.shuffle(&mut rand::rng());
            answer.answers.extend(answers);
            answer.additionals.extend(additionals);
        } else {
            answer.metadata.response_code = ResponseCode::NXDomain;
            answer.authorities.extend(self.zone.negative_authority(&query.name));
        }
        answer
    }

    /// Writes an answer, counts it, and logs it where that is wished.
    fn end(&self, ticket: &Ticket, mut answer: Message, plugin: &'static str) -> Option<Vec<u8>> {
        let asked = question(&ticket.asked);
        if let Some(other) = &ticket.rewritten {
            let is_other = |name: &Name| name == other;
            answer.answers.iter_mut().filter(|record| is_other(&record.name)).for_each(|record| {
                record.name = asked.name.clone();
            });
        }
        let code = answer.metadata.response_code;
        let limit = if ticket.client.is_tcp { usize::from(u16::MAX) } else { udp_limit(&ticket.asked) };
        let bytes = encode(answer, limit);
        let took = ticket.began.elapsed();
        let transport = if ticket.client.is_tcp { "tcp" } else { "udp" };
        self.metrics.answered(&Exchange {
            zone: &ticket.block.label,
            transport,
            is_ipv6: ticket.client.address.is_ipv6(),
            kind: asked.query_type,
            dnssec: wants_dnssec(&ticket.asked),
            code,
            plugin,
            request_size: ticket.size,
            response_size: bytes.as_ref().map_or(0, Vec::len),
            took,
        });
        if ticket.block.log {
            let (name, kind, id) = (&asked.name, asked.query_type, ticket.asked.metadata.id);
            tracing::info!(client = %ticket.client.address, id, %name, %kind, transport, ?code, ?took, "query");
        }
        bytes
    }
}

fn elsewhere(mut answer: Message, query: Query, dnssec: bool, block: &Block, routing: &Routing) -> Found {
    if routing.forwarders().any(|forwarder| forwarder.catches(&query)) {
        answer.metadata.response_code = ResponseCode::Refused;
        return Found::Here(answer, "loop");
    }
    let Some(forwarder) = block.forwarder_of(&query.name) else {
        answer.metadata.response_code = ResponseCode::Refused;
        return Found::Here(answer, "");
    };
    match forwarder.cached(&query, dnssec) {
        Some(known) => Found::Here(merge(answer, known), "cache"),
        None => Found::Elsewhere(answer, query, forwarder.clone()),
    }
}

fn wants_dnssec(asked: &Message) -> bool {
    asked.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok)
}

/// Puts what others said into an answer that may have an alias already.
fn merge(mut answer: Message, known: Message) -> Message {
    answer.metadata.response_code = known.metadata.response_code;
    answer.metadata.authentic_data = known.metadata.authentic_data && answer.answers.is_empty();
    answer.metadata.authoritative = false;
    answer.answers.extend(known.answers);
    answer.authorities.extend(known.authorities);
    answer.additionals.extend(known.additionals);
    answer
}
