//! The members of the etcd: connections, which one is asked, and when the next one is.
//!
//! A connection is dialled at its first call and again when it was lost. Invariant: every call ends by its deadline; a call
//! that changes something is sent a second time only where the first one certainly did not arrive.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng;
use tokio::time::Instant;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::failure::Failure;
use crate::options::{EtcdError, Options, Tls};
use crate::rpc;

/// How long a member may take to be dialled, and how long one that is silent is believed to be there.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// How long one member has for a read before another one is asked.
const READ_PATIENCE: Duration = Duration::from_secs(2);

/// Pauses after every member was asked in vain: from, to.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Larger than any answer that the store asks for: pages of a list at etcd's largest value.
const LARGEST_ANSWER: usize = 512 << 20;

/// Whether a call changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It may be sent again at will.
    None,
    /// It may be sent again only where it did not arrive.
    Once,
}

/// The members.
pub(crate) struct Servers {
    members: Vec<Member>,
    current: AtomicUsize,
}

struct Member {
    endpoint: String,
    channel: Mutex<Channel>,
}

impl Servers {
    /// Dials nobody yet.
    pub(crate) fn new(options: &Options) -> Result<Self, EtcdError> {
        if options.endpoints.is_empty() {
            return Err(EtcdError::NoEndpoints);
        }
        let members = options.endpoints.iter().map(|endpoint| Member::new(endpoint, &options.tls));
        let members = members.collect::<Result<Vec<_>, _>>()?;
        // Several processes should not all lean on the first member.
        let first = rand::rng().random_range(0..members.len());
        Ok(Self { members, current: AtomicUsize::new(first) })
    }

