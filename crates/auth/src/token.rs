//! Service-account tokens: JWTs signed with ES256 or RS256, by the kind of the key (`token_key.rs`).
//!
//! Signature, issuer, audience and time are checked here; whether the objects that a token is bound to still exist is
//! the API server's to check.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use kedge_meta::UserInfo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::AuthError;
use crate::token_key::{PublicKey, SigningKey};

/// Tolerated difference of clocks.
const LEEWAY_SECONDS: i64 = 10;

/// The key that signs tokens, and those whose tokens are taken besides.
pub struct TokenKeys {
    signing: SigningKey,
    others: Vec<PublicKey>,
}

impl TokenKeys {
    /// From a PEM with a private key of RSA or on P-256: PKCS#8, PKCS#1 (as kubeadm writes `sa.key`) or SEC1.
    pub fn from_private_pem(pem: &str) -> Result<Self, AuthError> {
        Ok(Self { signing: SigningKey::from_pem(pem)?, others: Vec::new() })
    }

    /// Takes tokens of further keys too: a PEM with public or private keys or certificates, of RSA or on P-256.
    pub fn also_verify_with(&mut self, pem: &str) -> Result<(), AuthError> {
        self.others.extend(PublicKey::all_from_pem(pem)?);
        Ok(())
    }

    /// Each key once, the one that signs first.
    fn public(&self) -> impl Iterator<Item = &PublicKey> {
        let own = self.signing.public();
        let seen_before = |index: usize, key: &PublicKey| self.others[..index].iter().any(|other| other.id == key.id);
        let others = self.others.iter().enumerate();
        let others = others.filter(move |(index, key)| key.id != own.id && !seen_before(*index, key));
        std::iter::once(own).chain(others.map(|(_, key)| key))
    }

    fn is_signed(&self, algorithm: &str, signed: &[u8], signature: &[u8]) -> bool {
        self.public().filter(|key| key.algorithm.name() == algorithm).any(|key| key.has_signed(signed, signature))
    }

    /// The public keys as a JSON Web Key Set.
    pub fn jwks(&self) -> Value {
        json!({"keys": self.public().map(PublicKey::jwk).collect::<Vec<Value>>()})
    }

    /// The algorithms that tokens may be signed with, sorted.
    pub fn algorithms(&self) -> Vec<&'static str> {
        let names: BTreeSet<&'static str> = self.public().map(|key| key.algorithm.name()).collect();
        names.into_iter().collect()
    }

    /// Signs claims.
    pub fn issue(&self, claims: &Value) -> String {
        let own = self.signing.public();
        let header = json!({"alg": own.algorithm.name(), "kid": own.id});
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.signing.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Checks a token and reads it. It must be meant for one of `audiences`.
    pub fn verify(
        &self,
        token: &str,
        issuer: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<TokenClaims, AuthError> {
        self.signed_claims::<RawClaims>(token)?.checked(issuer, audiences, now)
    }

    /// What a token says, if one of the keys signed it.
    pub(crate) fn signed_claims<T: for<'de> Deserialize<'de>>(&self, token: &str) -> Result<T, AuthError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(AuthError::Token("it is no JWT"))?;
        let (header, payload) = signed.split_once('.').ok_or(AuthError::Token("it is no JWT"))?;
        let header: Value = decode(header)?;
        let algorithm = header["alg"].as_str().unwrap_or_default();
        if !matches!(algorithm, "ES256" | "RS256") {
            return Err(AuthError::Token("its algorithm is neither ES256 nor RS256"));
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| AuthError::Token("it is no JWT"))?;
        if !self.is_signed(algorithm, signed.as_bytes(), &signature) {
            return Err(AuthError::Token("its signature is not this cluster's"));
        }
        decode(payload)
    }
}

pub(crate) fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, AuthError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthError::Token("it is no JWT"))?;
    serde_json::from_slice(&bytes).map_err(|_| AuthError::Token("its claims cannot be read"))
}

/// An object that a token names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSubject {
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

#[derive(Deserialize)]
struct RawClaims {
    iss: String,
    aud: Value,
    exp: i64,
    #[serde(default)]
    nbf: i64,
    #[serde(default)]
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: KubernetesClaims,
}

#[derive(Deserialize)]
struct KubernetesClaims {
    namespace: String,
    serviceaccount: TokenSubject,
    pod: Option<TokenSubject>,
    secret: Option<TokenSubject>,
    node: Option<TokenSubject>,
    #[serde(default)]
    warnafter: i64,
}

