//! Asks the machine's resolvers what is not ours to answer.
//!
//! Invariants: every question to a resolver has an identifier and a source port of its own, and an answer counts only if
//! it repeats the question; the number of questions on the way is bounded, and so is the time for each.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::cache::{Cache, CacheKey};
use crate::loops::Loops;
use crate::message::EDNS_MAX;
use crate::resolv_conf::{Upstreams, parse_resolv_conf};

/// For one attempt at one resolver.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions on the way; more are answered with a failure at once.
const ON_THE_WAY_MAX: usize = 256;
/// For how long a resolver that did not answer is asked last.
const PENALTY: Duration = Duration::from_secs(10);

/// The way to other resolvers.
#[derive(Clone)]
pub(crate) struct Forwarder {
    inner: Arc<Inner>,
}

struct Inner {
    fixed: Vec<SocketAddr>,
    file: PathBuf,
    own: Vec<IpAddr>,
    state: Mutex<State>,
    on_the_way: Semaphore,
}

#[derive(Default)]
struct State {
    cache: Cache,
    upstreams: Upstreams,
    read_at: Option<SystemTime>,
    failed_at: Vec<(SocketAddr, Instant)>,
    loops: Loops,
}

impl Forwarder {
    /// Asks `fixed`, or where that is empty what stands in `file`, without the addresses in `own`.
    pub(crate) fn new(fixed: Vec<SocketAddr>, file: PathBuf, own: Vec<IpAddr>) -> Self {
        let forwarder = Self {
            inner: Arc::new(Inner {
                fixed,
                file,
                own,
                state: Mutex::default(),
                on_the_way: Semaphore::new(ON_THE_WAY_MAX),
            }),
        };
        forwarder.refresh();
        forwarder
    }

    /// Reads the file again if it changed; gives the resolvers.
    pub(crate) fn refresh(&self) -> Upstreams {
        let Inner { fixed, file, own, state, .. } = &*self.inner;
        if !fixed.is_empty() {
            let upstreams = Upstreams { servers: fixed.clone(), loops: Vec::new() };
            state.lock().upstreams = upstreams.clone();
            return upstreams;
        }
        let changed_at = std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok();
        if changed_at.is_some() && changed_at == state.lock().read_at {
            return state.lock().upstreams.clone();
        }
        // A machine without the file has no resolvers; that is not an error, it may be offline.
        let upstreams = parse_resolv_conf(&std::fs::read_to_string(file).unwrap_or_default(), own);
        if !upstreams.loops.is_empty() {
            let loops = &upstreams.loops;
            tracing::warn!(file = %file.display(), ?loops, "these resolvers are this server itself and are left out");
        }
        let mut state = state.lock();
        state.read_at = changed_at;
        state.upstreams = upstreams.clone();
        upstreams
    }

    /// The answer in the cache.
    pub(crate) fn cached(&self, query: &Query, dnssec: bool) -> Option<Message> {
        self.inner.state.lock().cache.get(&CacheKey::new(query, dnssec), Instant::now())
    }

    /// Asks the resolvers in turn; `None` if none of them gave an answer. Where none does, an answer of before stands in,
    /// and while all of them are known to be gone it does so without a wait.
    pub(crate) async fn ask(&self, query: &Query, dnssec: bool) -> Option<Message> {
        if self.are_all_gone()
            && let Some(stale) = self.stale(query, dnssec)
        {
            return Some(stale);
        }
        let answer = self.ask_in_turn(query, dnssec).await;
        match &answer {
            Some(usable) if is_usable(usable) => answer,
            _ => self.stale(query, dnssec).or(answer),
        }
    }

    fn stale(&self, query: &Query, dnssec: bool) -> Option<Message> {
        self.inner.state.lock().cache.stale(&CacheKey::new(query, dnssec), Instant::now())
    }