    /// New connections use other certificates; what is under way ends on the connection it began on.
    pub(crate) fn replace_tls(&self, tls: &Tls) -> Result<(), EtcdError> {
        let fresh = self.members.iter().map(|member| Member::new(&member.endpoint, tls));
        for (member, fresh) in self.members.iter().zip(fresh.collect::<Result<Vec<_>, _>>()?) {
            *member.channel.lock() = fresh.channel.into_inner();
        }
        Ok(())
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.endpoint.clone()).collect()
    }

    /// Calls a method until somebody answers or `timeout` is over.
    pub(crate) async fn call<M, T>(
        &self,
        method: &'static str,
        message: M,
        effect: Effect,
        timeout: Duration,
    ) -> Result<T, Failure>
    where
        M: prost::Message + Clone + 'static,
        T: prost::Message + Default + 'static,
    {
        let deadline = Instant::now() + timeout;
        let mut attempts = 0;
        loop {
            let at = self.current.load(Ordering::Relaxed);
            let patience = if effect == Effect::None { READ_PATIENCE } else { timeout };
            let until = deadline.min(Instant::now() + patience);
            let called = tokio::time::timeout_at(until, self.members[at].unary(method, message.clone())).await;
            let failure = match called {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => Failure::of(&status),
                Err(_) => Failure::Unclear(format!("{} did not answer in time", self.members[at].endpoint)),
            };
            let again = match &failure {
                Failure::Unsent(_) => true,
                Failure::Unclear(_) => effect == Effect::None,
                _ => return Err(failure),
            };
            self.leave(at);
            attempts += 1;
            let pause = self.pause(attempts);
            if !again || Instant::now() + pause >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Opens a stream on the current member.
    pub(crate) async fn watch(
        &self,
        create: rpc::WatchCreateRequest,
        timeout: Duration,
    ) -> Result<WatchStream, Failure> {
        let at = self.current.load(Ordering::Relaxed);
        let opened = tokio::time::timeout(timeout, self.members[at].watch(create)).await;
        let failure = match opened {
            Ok(Ok((requests, responses))) => return Ok(WatchStream { at, _requests: requests, responses }),
            Ok(Err(status)) => Failure::of(&status),
            Err(_) => Failure::Unclear(format!("{} did not answer in time", self.members[at].endpoint)),
        };
        self.leave(at);
        Err(failure)
    }

    /// The next member is asked from now on, unless somebody has moved on already.
    pub(crate) fn leave(&self, at: usize) {
        let next = (at + 1) % self.members.len();
        // Where it fails, another call has moved on.
        let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// How long to wait before attempt `attempts`: not at all until every member was asked once.
    pub(crate) fn pause(&self, attempts: usize) -> Duration {
        let rounds = attempts / self.members.len();
        if rounds == 0 || !attempts.is_multiple_of(self.members.len()) {
            return Duration::ZERO;
        }
        let longest = PAUSES.0.saturating_mul(1 << rounds.min(10)).min(PAUSES.1);
        longest.mul_f64(rand::rng().random_range(0.5..1.0))
    }
}

/// An open watch.
pub(crate) struct WatchStream {
    /// Which member serves it.
    pub(crate) at: usize,
    /// The stream ends where nobody holds its other direction.
    _requests: tokio::sync::mpsc::Sender<rpc::WatchRequest>,
    pub(crate) responses: Streaming<rpc::WatchResponse>,
}

impl Member {
    fn new(endpoint: &str, tls: &Tls) -> Result<Self, EtcdError> {
        let wrong = |why: &str| EtcdError::Endpoint { endpoint: endpoint.to_owned(), why: why.to_owned() };
        let (scheme, address) = endpoint.trim().split_once("://").unwrap_or(("http", endpoint.trim()));
        let url = format!("{scheme}://{}", address.trim_end_matches('/'));
        let dialled = Endpoint::from_shared(url.clone()).map_err(|error| wrong(&error.to_string()))?;
        if dialled.uri().host().is_none_or(str::is_empty) {
            return Err(wrong("it names no host"));
        }
        let dialled = match dialled.uri().scheme_str() {
            Some("http") => dialled,
            Some("https") if tls.ca.is_none() => return Err(wrong("https needs the certificate of an authority")),
            Some("https") => dialled.tls_config(client_tls(tls)).map_err(EtcdError::Tls)?,
            _ => return Err(wrong("its scheme is neither http nor https")),
        };
        let dialled = dialled
            .connect_timeout(DIAL_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        Ok(Self { endpoint: url, channel: Mutex::new(dialled.connect_lazy()) })
    }

    async fn unary<M, T>(&self, method: &'static str, message: M) -> Result<T, Status>
    where
        M: prost::Message + 'static,
        T: prost::Message + Default + 'static,
    {
        let mut client =
            tonic::client::Grpc::new(self.channel.lock().clone()).max_decoding_message_size(LARGEST_ANSWER);
        client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        let path = PathAndQuery::from_static(method);
        let answer = client.unary(with_leader(Request::new(message)), path, ProstCodec::<M, T>::default()).await?;
        Ok(answer.into_inner())
    }

    async fn watch(
        &self,
        create: rpc::WatchCreateRequest,
    ) -> Result<(tokio::sync::mpsc::Sender<rpc::WatchRequest>, Streaming<rpc::WatchResponse>), Status> {
        let mut client =
            tonic::client::Grpc::new(self.channel.lock().clone()).max_decoding_message_size(LARGEST_ANSWER);
        client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let create = rpc::WatchRequest { request_union: Some(rpc::WatchUnion::Create(create)) };
        sender.try_send(create).expect("the channel is empty");
        let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let path = PathAndQuery::from_static(rpc::WATCH);
        let codec = ProstCodec::<rpc::WatchRequest, rpc::WatchResponse>::default();
        let answer = client.streaming(with_leader(Request::new(requests)), path, codec).await?;
        Ok((sender, answer.into_inner()))
    }
}

/// Asks the member to refuse at once where it has no leader, and to end a watch when it loses it.
fn with_leader<M>(mut request: Request<M>) -> Request<M> {
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

fn client_tls(tls: &Tls) -> ClientTlsConfig {
    let mut config = ClientTlsConfig::new();
    if let Some(ca) = &tls.ca {
        config = config.ca_certificate(Certificate::from_pem(ca));
    }
    if let Some((certificate, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(endpoints: &[&str]) -> Result<Servers, EtcdError> {
        let endpoints = endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect();
        Servers::new(&Options { endpoints, ..Options::default() })
    }

    #[tokio::test]
    async fn endpoints_are_looked_at_before_anything_is_dialled() {
        let servers_ok = servers(&["127.0.0.1:2379", "http://[::1]:2379/"]).expect("they are endpoints");
        assert_eq!(servers_ok.endpoints(), ["http://127.0.0.1:2379", "http://[::1]:2379"]);
        for wrong in ["", "ftp://10.0.0.1:2379", "https://10.0.0.1:2379", "http://", "not a host"] {
            assert!(servers(&[wrong]).is_err(), "{wrong:?}");
        }
        assert!(matches!(servers(&[]), Err(EtcdError::NoEndpoints)));
    }

    #[tokio::test]
    async fn pauses_come_after_whole_rounds_and_grow_to_a_bound() {
        let servers = servers(&["a:1", "b:1", "c:1"]).expect("they are endpoints");
        for (attempts, least, most) in [(1, 0, 0), (2, 0, 0), (3, 20, 40), (4, 0, 0), (6, 40, 80), (300, 250, 500)] {
            let pause = servers.pause(attempts).as_millis();
            assert!((least..=most).contains(&pause), "{pause} ms after {attempts}");
        }
    }

    #[tokio::test]
    async fn the_next_member_is_asked_once_however_many_leave() {
        let servers = servers(&["a:1", "b:1", "c:1"]).expect("they are endpoints");
        let at = servers.current.load(Ordering::Relaxed);
        servers.leave(at);
        servers.leave(at);
        assert_eq!(servers.current.load(Ordering::Relaxed), (at + 1) % 3);
    }
}
