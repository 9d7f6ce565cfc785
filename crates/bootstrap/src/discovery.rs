//! How a machine finds out whose certificates to trust: by a token and the authority's pin, by a token alone, or by a file.
//!
//! Invariant: what an unverified connection said is used only after the token's signature, and where pins are given the
//! authority's pin and a second, verified connection, have confirmed it.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::ConfigMap;
use kedge_client::Client;
use kube::Config;
use kube::api::Api;
use kube::config::{AuthInfo, Kubeconfig};

use crate::error::BootstrapError;
use crate::token::BootstrapToken;

const NAME: &str = "cluster-info";
const RETRY: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How the cluster is found.
#[derive(Debug, Clone)]
pub enum Discovery {
    /// By a token.
    Token {
        /// `host:port` of the API server.
        endpoint: String,
        /// The token.
        token: BootstrapToken,
        /// Pins of the authority's public key; none means that the token's signature is enough.
        pins: Vec<String>,
    },
    /// By a kubeconfig's text, which is trusted as it is.
    File {
        /// Where it came from.
        name: String,
        /// The text.
        text: String,
    },
}

/// A cluster that is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredCluster {
    /// `https://host:port`.
    pub server: String,
    /// Who signs its certificates.
    pub authority_pem: String,
    /// The token of a discovery file's user.
    pub user_token: Option<String>,
}

impl DiscoveredCluster {
    /// A client that shows a token; nothing where absent.
    pub fn client(&self, token: Option<&str>) -> Result<Client, BootstrapError> {
        client(&self.server, Some(&self.authority_pem), token)
    }

    /// `host:port` of the API server.
    pub fn endpoint(&self) -> &str {
        self.server.trim_start_matches("https://").trim_end_matches('/')
    }
}

/// Finds the cluster; tries for at most so long.
pub async fn discover(discovery: &Discovery, patience: Duration) -> Result<DiscoveredCluster, BootstrapError> {
    match discovery {
        Discovery::File { name, text } => from_file(name, text),
        Discovery::Token { endpoint, token, pins } => from_token(endpoint, token, pins, patience).await,
    }
}

async fn from_token(
    endpoint: &str,
    token: &BootstrapToken,
    pins: &[String],
    patience: Duration,
) -> Result<DiscoveredCluster, BootstrapError> {
    pins.iter().try_for_each(|pin| check_pin(pin))?;
    let server = format!("https://{endpoint}");
    let unverified = signed_info(&client(&server, None, None)?, token, patience).await?;
    let kubeconfig = verified_content(&unverified, token)?.to_owned();
    let found = read(&format!("malformed kubeconfig in the {NAME} ConfigMap"), &kubeconfig)?;
    if pins.is_empty() {
        return Ok(found);
    }
    check_authority(&found.authority_pem, pins)?;
    let verified = signed_info(&client(&server, Some(&found.authority_pem), None)?, token, patience).await?;
    match verified.data.unwrap_or_default().get("kubeconfig") == Some(&kubeconfig) {
        true => Ok(found),
        false => Err(BootstrapError::Discovery(format!(
            "the second kubeconfig from the {NAME} ConfigMap (using validated TLS) was different from the first"
        ))),
    }
}

fn check_pin(pin: &str) -> Result<(), BootstrapError> {
    let wrong =
        |why: String| Err(BootstrapError::Discovery(format!("invalid discovery token CA certificate hash: {why}")));
    match pin.split_once(':') {
        Some(("sha256", digits)) if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(()),
        Some(("sha256", _)) => wrong(format!("could not decode hash {pin:?}: it is not 64 hexadecimal digits")),
        Some((format, _)) => wrong(format!("unknown hash format {format:?}, expecting one of sha256")),
        None => wrong("invalid hash, expected \"format:hex-value\"".to_owned()),
    }
}

