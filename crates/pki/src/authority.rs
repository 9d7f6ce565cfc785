//! A certificate authority, and the leaf certificates that it issues.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};
use time::OffsetDateTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::X509Certificate;

use crate::PkiError;
use crate::certificate::{self, AlternativeNames, LeafContent, octets, subject};
use crate::file::{read, write, write_private};
use crate::key::pkcs8;
use crate::request::CertificateRequest;
use crate::usages::KeyUsages;

const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// A leaf is made anew when less than this is left of its life, or less than this part of it.
const RENEW_BEFORE: Duration = Duration::from_secs(60 * 86_400);
const RENEW_SHARE: f64 = 0.3;
/// A certificate with a shorter life loses nothing of it to the difference of clocks.
const SHORT_LIFETIME: Duration = Duration::from_secs(8 * 3600);
/// Certificates begin a little in the past, for clocks that differ.
pub(crate) const BACKDATE: Duration = Duration::from_secs(300);

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

impl Usage {
    fn key_usages(self) -> KeyUsages {
        let names: &[&str] = match self {
            Usage::Client => &["client auth"],
            Usage::Server => &["server auth"],
            Usage::Peer => &["server auth", "client auth"],
        };
        let names: Vec<String> =
            ["digital signature", "key encipherment"].iter().chain(names).map(|&name| name.to_owned()).collect();
        KeyUsages::read(&names).expect("the names are upstream's")
    }
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

    fn names(&self) -> AlternativeNames {
        AlternativeNames {
            dns_names: self.dns_names.clone(),
            addresses: self.addresses.clone(),
            ..AlternativeNames::default()
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

/// What a leaf says apart from who issued it.
struct Content<'a> {
    subject: &'a [u8],
    public_key: &'a [u8],
    names: &'a AlternativeNames,
    usages: &'a KeyUsages,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Identity {
    /// Whether key and certificate belong together and can be used for TLS.
    pub fn check(&self) -> Result<(), String> {
        crate::tls::certified_key(self).map(|_| ()).map_err(|error| error.to_string())
    }
}

/// A certificate authority with its key.
///
/// Its file may hold several certificates: the first is the one that signs.
pub struct CertificateAuthority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    leaf_lifetime: Duration,
}

impl CertificateAuthority {
    /// The authority in `<dir>/<name>.crt` and `.key`, made if neither is there.
    pub fn ensure(dir: &Path, name: &str, common_name: &str) -> Result<Self, PkiError> {
        Self::ensure_for(dir, name, common_name, AUTHORITY_LIFETIME)
    }

    /// The same; one that is made lives so long.
    pub fn ensure_for(dir: &Path, name: &str, common_name: &str, lifetime: Duration) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        match (read(&certificate_path)?, read(&key_path)?) {
            (Some(certificate_pem), Some(key_pem)) => Self::load(certificate_pem, &key_pem, &certificate_path),
            (None, None) => {
                let (authority, key_pem) = Self::generate(common_name, lifetime)?;
                write_private(&key_path, key_pem.as_bytes())?;
                write(&certificate_path, authority.certificate_pem.as_bytes(), 0o644)?;
                Ok(authority)
            }
            (Some(_), None) => Err(PkiError::HalfAuthority { present: certificate_path, missing: key_path }),
            (None, Some(_)) => Err(PkiError::HalfAuthority { present: key_path, missing: certificate_path }),
        }
    }

    /// The same authority, whose leaves live so long.
    #[must_use]
    pub fn with_leaf_lifetime(self, leaf_lifetime: Duration) -> Self {
        Self { leaf_lifetime, ..self }
    }

