//! Whose certificates a component takes from those who ask it: those of a file's authorities, else of the authorities that the
//! API server tells in the ConfigMap `extension-apiserver-authentication`.
//!
//! Invariant: until the authorities are known, and where none are, clients are not asked for a certificate.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kedge_client::Client;
use kedge_pki::Identity;
use kube::Api;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::delegated::DelegationOptions;
use super::read;
use crate::error::Error;
use crate::kubelet::chain;

const CONFIG_MAP: &str = "extension-apiserver-authentication";
const FIELD: &str = "client-ca-file";
const FLAG: &str = "--client-ca-file";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause while nothing is known yet: the API server comes up beside us.
const SOON: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(60);

/// A server's certificate, and whose certificates it takes.
pub(super) struct ClientAuthority {
    identity: Identity,
    file: Option<PathBuf>,
    known: Option<String>,
}

impl ClientAuthority {
    pub(super) fn new(identity: Identity, options: &DelegationOptions) -> Result<Self, Error> {
        let file = options.client_ca_file.clone();
        let known = file.as_deref().map(|file| read(FLAG, file)).transpose()?;
        let authority = Self { identity, file, known };
        // What is wrong at the start is said at the start.
        authority.config()?;
        Ok(authority)
    }

    fn config(&self) -> Result<ServerConfig, Error> {
        Ok(match &self.known {
            Some(pem) => kedge_pki::server_config(&self.identity, pem)?,
            None => kedge_pki::server_config_without_client_certificates(&self.identity)?,
        })
    }

    // DIVERGES: upstream asks once, and does not start without an answer.
    /// The configuration at each time; it follows the file, or else what the API server says.
    pub(super) fn follow(
        mut self,
        lookup: Option<Client>,
        shutdown: CancellationToken,
    ) -> watch::Receiver<Arc<ServerConfig>> {
        let first = self.config().unwrap_or_else(|_| unreachable!("it has been made before"));
        let (sender, receiver) = watch::channel(Arc::new(first));
        if self.file.is_none() && lookup.is_none() {
            return receiver;
        }
        tokio::spawn(async move {
            loop {
                match self.learn(lookup.as_ref()).await {
                    Ok(true) => match self.config() {
                        Ok(config) => drop(sender.send_replace(Arc::new(config))),
                        Err(error) => tracing::warn!(why = chain(&error), "the authorities of clients cannot be used"),
                    },
                    Ok(false) => {}
                    Err(why) => tracing::debug!(why, "the authorities of clients are not known"),
                }
                let pause = if self.known.is_some() { LATER } else { SOON };
                if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
            }
        });
        receiver
    }

    /// Whether there is something new.
    async fn learn(&mut self, lookup: Option<&Client>) -> Result<bool, String> {
        let found = match (&self.file, lookup) {
            (Some(file), _) => read(FLAG, file).map_err(|error| chain(&error))?,
            (None, Some(client)) => told(client).await?,
            (None, None) => return Ok(false),
        };
        let is_new = self.known.as_ref() != Some(&found);
        self.known = Some(found);
        Ok(is_new)
    }
}

async fn told(client: &Client) -> Result<String, String> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let asked = tokio::time::timeout(REQUEST_TIMEOUT, maps.get(CONFIG_MAP)).await;
    let map = asked.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
    map.data.and_then(|mut data| data.remove(FIELD)).ok_or_else(|| format!("{CONFIG_MAP} has no {FIELD}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kedge_pki::{CertificateAuthority, LeafRequest};
    use kube::client::Body;

    use super::*;

    #[tokio::test]
    async fn the_api_server_tells_whose_certificates_count() {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = CertificateAuthority::ensure(dir.path(), "ca", "ca").expect("an authority");
        let request = LeafRequest::server("a", vec!["localhost".to_owned()], Vec::new());
        let identity = authority.issue(&request).expect("a certificate");
        let pem = authority.certificate_pem().to_owned();
        let map = ConfigMap { data: Some(BTreeMap::from([(FIELD.to_owned(), pem.clone())])), ..ConfigMap::default() };
        let text = serde_json::to_string(&map).expect("it is JSON");
        let service = tower::service_fn(move |_: http::Request<Body>| {
            let answer = http::Response::new(Body::from(text.clone().into_bytes()));
            async move { Ok::<_, std::convert::Infallible>(answer) }
        });
        let client = kedge_client::client_from_service(service);
        let mut own = ClientAuthority { identity, file: None, known: None };
        assert_eq!(own.learn(Some(&client)).await, Ok(true));
        assert_eq!(own.known.as_ref(), Some(&pem));
        assert_eq!(own.learn(Some(&client)).await, Ok(false));
        let shutdown = CancellationToken::new();
        own.known = None;
        let mut configs = own.follow(Some(client), shutdown.clone());
        configs.changed().await.expect("it follows");
        shutdown.cancel();
    }
}
