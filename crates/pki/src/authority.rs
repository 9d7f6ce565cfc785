//! A certificate authority, and the leaf certificates that it issues.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::X509Certificate;

use crate::PkiError;
use crate::file::{read, write, write_private};

const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// A leaf is made anew when less than this is left of its life.
const RENEW_BEFORE: Duration = Duration::from_secs(60 * 86_400);
/// Certificates begin a little in the past, for clocks that differ.
const BACKDATE: Duration = Duration::from_secs(300);

/// What a leaf certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Client authentication.
    Client,
    /// Server authentication.
    Server,
    /// Both, for servers that are each other's clients.
    Peer,
}

/// What a leaf certificate says.
#[derive(Debug, Clone)]
pub struct LeafRequest {
    /// Common name: the user name of a client.
    pub common_name: String,
    /// Organisations: the groups of a client.
    pub organizations: Vec<String>,
    /// DNS names of a server.
    pub dns_names: Vec<String>,
    /// Addresses of a server.
    pub addresses: Vec<IpAddr>,
    /// What it is for.
    pub usage: Usage,
}

impl LeafRequest {
    /// A client certificate.
    pub fn client(common_name: &str, organizations: &[&str]) -> Self {
        Self {
            common_name: common_name.to_owned(),
            organizations: organizations.iter().map(|&name| name.to_owned()).collect(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            usage: Usage::Client,
        }
    }

    /// A serving certificate.
    pub fn server(common_name: &str, dns_names: Vec<String>, addresses: Vec<IpAddr>) -> Self {
        Self {
            common_name: common_name.to_owned(),
            organizations: Vec::new(),
            dns_names,
            addresses,
            usage: Usage::Server,
        }
    }

    /// The same for a server that is also a client of others of its kind.
    pub fn for_peers(self) -> Self {
        Self { usage: Usage::Peer, ..self }
    }
}

/// A certificate with its private key, both as PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate_pem: String,
    /// The key (PKCS#8).
    pub key_pem: String,
}

