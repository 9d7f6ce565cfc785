//! An upgraded connection that goes through untouched: kubectl, API server, kubelet, container runtime.
//!
//! It reads the handshake and nothing behind it. Invariant: the client hears exactly what the backend answered.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::backend::{Answer, Target, UpgradeError, ask, forwarded, request as backend_request};
use crate::handshake::is_upgrade_request;
use crate::upgrade::{SessionError, Upgrade, copy_until_an_end, plain_error};

/// Asks the backend for the upgrade that the client asks for. A backend that refuses has its answer passed on; one that
/// could not be asked makes a 502, and one that answers neither with an upgrade nor with an error a 500.
pub async fn proxy_upgrade<B, IO>(mut request: Request<B>, backend: IO, target: Target) -> Upgrade
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if !is_upgrade_request(request.headers()) {
        return Upgrade::refuse(plain_error(StatusCode::BAD_REQUEST, "Upgrade request required"));
    }
    let answer = match backend_request(request.method().clone(), forwarded(request.headers()), &target) {
        Ok(request) => ask(backend, request).await,
        Err(error) => Err(UpgradeError::Request(error)),
    };
    match answer {
        Ok(Answer::Switched(parts, upgraded)) => {
            let client = hyper::upgrade::on(&mut request);
            Upgrade::accept(Response::from_parts(parts, Bytes::new()), async move {
                let client = TokioIo::new(client.await.map_err(SessionError::Upgrade)?);
                copy_until_an_end(client, upgraded).await
            })
        }
        Ok(Answer::Refused(response)) => Upgrade::refuse(pass_on(response)),
        Err(error) => Upgrade::refuse(bad_gateway(&error)),
    }
}

/// A refusal as the client gets it.
pub(crate) fn pass_on(mut response: Response<Bytes>) -> Response<Bytes> {
    if !response.status().is_client_error() && !response.status().is_server_error() {
        let text = format!("invalid upgrade response: status code {}", response.status().as_u16());
        return plain_error(StatusCode::INTERNAL_SERVER_ERROR, &text);
    }
    // The body is whole now, so that these may no longer be true.
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().remove(TRANSFER_ENCODING);
    response
}

/// The answer where the backend gave none.
pub(crate) fn bad_gateway(error: &UpgradeError) -> Response<Bytes> {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    plain_error(StatusCode::BAD_GATEWAY, &format!("error dialing backend: {error}{cause}"))
}
