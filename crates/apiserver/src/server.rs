//! The server as others see it: made, served over TLS, called from within the process.
//!
//! Invariant: when the shutdown signal comes, requests that run are answered, watches end, and nothing new is taken.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use kedge_auth::TokenKeys;
use kedge_meta::{ApiStatus, UserInfo};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::admission::Chain;
use crate::aggregation::{self, Extensions};
use crate::authenticate::VerifiedTokens;
use crate::body::{Body, BoxError};
use crate::config::{Config, Deps};
use crate::core::Core;
use crate::custom;
use crate::documents::Documents;
use crate::flow::Flow;
use crate::front_proxy::Caller;
use crate::handle::{Peer, handle};
use crate::label_index::LabelIndexes;
use crate::local::{self, LocalApi, LocalApis};
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::{address_repair, bootstrap, flow, port_repair};

/// How often the server looks after itself.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);

/// How long a client may take for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long running requests may take to end once the server shuts down.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How many requests one HTTP/2 connection may have open; a client's watches share one.
const MAX_STREAMS: u32 = 1000;

/// What one HTTP/2 stream may have ready to leave. A connection writes all of it in one turn, while others wait.
const SEND_BUFFER: usize = 128 << 10;

/// Why a server can't be made or served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The objects that every cluster has could not be written.
    #[error("the bootstrap objects cannot be written")]
    Bootstrap(#[source] ApiStatus),
    /// Connections can't be accepted any more.
    #[error("connections cannot be accepted")]
    Accept(#[source] std::io::Error),
}

/// An API server.
pub struct ApiServer {
    core: Arc<Core>,
}

impl ApiServer {
    /// Opens the registry over the store and ensures the objects that every cluster has.
    pub async fn new(config: Config, deps: Deps) -> Result<Arc<Self>, Error> {
        let core = Arc::new(Core {
            flow: Flow::new(&config),
            admission: Chain::new(&config, Arc::clone(&deps.store), deps.webhook_credentials),
            access: Access::new(Arc::clone(&deps.store), &config.authorization_modes),
            registry: ArcSwap::from_pointee(Registry::builtin()),
            verified_tokens: VerifiedTokens::default(),
            indexes: LabelIndexes::default(),
            metrics: Metrics::default(),
            documents: Documents::default(),
            local: LocalApis::default(),
            extensions: Extensions::new(deps.proxy_identity),
            audit: deps.audit,
            started: deps.clock.now(),
            shutdown: CancellationToken::new(),
            config,
            store: deps.store,
            clock: deps.clock,
            status: deps.status,
            board: deps.board,
            token_keys: ArcSwap::from_pointee(deps.token_keys),
            kubelet_tls: deps.kubelet_tls,
            front_proxy: deps.front_proxy,
        });
        bootstrap::ensure(&core, deps.client_ca.as_deref()).await.map_err(Error::Bootstrap)?;
        custom::start(&core).await.map_err(Error::Bootstrap)?;
        aggregation::start(&core).await.map_err(Error::Bootstrap)?;
        core.status.running();
        Ok(Arc::new(Self { core }))
    }

    /// The way in for components of the same process: no TLS and no copies, but authorization as `user`.
    pub fn local_service(&self, user: UserInfo) -> LocalService {
        LocalService { core: Arc::clone(&self.core), user: Arc::new(user) }
    }

    /// Serves a group that another part of the process answers for, from now on.
    pub async fn mount(&self, api: LocalApi) -> Result<(), Error> {
        let service = local::api_service(&api, self.core.clock.now());
        let objects = api.objects.iter().cloned().chain([service]);
        bootstrap::commit(&self.core, objects).await.map_err(Error::Bootstrap)?;
        self.core.local.add(&api);
        local::announce(&self.core.registry, &api);
        Ok(())
    }

    /// Signs and takes tokens with other keys from now on; tokens of keys that are gone are refused at once.
    pub fn replace_token_keys(&self, keys: TokenKeys) {
        self.core.token_keys.store(Arc::new(keys));
        self.core.verified_tokens.forget();
    }

    /// Tells extension servers whose certificates are good now: of clients, and of front proxies.
    pub async fn publish_authorities(&self, clients: Option<&str>, front_proxies: Option<&str>) -> Result<(), Error> {
        bootstrap::publish_authorities(&self.core, clients, front_proxies).await.map_err(Error::Bootstrap)
    }

    /// Serves HTTP/1.1 and HTTP/2 over TLS until `shutdown`, then ends watches and waits for what runs.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let acceptor = TlsAcceptor::from(tls);
        let graceful = GracefulShutdown::new();
        // Apart from the connections, which are accepted also while the store does not answer.
        let upkeep = tokio::spawn(keep_up(Arc::clone(&self.core)));
        let fairness = tokio::spawn(flow::keep_up(Arc::clone(&self.core)));
        let addresses = tokio::spawn(address_repair::keep_up(Arc::clone(&self.core)));
        let ports = tokio::spawn(port_repair::keep_up(Arc::clone(&self.core)));
        loop {
            let (stream, _) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) if is_passing(&error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                    Err(error) => return Err(Error::Accept(error)),
                },
                () = shutdown.cancelled() => break,
            };
            let (core, acceptor) = (Arc::clone(&self.core), acceptor.clone());
            let watcher = graceful.watcher();
            tokio::spawn(async move {
                if let Err(error) = connection(core, stream, acceptor, watcher).await {
                    tracing::debug!(%error, "a connection ended");
                }
            });
        }
        drop(listener);
        upkeep.abort();
        fairness.abort();
        addresses.abort();
        ports.abort();
        bootstrap::leave(&self.core).await;
        self.core.shutdown.cancel();
        if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
            tracing::warn!("some requests did not end in time and are cut off");
        }
        if let Some(audit) = &self.core.audit {
            audit.close().await;
        }
        Ok(())
    }

    /// Ends watches and streams, and makes `/readyz` fail. [`ApiServer::serve`] does so by itself.
    pub fn shut_down(&self) {
        self.core.shutdown.cancel();
    }
}