fn check_authority(pem: &str, pins: &[String]) -> Result<(), BootstrapError> {
    let wrong =
        |why: String| BootstrapError::Discovery(format!("cluster CA found in {NAME} ConfigMap is invalid: {why}"));
    // Several, while the authority is being replaced; who knew one of them may believe the signed word about the others.
    let found = kedge_pki::public_key_pins(pem).map_err(wrong)?;
    match pins.iter().any(|pin| found.iter().any(|found| pin.eq_ignore_ascii_case(found))) {
        true => Ok(()),
        false => Err(wrong(format!("none of the public keys \"{}\" are pinned", found.join("\", \"")))),
    }
}

/// The ConfigMap, once it has a signature of this token.
async fn signed_info(client: &Client, token: &BootstrapToken, patience: Duration) -> Result<ConfigMap, BootstrapError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let missing = match maps.get(NAME).await {
            Ok(map) if map.data.as_ref().is_some_and(|data| data.contains_key(&signature_key(token))) => {
                return Ok(map);
            }
            Ok(_) => BootstrapError::Discovery(format!(
                "could not find a JWS signature in the {NAME} ConfigMap for token ID {:?}",
                token.id()
            )),
            Err(error) => BootstrapError::api(format!("failed to request the {NAME} ConfigMap"))(error),
        };
        if tokio::time::Instant::now() + RETRY > deadline {
            return Err(missing);
        }
        tracing::debug!(error = %missing, "the cluster is not found yet");
        tokio::time::sleep(RETRY).await;
    }
}

fn signature_key(token: &BootstrapToken) -> String {
    format!("jws-kubeconfig-{}", token.id())
}

/// The kubeconfig in the ConfigMap, if the token has signed it.
fn verified_content<'a>(map: &'a ConfigMap, token: &BootstrapToken) -> Result<&'a str, BootstrapError> {
    let field = |key: &str| map.data.as_ref().and_then(|data| data.get(key)).filter(|text| !text.is_empty());
    let Some(content) = field("kubeconfig") else {
        return Err(BootstrapError::Discovery(format!(
            "there is no kubeconfig key in the {NAME} ConfigMap. This API Server isn't set up for token bootstrapping, can't \
             connect"
        )));
    };
    let Some(signature) = field(&signature_key(token)) else {
        return Err(BootstrapError::Discovery(format!(
            "token id {:?} is invalid for this cluster or it has expired. Use \"kedge token create\" on the control-plane node \
             to create a new valid token",
            token.id()
        )));
    };
    match kedge_auth::is_detached_signature(signature, content, token.id(), token.secret()) {
        true => Ok(content),
        false => Err(BootstrapError::Discovery(
            "failed to verify JWS signature of received cluster info object, can't trust this API Server".to_owned(),
        )),
    }
}

fn from_file(name: &str, text: &str) -> Result<DiscoveredCluster, BootstrapError> {
    read(&format!("malformed kubeconfig in {name}"), text)
}

/// The one cluster of a kubeconfig, or that of its current context.
fn read(what: &str, text: &str) -> Result<DiscoveredCluster, BootstrapError> {
    let wrong = |why: &str| BootstrapError::Kubeconfig { what: format!("{what}: {why}"), source: None };
    let kubeconfig = Kubeconfig::from_yaml(text)
        .map_err(|error| BootstrapError::Kubeconfig { what: what.to_owned(), source: Some(Box::new(error)) })?;
    let current = kubeconfig.current_context.clone().unwrap_or_default();
    let context = kubeconfig.contexts.iter().find(|context| context.name == current);
    let context = context.and_then(|context| context.context.clone());
    let cluster = match &context {
        Some(context) => kubeconfig.clusters.iter().find(|cluster| cluster.name == context.cluster),
        None => kubeconfig.clusters.first(),
    };
    let cluster = cluster.and_then(|cluster| cluster.cluster.clone()).ok_or_else(|| wrong("it names no cluster"))?;
    let server = cluster.server.ok_or_else(|| wrong("its cluster has no server"))?;
    let authority = match (&cluster.certificate_authority_data, &cluster.certificate_authority) {
        (Some(data), _) => STANDARD.decode(data).ok().and_then(|pem| String::from_utf8(pem).ok()),
        (None, Some(path)) => std::fs::read_to_string(Path::new(path)).ok(),
        (None, None) => None,
    };
    let user = context.and_then(|context| context.user);
    let user = kubeconfig.auth_infos.iter().find(|named| Some(&named.name) == user.as_ref());
    let user_token = user.and_then(|named| token_of(named.auth_info.as_ref()?));
    let authority_pem = authority.ok_or_else(|| wrong("its cluster has no certificate authority"))?;
    Ok(DiscoveredCluster { server, authority_pem, user_token })
}

