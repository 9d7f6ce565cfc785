//! Tokens as the cluster keeps them: Secrets of type `bootstrap.kubernetes.io/token` in `kube-system`.
//!
//! Invariant: what is written can be read back; what others wrote wrongly is named and not taken for a token.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kedge_client::Client;
use kedge_meta::parse_time;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Map, Value, json};

use crate::error::BootstrapError;
use crate::objects::put;
use crate::rbac::NODE_TOKEN_GROUP;
use crate::token::BootstrapToken;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const USAGE_PREFIX: &str = "usage-bootstrap-";
const KNOWN_USAGES: [&str; 2] = ["signing", "authentication"];
const GROUP_PREFIX: &str = "system:bootstrappers:";
const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);

/// A token that is to be made.
#[derive(Debug, Clone)]
pub struct TokenSpec {
    /// The token.
    pub token: BootstrapToken,
    /// What people read.
    pub description: String,
    /// How long it is good; for ever where absent.
    pub ttl: Option<Duration>,
    /// What it is for: `signing`, `authentication`.
    pub usages: Vec<String>,
    /// The groups of whoever shows it.
    pub groups: Vec<String>,
}

impl TokenSpec {
    /// For nodes that join: a day, for both usages, with the group that may ask for a node's certificate.
    pub fn for_joining(token: BootstrapToken) -> Self {
        Self {
            token,
            description: String::new(),
            ttl: Some(DEFAULT_TTL),
            usages: KNOWN_USAGES.map(str::to_owned).to_vec(),
            groups: vec![NODE_TOKEN_GROUP.to_owned()],
        }
    }

    /// Says what upstream would refuse.
    pub fn validate(&self) -> Result<(), BootstrapError> {
        let refuse = |text: String| Err(BootstrapError::TokenSpec(text));
        if let Some(wrong) = self.usages.iter().find(|usage| !KNOWN_USAGES.contains(&usage.as_str())) {
            let valid = KNOWN_USAGES.join(",");
            return refuse(format!("invalid bootstrap token usage string: {wrong}, valid usage options: {valid}"));
        }
        let is_authentication = self.usages.iter().any(|usage| usage == "authentication");
        if !self.groups.is_empty() && !is_authentication {
            return refuse(format!(
                "token groups cannot be specified unless --usages includes \"authentication\": {:?}",
                self.groups
            ));
        }
        match self.groups.iter().find(|group| !is_group(group)) {
            Some(wrong) => refuse(format!(
                "bootstrap group {wrong:?} is invalid (must match \\Asystem:bootstrappers:[a-z0-9:-]{{0,255}}[a-z0-9]\\z)"
            )),
            None => Ok(()),
        }
    }

    fn secret(&self, now: Timestamp) -> Value {
        let mut data = Map::new();
        let mut put = |key: &str, value: &str| data.insert(key.to_owned(), json!(value));
        put("token-id", self.token.id());
        put("token-secret", self.token.secret());
        if !self.description.is_empty() {
            put("description", &self.description);
        }
        if let Some(ttl) = self.ttl {
            let seconds = now.as_second().saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
            put("expiration", &Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).to_string());
        }
        for usage in &self.usages {
            put(&format!("{USAGE_PREFIX}{usage}"), "true");
        }
        if !self.groups.is_empty() {
            put("auth-extra-groups", &self.groups.join(","));
        }
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": TYPE, "stringData": data,
            "metadata": {"name": BootstrapToken::secret_name(self.token.id()), "namespace": NAMESPACE},
        })
    }
}

fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix(GROUP_PREFIX) else { return false };
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    rest.len() <= 256
        && rest.bytes().all(|byte| is_plain(byte) || byte == b':' || byte == b'-')
        && rest.bytes().last().is_some_and(is_plain)
}

/// A token that the cluster has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    /// The token.
    pub token: BootstrapToken,
    /// What people read.
    pub description: String,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// What it is for, in alphabetical order.
    pub usages: Vec<String>,
    /// The groups of whoever shows it.
    pub groups: Vec<String>,
}

impl TokenInfo {
    /// Reads a Secret; an error says what is wrong with it.
    fn read(secret: &Secret) -> Result<Self, String> {
        let name = secret.metadata.name.clone().unwrap_or_default();
        let empty = BTreeMap::new();
        let data = secret.data.as_ref().unwrap_or(&empty);
        let text =
            |key: &str| data.get(key).map(|value| String::from_utf8_lossy(&value.0).into_owned()).unwrap_or_default();
        let id = text("token-id");
        if id.is_empty() {
            return Err(format!("bootstrap Token Secret has no token-id data: {name}"));
        }
        if name != BootstrapToken::secret_name(&id) {
            let wanted = BootstrapToken::secret_name(&id);
            return Err(format!(
                "bootstrap token name is not of the form 'bootstrap-token-{{token-id}}'. Actual: {name:?}. Expected: {wanted:?}"
            ));
        }
        let secret_text = text("token-secret");
        if secret_text.is_empty() {
            return Err(format!("bootstrap Token Secret has no token-secret data: {name}"));
        }
        let token = format!("{id}.{secret_text}").parse().map_err(|error: BootstrapError| error.to_string())?;
        let expiration = text("expiration");
        let expires = match expiration.is_empty() {
            true => None,
            false => Some(
                parse_time(&expiration)
                    .ok_or_else(|| format!("can't parse expiration time of bootstrap token {name:?}"))?,
            ),
        };
        let usage = |key: &String| key.strip_prefix(USAGE_PREFIX).filter(|_| text(key) == "true").map(str::to_owned);
        let groups = text("auth-extra-groups");
        Ok(Self {
            token,
            description: text("description"),
            expires,
            usages: data.keys().filter_map(usage).collect(),
            groups: groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect(),
        })
    }
}

fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), NAMESPACE)
}

/// Makes a token that is not there yet.
pub async fn create_token(client: &Client, spec: &TokenSpec) -> Result<(), BootstrapError> {
    spec.validate()?;
    let name = BootstrapToken::secret_name(spec.token.id());
    let what = || format!("failed to create or update bootstrap token with name {name}");
    if secrets(client).get_opt(&name).await.map_err(BootstrapError::api(what()))?.is_some() {
        return Err(BootstrapError::TokenExists(spec.token.id().to_owned()));
    }
    put(client, spec.secret(Timestamp::now())).await
}

/// All tokens, and what is wrong with Secrets that should be tokens.
pub async fn list_tokens(client: &Client) -> Result<(Vec<TokenInfo>, Vec<String>), BootstrapError> {
    let parameters = ListParams::default().fields(&format!("type={TYPE}"));
    let list = secrets(client).list(&parameters).await;
    let list = list.map_err(BootstrapError::api("failed to list bootstrap tokens"))?;
    let (mut tokens, mut wrong) = (Vec::new(), Vec::new());
    for secret in &list.items {
        match TokenInfo::read(secret) {
            Ok(token) => tokens.push(token),
            Err(why) => wrong.push(why),
        }
    }
    Ok((tokens, wrong))
}

/// Deletes a token by its id.
pub async fn delete_token(client: &Client, id: &str) -> Result<(), BootstrapError> {
    let deleted = secrets(client).delete(&BootstrapToken::secret_name(id), &DeleteParams::default()).await;
    deleted.map(|_| ()).map_err(BootstrapError::api(format!("failed to delete bootstrap token {id:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> TokenSpec {
        TokenSpec::for_joining("abcdef.0123456789abcdef".parse().unwrap())
    }

    /// As the API server stores it.
    fn stored(spec: &TokenSpec) -> Secret {
        let mut value = spec.secret(Timestamp::from_second(0).unwrap());
        let data = value.as_object_mut().unwrap().remove("stringData").unwrap();
        let mut secret: Secret = serde_json::from_value(value).unwrap();
        let bytes = |value: &Value| k8s_openapi::ByteString(value.as_str().unwrap().as_bytes().to_vec());
        secret.data = Some(data.as_object().unwrap().iter().map(|(key, value)| (key.clone(), bytes(value))).collect());
        secret
    }

    #[test]
    fn what_is_written_is_read() {
        let read = TokenInfo::read(&stored(&TokenSpec { description: "for x".to_owned(), ..spec() })).unwrap();
        assert_eq!(read.token, spec().token);
        assert_eq!(read.expires.unwrap().to_string(), "1970-01-02T00:00:00Z");
        assert_eq!(read.usages, ["authentication", "signing"]);
        assert_eq!((read.description.as_str(), read.groups.as_slice()), ("for x", &[NODE_TOKEN_GROUP.to_owned()][..]));
        let forever = TokenInfo::read(&stored(&TokenSpec { ttl: None, groups: Vec::new(), ..spec() })).unwrap();
        assert_eq!((forever.expires, forever.groups.len()), (None, 0));
        let mut other = stored(&spec());
        other.metadata.name = Some("bootstrap-token-bcdefg".to_owned());
        assert!(TokenInfo::read(&other).unwrap_err().contains("is not of the form"));
    }

    #[test]
    fn a_token_asks_for_what_there_is() {
        let check = |change: fn(&mut TokenSpec), expected: &str| {
            let mut spec = spec();
            change(&mut spec);
            assert_eq!(spec.validate().err().map(|error| error.to_string()).unwrap_or_default(), expected);
        };
        check(|_| {}, "");
        check(
            |spec| spec.usages.push("flying".to_owned()),
            "invalid bootstrap token usage string: flying, valid usage options: signing,authentication",
        );
        check(
            |spec| spec.groups.push("system:masters".to_owned()),
            "bootstrap group \"system:masters\" is invalid (must match \\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\\z)",
        );
        check(
            |spec| spec.usages = vec!["signing".to_owned()],
            "token groups cannot be specified unless --usages includes \"authentication\": [\"system:bootstrappers:kubeadm:default-node-token\"]",
        );
    }
}
