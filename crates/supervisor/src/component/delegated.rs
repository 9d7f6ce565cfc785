//! Who asks a component without an API of its own, and whether it answers: the API server is asked for both, as upstream's
//! components ask it.
//!
//! Invariants: an answer of the API server is used for a short time only, and no answer is no permission; what is always
//! allowed needs no API server.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use http::{HeaderMap, Method};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kedge_client::Client;
use kedge_meta::{ApiStatus, StatusReason, UserInfo};
use kube::Api;
use kube::api::PostParams;
use tokio::time::Instant;

use super::client;
use crate::error::Error;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// More answers than this are not remembered.
const BOUND: usize = 1024;
/// Upstream's default for both answers.
const ANSWERS_TTL: Duration = Duration::from_secs(10);
/// Upstream's default of what everybody may read.
const HEALTH_PATHS: [&str; 3] = ["/healthz", "/readyz", "/livez"];
const MASTERS: &str = "system:masters";

/// Upstream's `--authentication-*` and `--authorization-*` flags.
#[derive(Debug, Clone)]
pub struct DelegationOptions {
    /// With what tokens are asked about; bearer tokens are nobody's where absent.
    pub authentication_kubeconfig: Option<PathBuf>,
    /// Whether the API server is not asked whose certificates clients show.
    pub authentication_skip_lookup: bool,
    /// For how long a token stays good.
    pub token_ttl: Duration,
    /// Who signs clients' certificates; the API server says where absent.
    pub client_ca_file: Option<PathBuf>,
    /// With what is asked who may do what; nobody but administrators may where absent.
    pub authorization_kubeconfig: Option<PathBuf>,
    /// For how long a yes is good.
    pub allowed_ttl: Duration,
    /// For how long a no is good.
    pub denied_ttl: Duration,
    /// Paths that everybody may read; a `*` at the end stands for anything.
    pub always_allow_paths: Vec<String>,
}

type Key = (String, Vec<String>, String, String);

/// Asks the API server, and remembers.
pub(super) struct Delegation {
    tokens: Option<Client>,
    reviews: Option<Client>,
    options: DelegationOptions,
    known_tokens: Mutex<HashMap<String, (UserInfo, Instant)>>,
    decisions: Mutex<HashMap<Key, (bool, Instant)>>,
}

impl Delegation {
    pub(super) async fn new(options: &DelegationOptions) -> Result<Self, Error> {
        let connect = async |kubeconfig: &Option<PathBuf>| match kubeconfig {
            Some(path) => client(Some(path)).await.map(Some),
            None => Ok(None),
        };
        if let Some(wrong) = options.always_allow_paths.iter().find(|path| has_inner_star(path)) {
            return Err(Error::Flag {
                flag: "--authorization-always-allow-paths",
                value: wrong.clone(),
                why: "only trailing * allowed".to_owned(),
            });
        }
        Ok(Self {
            tokens: connect(&options.authentication_kubeconfig).await?,
            reviews: connect(&options.authorization_kubeconfig).await?,
            options: options.clone(),
            known_tokens: Mutex::default(),
            decisions: Mutex::default(),
        })
    }

    /// Asks with a client that is there already: a path is always allowed where upstream's components allow it, and answers are
    /// good for upstream's time.
    pub(super) fn asking(client: Client) -> Self {
        Self {
            tokens: Some(client.clone()),
            reviews: Some(client),
            options: DelegationOptions {
                authentication_kubeconfig: None,
                authentication_skip_lookup: false,
                token_ttl: ANSWERS_TTL,
                client_ca_file: None,
                authorization_kubeconfig: None,
                allowed_ttl: ANSWERS_TTL,
                denied_ttl: ANSWERS_TTL,
                always_allow_paths: HEALTH_PATHS.map(str::to_owned).into(),
            },
            known_tokens: Mutex::default(),
            decisions: Mutex::default(),
        }
    }

    /// The client for what the API server says of clients' certificates.
    pub(super) fn lookup(&self) -> Option<&Client> {
        self.tokens.as_ref().filter(|_| !self.options.authentication_skip_lookup)
    }

