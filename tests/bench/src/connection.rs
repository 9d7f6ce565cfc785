//! One client: one HTTP/1.1 keep-alive connection over TLS.
//!
//! It counts bytes and does not decode bodies, because the load generator shares the machine with what it measures.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::target::Target;

/// A request that can be made many times.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: Method,
    path: String,
    content_type: &'static str,
    body: Bytes,
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
        Self { method, path: path.into(), content_type, body }
    }

    fn to_request(&self, target: &Target) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(&self.path)
            .header(HOST, &target.authority)
            .header(USER_AGENT, "kedge-bench")
            .header(ACCEPT, "application/json");
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
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(&target.authority).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(target.tls.clone());
        let stream = connector.connect(target.server_name.clone(), stream).await.context("the TLS handshake failed")?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // A lost connection shows in the next request.
        tokio::spawn(connection);
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
        self.sender
            .ready()
            .await
            .with_context(|| format!("the connection was lost before {} {}", call.method, call.path))?;
        let response = self.sender.send_request(call.to_request(&self.target)?).await;
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