impl RawClaims {
    fn checked(self, issuer: &str, audiences: &[String], now: Timestamp) -> Result<TokenClaims, AuthError> {
        if self.iss != issuer {
            return Err(AuthError::Token("another issuer made it"));
        }
        if now.as_second() > self.exp + LEEWAY_SECONDS {
            return Err(AuthError::Token("it has expired"));
        }
        if now.as_second() + LEEWAY_SECONDS < self.nbf {
            return Err(AuthError::Token("it is not valid yet"));
        }
        let meant_for: Vec<String> = match self.aud {
            Value::String(one) => vec![one],
            Value::Array(many) => many.into_iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
            _ => Vec::new(),
        };
        let audiences: Vec<String> = meant_for.into_iter().filter(|audience| audiences.contains(audience)).collect();
        if audiences.is_empty() {
            return Err(AuthError::Token("it is meant for another audience"));
        }
        let expires = Timestamp::from_second(self.exp).map_err(|_| AuthError::Token("its claims cannot be read"))?;
        let kubernetes = self.kubernetes;
        Ok(TokenClaims {
            namespace: kubernetes.namespace,
            service_account: kubernetes.serviceaccount,
            pod: kubernetes.pod,
            secret: kubernetes.secret,
            node: kubernetes.node,
            audiences,
            expires,
            warn_after: Timestamp::from_second(kubernetes.warnafter).ok().filter(|_| kubernetes.warnafter != 0),
            id: self.jti,
        })
    }
}

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenClaims {
    /// The service account's namespace.
    pub namespace: String,
    /// The service account.
    pub service_account: TokenSubject,
    /// The pod that the token is bound to.
    pub pod: Option<TokenSubject>,
    /// The secret that the token is bound to.
    pub secret: Option<TokenSubject>,
    /// The node that the token is bound to, or on which its pod runs.
    pub node: Option<TokenSubject>,
    /// Those of the asked audiences that the token is meant for.
    pub audiences: Vec<String>,
    /// When the token ends.
    pub expires: Timestamp,
    /// When whoever holds it was to have asked for another; absent for tokens that end then.
    pub warn_after: Option<Timestamp>,
    /// The token's unique id.
    pub id: String,
}

impl TokenClaims {
    /// The user that the token stands for.
    pub fn user(&self) -> UserInfo {
        let namespace = &self.namespace;
        let username = format!("system:serviceaccount:{namespace}:{}", self.service_account.name);
        let own_group = format!("system:serviceaccounts:{namespace}");
        let mut user = UserInfo::authenticated(&username, ["system:serviceaccounts", &own_group]);
        user.uid = self.service_account.uid.clone();
        let mut extra = |key: &str, value: &str| {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        };
        if !self.id.is_empty() {
            extra("credential-id", &format!("JTI={}", self.id));
        }
        for (kind, subject) in [("pod", &self.pod), ("node", &self.node)] {
            if let Some(subject) = subject {
                extra(&format!("{kind}-name"), &subject.name);
                extra(&format!("{kind}-uid"), &subject.uid);
            }
        }
        user
    }
}

/// The claims of a new token. `bound` is the kind (`pod`, `secret`, `node`) and identity of the object it is bound to,
/// `node` the node on which a bound pod runs.
#[allow(clippy::too_many_arguments)]
pub fn service_account_claims(
    issuer: &str,
    audiences: &[String],
    namespace: &str,
    service_account: &TokenSubject,
    bound: Option<(&str, &TokenSubject)>,
    node: Option<&TokenSubject>,
    id: &str,
    now: Timestamp,
    seconds: i64,
) -> Value {
    let mut kubernetes = json!({"namespace": namespace, "serviceaccount": service_account});
    if let Some(node) = node {
        kubernetes["node"] = json!(node);
    }
    if let Some((kind, subject)) = bound {
        kubernetes[kind] = json!(subject);
    }
    json!({
        "iss": issuer, "aud": audiences, "jti": id,
        "sub": format!("system:serviceaccount:{namespace}:{}", service_account.name),
        "iat": now.as_second(), "nbf": now.as_second(), "exp": now.as_second() + seconds,
        "kubernetes.io": kubernetes,
    })
}

/// Makes claims of [`service_account_claims`] live for `seconds` from their beginning. When they were to end becomes the
/// time after which their use is told ([`TokenClaims::warn_after`]): for programs that never read their token again.
pub fn extend_claims(claims: &mut Value, seconds: i64) {
    claims["kubernetes.io"]["warnafter"] = claims["exp"].take();
    claims["exp"] = json!(claims["iat"].as_i64().unwrap_or_default() + seconds);
}

#[cfg(test)]
pub(crate) mod tests {
    use base64::engine::general_purpose::STANDARD;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

    use super::*;

    /// Made for tests, in kubeadm's form. What looks for leaked keys in files finds none.
    pub(crate) fn rsa() -> String {
        pem("RSA PRIVATE KEY", include_str!("token_key/rsa.pkcs1.base64"))
    }

