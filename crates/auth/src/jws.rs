//! Detached signatures (RFC 7515, appendix F) with the secret of a bootstrap token: how `cluster-info` is trusted by somebody
//! who knows the token and nothing else yet.
//!
//! Pure. Invariant: the same content and token give the same text, so that two of them can be compared.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::json;

/// The signature of `content` by a token: `header..signature`.
pub fn detached_signature(content: &str, token_id: &str, token_secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": token_id}).to_string());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, token_secret.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

/// Whether a signature is the token's for this content.
pub fn is_detached_signature(signature: &str, content: &str, token_id: &str, token_secret: &str) -> bool {
    detached_signature(content, token_id, token_secret) == signature
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_for_its_content_and_token() {
        // Computed with another implementation of JWS.
        let signature = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..Ak-Sq5TJaZVVofPrFWqrt2J4qwsYNxitnuh0Ygr6oz4";
        assert_eq!(detached_signature("some content", "abcdef", "0123456789abcdef"), signature);
        assert!(is_detached_signature(signature, "some content", "abcdef", "0123456789abcdef"));
        assert!(!is_detached_signature(signature, "other content", "abcdef", "0123456789abcdef"));
        assert!(!is_detached_signature(signature, "some content", "abcdef", "0123456789abcdee"));
    }
}
