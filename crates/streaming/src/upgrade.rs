//! The two halves of an upgrade: the answer to the client, and what happens after it.
//!
//! hyper hands the connection over only when the answer is out, so that the second half is a future of its own. Invariant:
//! an `Upgrade` without a session refused the upgrade, and its answer says why.

use std::error::Error as _;
use std::io;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tracing::debug;

/// Why a session ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// hyper could not hand the client's connection over.
    #[error("the client's connection could not be taken over")]
    Upgrade(#[source] hyper::Error),
    /// The client's connection failed.
    #[error("the client's connection failed")]
    Client(#[source] io::Error),
    /// The client did not keep to the WebSocket protocol, or its connection failed.
    #[error("the client's WebSocket failed")]
    WebSocket(#[from] Box<tokio_tungstenite::tungstenite::Error>),
    /// The backend's connection failed.
    #[error("the backend's connection failed")]
    Backend(#[source] io::Error),
}

/// An answer to the client, and the session that follows it.
pub struct Upgrade {
    /// Send this. With a session it is a 101 with the right headers.
    pub response: Response<Bytes>,
    /// Run this; it waits for the answer to be out by itself. Dropping it ends the connection.
    pub session: Option<BoxFuture<'static, Result<(), SessionError>>>,
}

impl Upgrade {
    /// Runs the session in a task of its own; the answer.
    pub fn spawn(self) -> Response<Bytes> {
        if let Some(session) = self.session {
            tokio::spawn(async move {
                if let Err(error) = session.await {
                    let cause = error.source().map(ToString::to_string).unwrap_or_default();
                    debug!(%error, cause, "an upgraded connection failed");
                }
            });
        }
        self.response
    }

    pub(crate) fn refuse(response: Response<Bytes>) -> Self {
        Self { response, session: None }
    }

    pub(crate) fn accept<F>(response: Response<Bytes>, session: F) -> Self
    where
        F: Future<Output = Result<(), SessionError>> + Send + 'static,
    {
        Self { response, session: Some(session.boxed()) }
    }
}

/// A refusal in plain text, with a line end, as Go's `http.Error` gives it.
pub(crate) fn plain_error(status: StatusCode, message: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{message}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A 101 to this protocol.
pub(crate) fn switching(protocol: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(protocol));
    response
}

/// Copies both ways until one end has no more to say, as upstream does: with these protocols a half-closed connection is a
/// closed one. What that end said before has arrived then.
pub(crate) async fn copy_until_an_end<A, B>(client: A, backend: B) -> Result<(), SessionError>
where
    A: AsyncRead + AsyncWrite + Send,
    B: AsyncRead + AsyncWrite + Send,
{
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut backend_read, mut backend_write) = tokio::io::split(backend);
    let result = tokio::select! {
        copied = tokio::io::copy(&mut client_read, &mut backend_write) => copied.map_err(SessionError::Client),
        copied = tokio::io::copy(&mut backend_read, &mut client_write) => copied.map_err(SessionError::Backend),
    };
    // Tells a TLS peer that this is an end and not a cut. It may be gone already.
    let _ = client_write.shutdown().await;
    let _ = backend_write.shutdown().await;
    result.map(drop)
}