fn token_of(user: &AuthInfo) -> Option<String> {
    // The type hides it from logs, and shows it to files.
    let written = serde_json::to_value(user).ok()?;
    if let Some(token) = written.get("token").and_then(serde_json::Value::as_str) {
        return Some(token.to_owned());
    }
    let file = user.token_file.as_ref()?;
    std::fs::read_to_string(file).ok().map(|token| token.trim().to_owned())
}

/// A client; one that trusts nobody's certificates is for reading only what is verified otherwise.
fn client(server: &str, authority_pem: Option<&str>, token: Option<&str>) -> Result<Client, BootstrapError> {
    let url = server.parse().map_err(|_| BootstrapError::Discovery(format!("{server:?} is no URL")))?;
    let mut config = Config::new(url);
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    match authority_pem {
        Some(pem) => config.root_cert = Some(kedge_pki::certificates_der(pem)?),
        None => config.accept_invalid_certs = true,
    }
    config.auth_info.token = token.map(|token| token.to_owned().into());
    Client::try_from(config)
        .map_err(|source| BootstrapError::Client { server: server.to_owned(), source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_info::cluster_info_kubeconfig;

    fn authority() -> String {
        let dir = tempfile::tempdir().unwrap();
        let authority = kedge_pki::CertificateAuthority::ensure(dir.path(), "ca", "kubernetes").unwrap();
        authority.certificate_pem().to_owned()
    }

    #[test]
    fn what_is_published_is_read_back() {
        let pem = authority();
        let text = cluster_info_kubeconfig("https://10.0.0.1:6443", &pem).unwrap();
        let found = read("x", &text).unwrap();
        assert_eq!((found.server.as_str(), found.endpoint()), ("https://10.0.0.1:6443", "10.0.0.1:6443"));
        assert_eq!((found.authority_pem, found.user_token), (pem, None));
        assert_eq!(read("x", "apiVersion: v1").unwrap_err().to_string(), "x: it names no cluster");
    }

    #[test]
    fn only_the_tokens_signature_makes_the_content_good() {
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        let check = |data: &[(&str, &str)], expected: Result<&str, &str>| {
            let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let map = ConfigMap { data: Some(data), ..ConfigMap::default() };
            match (verified_content(&map, &token), expected) {
                (Ok(content), Ok(expected)) => assert_eq!(content, expected),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (other, _) => panic!("{other:?}"),
            }
        };
        let signature = kedge_auth::detached_signature("x", token.id(), token.secret());
        let key = "jws-kubeconfig-abcdef";
        check(&[("kubeconfig", "x"), (key, &signature)], Ok("x"));
        check(&[("kubeconfig", "y"), (key, &signature)], Err("failed to verify JWS signature"));
        check(&[("kubeconfig", "x")], Err("token id \"abcdef\" is invalid for this cluster or it has expired"));
        check(&[(key, &signature)], Err("there is no kubeconfig key"));
    }

    #[test]
    fn pins_name_the_authority() {
        let (pem, other) = (authority(), authority());
        let pin = kedge_pki::public_key_pin(&pem).unwrap();
        check_pin(&pin).unwrap();
        check_authority(&pem, &["sha256:00".to_owned(), pin.clone()]).unwrap();
        let error = check_authority(&other, &[pin]).unwrap_err().to_string();
        assert!(
            error.starts_with("cluster CA found in cluster-info ConfigMap is invalid: none of the public keys"),
            "{error}"
        );
        for wrong in ["", "md5:00", "sha256:00", "sha256:zz"] {
            assert!(check_pin(wrong).is_err(), "{wrong}");
        }
    }
}
