//! `/healthz`, `/livez`, `/readyz`, `/metrics`, `/configz`, `/flagz` and `/statusz` of a component that has no API of its
//! own, over HTTPS as upstream serves them. Who may ask is [`Delegation`]'s to say.
//!
//! Invariant: health says whether the process lives and its loops report; that another instance leads is no illness.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, WARNING, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use kedge_meta::{ApiStatus, Clock, ComponentState, StatusBoard, UserInfo};
use kedge_pki::{CertificateAuthority, Identity, LeafRequest};
use kedge_zpages::Page;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::client_authority::ClientAuthority;
use super::delegated::{Delegation, DelegationOptions};
use super::read;
use crate::error::Error;

/// What a component counts, in Prometheus' text format.
pub(crate) type Figures = Arc<dyn Fn() -> String + Send + Sync>;

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What `/statusz` names.
const PATHS: [&str; 7] = ["/configz", "/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz"];

const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
const MOST_CONNECTIONS: usize = 64;
/// How much of a number is read.
const MOST_DIGITS: usize = 64;

/// Where a component says how it is: upstream's flags.
#[derive(Debug, Clone)]
pub struct HealthOptions {
    /// Where it listens.
    pub bind_address: IpAddr,
    /// The port; 0 for none.
    pub secure_port: u16,
    /// The serving certificate; one of its own where absent.
    pub tls_cert_file: Option<PathBuf>,
    /// Its key.
    pub tls_private_key_file: Option<PathBuf>,
    /// Where a certificate of its own is kept; in memory only where absent.
    pub cert_dir: Option<PathBuf>,
    /// Who may ask.
    pub delegation: DelegationOptions,
}

