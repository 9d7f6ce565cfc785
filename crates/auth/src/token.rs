//! Service-account tokens: JWTs signed with ES256; those of further keys are taken with ES256 and RS256.
//!
//! Signature, issuer, audience and time are checked here; whether the objects that a token is bound to still exist is
//! the API server's to check.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use kedge_meta::UserInfo;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::AuthError;

/// Tolerated difference of clocks.
const LEEWAY_SECONDS: i64 = 10;

/// The key that signs tokens.
pub struct TokenKeys {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    key_id: String,
    /// Whose tokens are taken besides: the algorithm's name in a JWT, and the key.
    others: Vec<(&'static str, Vec<u8>)>,
}

impl TokenKeys {
    /// From a PKCS#8 PEM with a P-256 key.
    pub fn from_private_pem(pem: &str) -> Result<Self, AuthError> {
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
        let der = STANDARD.decode(body).map_err(|error| AuthError::Key(error.to_string()))?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random)
            .map_err(|error| AuthError::Key(format!("{error} (a PKCS#8 key on the curve P-256 is needed)")))?;
        let digest = ring::digest::digest(&ring::digest::SHA256, pair.public_key().as_ref());
        Ok(Self { key_id: URL_SAFE_NO_PAD.encode(digest.as_ref()), pair, random, others: Vec::new() })
    }

    /// Takes tokens of further keys too: a PEM with public keys of RSA or on P-256, or private ones on P-256.
    pub fn also_verify_with(&mut self, pem: &str) -> Result<(), AuthError> {
        let blocks: Vec<String> = pem.split("-----BEGIN ").skip(1).map(|block| format!("-----BEGIN {block}")).collect();
        if blocks.is_empty() {
            return Err(AuthError::Key("there is no PEM block with a key".to_owned()));
        }
        blocks.iter().try_for_each(|block| self.also_verify_with_block(block))
    }

    fn also_verify_with_block(&mut self, pem: &str) -> Result<(), AuthError> {
        if pem.contains("PRIVATE KEY") {
            let other = Self::from_private_pem(pem)?;
            self.others.push(("ES256", other.pair.public_key().as_ref().to_vec()));
            return Ok(());
        }
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
        let der = STANDARD.decode(body).map_err(|error| AuthError::Key(error.to_string()))?;
        let (_, key) = SubjectPublicKeyInfo::from_der(&der).map_err(|error| AuthError::Key(error.to_string()))?;
        let bytes = key.subject_public_key.data.to_vec();
        // A point on P-256 is a mark and two numbers of 32 bytes; an RSA key is longer.
        match bytes.len() {
            65 => self.others.push(("ES256", bytes)),
            270.. => self.others.push(("RS256", bytes)),
            _ => return Err(AuthError::Key("a key of RSA or on the curve P-256 is needed".to_owned())),
        }
        Ok(())
    }

    fn is_signed(&self, algorithm: &str, signed: &[u8], signature: &[u8]) -> bool {
        let own = ("ES256", self.pair.public_key().as_ref());
        let others = self.others.iter().map(|(name, key)| (*name, key.as_slice()));
        std::iter::once(own).chain(others).filter(|(name, _)| *name == algorithm).any(|(name, key)| {
            let method: &dyn VerificationAlgorithm = match name {
                "RS256" => &RSA_PKCS1_2048_8192_SHA256,
                _ => &ECDSA_P256_SHA256_FIXED,
            };
            UnparsedPublicKey::new(method, key).verify(signed, signature).is_ok()
        })
    }

    /// The public key as a JSON Web Key Set.
    pub fn jwks(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..65]),
        }]})
    }

    /// Signs claims.
    pub fn issue(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.key_id});
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.pair.sign(&self.random, signed.as_bytes()).expect("the system's random source works");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

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
}
