//! What a certificate says of itself.
//!
//! Pure. Not a check: whether it is trusted is TLS's business.

use jiff::Timestamp;
use x509_parser::extensions::ParsedExtension;
use x509_parser::parse_x509_certificate;
use x509_parser::pem::parse_x509_pem;

use crate::bundle::certificates_in;
use crate::certificate::AlternativeNames;
use crate::request::add_names;

/// How people pin an authority: `sha256:` and the digest of its public key (RFC 7469). The first certificate of a PEM text.
pub fn public_key_pin(pem: &str) -> Result<String, String> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|error| format!("it is no PEM: {error}"))?;
    let certificate = pem.parse_x509().map_err(|error| format!("it is no certificate: {error}"))?;
    Ok(format!("sha256:{}", hex_digest(certificate.public_key().raw)))
}

/// The pins of all authorities of a bundle, in its order.
pub fn public_key_pins(bundle: &str) -> Result<Vec<String>, String> {
    certificates_in(bundle).iter().map(|pem| public_key_pin(pem)).collect()
}

/// SHA-256 of bytes, in hex.
pub fn hex_digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The facts of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The subject's common name.
    pub common_name: String,
    /// The subject's organizations.
    pub organizations: Vec<String>,
    /// The issuer's common name.
    pub issuer: String,
    /// The subject's other names.
    pub names: AlternativeNames,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// SHA-256 of the whole certificate, in hex.
    pub fingerprint: String,
    /// Whether it is an authority's.
    pub is_authority: bool,
    /// Whether servers may show it.
    pub is_for_servers: bool,
    /// Whether clients may show it.
    pub is_for_clients: bool,
}

impl CertificateFacts {
    /// Reads the first certificate of a PEM text.
    pub fn read(pem: &str) -> Result<Self, String> {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|error| format!("it is no PEM: {error}"))?;
        Self::read_der(&pem.contents)
    }

    /// Reads a certificate as servers send it.
    pub fn read_der(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = parse_x509_certificate(der).map_err(|error| format!("it is no certificate: {error}"))?;
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().unwrap_or_default().to_owned();
        let mut names = AlternativeNames::default();
        for extension in certificate.extensions() {
            if let ParsedExtension::SubjectAlternativeName(found) = extension.parsed_extension() {
                add_names(&mut names, &found.general_names)?;
            }
        }
        let usage = certificate.extended_key_usage().ok().flatten().map(|usage| usage.value);
        let time = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).unwrap_or_default();
        Ok(Self {
            common_name: certificate.subject().iter_common_name().map(text).last().unwrap_or_default(),
            organizations: certificate.subject().iter_organization().map(text).collect(),
            issuer: certificate.issuer().iter_common_name().map(text).last().unwrap_or_default(),
            names,
            not_before: time(certificate.validity().not_before),
            not_after: time(certificate.validity().not_after),
            fingerprint: hex_digest(der),
            is_authority: certificate.is_ca(),
            is_for_servers: usage.is_some_and(|usage| usage.server_auth || usage.any),
            is_for_clients: usage.is_some_and(|usage| usage.client_auth || usage.any),
        })
    }

    /// How much of its life is over at a moment: below 0 before it begins, above 1 after its end.
    pub fn share_of_life(&self, now: Timestamp) -> f64 {
        let seconds = |length: jiff::SignedDuration| length.as_secs_f64();
        let life = seconds(self.not_after.duration_since(self.not_before));
        if life <= 0.0 { f64::INFINITY } else { seconds(now.duration_since(self.not_before)) / life }
    }

    /// Whether it is past its end.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        now >= self.not_after
    }
}