/// Answers everybody on a plain address until `shutdown`: with `ok`, or with 500 and what there is to complain of.
pub(crate) async fn serve_plain(
    address: SocketAddr,
    complaint: impl Fn() -> Option<String> + Clone + Send + 'static,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let listen = |source| Error::Listen { address: address.to_string(), source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let complaint = complaint.clone();
            let service = service_fn(move |_: Request<Incoming>| {
                let answer = answer("/healthz", complaint());
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_PATIENCE);
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(())
}

/// What a component shows.
#[derive(Clone)]
pub(crate) struct About {
    /// Its name, and how it was started.
    pub(crate) component: Arc<kedge_zpages::Component>,
    /// For `/configz`: a name, and the settings in force under it; there is no such page where absent.
    pub(crate) config: Option<Arc<(&'static str, Value)>>,
    pub(crate) figures: Figures,
    /// For `/metrics/resources`; there is no such page where absent.
    pub(crate) of_pods: Option<Figures>,
    pub(crate) board: StatusBoard,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What each connection needs.
#[derive(Clone)]
struct Component {
    about: About,
    delegation: Arc<Delegation>,
}

/// Binds the port and serves until `shutdown`.
pub(crate) async fn serve(about: About, options: &HealthOptions, shutdown: CancellationToken) -> Result<(), Error> {
    if options.secure_port == 0 {
        return Ok(());
    }
    let delegation = Delegation::new(&options.delegation).await?;
    let authority = ClientAuthority::new(identity(about.component.name, options)?, &options.delegation)?;
    let tls = authority.follow(delegation.lookup().cloned(), shutdown.clone());
    let address = SocketAddr::new(options.bind_address, options.secure_port);
    let listen = |source| Error::Listen { address: address.to_string(), source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    serve_on(listener, tls, about, delegation, shutdown);
    Ok(())
}

/// Serves on a port that is bound until `shutdown`.
pub(super) fn serve_on(
    listener: TcpListener,
    tls: watch::Receiver<Arc<ServerConfig>>,
    about: About,
    delegation: Delegation,
    shutdown: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let component = Component { about, delegation: Arc::new(delegation) };
    tokio::spawn(async move {
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of file descriptors: others have to end first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (acceptor, component) = (TlsAcceptor::from(tls.borrow().clone()), component.clone());
            tokio::spawn(async move {
                component.connection(acceptor, stream).await;
                drop(permit);
            });
        }
    });
}

impl Component {
    async fn connection(self, acceptor: TlsAcceptor, stream: TcpStream) {
        let handshake = tokio::time::timeout(HANDSHAKE_PATIENCE, acceptor.accept(stream)).await;
        let Ok(Ok(stream)) = handshake else { return };
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let user = shown.and_then(|shown| kedge_auth::user_from_certificate(shown.as_ref()).ok());
        let service = service_fn(move |request: Request<Incoming>| {
            let (component, user) = (self.clone(), user.clone());
            async move { Ok::<_, Infallible>(component.handle(user, request).await) }
        });
        let served = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        if let Err(error) = served {
            tracing::debug!(error = %error, "a connection ended");
        }
    }

    async fn handle<B: Body>(&self, user: Option<UserInfo>, request: Request<B>) -> Response<Full<Bytes>>
    where
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = request.uri().path();
        if let Err(status) = self.delegation.check(user, request.headers(), request.method(), path).await {
            return refusal(&status);
        }
        match path {
            "/debug/flags/v" => set_verbosity(request).await,
            _ => self.about.answer(path, request.headers()),
        }
    }
}

/// Sets how much is logged: PUT with a number.
async fn set_verbosity<B: Body>(request: Request<B>) -> Response<Full<Bytes>>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let is_put = request.method() == Method::PUT;
    let (code, text) = match Limited::new(request.into_body(), MOST_DIGITS).collect().await {
        Ok(body) => kedge_zpages::answer_verbosity(is_put, &body.to_bytes()),
        Err(error) => (400, format!("error reading request body: {error}")),
    };
    let mut response = typed("text/plain", text);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl About {
    fn answer(&self, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges = kedge_meta::accept_ranges(accept);
        if let ("/configz", Some(config)) = (path, &self.config) {
            let (name, object) = &**config;
            let mut response = typed("application/json", json!({*name: object}).to_string());
            response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            return response;
        }
        if let ("/metrics/resources", Some(of_pods)) = (path, &self.of_pods) {
            return typed(METRICS_TYPE, of_pods());
        }
        let shown = |path: &&str| *path != "/configz" || self.config.is_some();
        let page = match path {
            "/metrics" => return typed(METRICS_TYPE, (self.figures)()),
            "/debug/flags" => return typed("text/html; charset=utf-8", kedge_zpages::DEBUG_FLAGS.to_owned()),
            "/flagz" => kedge_zpages::flagz(&self.component, &ranges),
            "/statusz" => {
                kedge_zpages::statusz(&self.component, PATHS.into_iter().filter(shown), self.clock.now(), &ranges)
            }
            _ => {
                let reports = self.board.reports();
                let mut own = reports.iter().filter(|report| report.component == self.component.name);
                let has_stopped = own.any(|report| matches!(report.state, ComponentState::Stopped));
                return answer(path, has_stopped.then(|| "its loops have stopped".to_owned()));
            }
        };
        match page {
            Ok(Page { content_type, text, warning }) => {
                let mut response = typed(content_type, text);
                if let Some(warning) = warning {
                    response.headers_mut().insert(WARNING, HeaderValue::from_static(warning));
                }
                response
            }
            Err(status) => refusal(&status),
        }
    }
}

fn typed(content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn refusal(status: &ApiStatus) -> Response<Full<Bytes>> {
    let mut response = typed("application/json", status.to_json().to_string());
    *response.status_mut() = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

fn answer(path: &str, complaint: Option<String>) -> Response<Full<Bytes>> {
    let is_health = ["/healthz", "/livez", "/readyz"]
        .iter()
        .any(|known| path == *known || path.strip_prefix(known).is_some_and(|rest| rest.starts_with('/')));
    let (status, text) = match (is_health, complaint) {
        (true, None) => (StatusCode::OK, "ok".to_owned()),
        (true, Some(complaint)) => (StatusCode::INTERNAL_SERVER_ERROR, complaint),
        (false, _) => (StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}

/// The named certificate, or one that the component signs itself.
fn identity(name: &str, options: &HealthOptions) -> Result<Identity, Error> {
    if let (Some(certificate), Some(key)) = (&options.tls_cert_file, &options.tls_private_key_file) {
        return Ok(Identity {
            certificate_pem: read("--tls-cert-file", certificate)?,
            key_pem: read("--tls-private-key-file", key)?,
        });
    }
    match &options.cert_dir {
        Some(dir) => own_identity(name, options, dir),
        None => {
            let scratch = tempfile::tempdir().map_err(|error| Error::Flag {
                flag: "--cert-dir",
                value: String::new(),
                why: format!("a certificate can't be made: {error}"),
            })?;
            own_identity(name, options, scratch.path())
        }
    }
}

fn own_identity(name: &str, options: &HealthOptions, dir: &Path) -> Result<Identity, Error> {
    let authority = CertificateAuthority::ensure(dir, &format!("{name}-ca"), &format!("{name}-ca"))?;
    let names = vec!["localhost".to_owned()];
    let request = LeafRequest::server(name, names, vec![options.bind_address, IpAddr::from([127, 0, 0, 1])]);
    Ok(authority.ensure_leaf(dir, name, &request)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_health_is_served() {
        let check = |path: &str, stopped: bool, expected: u16| {
            let complaint = stopped.then(|| "its loops have stopped".to_owned());
            assert_eq!(answer(path, complaint).status().as_u16(), expected, "{path} {stopped}");
        };
        check("/healthz", false, 200);
        check("/livez/ping", false, 200);
        check("/readyz", true, 500);
        check("/healthzz", false, 404);
        check("/metrics", false, 404);
    }

    #[tokio::test]
    async fn pages_tell_of_the_component() {
        let clock: Arc<dyn Clock> = Arc::new(kedge_meta::ManualClock::new("2026-01-02T03:04:06Z".parse().unwrap()));
        let flags = [("v".to_owned(), "2".to_owned())].into();
        let started = "2026-01-02T03:04:05Z".parse().unwrap();
        let about = About {
            component: Arc::new(kedge_zpages::Component { name: "kube-scheduler", started, flags }),
            config: Some(Arc::new(("componentconfig", json!({"kind": "KubeSchedulerConfiguration"})))),
            figures: Arc::new(|| "up 1\n".to_owned()),
            of_pods: Some(Arc::new(|| "asked 2\n".to_owned())),
            board: StatusBoard::new(clock.clone()),
            clock,
        };
        let check = async |path: &str, accept: &str, code: u16, content_type: &str, part: &str| {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(accept).unwrap())]);
            let response = about.answer(path, &headers);
            let shown = response.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap().to_owned());
            let status = response.status().as_u16();
            let text = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
            let text = String::from_utf8(text.to_bytes().to_vec()).unwrap();
            assert_eq!((status, shown.unwrap_or_default().as_str()), (code, content_type), "{path} {accept}");
            assert!(text.contains(part), "{part:?} is not in {text}");
        };
        check("/metrics", "", 200, METRICS_TYPE, "up 1\n").await;
        check("/metrics/resources", "", 200, METRICS_TYPE, "asked 2\n").await;
        let config = r#"{"componentconfig":{"kind":"KubeSchedulerConfiguration"}}"#;
        check("/configz", "", 200, "application/json", config).await;
        check("/flagz", "*/*", 200, "text/plain; charset=utf-8", "kube-scheduler flagz\n").await;
        let flagz = "application/json;g=config.k8s.io;v=v1beta1;as=Flagz";
        check("/flagz", flagz, 200, "application/json", r#""flags":{"v":"2"}"#).await;
        check("/statusz", "", 200, "text/plain; charset=utf-8", "Up: 0 hr 00 min 01 sec\n").await;
        check("/statusz", flagz, 406, "application/json", "NotAcceptable").await;
        check("/healthz", "", 200, "", "ok").await;
        check("/debug/flags", "", 200, "text/html; charset=utf-8", "<tr>v<br>").await;
    }

    #[tokio::test]
    async fn the_log_is_set_by_a_number() {
        kedge_zpages::on_verbosity(Box::new(|_| Ok(())));
        for (method, body, code) in
            [("PUT", "4", 200), ("PUT", "x", 400), ("PUT", "1".repeat(65).as_str(), 400), ("GET", "", 406)]
        {
            let request = Request::builder().method(method).body(Full::<Bytes>::from(body.to_owned())).unwrap();
            assert_eq!(set_verbosity(request).await.status().as_u16(), code, "{method} {body}");
        }
    }
}
