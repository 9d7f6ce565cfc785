//! A program that takes events over HTTP: where it is and how to show who we are stands in a kubeconfig.
//!
//! Invariant: whatever is at the other end, an attempt ends within [`TIMEOUT`], and there are at most [`ATTEMPTS`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Request, Uri};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

const TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 5;
const FACTOR: f64 = 1.5;
const JITTER: f64 = 0.2;

/// Why there is no way to a webhook.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The kubeconfig can't be read, or names things that are not there.
    #[error("cannot use the audit webhook configuration {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KubeconfigError,
    },
    /// The TLS material is not usable.
    #[error("cannot make a client for the audit webhook")]
    Client(#[source] kube::Error),
    /// There is no such address.
    #[error("the audit webhook has no usable address")]
    Address(#[source] http::Error),
}

/// The way to it.
pub(crate) struct Webhook {
    client: Client,
    /// Of the address in the kubeconfig.
    path: String,
    initial_backoff: Duration,
}

impl Webhook {
    pub(crate) async fn open(path: &Path, initial_backoff: Duration) -> Result<Self, WebhookError> {
        let wrap = |source| WebhookError::Kubeconfig { path: path.to_owned(), source };
        let kubeconfig = Kubeconfig::read_from(path).map_err(wrap)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let mut config = config.map_err(wrap)?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(TIMEOUT);
        // The client would end the path with a slash.
        let path = config.cluster_url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let mut parts = std::mem::take(&mut config.cluster_url).into_parts();
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        config.cluster_url = Uri::from_parts(parts).map_err(|error| WebhookError::Address(error.into()))?;
        Ok(Self { client: Client::try_from(config).map_err(WebhookError::Client)?, path, initial_backoff })
    }

    /// Sends events, again and again with growing pauses where that fails; the last failure.
    pub(crate) async fn send(&self, items: &[Vec<u8>]) -> Result<(), String> {
        let body = list(items);
        let mut pause = self.initial_backoff;
        let mut attempt = 1;
        loop {
            let failure = match self.attempt(body.clone()).await {
                Ok(()) => return Ok(()),
                Err(failure) if attempt == ATTEMPTS => return Err(failure),
                Err(failure) => failure,
            };
            tracing::debug!(attempt, failure, "the audit webhook does not take events");
            tokio::time::sleep(pause.mul_f64(1.0 + JITTER * rand::random::<f64>())).await;
            pause = pause.mul_f64(FACTOR);
            attempt += 1;
        }
    }

    async fn attempt(&self, body: Vec<u8>) -> Result<(), String> {
        let request = Request::post(&self.path).header(http::header::CONTENT_TYPE, "application/json").body(body);
        let request = request.map_err(|error| error.to_string())?;
        // What it answers is of no interest.
        match tokio::time::timeout(TIMEOUT, self.client.request_text(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {TIMEOUT:?}")),
        }
    }
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    const HEAD: &[u8] = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;
    let mut body = Vec::with_capacity(HEAD.len() + 2 + items.iter().map(|item| item.len() + 1).sum::<usize>());
    body.extend_from_slice(HEAD);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(item);
    }
    body.extend_from_slice(b"]}");
    body
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn lists_are_json() {
        let read = |items: &[&str]| {
            let items: Vec<Vec<u8>> = items.iter().map(|item| item.as_bytes().to_vec()).collect();
            serde_json::from_slice::<Value>(&list(&items)).unwrap()["items"].take()
        };
        assert_eq!(read(&[]), json!([]));
        assert_eq!(read(&["{}", r#"{"a":1}"#]), json!([{}, {"a": 1}]));
    }
}