    /// The authority's certificate as PEM; behind it those that are trusted beside it, while it is being rotated.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority of a certificate and its key, both as PEM.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        Self::load(certificate_pem.to_owned(), key_pem, Path::new("the key of the authority"))
    }

    /// Issues a leaf certificate with a new key.
    pub fn issue(&self, request: &LeafRequest) -> Result<Identity, PkiError> {
        self.issue_during(request, lifetime(self.leaf_lifetime))
    }

    /// The same, valid from and until so many hours from now: what clocks and neglect make of certificates.
    pub fn issue_between(&self, request: &LeafRequest, from: i64, until: i64) -> Result<Identity, PkiError> {
        let at = |hours| OffsetDateTime::now_utc() + time::Duration::hours(hours);
        self.issue_during(request, (at(from), at(until)))
    }

    fn issue_during(
        &self,
        request: &LeafRequest,
        (not_before, not_after): (OffsetDateTime, OffsetDateTime),
    ) -> Result<Identity, PkiError> {
        let wrap = |source| PkiError::Generate { name: request.common_name.clone(), source };
        let key = KeyPair::generate().map_err(wrap)?;
        let content = Content {
            subject: &subject(&request.common_name, &request.organizations),
            public_key: &key.subject_public_key_info(),
            names: &request.names(),
            usages: &request.usage.key_usages(),
            not_before,
            not_after,
        };
        let certificate_pem = self.sign_content(&request.common_name, &content)?;
        Ok(Identity { certificate_pem, key_pem: key.serialize_pem() })
    }

    /// Signs what a request asks for, for exactly these usages (upstream's names) and at most so long; the certificate as
    /// PEM. It never outlives the authority.
    pub fn sign_request(
        &self,
        request: &CertificateRequest,
        usages: &[String],
        lifetime: Duration,
    ) -> Result<String, PkiError> {
        let refuse = |why| PkiError::Refused { name: request.common_name.clone(), why };
        let now = OffsetDateTime::now_utc();
        let end = if lifetime < SHORT_LIFETIME { now + lifetime } else { now + lifetime - BACKDATE };
        let content = Content {
            subject: &request.subject,
            public_key: &request.public_key,
            names: &request.names,
            usages: &KeyUsages::read(usages).map_err(refuse)?,
            not_before: now - BACKDATE,
            not_after: end,
        };
        self.sign_content(&request.common_name, &content)
    }

    fn sign_content(&self, name: &str, content: &Content<'_>) -> Result<String, PkiError> {
        let refuse = |why: String| PkiError::Refused { name: name.to_owned(), why };
        let (_, own) = parse_x509_pem(self.certificate_pem.as_bytes()).map_err(|error| refuse(error.to_string()))?;
        let own = own.parse_x509().map_err(|error| refuse(error.to_string()))?;
        let end = own.validity().not_after.to_datetime();
        if end <= OffsetDateTime::now_utc() {
            return Err(refuse(format!("the signer has expired: NotAfter={end}")));
        }
        let own_key = own.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(key) => Some(key.0),
            _ => None,
        });
        let leaf = LeafContent {
            issuer: own.subject().as_raw(),
            authority_key: own_key,
            subject: content.subject,
            public_key: content.public_key,
            names: content.names,
            usages: content.usages,
            not_before: content.not_before,
            not_after: content.not_after.min(end),
        };
        let der = certificate::sign(&leaf, self.issuer.key()).map_err(refuse)?;
        Ok(certificate::pem("CERTIFICATE", &der))
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

    fn generate(common_name: &str, life: Duration) -> Result<(Self, String), PkiError> {
        let wrap = |source| PkiError::Generate { name: common_name.to_owned(), source };
        let key = KeyPair::generate().map_err(wrap)?;
        let key_pem = key.serialize_pem();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::DnsName(common_name.try_into().map_err(wrap)?)];
        (params.not_before, params.not_after) = lifetime(life);
        let certificate_pem = params.self_signed(&key).map_err(wrap)?.pem();
        let issuer = Issuer::new(params, key);
        Ok((Self { certificate_pem, issuer, leaf_lifetime: LEAF_LIFETIME }, key_pem))
    }

    /// The authority in two files.
    pub fn load_files(certificate: &Path, key: &Path) -> Result<Self, PkiError> {
        let needed = |path: &Path| match read(path)? {
            Some(text) => Ok(text),
            None => Err(PkiError::File {
                action: "read",
                path: path.to_owned(),
                source: std::io::ErrorKind::NotFound.into(),
            }),
        };
        Self::load(needed(certificate)?, &needed(key)?, key)
    }

    fn load(certificate_pem: String, key_pem: &str, path: &Path) -> Result<Self, PkiError> {
        let malformed = |error: rcgen::Error| PkiError::Malformed { path: path.to_owned(), why: error.to_string() };
        let key = KeyPair::from_pem(&pkcs8(key_pem)).map_err(malformed)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(malformed)?;
        Ok(Self { certificate_pem, issuer, leaf_lifetime: LEAF_LIFETIME })
    }

    /// Whether a leaf is ours, lives long enough and says all that is asked for.
    fn still_serves(&self, certificate_pem: &str, request: &LeafRequest) -> bool {
        let Ok((_, own)) = parse_x509_pem(self.certificate_pem.as_bytes()) else { return false };
        let Ok((_, leaf)) = parse_x509_pem(certificate_pem.as_bytes()) else { return false };
        let (Ok(own), Ok(leaf)) = (own.parse_x509(), leaf.parse_x509()) else { return false };
        let renew_at = OffsetDateTime::now_utc() + RENEW_BEFORE.min(self.leaf_lifetime.mul_f64(RENEW_SHARE));
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

    fn pem_of(openssl: &[&str], input: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut child = std::process::Command::new("openssl")
            .args(openssl)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap().stdout
    }

    #[test]
    fn requests_are_signed_with_their_usages_and_names_and_never_outlive_the_authority() {
        use crate::{CertificateFacts, PendingIdentity};
        let dir = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::ensure(dir.path(), "ca", "kubernetes").unwrap();
        let wanted = LeafRequest::server("web", vec!["web.example".to_owned()], vec!["10.0.0.1".parse().unwrap()]);
        let pending = PendingIdentity::new(&wanted).unwrap();
        let request = CertificateRequest::read(pending.request_pem.as_bytes()).unwrap();
        let usages = ["digital signature".to_owned(), "server auth".to_owned()];
        let sign = |seconds| {
            let signed = authority.sign_request(&request, &usages, Duration::from_secs(seconds)).unwrap();
            CertificateFacts::read(&signed).unwrap()
        };
        let facts = sign(3600);
        assert_eq!((facts.common_name.as_str(), facts.issuer.as_str()), ("web", "kubernetes"));
        assert_eq!(facts.names, wanted.names());
        assert!(facts.is_for_servers && !facts.is_for_clients && !facts.is_authority);
        assert_eq!(facts.not_after.duration_since(facts.not_before).as_secs(), 3900);
        let own = CertificateFacts::read(authority.certificate_pem()).unwrap();
        assert_eq!(sign(20 * 365 * 86_400).not_after, own.not_after);
        let error = authority.sign_request(&request, &["flying".to_owned()], Duration::from_secs(60)).unwrap_err();
        assert_eq!(error.to_string(), "no certificate for web: unrecognized usage values: [\"flying\"]");
    }

    #[test]
    fn a_client_may_be_of_several_groups() {
        let dir = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::ensure(dir.path(), "ca", "kubernetes").unwrap();
        let identity = authority.issue(&LeafRequest::client("jane", &["dev", "ops"])).unwrap();
        let facts = crate::CertificateFacts::read(&identity.certificate_pem).unwrap();
        assert_eq!(facts.organizations, ["dev", "ops"]);
        assert!(facts.is_for_clients && !facts.is_for_servers);
    }

    /// As kubeadm makes them, and as others may hand them in.
    #[test]
    fn authorities_with_keys_of_other_forms_sign() {
        let tool = std::process::Command::new("openssl").arg("version").output();
        if tool.is_err() {
            return kedge_skip::skip("authorities_with_keys_of_other_forms_sign", "openssl is not installed");
        }
        for key in [&["genrsa", "-traditional", "2048"][..], &["ecparam", "-name", "prime256v1", "-genkey", "-noout"]] {
            let dir = tempfile::tempdir().unwrap();
            let (certificate_path, key_path) = (dir.path().join("ca.crt"), dir.path().join("ca.key"));
            let key_pem = pem_of(key, b"");
            std::fs::write(&key_path, &key_pem).unwrap();
            let path = key_path.to_str().unwrap();
            let made = pem_of(&["req", "-x509", "-key", path, "-subj", "/CN=kubernetes", "-days", "30"], b"");
            std::fs::write(&certificate_path, made).unwrap();
            let authority = CertificateAuthority::load_files(&certificate_path, &key_path).unwrap();
            let identity = authority.issue(&LeafRequest::client("jane", &["dev"])).unwrap();
            let (_, leaf) = parse_x509_pem(identity.certificate_pem.as_bytes()).unwrap();
            let (_, own) = parse_x509_pem(authority.certificate_pem().as_bytes()).unwrap();
            let (leaf, own) = (leaf.parse_x509().unwrap(), own.parse_x509().unwrap());
            leaf.verify_signature(Some(own.public_key())).unwrap();
        }
    }
}