    pub(crate) fn pem(label: &str, body: &str) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", body.trim())
    }

    pub(crate) fn keys() -> TokenKeys {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pem =
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(document.as_ref()));
        TokenKeys::from_private_pem(&pem).unwrap()
    }

    pub(crate) fn subject(name: &str) -> TokenSubject {
        TokenSubject { name: name.to_owned(), uid: format!("{name}-uid") }
    }

    #[test]
    fn a_token_is_good_for_its_audience_and_time_only() {
        let (keys, start) = (keys(), Timestamp::from_second(1_000_000).unwrap());
        let audiences = ["api".to_owned()];
        let claims = service_account_claims(
            "issuer",
            &audiences,
            "d",
            &subject("web"),
            Some(("pod", &subject("web-0"))),
            None,
            "id",
            start,
            600,
        );
        let token = keys.issue(&claims);
        let check = |issuer: &str, audience: &str, second: i64| {
            let now = Timestamp::from_second(second).unwrap();
            keys.verify(&token, issuer, &[audience.to_owned()], now).map(|claims| claims.user().username)
        };
        assert_eq!(check("issuer", "api", 1_000_001).unwrap(), "system:serviceaccount:d:web");
        for (issuer, audience, second, text) in [
            ("other", "api", 1_000_001, "another issuer"),
            ("issuer", "vault", 1_000_001, "another audience"),
            ("issuer", "api", 1_000_611, "expired"),
            ("issuer", "api", 999_900, "not valid yet"),
        ] {
            let error = check(issuer, audience, second).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn an_extended_token_knows_when_it_was_to_end() {
        let (keys, now) = (keys(), Timestamp::from_second(1_000_000).unwrap());
        let audiences = ["api".to_owned()];
        let mut claims = service_account_claims("i", &audiences, "d", &subject("web"), None, None, "", now, 3607);
        extend_claims(&mut claims, 31_536_000);
        let later = Timestamp::from_second(2_000_000).unwrap();
        let read = keys.verify(&keys.issue(&claims), "i", &audiences, later).unwrap();
        assert_eq!(read.warn_after.map(Timestamp::as_second), Some(1_003_607));
        assert_eq!(read.expires.as_second(), 32_536_000);
    }

    #[test]
    fn a_forged_token_is_refused() {
        let (ours, theirs) = (keys(), keys());
        let now = Timestamp::from_second(1_000_000).unwrap();
        let audiences = ["api".to_owned()];
        let claims = service_account_claims("i", &audiences, "d", &subject("web"), None, None, "", now, 600);
        let error = ours.verify(&theirs.issue(&claims), "i", &audiences, now).unwrap_err().to_string();
        assert!(error.contains("signature"), "{error}");
        for nonsense in ["", "a.b", "a.b.c", "e30.e30.e30"] {
            assert!(ours.verify(nonsense, "i", &audiences, now).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn keys_are_replaced_without_a_gap() {
        let pem = || {
            let random = SystemRandom::new();
            let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()))
        };
        let (old, new) = (pem(), pem());
        let signed = TokenKeys::from_private_pem(&old).unwrap().issue(&json!({"a": 1}));
        let (text, signature) = signed.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let mut keys = TokenKeys::from_private_pem(&new).unwrap();
        assert!(!keys.is_signed("ES256", text.as_bytes(), &signature));
        // Both in one file, as upstream takes them.
        keys.also_verify_with(&format!("{new}{old}")).unwrap();
        assert!(keys.is_signed("ES256", text.as_bytes(), &signature));
        assert!(keys.also_verify_with("no key").is_err());
    }

    #[test]
    fn an_rsa_key_signs_and_is_replaced() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let audiences = ["api".to_owned()];
        let claims = service_account_claims("i", &audiences, "d", &subject("web"), None, None, "", now, 600);
        let mut own = TokenKeys::from_private_pem(&rsa()).unwrap();
        let token = own.issue(&claims);
        let header: Value = decode(token.split('.').next().unwrap()).unwrap();
        assert_eq!((&header["alg"], &header["kid"]), (&json!("RS256"), &own.jwks()["keys"][0]["kid"]));
        assert_eq!(own.verify(&token, "i", &audiences, now).unwrap().service_account, subject("web"));
        let mut forged = token.clone();
        forged.replace_range(
            token.len() - 9..token.len() - 8,
            if token.as_bytes()[token.len() - 9] == b'A' { "B" } else { "A" },
        );
        assert!(own.verify(&forged, "i", &audiences, now).is_err());
        // From one kind to the other.
        let mut elliptic = keys();
        assert!(elliptic.verify(&token, "i", &audiences, now).is_err());
        elliptic.also_verify_with(&rsa()).unwrap();
        elliptic.also_verify_with(&rsa()).unwrap();
        assert!(elliptic.verify(&token, "i", &audiences, now).is_ok());
        assert_eq!(elliptic.algorithms(), ["ES256", "RS256"]);
        assert_eq!(elliptic.jwks()["keys"].as_array().unwrap().len(), 2, "each key once");
        own.also_verify_with(&rsa()).unwrap();
        assert_eq!(own.algorithms(), ["RS256"]);
    }
}
