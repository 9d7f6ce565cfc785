//! Service account tokens of pods, requested from the API server and renewed in time.
//!
//! Invariant: a token is renewed after 80 % of its life (or 24 hours), and used until it expires where that fails.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;

use crate::pod;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_USE: i64 = 24 * 3600;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    pod_uid: String,
    audience: Option<String>,
    expiration_seconds: i64,
}

/// A token and its end.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) text: String,
    asked_at: Timestamp,
    renew_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

impl Token {
    /// Whether it need not be renewed yet. One of the future was asked for before the clock was set back: how old it
    /// really is, nobody knows.
    fn is_fresh(&self, now: Timestamp) -> bool {
        self.asked_at <= now && now < self.renew_at
    }
}

/// The tokens of all pods of this node.
pub(crate) struct Tokens {
    client: Client,
    tokens: Mutex<HashMap<Key, Token>>,
}

impl Tokens {
    /// Nothing is requested before it is asked for.
    pub(crate) fn new(client: Client) -> Self {
        Self { client, tokens: Mutex::default() }
    }

    /// A token for the pod's service account.
    pub(crate) async fn get(
        &self,
        pod: &Pod,
        audience: Option<&str>,
        expiration_seconds: i64,
        now: Timestamp,
    ) -> Result<Token, TokenError> {
        let key = Key { pod_uid: pod::uid(pod).to_owned(), audience: audience.map(str::to_owned), expiration_seconds };
        let known = self.tokens.lock().get(&key).cloned();
        if let Some(token) = known.as_ref().filter(|token| token.is_fresh(now)) {
            return Ok(token.clone());
        }
        match self.request(pod, &key, now).await {
            Ok(token) => {
                self.tokens.lock().insert(key, token.clone());
                Ok(token)
            }
            Err(error) => match known {
                Some(token) if now < token.expires_at => {
                    tracing::warn!(
                        pod = pod::format(pod),
                        error = error.message,
                        "failed to renew a token; the old one is still good"
                    );
                    Ok(token)
                }
                _ => Err(error),
            },
        }
    }

    /// Forgets the tokens of a pod that is gone.
    pub(crate) fn forget(&self, pod_uid: &str) {
        self.tokens.lock().retain(|key, _| key.pod_uid != pod_uid);
    }

    async fn request(&self, pod: &Pod, key: &Key, now: Timestamp) -> Result<Token, TokenError> {
        let account = pod::spec(pod).service_account_name.clone().unwrap_or_else(|| "default".to_owned());
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: key.audience.clone().map(|audience| vec![audience]),
                expiration_seconds: Some(key.expiration_seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(pod::name(pod).to_owned()),
                    uid: Some(pod::uid(pod).to_owned()),
                }),
            }),
            ..TokenRequest::default()
        };
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), pod::namespace(pod));
        let params = PostParams::default();
        let answer =
            tokio::time::timeout(REQUEST_TIMEOUT, accounts.create_token_request(&account, &params, &request)).await;
        let fails = |message: String, transient: bool| TokenError {
            message: format!("failed to fetch token: {message}"),
            transient,
        };
        let granted = match answer {
            Ok(Ok(granted)) => granted.status.unwrap_or_default(),
            Ok(Err(error)) => {
                let transient = !matches!(&error, kube::Error::Api(status) if status.code == 404);
                return Err(fails(error.to_string(), transient));
            }
            Err(_) => return Err(fails("timed out waiting for the API server".to_owned(), true)),
        };
        let (Some(text), Some(expires)) = (granted.token, granted.expiration_timestamp) else {
            return Err(fails("the API server granted none".to_owned(), true));
        };
        Ok(Token { text, asked_at: now, renew_at: renewal(now, expires.0), expires_at: expires.0 })
    }
}

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct TokenError {
    /// With the API server's words.
    pub(crate) message: String,
    /// It may be had later.
    pub(crate) transient: bool,
}

fn renewal(issued: Timestamp, expires: Timestamp) -> Timestamp {
    let life = expires.as_second().saturating_sub(issued.as_second()).max(0);
    let after = (life * 8 / 10).min(LONGEST_USE);
    Timestamp::from_second(issued.as_second() + after).unwrap_or(issued)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_at_80_percent_or_after_a_day() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        for (life, expected) in [(600, 480), (3607, 2885), (365 * 86_400, 86_400), (0, 0)] {
            assert_eq!(renewal(at(1000), at(1000 + life)), at(1000 + expected));
        }
    }

    #[test]
    fn a_clock_that_jumps_makes_a_token_old() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let (asked_at, expires_at) = (at(10_000), at(13_607));
        let token = Token { text: String::new(), asked_at, renew_at: renewal(asked_at, expires_at), expires_at };
        for (now, expected) in [(10_000, true), (12_884, true), (12_885, false), (13_600, false), (6_400, false)] {
            assert_eq!(token.is_fresh(at(now)), expected, "at {now}");
        }
    }
}