    /// Whether every resolver failed to answer a moment ago.
    fn are_all_gone(&self) -> bool {
        let state = self.inner.state.lock();
        let is_gone =
            |server: &SocketAddr| state.failed_at.iter().any(|(failed, at)| failed == server && at.elapsed() < PENALTY);
        state.upstreams.servers.iter().all(is_gone)
    }

    /// Whether a question is one of our own, which a resolver sent back to us.
    pub(crate) fn catches(&self, query: &Query) -> bool {
        self.inner.state.lock().loops.catches(query)
    }

    /// Those resolvers that ask us what we ask them. They are asked nothing until that ends.
    pub(crate) fn looping(&self) -> Vec<SocketAddr> {
        self.inner.state.lock().loops.found.clone()
    }

    /// Looks for loops: sends each resolver a question that nobody else asks, and sees whether it comes here.
    pub(crate) async fn probe(&self) {
        let servers = self.inner.state.lock().upstreams.servers.clone();
        for server in servers {
            let query = self.inner.state.lock().loops.begin(server);
            // Whatever the answer is: what counts is whether the question came here meanwhile.
            let _ = exchange(server, &query, false).await;
            self.inner.state.lock().loops.end(server);
        }
    }

    async fn ask_in_turn(&self, query: &Query, dnssec: bool) -> Option<Message> {
        let _permit = self.inner.on_the_way.try_acquire().ok()?;
        let mut failure = None;
        for server in self.order() {
            match exchange(server, query, dnssec).await {
                Ok(answer) if is_usable(&answer) => {
                    let mut state = self.inner.state.lock();
                    state.failed_at.retain(|(failed, _)| *failed != server);
                    state.cache.put(CacheKey::new(query, dnssec), &answer, Instant::now());
                    return Some(answer);
                }
                Ok(answer) => failure = Some(answer),
                Err(error) => {
                    tracing::debug!(%server, %error, name = %query.name, "a resolver did not answer");
                    let mut state = self.inner.state.lock();
                    state.failed_at.retain(|(failed, _)| *failed != server);
                    state.failed_at.push((server, Instant::now()));
                }
            }
        }
        failure
    }

    /// The resolvers in the file's order, but those that failed lately last.
    fn order(&self) -> Vec<SocketAddr> {
        let mut state = self.inner.state.lock();
        state.failed_at.retain(|(_, at)| at.elapsed() < PENALTY);
        let mut servers = state.upstreams.servers.clone();
        servers.retain(|server| !state.loops.found.contains(server));
        servers.sort_by_key(|server| state.failed_at.iter().any(|(failed, _)| failed == server));
        servers
    }
}

/// A resolver that can't help is passed over; the next may.
fn is_usable(answer: &Message) -> bool {
    matches!(answer.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
}

async fn exchange(server: SocketAddr, query: &Query, dnssec: bool) -> io::Result<Message> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(EDNS_MAX);
    edns.set_dnssec_ok(dnssec);
    question.set_edns(edns);
    let bytes = question.to_vec().map_err(io::Error::other)?;
    let answer = timeout(PATIENCE, over_udp(server, &question, &bytes)).await??;
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    timeout(PATIENCE, over_tcp(server, &question, &bytes)).await?
}

async fn over_udp(server: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; usize::from(EDNS_MAX) + 1];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Anything else that arrives is late, broken or forged: the real answer may still come.
        if let Some(answer) = read_answer(question, &buffer[..length]) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    read_answer(question, &buffer).ok_or_else(|| io::Error::other("the resolver's answer is to another question"))
}

fn read_answer(question: &Message, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let (asked, repeated) = (question.queries.first()?, answer.queries.first()?);
    let same = answer.metadata.id == question.metadata.id
        && answer.metadata.message_type == hickory_proto::op::MessageType::Response
        && asked.name == repeated.name
        && asked.query_type == repeated.query_type
        && asked.query_class == repeated.query_class;
    same.then_some(answer)
}
