//! The sockets: questions in, answers out, over UDP and TCP.
//!
//! Invariant: a question for the cluster's names is answered without waiting for anybody; a client's question for others
//! never holds up anybody else's.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use ipnet::IpNet;
use parking_lot::RwLock;
use rand::seq::SliceRandom;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::forward::Forwarder;
use crate::message::{Received, encode, question, receive, response, udp_limit};
use crate::zone::{Outcome, Zone};

/// How many aliases are followed.
const ALIASES_MAX: usize = 8;
const TCP_CONNECTIONS_MAX: usize = 128;
/// For how long a TCP client may say nothing.
const TCP_PATIENCE: Duration = Duration::from_secs(10);

/// What answers questions.
pub(crate) struct Resolver {
    pub(crate) zone: Zone,
    pub(crate) catalog: RwLock<Option<Catalog>>,
    pub(crate) forwarder: Forwarder,
    pub(crate) allowed: Vec<IpNet>,
}

/// An answer, or the work that leads to one.
enum Reply {
    Ready(Message),
    Ask(Message, Query, bool),
}

impl Resolver {
    fn is_allowed(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.allowed.is_empty() || client.is_loopback() || self.allowed.iter().any(|range| range.contains(&client))
    }

    /// Answers from what is known here.
    fn reply(&self, asked: &Message) -> Reply {
        let dnssec = asked.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        let mut answer = response(asked, ResponseCode::NoError);
        let mut query = question(asked).clone();
        for _ in 0..ALIASES_MAX {
            let Some(outcome) = self.resolve(&query) else {
                answer.metadata.response_code = ResponseCode::ServFail;
                return Reply::Ready(answer);
            };
            match outcome {
                Outcome::Records { mut answers, additionals } => {
                    answer.metadata.authoritative = true;
                    if answers.is_empty() {
                        answer.authorities.extend(self.zone.negative_authority(&query.name));
                    }
                    // Clients take the first; each gets another one.
                    answers.shuffle(&mut rand::rng());
                    answer.answers.extend(answers);
                    answer.additionals.extend(additionals);
                    return Reply::Ready(answer);
                }
                Outcome::NoSuchName => {
                    answer.metadata.authoritative = true;
                    answer.metadata.response_code = ResponseCode::NXDomain;
                    answer.authorities.extend(self.zone.negative_authority(&query.name));
                    return Reply::Ready(answer);
                }
                Outcome::Alias { record, target } => {
                    answer.metadata.authoritative = true;
                    answer.answers.push(*record);
                    query.name = target;
                }
                Outcome::Foreign if self.forwarder.catches(&query) => {
                    answer.metadata.response_code = ResponseCode::Refused;
                    return Reply::Ready(answer);
                }
                Outcome::Foreign => {
                    return match self.forwarder.cached(&query, dnssec) {
                        Some(known) => Reply::Ready(merge(answer, known)),
                        None => Reply::Ask(answer, query, dnssec),
                    };
                }
            }
        }
        answer.metadata.response_code = ResponseCode::ServFail;
        Reply::Ready(answer)
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

    async fn ask_others(&self, mut answer: Message, query: Query, dnssec: bool) -> Message {
        match self.forwarder.ask(&query, dnssec).await {
            Some(known) => merge(answer, known),
            None => {
                answer.metadata.response_code = ResponseCode::ServFail;
                answer
            }
        }
    }
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

/// Answers datagrams until `shutdown`.
pub(crate) async fn serve_udp(socket: UdpSocket, resolver: Arc<Resolver>, shutdown: CancellationToken) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; 4096];
    loop {
        let (length, client) = tokio::select! {
            () = shutdown.cancelled() => return,
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // What comes back are errors of earlier answers whose clients are gone.
                Err(error) => {
                    tracing::debug!(%error, "a datagram could not be received");
                    tokio::task::yield_now().await;
                    continue;
                }
            },
        };
        if !resolver.is_allowed(client.ip()) {
            continue;
        }
        let asked = match receive(&buffer[..length]) {
            Received::Question(asked) => asked,
            Received::Refusal(answer) => {
                send(&socket, client, *answer, 512).await;
                continue;
            }
            Received::Garbage => continue,
        };
        let limit = udp_limit(&asked);
        match resolver.reply(&asked) {
            Reply::Ready(answer) => send(&socket, client, answer, limit).await,
            Reply::Ask(answer, query, dnssec) => {
                let (socket, resolver) = (socket.clone(), resolver.clone());
                // Bounded by the forwarder, which refuses at once what is too much.
                tokio::spawn(async move {
                    let answer = resolver.ask_others(answer, query, dnssec).await;
                    send(&socket, client, answer, limit).await;
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, client: SocketAddr, answer: Message, limit: usize) {
    let Some(bytes) = encode(answer, limit) else { return };
    if let Err(error) = socket.send_to(&bytes, client).await {
        tracing::debug!(%client, %error, "an answer could not be sent");
    }
}

/// Answers connections until `shutdown`.
pub(crate) async fn serve_tcp(listener: TcpListener, resolver: Arc<Resolver>, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (stream, client) = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        if !resolver.is_allowed(client.ip()) {
            continue;
        }
        let (resolver, shutdown) = (resolver.clone(), shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                // What goes wrong on a client's connection is the client's business.
                _ = serve_stream(stream, &resolver) => {}
            }
            drop(slot);
        });
    }
}

async fn serve_stream(mut stream: TcpStream, resolver: &Resolver) -> std::io::Result<()> {
    loop {
        let length = tokio::time::timeout(TCP_PATIENCE, stream.read_u16()).await??;
        let mut packet = vec![0; usize::from(length)];
        tokio::time::timeout(TCP_PATIENCE, stream.read_exact(&mut packet)).await??;
        let answer = match receive(&packet) {
            Received::Question(asked) => match resolver.reply(&asked) {
                Reply::Ready(answer) => answer,
                Reply::Ask(answer, query, dnssec) => resolver.ask_others(answer, query, dnssec).await,
            },
            Received::Refusal(answer) => *answer,
            Received::Garbage => return Ok(()),
        };
        let Some(bytes) = encode(answer, usize::from(u16::MAX)) else { return Ok(()) };
        let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &bytes].concat();
        tokio::time::timeout(TCP_PATIENCE, stream.write_all(&framed)).await??;
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
