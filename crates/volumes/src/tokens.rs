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

struct Token {
    text: String,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

/// The tokens of all pods of this node.
pub struct Tokens {
    client: Client,
    tokens: Mutex<HashMap<Key, Token>>,
}

impl Tokens {
    /// Nothing is requested before it is asked for.
    pub fn new(client: Client) -> Self {
        Self { client, tokens: Mutex::default() }
    }

    /// A token for the pod's service account.
    pub async fn get(
        &self,
        pod: &Pod,
        audience: Option<&str>,
        expiration_seconds: i64,
        now: Timestamp,
    ) -> Result<String, TokenError> {
        let key = Key { pod_uid: pod::uid(pod).to_owned(), audience: audience.map(str::to_owned), expiration_seconds };
        let known = self.tokens.lock().get(&key).map(|token| (token.text.clone(), token.renew_at, token.expires_at));
        if let Some((text, renew_at, _)) = &known
            && now < *renew_at
        {
            return Ok(text.clone());
        }
        match self.request(pod, &key, now).await {
            Ok(token) => {
                let text = token.text.clone();
                self.tokens.lock().insert(key, token);
                Ok(text)
            }
            Err(error) => match known {
                Some((text, _, expires_at)) if now < expires_at => {
                    tracing::warn!(
                        pod = pod::format(pod),
                        error = error.message,
                        "failed to renew a token; the old one is still good"
                    );
                    Ok(text)
                }
                _ => Err(error),
            },
        }
    }

    /// Forgets the tokens of a pod that is gone.
    pub fn forget(&self, pod_uid: &str) {
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
        Ok(Token { text, renew_at: renewal(now, expires.0), expires_at: expires.0 })
    }
}

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct TokenError {
    /// With the API server's words.
    pub message: String,
    /// It may be had later.
    pub transient: bool,
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
}
