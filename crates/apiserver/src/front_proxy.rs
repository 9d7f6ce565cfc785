//! Who is at the other end of a connection, and the one kind of caller that may say on whose behalf it asks: a front proxy
//! with a certificate of the request-header authority.
//!
//! Invariant: headers that name a user count only on a connection whose certificate that authority signed, and for an
//! allowed name; a certificate of that authority says nothing about its bearer's own rights.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use kedge_meta::UserInfo;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;

use crate::query::decode;

/// How a front proxy is known, and where it says who asks: upstream's `--requestheader-*` flags.
#[derive(Clone)]
pub struct FrontProxy {
    /// Takes the certificates of front proxies, and no others.
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// The authority's certificate, PEM; shown to extension servers.
    pub authority_pem: String,
    /// Common names that count; all where empty.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name; the first that is there counts.
    pub username_headers: Vec<String>,
    /// Headers with groups.
    pub group_headers: Vec<String>,
    /// What headers with extra facts begin with.
    pub extra_header_prefixes: Vec<String>,
}

/// What a connection's certificate says.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Nothing, or somebody's name.
    User(Option<Arc<Certified>>),
    /// That headers may be believed.
    FrontProxy,
}

/// Whom a certificate names.
#[derive(Debug)]
pub(crate) struct Certified {
    user: UserInfo,
    /// When the certificate ends, in seconds of Unix' time.
    end: i64,
}

impl Caller {
    /// Reads the certificates of a connection, which TLS has verified. One without a name is as good as none.
    pub(crate) fn of(chain: Option<&[CertificateDer<'static>]>, proxy: Option<&FrontProxy>) -> Self {
        let Some((leaf, rest)) = chain.and_then(|chain| chain.split_first()) else { return Self::User(None) };
        let user = kedge_auth::user_from_certificate(leaf).ok();
        match proxy.filter(|proxy| proxy.signed(leaf, rest)) {
            Some(proxy) if user.as_ref().is_some_and(|user| proxy.allows(&user.username)) => Self::FrontProxy,
            Some(_) => Self::User(None),
            None => {
                let end = kedge_auth::end_of_certificate(leaf).unwrap_or_default();
                Self::User(user.map(|user| Arc::new(Certified { user, end })))
            }
        }
    }

    /// Whose certificate it is.
    pub(crate) fn user(&self) -> Option<&UserInfo> {
        match self {
            Self::User(certified) => certified.as_ref().map(|certified| &certified.user),
            Self::FrontProxy => None,
        }
    }

    /// When that certificate ends, in seconds of Unix' time.
    pub(crate) fn end(&self) -> Option<i64> {
        match self {
            Self::User(certified) => certified.as_ref().map(|certified| certified.end),
            Self::FrontProxy => None,
        }
    }
}

impl FrontProxy {
    fn signed(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> bool {
        self.verifier.verify_client_cert(leaf, rest, UnixTime::now()).is_ok()
    }

    fn allows(&self, name: &str) -> bool {
        self.allowed_names.is_empty() || self.allowed_names.iter().any(|allowed| allowed == name)
    }

    /// The user that a request's headers name.
    pub(crate) fn user(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let text = |name: &String| headers.get(name.as_str())?.to_str().ok().filter(|text| !text.is_empty());
        let name = self.username_headers.iter().find_map(text)?;
        let groups = self.group_headers.iter().flat_map(|name| headers.get_all(name.as_str()));
        let groups: Vec<&str> = groups.filter_map(|value| value.to_str().ok()).collect();
        let mut user = UserInfo::authenticated(name, groups);
        user.extra = self.extra(headers);
        Some(user)
    }

    fn extra(&self, headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            let rest = self.extra_header_prefixes.iter().find_map(|prefix| {
                let prefix = prefix.to_ascii_lowercase();
                name.as_str().strip_prefix(prefix.as_str()).map(str::to_owned)
            });
            if let (Some(key), Ok(value)) = (rest, value.to_str()) {
                extra.entry(decode(&key, false)).or_default().push(value.to_owned());
            }
        }
        extra
    }

    /// The part of the ConfigMap `extension-apiserver-authentication` that tells extension servers the same.
    pub(crate) fn published(&self) -> [(&'static str, String); 5] {
        let list = |names: &[String]| serde_json::Value::from(names.to_vec()).to_string();
        [
            ("requestheader-client-ca-file", self.authority_pem.clone()),
            ("requestheader-allowed-names", list(&self.allowed_names)),
            ("requestheader-username-headers", list(&self.username_headers)),
            ("requestheader-group-headers", list(&self.group_headers)),
            ("requestheader-extra-headers-prefix", list(&self.extra_header_prefixes)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use kedge_pki::{CertificateAuthority, LeafRequest};
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn proxy(authority: &CertificateAuthority) -> FrontProxy {
        let list = |name: &str| vec![name.to_owned()];
        FrontProxy {
            verifier: kedge_pki::client_verifier(&[authority.certificate_pem()]).unwrap(),
            authority_pem: authority.certificate_pem().to_owned(),
            allowed_names: list("front-proxy-client"),
            username_headers: list("X-Remote-User"),
            group_headers: list("X-Remote-Group"),
            extra_header_prefixes: list("X-Remote-Extra-"),
        }
    }

    #[test]
    fn only_the_request_header_authority_makes_headers_count() {
        let dir = tempfile::tempdir().unwrap();
        let authority = |name: &str| CertificateAuthority::ensure(dir.path(), name, name).unwrap();
        let (front, cluster) = (authority("front-proxy-ca"), authority("ca"));
        let proxy = proxy(&front);
        let caller = |issuer: &CertificateAuthority, name: &str| {
            let leaf = issuer.issue(&LeafRequest::client(name, &[])).unwrap();
            let chain = [CertificateDer::from_pem_slice(leaf.certificate_pem.as_bytes()).unwrap()];
            Caller::of(Some(&chain), Some(&proxy))
        };
        assert!(matches!(caller(&front, "front-proxy-client"), Caller::FrontProxy));
        assert!(matches!(caller(&front, "kubernetes-admin"), Caller::User(None)), "it is nobody's user");
        let user = caller(&cluster, "front-proxy-client");
        assert_eq!(user.user().map(|user| user.username.as_str()), Some("front-proxy-client"));
        assert!(matches!(Caller::of(None, Some(&proxy)), Caller::User(None)));
    }

    #[test]
    fn headers_name_user_groups_and_more() {
        let dir = tempfile::tempdir().unwrap();
        let proxy = proxy(&CertificateAuthority::ensure(dir.path(), "ca", "ca").unwrap());
        let mut headers = HeaderMap::new();
        assert_eq!(proxy.user(&headers), None);
        headers.append("x-remote-user", "jane".parse().unwrap());
        headers.append("x-remote-group", "a".parse().unwrap());
        headers.append("x-remote-group", "b".parse().unwrap());
        headers.append("x-remote-extra-scopes", "read".parse().unwrap());
        let user = proxy.user(&headers).unwrap();
        assert_eq!(user.username, "jane");
        assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
        assert_eq!(user.extra["scopes"], ["read"]);
    }
}