    /// Whether whoever asks may have an answer; what it is told where not.
    pub(super) async fn check(
        &self,
        certificate: Option<UserInfo>,
        headers: &HeaderMap,
        method: &Method,
        path: &str,
    ) -> Result<(), ApiStatus> {
        let user = match (certificate, bearer(headers)) {
            (Some(user), _) => user,
            (None, Some(token)) => self.user_of(token).await.ok_or_else(ApiStatus::unauthorized)?,
            (None, None) => UserInfo::anonymous(),
        };
        let verb = method.as_str().to_ascii_lowercase();
        let is_master = user.groups.iter().any(|group| group == MASTERS);
        if is_master || self.options.always_allow_paths.iter().any(|allowed| covers(allowed, path)) {
            return Ok(());
        }
        match self.may(&user, &verb, path).await? {
            true => Ok(()),
            false => Err(ApiStatus::new(
                403,
                StatusReason::Forbidden,
                format!("forbidden: User {:?} cannot {verb} path {path:?}", user.username),
            )),
        }
    }

    async fn user_of(&self, token: &str) -> Option<UserInfo> {
        let now = Instant::now();
        if let Some((user, until)) = lock(&self.known_tokens).get(token)
            && now < *until
        {
            return Some(user.clone());
        }
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews = Api::<TokenReview>::all(self.tokens.clone()?);
        let params = PostParams::default();
        let status = tokio::time::timeout(REQUEST_TIMEOUT, reviews.create(&params, &review)).await.ok()?.ok()?.status?;
        let user = status.user.filter(|_| status.authenticated == Some(true))?;
        let user = UserInfo {
            username: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        };
        remember(&self.known_tokens, token.to_owned(), (user.clone(), now + self.options.token_ttl));
        Some(user)
    }

