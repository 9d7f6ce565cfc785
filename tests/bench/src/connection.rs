//! One client: one connection over TLS, HTTP/2 or HTTP/1.1 as its target says.
//!
//! It counts bytes and does not decode bodies, because the load generator shares the machine with what it measures.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::target::Target;

/// How much may be on its way to a client, as Go's clients have it.
const WINDOW: u32 = 4 << 20;

/// A request that can be made many times.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: Method,
    path: String,
    content_type: &'static str,
    body: Bytes,
    /// On whose behalf it is made.
    user: Option<&'static str>,
}

impl Call {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path, "application/json", Bytes::new())
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path, "application/json", Bytes::new())
    }

    pub(crate) fn create(path: impl Into<String>, body: Bytes) -> Self {
        Self::new(Method::POST, path, "application/json", body)
    }

    pub(crate) fn merge_patch(path: impl Into<String>, body: Bytes) -> Self {
        Self::new(Method::PATCH, path, "application/merge-patch+json", body)
    }

    fn new(method: Method, path: impl Into<String>, content_type: &'static str, body: Bytes) -> Self {
        Self { method, path: path.into(), content_type, body, user: None }
    }

    /// The same on behalf of somebody.
    pub(crate) fn on_behalf_of(self, user: &'static str) -> Self {
        Self { user: Some(user), ..self }
    }

    fn to_request(&self, target: &Target) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .header(USER_AGENT, "kedge-bench")
            .header(ACCEPT, "application/json");
        request = match target.http2 {
            true => request.uri(format!("https://{}{}", target.authority, self.path)),
            false => request.uri(&self.path).header(HOST, &target.authority),
        };
        if let Some(user) = self.user {
            request = request.header("impersonate-user", user);
        }
        if !self.body.is_empty() {
            request = request.header(CONTENT_TYPE, self.content_type);
        }
        if let Some(bearer) = &target.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        Ok(request.body(Full::new(self.body.clone()))?)
    }
}

/// An open connection.
pub(crate) struct Connection {
    target: Target,
    sender: Sender,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(&target.authority).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(target.tls.clone());
        let stream = connector.connect(target.server_name.clone(), stream).await.context("the TLS handshake failed")?;
        // A lost connection shows in the next request.
        let sender = match target.http2 {
            true => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
                let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                Sender::Two(sender)
            }
            false => {
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                Sender::One(sender)
            }
        };
        Ok(Self { target: target.clone(), sender })
    }

    /// Makes a request and returns the size of the answer's body.
    pub(crate) async fn send(&mut self, call: &Call) -> Result<u64> {
        let mut body = self.start(call).await?.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len) as u64;
        }
        Ok(length)
    }

    /// Makes a request and returns the answer's body.
    pub(crate) async fn read(&mut self, call: &Call) -> Result<Bytes> {
        Ok(self.start(call).await?.into_body().collect().await?.to_bytes())
    }

    /// Makes a request and returns once the head of the answer is there. Anything but 2xx is an error.
    pub(crate) async fn start(&mut self, call: &Call) -> Result<Response<Incoming>> {
        let lost = || format!("the connection was lost before {} {}", call.method, call.path);
        let request = call.to_request(&self.target)?;
        let response = match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await.with_context(lost)?;
                sender.send_request(request).await
            }
            Sender::Two(sender) => {
                sender.ready().await.with_context(lost)?;
                sender.send_request(request).await
            }
        };
        let response = response.with_context(|| format!("{} {}", call.method, call.path))?;
        let status = response.status();
        if !status.is_success() {
            let body = response.into_body().collect().await?.to_bytes();
            let text: String = String::from_utf8_lossy(&body).chars().take(500).collect();
            bail!("{} {} was answered with {status}: {text}", call.method, call.path);
        }
        Ok(response)
    }

    /// As [`Connection::send`], where an object that is already there is as good.
    pub(crate) async fn ensure(&mut self, call: &Call) -> Result<()> {
        match self.send(call).await {
            Err(error) if !error.to_string().contains("was answered with 409") => Err(error),
            _ => Ok(()),
        }
    }
}
