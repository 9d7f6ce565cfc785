//! A client certificate to a user: the common name is the user name, organisations are groups.

use kedge_meta::UserInfo;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::AuthError;

/// When a certificate (DER) ends, in seconds of Unix' time; absent for what is none.
pub fn end_of_certificate(der: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// The user that a verified client certificate (DER) stands for.
pub fn user_from_certificate(der: &[u8]) -> Result<UserInfo, AuthError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| AuthError::Certificate(error.to_string()))?;
    let subject = certificate.subject();
    let name = subject
        .iter_common_name()
        .find_map(|name| name.as_str().ok())
        .filter(|name| !name.is_empty())
        .ok_or_else(|| AuthError::Certificate("its subject has no common name".to_owned()))?;
    let groups: Vec<&str> = subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
    Ok(UserInfo::authenticated(name, groups))
}
