//! Sends a JSON document to a webhook and reads the one that comes back.
//!
//! Invariant: a call ends within its timeout, connecting and reading included.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full, Limited};
use serde_json::Value;

use crate::connect::{Connector, Resolver};
use crate::credentials::Credentials;
use crate::failure;
use crate::handshakes::Handshakes;
use crate::metrics::Conversions;
use crate::pool::{Connections, Pool, innermost};
use crate::target::{Service, Target};
use crate::tls::{self, Identity};

/// How much of an answer is read at least; large questions have large answers.
const ANSWER_LIMIT: usize = 16 << 20;

type Place = ((Option<Service>, String, Vec<u8>), Option<Identity>);

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct CallError {
    /// In upstream's words.
    pub text: String,
    /// The code of the answer, where there was one; 503 where there was none.
    pub code: u16,
}

impl CallError {
    fn new(text: String) -> Self {
        Self { text, code: 503 }
    }
}

/// Calls webhooks.
pub struct Client {
    resolver: Arc<dyn Resolver>,
    pool: Pool<Place, Full<Bytes>>,
    handshakes: Arc<Handshakes>,
    pub(crate) conversions: Conversions,
}

impl Client {
    /// A client that finds Services by `resolver`.
    pub fn new(resolver: Arc<dyn Resolver>) -> Self {
        let handshakes = Arc::new(Handshakes::of_webhooks());
        Self { resolver, pool: Pool::default(), handshakes, conversions: Conversions::default() }
    }

    /// What conversions and refused certificates there were, in Prometheus' format.
    pub fn metrics(&self) -> String {
        self.conversions.text() + &self.handshakes.text()
    }

    /// Posts a document; `timeout` is also told to the other side, in whole seconds, where `tells` is set.
    pub async fn post(
        &self,
        target: &Target,
        credentials: &Credentials,
        document: &Value,
        timeout: Duration,
        tells: bool,
    ) -> Result<Value, CallError> {
        let url = match tells {
            true => {
                let separator = if target.url.contains('?') { '&' } else { '?' };
                format!("{}{separator}timeout={}s", target.url, timeout.as_secs())
            }
            false => target.url.clone(),
        };
        let failed = |why: &str| CallError::new(format!("Post \"{url}\": {why}"));
        let shown = credentials.shown_to(target).map_err(CallError::new)?;
        let connections = self.connections(target, shown.identity).map_err(CallError::new)?;
        let body = document.to_string();
        let limit = ANSWER_LIMIT.max(body.len().saturating_mul(4));
        let mut request = Request::post(&url).body(Full::from(body)).map_err(|error| failed(&error.to_string()))?;
        let headers = request.headers_mut();
        headers.extend(shown.headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
        headers.insert(USER_AGENT, HeaderValue::from_static("kube-apiserver-admission"));
        let exchange = async {
            let response = connections.send(request).await.map_err(|error| failed(&error))?;
            let (head, body) = response.into_parts();
            let read = Limited::new(body, limit).collect().await;
            let bytes = read.map_err(|error| failed(&innermost(&*error)))?.to_bytes();
            Ok((head.status.as_u16(), bytes))
        };
        let ended = tokio::time::timeout(timeout, exchange).await;
        let (code, bytes) = ended.unwrap_or_else(|_| Err(failed("context deadline exceeded")))?;
        if !(200..300).contains(&code) {
            return Err(CallError { text: failure::of_code(code, &bytes), code });
        }
        serde_json::from_slice(&bytes).map_err(|error| CallError::new(format!("couldn't decode the answer: {error}")))
    }

    fn connections(&self, target: &Target, identity: Option<Identity>) -> Result<Connections<Full<Bytes>>, String> {
        let place = (target.place(), identity);
        self.pool.connections(place.clone(), || {
            let tls = tls::client_config(&target.authorities, target.takes_http2(), place.1.as_ref())?;
            let (resolver, handshakes) = (Arc::clone(&self.resolver), Arc::clone(&self.handshakes));
            Ok(Connector::new(resolver, target.service.clone(), tls, handshakes))
        })
    }
}
