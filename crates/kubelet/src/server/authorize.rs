//! Who asks, and whether they may.
//!
//! Invariant: an answer of the API server is used for a short time only, and no answer means no.

use std::collections::HashMap;
use std::time::Duration;

use http::{HeaderMap, Method};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kedge_meta::UserInfo;
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::Config;

/// The client certificate with which the API server comes.
const API_SERVER: &str = "kube-apiserver-kubelet-client";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const ALLOWED_FOR: Duration = Duration::from_secs(300);
const DENIED_FOR: Duration = Duration::from_secs(30);
const TOKEN_FOR: Duration = Duration::from_secs(120);
const BOUND: usize = 1024;

/// The user of a client certificate: its common name and organizations. The TLS layer has checked the chain.
pub(super) fn peer_user(connection: &rustls::ServerConnection) -> Option<UserInfo> {
    let certificate = connection.peer_certificates()?.first()?;
    let (_, parsed) = X509Certificate::from_der(certificate.as_ref()).ok()?;
    let subject = parsed.subject();
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
    Some(UserInfo {
        username: subject.iter_common_name().find_map(text)?,
        groups: subject.iter_organization().filter_map(text).collect(),
        ..UserInfo::default()
    })
}

type Decisions = Mutex<HashMap<(String, Vec<String>, String, String), (bool, Instant)>>;

/// Asks the API server, and remembers.
pub(super) struct Authorizer {
    client: Client,
    node_name: String,
    anonymous: bool,
    tokens: Mutex<HashMap<[u8; 32], (UserInfo, Instant)>>,
    decisions: Decisions,
}

impl Authorizer {
    pub(super) fn new(client: Client, config: &Config) -> Self {
        Self {
            client,
            node_name: config.node_name.clone(),
            anonymous: config.anonymous_auth,
            tokens: Mutex::default(),
            decisions: Mutex::default(),
        }
    }

    /// The user of a request: of its certificate, or of its bearer token; nobody's where that is allowed. Credentials that
    /// are not good do not count as none.
    pub(super) async fn user(&self, certificate: Option<UserInfo>, headers: &HeaderMap) -> Option<UserInfo> {
        if certificate.is_some() {
            return certificate;
        }
        let header = headers.get(http::header::AUTHORIZATION).and_then(|header| header.to_str().ok());
        let Some(token) = header.and_then(bearer) else { return self.anonymous.then(UserInfo::anonymous) };
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some((user, until)) = self.tokens.lock().get(&key)
            && Instant::now() < *until
        {
            return Some(user.clone());
        }
        let user = self.review_token(token).await?;
        let mut tokens = self.tokens.lock();
        if tokens.len() >= BOUND {
            tokens.clear();
        }
        tokens.insert(key, (user.clone(), Instant::now() + TOKEN_FOR));
        Some(user)
    }

    async fn review_token(&self, token: &str) -> Option<UserInfo> {
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews = Api::<TokenReview>::all(self.client.clone());
        let params = PostParams::default();
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, reviews.create(&params, &review)).await.ok()?.ok()?;
        let status = answer.status?;
        if !status.authenticated.unwrap_or(false) {
            return None;
        }
        let user = status.user?;
        Some(UserInfo {
            username: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        })
    }

    /// Whether the user may do this to the node; upstream's text where not.
    pub(super) async fn check(&self, user: &UserInfo, method: &Method, path: &str) -> Result<(), String> {
        // The API server has authorized what it passes on, and cannot be asked while it is away.
        if user.username == API_SERVER || user.groups.iter().any(|group| group == "system:masters") {
            return Ok(());
        }
        let (verb, subresources) = (verb(method), subresources(path));
        for subresource in &subresources {
            if self.decide(user, verb, subresource).await {
                return Ok(());
            }
        }
        let (name, list) = (&user.username, subresources.join(" "));
        Err(format!("Forbidden (user={name}, verb={verb}, resource=nodes, subresource(s)=[{list}])\n"))
    }

    async fn decide(&self, user: &UserInfo, verb: &str, subresource: &str) -> bool {
        let key = (user.username.clone(), user.groups.clone(), verb.to_owned(), subresource.to_owned());
        if let Some((allowed, until)) = self.decisions.lock().get(&key)
            && Instant::now() < *until
        {
            return *allowed;
        }
        let spec = SubjectAccessReviewSpec {
            user: Some(user.username.clone()),
            groups: Some(user.groups.clone()),
            uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
            extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                version: Some("v1".to_owned()),
                resource: Some("nodes".to_owned()),
                subresource: Some(subresource.to_owned()),
                name: Some(self.node_name.clone()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviews = Api::<SubjectAccessReview>::all(self.client.clone());
        let params = PostParams::default();
        let Ok(Ok(answer)) = tokio::time::timeout(REQUEST_TIMEOUT, reviews.create(&params, &review)).await else {
            return false;
        };
        let allowed = answer.status.is_some_and(|status| status.allowed);
        let until = Instant::now() + if allowed { ALLOWED_FOR } else { DENIED_FOR };
        let mut decisions = self.decisions.lock();
        if decisions.len() >= BOUND {
            decisions.clear();
        }
        decisions.insert(key, (allowed, until));
        allowed
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// The subresources of `nodes` that a path stands for; one of them is enough.
fn subresources(path: &str) -> Vec<&'static str> {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match first {
        "stats" => vec!["stats"],
        "metrics" => vec!["metrics"],
        "logs" => vec!["log"],
        "healthz" => vec!["healthz", "proxy"],
        "pods" | "runningpods" => vec!["pods", "proxy"],
        "configz" => vec!["configz", "proxy"],
        "checkpoint" => vec!["checkpoint", "proxy"],
        _ => vec!["proxy"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stand_for_subresources() {
        for (path, expected) in [
            ("/exec/ns/p/c", vec!["proxy"]),
            ("/metrics/cadvisor", vec!["metrics"]),
            ("/stats/summary", vec!["stats"]),
            ("/pods", vec!["pods", "proxy"]),
            ("/logs/messages", vec!["log"]),
            ("/configz", vec!["configz", "proxy"]),
            ("/healthz/ping", vec!["healthz", "proxy"]),
            ("/podsx", vec!["proxy"]),
        ] {
            assert_eq!(subresources(path), expected, "{path}");
        }
        assert_eq!(verb(&Method::POST), "create");
        assert_eq!(verb(&Method::HEAD), "get");
    }

    #[test]
    fn bearer_tokens() {
        for (header, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer ", None),
            ("x", None),
        ] {
            assert_eq!(bearer(header), expected, "{header}");
        }
    }
}