/// Reports that the server lives, and makes again what it cannot do without, until it is aborted.
async fn keep_up(core: Arc<Core>) {
    let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        upkeep.tick().await;
        core.status.heartbeat(core.store.stats().last_sync);
        if let Err(error) = bootstrap::repair(&core).await {
            tracing::warn!(%error, "the bootstrap objects could not be repaired");
        }
    }
}

/// Errors of `accept` that pass: too many open files, a client that was gone at once.
fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, OutOfMemory};
    const TOO_MANY_FILES: [i32; 2] = [23, 24];
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | OutOfMemory)
        || error.raw_os_error().is_some_and(|code| TOO_MANY_FILES.contains(&code))
}

async fn connection(
    core: Arc<Core>,
    stream: TcpStream,
    acceptor: TlsAcceptor,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    let address = stream.peer_addr()?.ip();
    let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        refused => {
            core.metrics.attempts.handshake_errors.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            refused??
        }
    };
    let caller = Caller::of(stream.get_ref().1.peer_certificates(), core.front_proxy.as_ref());
    let service = service_fn(move |request: Request<Incoming>| {
        let (core, peer) = (Arc::clone(&core), Peer::Connection(caller.clone(), address));
        async move { Ok::<_, Infallible>(handle(core, request, peer).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    let timer = TokioTimer::new();
    let mut http2 = builder.http2();
    http2.timer(timer).keep_alive_interval(Duration::from_secs(30));
    http2.max_concurrent_streams(MAX_STREAMS).max_send_buf_size(SEND_BUFFER);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    watcher.watch(connection).await
}

/// Requests from within the process, as one user.
#[derive(Clone)]
pub struct LocalService {
    core: Arc<Core>,
    user: Arc<UserInfo>,
}

impl<B> tower::Service<Request<B>> for LocalService
where
    B: http_body::Body + Send + 'static,
    B::Data: bytes::Buf,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (core, peer) = (Arc::clone(&self.core), Peer::Local(Arc::clone(&self.user)));
        Box::pin(async move { Ok(handle(core, request, peer).await) })
    }
}