    async fn may(&self, user: &UserInfo, verb: &str, path: &str) -> Result<bool, ApiStatus> {
        let Some(client) = &self.reviews else { return Ok(false) };
        let (now, key) =
            (Instant::now(), (user.username.clone(), user.groups.clone(), verb.to_owned(), path.to_owned()));
        if let Some((allowed, until)) = lock(&self.decisions).get(&key)
            && now < *until
        {
            return Ok(*allowed);
        }
        let spec = SubjectAccessReviewSpec {
            user: Some(user.username.clone()),
            groups: Some(user.groups.clone()),
            uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
            extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
            non_resource_attributes: Some(NonResourceAttributes {
                verb: Some(verb.to_owned()),
                path: Some(path.to_owned()),
            }),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let (reviews, params) = (Api::<SubjectAccessReview>::all(client.clone()), PostParams::default());
        let answer = match tokio::time::timeout(REQUEST_TIMEOUT, reviews.create(&params, &review)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(ApiStatus::internal(format!("the API server was asked in vain: {error}"))),
            Err(_) => return Err(ApiStatus::internal("the API server does not answer")),
        };
        let allowed = answer.status.is_some_and(|status| status.allowed);
        let ttl = if allowed { self.options.allowed_ttl } else { self.options.denied_ttl };
        remember(&self.decisions, key, (allowed, now + ttl));
        Ok(allowed)
    }
}

/// What is in there is whole whenever somebody panics.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn remember<K: std::hash::Hash + Eq, V>(known: &Mutex<HashMap<K, (V, Instant)>>, key: K, value: (V, Instant)) {
    let mut known = lock(known);
    if known.len() >= BOUND {
        let now = Instant::now();
        known.retain(|_, (_, until)| now < *until);
    }
    if known.len() < BOUND {
        known.insert(key, value);
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn has_inner_star(path: &str) -> bool {
    path.strip_suffix('*').unwrap_or(path).contains('*')
}

/// Whether a path is one that is always allowed; the slash in front is optional.
fn covers(allowed: &str, path: &str) -> bool {
    let (allowed, path) = (allowed.trim_start_matches('/'), path.trim_start_matches('/'));
    match allowed.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == allowed,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::header::AUTHORIZATION;
    use http_body_util::BodyExt;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn paths_are_matched_as_upstream_does() {
        for (allowed, path, expected) in [
            ("/healthz", "/healthz", true),
            ("healthz", "/healthz", true),
            ("/healthz", "/healthz/ping", false),
            ("/healthz/*", "/healthz/ping", true),
            ("/*", "/metrics", true),
            ("/livez", "/metrics", false),
        ] {
            assert_eq!(covers(allowed, path), expected, "{allowed} {path}");
        }
        assert!(has_inner_star("/a*/b") && !has_inner_star("/a/*"));
    }

    /// An API server that knows one token and lets one user read metrics; counts what it is asked.
    fn api(asked: &Arc<AtomicUsize>) -> Client {
        let asked = asked.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            asked.fetch_add(1, Ordering::SeqCst);
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.unwrap_or_else(|_| panic!("a body")).to_bytes();
                let sent: Value = serde_json::from_slice(&body).expect("it is JSON");
                let status = match path.ends_with("tokenreviews") {
                    true if sent["spec"]["token"] == "good" => {
                        json!({"authenticated": true, "user": {"username": "prometheus", "groups": ["a"]}})
                    }
                    true => json!({"authenticated": false}),
                    false => {
                        let asks = &sent["spec"]["nonResourceAttributes"];
                        let is_reader = sent["spec"]["user"] == "prometheus";
                        json!({"allowed": is_reader && asks["path"] == "/metrics" && asks["verb"] == "get"})
                    }
                };
                let answer = json!({"metadata": {}, "spec": sent["spec"], "status": status}).to_string();
                Ok::<_, std::convert::Infallible>(http::Response::new(Body::from(answer.into_bytes())))
            }
        });
        kedge_client::client_from_service(service)
    }

    #[tokio::test]
    async fn the_api_server_says_who_asks_and_who_may() {
        let asked = Arc::new(AtomicUsize::new(0));
        let delegation = Delegation::asking(api(&asked));
        let check = async |user: Option<&str>, token: Option<&str>, path: &str| {
            let certificate = user.map(|user| UserInfo { username: user.to_owned(), ..UserInfo::default() });
            let header = token.map(|token| (AUTHORIZATION, format!("Bearer {token}").parse().expect("a header")));
            let headers: HeaderMap = header.into_iter().collect();
            match delegation.check(certificate, &headers, &Method::GET, path).await {
                Ok(()) => (200, String::new()),
                Err(status) => (status.code, status.message),
            }
        };
        assert_eq!(check(None, None, "/healthz").await.0, 200);
        assert_eq!(asked.load(Ordering::SeqCst), 0, "what is always allowed is not asked about");
        let (code, text) = check(None, None, "/metrics").await;
        assert_eq!((code, text.as_str()), (403, "forbidden: User \"system:anonymous\" cannot get path \"/metrics\""));
        assert_eq!(check(None, Some("bad"), "/healthz").await.0, 401);
        assert_eq!(check(None, Some("good"), "/metrics").await.0, 200);
        let before = asked.load(Ordering::SeqCst);
        assert_eq!(check(None, Some("good"), "/metrics").await.0, 200);
        assert_eq!(asked.load(Ordering::SeqCst), before, "answers are remembered");
        assert_eq!(check(Some("prometheus"), None, "/metrics").await.0, 200, "a certificate says it as well");
        assert_eq!(check(Some("somebody"), None, "/metrics").await.0, 403);
    }

    #[tokio::test]
    async fn without_an_api_server_only_administrators_see_more_than_health() {
        let asking = Delegation::asking(api(&Arc::default()));
        let delegation = Delegation { tokens: None, reviews: None, ..asking };
        let check = async |groups: &[&str], path: &str| {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            let user = UserInfo { username: "a".to_owned(), groups, ..UserInfo::default() };
            delegation.check(Some(user), &HeaderMap::new(), &Method::GET, path).await.is_ok()
        };
        assert!(check(&[MASTERS], "/metrics").await);
        assert!(!check(&["system:authenticated"], "/metrics").await);
        assert!(check(&[], "/healthz").await);
    }
}
