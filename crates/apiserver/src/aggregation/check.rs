//! Whether a server answers for an API: its Service, its endpoints, and the list of its resources. Upstream's reasons.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::{BodyExt, Limited};
use kedge_meta::UserInfo;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};

use super::schema::{self, Fetched};
use super::{Extension, Trust, relay};
use crate::call::Payload;
use crate::core::Core;
use crate::rest::{Endpoint, anybody};
use crate::service_endpoints::{Missing, locate};

/// How long a server has for a document.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of a document is read.
const DOCUMENT_LIMIT: usize = 8 << 20;

/// As whom this server asks for itself.
const OWN_NAME: &str = "system:kube-aggregator";

/// What a look at a server came to.
pub(super) struct Verdict {
    reason: &'static str,
    message: String,
    /// Whether that cannot be told.
    is_unknown: bool,
    /// The list of its resources, where it answers.
    pub(super) resources: Option<Value>,
    /// Where its schema is, where it has one.
    pub(super) schema_url: Option<String>,
    /// The old form of its schema.
    pub(super) schema_v2: Option<Arc<Fetched>>,
}

impl Verdict {
    fn not(reason: &'static str, message: String) -> Self {
        Self { reason, message, is_unknown: false, resources: None, schema_url: None, schema_v2: None }
    }

    /// As it stands in a status, without its time.
    pub(super) fn condition(&self) -> Value {
        let status = match (self.resources.is_some(), self.is_unknown) {
            (true, _) => "True",
            (false, true) => "Unknown",
            (false, false) => "False",
        };
        json!({"type": "Available", "status": status, "reason": self.reason, "message": self.message})
    }
}

/// The condition of what this server answers for itself, without its time.
pub(super) fn local() -> Value {
    json!({"type": "Available", "status": "True", "reason": "Local",
        "message": "Local APIServices are always available"})
}

/// How to speak TLS with a server, by the authorities that its APIService names.
pub(super) fn tls(trust: &Trust, identity: Option<Arc<dyn ResolvesClientCert>>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = match trust.is_blind {
        true => builder.dangerous().with_custom_certificate_verifier(anybody(provider)),
        false => builder.with_root_certificates(authorities(&trust.bundle)?),
    };
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Out of a bundle; the system's where it is empty.
fn authorities(bundle: &str) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    if bundle.is_empty() {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(store);
    }
    let pem = base64::engine::general_purpose::STANDARD.decode(bundle);
    let pem = pem.map_err(|error| format!("the caBundle is not base64: {error}"))?;
    let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
    match store.add_parsable_certificates(certificates) {
        (0, _) => Err("unable to load root certificates: unable to parse bytes as PEM block".to_owned()),
        _ => Ok(store),
    }
}

/// Looks at everything that has to be there, and asks for the resources. `before` is what is known of its schema.
pub(super) async fn check(core: &Core, extension: &Extension, before: Option<Arc<Fetched>>) -> Verdict {
    let (name, namespace, port) = (&extension.service, &extension.namespace, extension.port);
    let service = format!("service/{name} in \"{namespace}\"");
    let endpoint = match locate(&*core.store, namespace, name, port).await {
        Ok(endpoint) => endpoint,
        Err(Missing::Service) => return Verdict::not("ServiceNotFound", format!("{service} is not present")),
        Err(Missing::Port) => {
            return Verdict::not("ServicePortError", format!("{service} is not listening on port {port}"));
        }
        Err(Missing::Slices) => {
            return Verdict::not("EndpointsNotFound", format!("cannot find endpointslices for {service}"));
        }
        Err(Missing::Ready(port)) => {
            let text = format!("endpointslices for {service} have no addresses with port name \"{port}\"");
            return Verdict::not("MissingEndpoints", text);
        }
        Err(Missing::Unknown(why)) => {
            let message = format!("{service} cannot be checked due to: {why}");
            return Verdict { is_unknown: true, ..Verdict::not("ServiceAccessError", message) };
        }
    };
    let path = format!("/apis/{}/{}", extension.group, extension.version);
    match get(core, extension, &endpoint, &path).await {
        Ok(resources) => Verdict {
            reason: "Passed",
            message: "all checks passed".to_owned(),
            is_unknown: false,
            resources: Some(resources),
            schema_url: schema_url(core, extension, &endpoint).await,
            schema_v2: schema::fetch(core, extension, &endpoint, before).await,
        },
        Err(why) => {
            let url = format!("https://{}{path}", endpoint.authority());
            Verdict::not("FailedDiscoveryCheck", format!("failing or missing response from {url}: {why}"))
        }
    }
}

/// Where the schema of its API is; many servers have none.
async fn schema_url(core: &Core, extension: &Extension, endpoint: &Endpoint) -> Option<String> {
    let index = get(core, extension, endpoint, "/openapi/v3").await.ok()?;
    let own = &index["paths"][format!("apis/{}/{}", extension.group, extension.version)];
    own["serverRelativeURL"].as_str().map(str::to_owned)
}

/// A document of a server.
async fn get(core: &Core, extension: &Extension, endpoint: &Endpoint, path: &str) -> Result<Value, String> {
    match ask(core, extension, endpoint, path, HeaderMap::new()).await? {
        (200, _, body) => serde_json::from_slice(&body).map_err(|error| error.to_string()),
        (status, ..) => Err(format!("bad status: {status}")),
    }
}

/// Code, headers and body of an answer, asked for in this server's own name.
pub(super) async fn ask(
    core: &Core,
    extension: &Extension,
    endpoint: &Endpoint,
    path: &str,
    mut headers: HeaderMap,
) -> Result<(u16, HeaderMap, Bytes), String> {
    let groups = vec!["system:masters".to_owned()];
    let user = UserInfo { username: OWN_NAME.to_owned(), groups, ..UserInfo::default() };
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    relay::identify(&mut headers, &user);
    let asked = async {
        let request = relay::request(extension, Method::GET, path, headers, Payload::default())?;
        let (head, body) = relay::send(core, extension, endpoint, request).await?.into_parts();
        let body = Limited::new(body, DOCUMENT_LIMIT).collect().await.map_err(|error| error.to_string())?;
        Ok((head.status.as_u16(), head.headers, body.to_bytes()))
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
}
