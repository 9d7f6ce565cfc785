//! Who asks, and whether they may: client certificates and service-account tokens to users; RBAC and the node authorizer
//! to decisions.
//!
//! Pure: no I/O and no clock. The API server feeds every committed change of roles, bindings and pods, so a decision is
//! always made on what the store holds.

mod attributes;
mod authorizer;
mod bootstrap;
mod certificate;
mod jws;
mod legacy_token;
mod node;
mod rbac;
mod rule;
mod token;
mod token_key;

pub use attributes::{Attributes, Decision, ResourceAttributes};
pub use authorizer::{AuthorizationMode, Authorizer};
pub use bootstrap::bootstrap_policy;
pub use certificate::{end_of_certificate, user_from_certificate};
pub use jws::{detached_signature, is_detached_signature};
pub use legacy_token::{LegacyTokenClaims, is_legacy_token, legacy_token_claims};
pub use node::{api_reference_of_pod, secrets_of_pod};
pub use rule::PolicyRule;
pub use token::{TokenClaims, TokenKeys, TokenSubject, extend_claims, service_account_claims};

/// Why credentials are refused.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The certificate can't be read, or names nobody.
    #[error("the client certificate cannot be used: {0}")]
    Certificate(String),
    /// The key can't be read.
    #[error("the service-account key cannot be used: {0}")]
    Key(String),
    /// The token is not one of ours, or is no longer valid.
    #[error("the token cannot be used: {0}")]
    Token(&'static str),
}