/// A certificate authority with its key.
pub struct CertificateAuthority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// The authority in `<dir>/<name>.crt` and `.key`, made if neither is there.
    pub fn ensure(dir: &Path, name: &str, common_name: &str) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        match (read(&certificate_path)?, read(&key_path)?) {
            (Some(certificate_pem), Some(key_pem)) => Self::load(certificate_pem, &key_pem, &certificate_path),
            (None, None) => {
                let (authority, key_pem) = Self::generate(common_name)?;
                write_private(&key_path, key_pem.as_bytes())?;
                write(&certificate_path, authority.certificate_pem.as_bytes(), 0o644)?;
                Ok(authority)
            }
            (Some(_), None) => Err(PkiError::HalfAuthority { present: certificate_path, missing: key_path }),
            (None, Some(_)) => Err(PkiError::HalfAuthority { present: key_path, missing: certificate_path }),
        }
    }

    /// The authority's certificate as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues a leaf certificate with a new key.
    pub fn issue(&self, request: &LeafRequest) -> Result<Identity, PkiError> {
        let wrap = |source| PkiError::Generate { name: request.common_name.clone(), source };
        let key = KeyPair::generate().map_err(wrap)?;
        let mut params = leaf_params(request).map_err(wrap)?;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(wrap)?;
        Ok(Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// The leaf in `<dir>/<name>.crt` and `.key`: the one that is there where it still serves, a new one otherwise.
    pub fn ensure_leaf(&self, dir: &Path, name: &str, request: &LeafRequest) -> Result<Identity, PkiError> {
        let (certificate_path, key_path) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        if let (Some(certificate_pem), Some(key_pem)) = (read(&certificate_path)?, read(&key_path)?)
            && self.still_serves(&certificate_pem, request)
        {
            return Ok(Identity { certificate_pem, key_pem });
        }
        let identity = self.issue(request)?;
        write_private(&key_path, identity.key_pem.as_bytes())?;
        write(&certificate_path, identity.certificate_pem.as_bytes(), 0o644)?;
        Ok(identity)
    }

    fn generate(common_name: &str) -> Result<(Self, String), PkiError> {
        let wrap = |source| PkiError::Generate { name: common_name.to_owned(), source };
        let key = KeyPair::generate().map_err(wrap)?;
        let key_pem = key.serialize_pem();
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(common_name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::DnsName(common_name.try_into().map_err(wrap)?)];
        (params.not_before, params.not_after) = lifetime(AUTHORITY_LIFETIME);
        let certificate_pem = params.self_signed(&key).map_err(wrap)?.pem();
        Ok((Self { certificate_pem, issuer: Issuer::new(params, key) }, key_pem))
    }

    fn load(certificate_pem: String, key_pem: &str, path: &Path) -> Result<Self, PkiError> {
        let malformed = |error: rcgen::Error| PkiError::Malformed { path: path.to_owned(), why: error.to_string() };
        let key = KeyPair::from_pem(key_pem).map_err(malformed)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(malformed)?;
        Ok(Self { certificate_pem, issuer })
    }

    /// Whether a leaf is ours, lives long enough and says all that is asked for.
    fn still_serves(&self, certificate_pem: &str, request: &LeafRequest) -> bool {
        let Ok((_, own)) = parse_x509_pem(self.certificate_pem.as_bytes()) else { return false };
        let Ok((_, leaf)) = parse_x509_pem(certificate_pem.as_bytes()) else { return false };
        let (Ok(own), Ok(leaf)) = (own.parse_x509(), leaf.parse_x509()) else { return false };
        let renew_at = OffsetDateTime::now_utc() + RENEW_BEFORE;
        leaf.issuer() == own.subject()
            && leaf.validity().not_after.timestamp() > renew_at.unix_timestamp()
            && says(&leaf, request)
    }
}

fn says(leaf: &X509Certificate<'_>, request: &LeafRequest) -> bool {
    let common_name = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok()).next();
    let organizations: Vec<&str> = leaf.subject().iter_organization().filter_map(|name| name.as_str().ok()).collect();
    let names = leaf.subject_alternative_name().ok().flatten().map(|names| &names.value.general_names);
    let has = |wanted: &dyn Fn(&GeneralName<'_>) -> bool| names.is_some_and(|names| names.iter().any(wanted));
    common_name == Some(&request.common_name)
        && organizations == request.organizations
        && request.dns_names.iter().all(|dns| has(&|name| matches!(name, GeneralName::DNSName(found) if found == dns)))
        && request.addresses.iter().all(|address| {
            let octets = octets(*address);
            has(&|name| matches!(name, GeneralName::IPAddress(found) if *found == octets))
        })
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn leaf_params(request: &LeafRequest) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    let organizations: Vec<&str> = request.organizations.iter().map(String::as_str).collect();
    params.distinguished_name = distinguished_name(&request.common_name, &organizations);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = match request.usage {
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Peer => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    };
    for name in &request.dns_names {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    params.subject_alt_names.extend(request.addresses.iter().map(|address| SanType::IpAddress(*address)));
    (params.not_before, params.not_after) = lifetime(LEAF_LIFETIME);
    Ok(params)
}

fn distinguished_name(common_name: &str, organizations: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, *organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn lifetime(length: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - BACKDATE, now + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_made_once_and_a_leaf_is_kept_while_it_serves() {
        let dir = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::ensure(dir.path(), "ca", "kubernetes").unwrap();
        let again = CertificateAuthority::ensure(dir.path(), "ca", "kubernetes").unwrap();
        assert_eq!(authority.certificate_pem(), again.certificate_pem());
        let request = LeafRequest::server("kube-apiserver", vec!["a".to_owned()], vec!["10.0.0.1".parse().unwrap()]);
        let first = again.ensure_leaf(dir.path(), "apiserver", &request).unwrap();
        let second = again.ensure_leaf(dir.path(), "apiserver", &request).unwrap();
        assert_eq!(first.certificate_pem, second.certificate_pem);
        let wider = LeafRequest { addresses: vec!["10.0.0.2".parse().unwrap()], ..request };
        let third = again.ensure_leaf(dir.path(), "apiserver", &wider).unwrap();
        assert_ne!(first.certificate_pem, third.certificate_pem);
    }

    #[test]
    fn half_an_authority_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        CertificateAuthority::ensure(dir.path(), "ca", "kubernetes").unwrap();
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        let error = CertificateAuthority::ensure(dir.path(), "ca", "kubernetes").err().unwrap().to_string();
        assert!(error.contains("ca.key is missing but"), "{error}");
    }
}
