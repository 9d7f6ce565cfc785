//! Tokens that Secrets of type `kubernetes.io/service-account-token` hold: JWTs without an end and without audiences.
//!
//! Signature and form are checked here. Whether Secret and account still exist, and whether the Secret still holds this
//! token, is the API server's to check: nothing else ends such a token.

use kedge_meta::UserInfo;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::AuthError;
use crate::token::{TokenKeys, TokenSubject, decode};

/// Who such tokens say made them, whatever the issuer of the cluster's other tokens is called.
const ISSUER: &str = "kubernetes/serviceaccount";

/// The claims of the token of one Secret.
pub fn legacy_token_claims(namespace: &str, service_account: &TokenSubject, secret: &str) -> Value {
    json!({
        "iss": ISSUER,
        "sub": username(namespace, &service_account.name),
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": secret,
        "kubernetes.io/serviceaccount/service-account.name": service_account.name,
        "kubernetes.io/serviceaccount/service-account.uid": service_account.uid,
    })
}

fn username(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

/// Whether a token says that it is out of a Secret; nothing about it is checked.
pub fn is_legacy_token(token: &str) -> bool {
    let payload = token.split('.').nth(1).unwrap_or_default();
    decode::<Value>(payload).is_ok_and(|claims| claims["iss"] == ISSUER)
}

#[derive(Deserialize)]
struct RawClaims {
    iss: String,
    #[serde(default)]
    sub: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
}

/// What a token out of a Secret says, once its signature has been found to be ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyTokenClaims {
    /// The namespace of account and Secret.
    pub namespace: String,
    /// The service account.
    pub service_account: TokenSubject,
    /// The Secret's name.
    pub secret: String,
}

impl LegacyTokenClaims {
    /// The user that the token stands for.
    pub fn user(&self) -> UserInfo {
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{}", self.namespace)];
        let name = username(&self.namespace, &self.service_account.name);
        let mut user = UserInfo::authenticated(&name, groups.iter().map(String::as_str));
        user.uid = self.service_account.uid.clone();
        user
    }
}

impl TokenKeys {
    /// Checks a token out of a Secret and reads it.
    pub fn verify_legacy(&self, token: &str) -> Result<LegacyTokenClaims, AuthError> {
        let claims: RawClaims = self.signed_claims(token)?;
        if claims.iss != ISSUER {
            return Err(AuthError::Token("another issuer made it"));
        }
        if [&claims.namespace, &claims.secret, &claims.account, &claims.uid].iter().any(|claim| claim.is_empty()) {
            return Err(AuthError::Token("it lacks claims"));
        }
        if claims.sub != username(&claims.namespace, &claims.account) {
            return Err(AuthError::Token("its subject is not its account"));
        }
        Ok(LegacyTokenClaims {
            namespace: claims.namespace,
            service_account: TokenSubject { name: claims.account, uid: claims.uid },
            secret: claims.secret,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::tests::{keys, subject};

    #[test]
    fn what_is_issued_is_read() {
        let (keys, account) = (keys(), subject("robot"));
        let token = keys.issue(&legacy_token_claims("d", &account, "robot-token"));
        assert!(is_legacy_token(&token));
        let claims = keys.verify_legacy(&token).unwrap();
        assert_eq!((claims.namespace.as_str(), claims.secret.as_str()), ("d", "robot-token"));
        assert_eq!(claims.service_account, account);
        let user = claims.user();
        assert_eq!((user.username.as_str(), user.uid.as_str()), ("system:serviceaccount:d:robot", "robot-uid"));
        let groups = ["system:serviceaccounts", "system:serviceaccounts:d", "system:authenticated"];
        assert_eq!((user.groups, user.extra.len()), (groups.map(str::to_owned).to_vec(), 0));
        // It is no token of the other form.
        let now = jiff::Timestamp::from_second(0).unwrap();
        assert!(keys.verify(&token, ISSUER, &[], now).is_err());
    }

    #[test]
    fn forged_and_incomplete_tokens_are_refused() {
        let keys = keys();
        let good = legacy_token_claims("d", &subject("robot"), "robot-token");
        let check = |field: &str, value: Value, expected: &str| {
            let mut claims = good.clone();
            claims[field] = value;
            let error = keys.verify_legacy(&keys.issue(&claims)).unwrap_err().to_string();
            assert!(error.contains(expected), "{field}: {error}");
        };
        check("iss", json!("https://other"), "another issuer");
        check("sub", json!("system:serviceaccount:d:admin"), "its subject");
        check("kubernetes.io/serviceaccount/secret.name", json!(""), "lacks claims");
        check("kubernetes.io/serviceaccount/service-account.uid", json!(""), "lacks claims");
        check("kubernetes.io/serviceaccount/namespace", json!("e"), "its subject");
        let foreign = crate::token::tests::keys().issue(&good);
        assert!(is_legacy_token(&foreign));
        assert!(keys.verify_legacy(&foreign).unwrap_err().to_string().contains("signature"));
        for other in ["", "a.b.c", "e30.e30.e30"] {
            assert!(!is_legacy_token(other), "{other}");
        }
    }
}
