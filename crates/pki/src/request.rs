//! Certificate requests (PKCS#10): made with a new key, and read from others.
//!
//! Invariant: a request that was read is signed by the key that it is for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

use crate::PkiError;
use crate::authority::LeafRequest;
use crate::certificate::AlternativeNames;

/// A key that was made here, and the request for its certificate.
#[derive(Debug, Clone)]
pub struct PendingIdentity {
    /// The request as PEM.
    pub request_pem: String,
    /// The key (PKCS#8).
    pub key_pem: String,
}

impl PendingIdentity {
    /// A request with a new key. Its organization is the first one of `request`.
    pub fn new(request: &LeafRequest) -> Result<Self, PkiError> {
        let wrap = |source| PkiError::Generate { name: request.common_name.clone(), source };
        let key = KeyPair::generate().map_err(wrap)?;
        Self::with_key(request, &key).map_err(wrap)
    }

    /// The same with a key that is there.
    pub fn for_key(request: &LeafRequest, key_pem: &str) -> Result<Self, PkiError> {
        let wrap = |source| PkiError::Generate { name: request.common_name.clone(), source };
        Self::with_key(request, &KeyPair::from_pem(key_pem).map_err(wrap)?).map_err(wrap)
    }

    fn with_key(request: &LeafRequest, key: &KeyPair) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        for organization in &request.organizations {
            name.push(DnType::OrganizationName, organization.as_str());
        }
        name.push(DnType::CommonName, request.common_name.as_str());
        params.distinguished_name = name;
        for dns in &request.dns_names {
            params.subject_alt_names.push(SanType::DnsName(dns.as_str().try_into()?));
        }
        params.subject_alt_names.extend(request.addresses.iter().map(|address| SanType::IpAddress(*address)));
        let request_pem = params.serialize_request(key)?.pem()?;
        Ok(Self { request_pem, key_pem: key.serialize_pem() })
    }
}

/// What a certificate request says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateRequest {
    /// The subject's common name.
    pub common_name: String,
    /// The subject's organizations.
    pub organizations: Vec<String>,
    /// Its other names.
    pub names: AlternativeNames,
    pub(crate) subject: Vec<u8>,
    pub(crate) public_key: Vec<u8>,
}

impl CertificateRequest {
    /// The same key under another name: for whoever holds the authority and need not go by what was asked.
    pub fn with_subject(self, subject: &LeafRequest) -> Self {
        Self {
            subject: crate::certificate::subject(&subject.common_name, &subject.organizations),
            common_name: subject.common_name.clone(),
            organizations: subject.organizations.clone(),
            ..self
        }
    }

    /// Reads a PEM request and checks its signature.
    pub fn read(pem: &[u8]) -> Result<Self, String> {
        let (_, pem) = parse_x509_pem(pem).map_err(|error| format!("the request is no PEM: {error}"))?;
        if pem.label != "CERTIFICATE REQUEST" && pem.label != "NEW CERTIFICATE REQUEST" {
            return Err("PEM block type must be CERTIFICATE REQUEST".to_owned());
        }
        let (_, request) =
            X509CertificationRequest::from_der(&pem.contents).map_err(|error| format!("no request: {error}"))?;
        request.verify_signature().map_err(|error| format!("the request's signature is wrong: {error}"))?;
        let information = &request.certification_request_info;
        let text = |name: &x509_parser::x509::AttributeTypeAndValue<'_>| name.as_str().unwrap_or_default().to_owned();
        Ok(Self {
            common_name: information.subject.iter_common_name().map(text).last().unwrap_or_default(),
            organizations: information.subject.iter_organization().map(text).collect(),
            names: request.requested_extensions().map(names).transpose()?.unwrap_or_default(),
            subject: information.subject.as_raw().to_vec(),
            public_key: information.subject_pki.raw.to_vec(),
        })
    }
}

fn names<'a>(extensions: impl Iterator<Item = &'a ParsedExtension<'a>>) -> Result<AlternativeNames, String> {
    let mut names = AlternativeNames::default();
    for extension in extensions {
        if let ParsedExtension::SubjectAlternativeName(found) = extension {
            add_names(&mut names, &found.general_names)?;
        }
    }
    Ok(names)
}

/// Takes names of the kinds that certificates here can have.
pub(crate) fn add_names(names: &mut AlternativeNames, found: &[GeneralName<'_>]) -> Result<(), String> {
    for name in found {
        match name {
            GeneralName::DNSName(name) => names.dns_names.push((*name).to_owned()),
            GeneralName::RFC822Name(name) => names.email_addresses.push((*name).to_owned()),
            GeneralName::URI(name) => names.uris.push((*name).to_owned()),
            GeneralName::IPAddress(octets) => {
                names.addresses.push(address(octets).ok_or("an IP address has neither 4 nor 16 bytes")?);
            }
            // What upstream's parser passes over.
            _ => {}
        }
    }
    Ok(())
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(octets).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    four.or_else(|_| <[u8; 16]>::try_from(octets).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_it_was_made_with() {
        let wanted = LeafRequest::server("system:node:a", vec!["a".to_owned()], vec!["10.0.0.1".parse().unwrap()]);
        let wanted = LeafRequest { organizations: vec!["system:nodes".to_owned()], ..wanted };
        let pending = PendingIdentity::new(&wanted).unwrap();
        let read = CertificateRequest::read(pending.request_pem.as_bytes()).unwrap();
        assert_eq!(
            (read.common_name.as_str(), read.organizations.as_slice()),
            ("system:node:a", &wanted.organizations[..])
        );
        assert_eq!((read.names.dns_names, read.names.addresses), (wanted.dns_names.clone(), wanted.addresses.clone()));
        assert!(read.names.uris.is_empty() && read.names.email_addresses.is_empty());
        let again = PendingIdentity::for_key(&wanted, &pending.key_pem).unwrap();
        assert_eq!(again.key_pem, pending.key_pem);
    }

    #[test]
    fn a_request_that_somebody_changed_is_refused() {
        let pending = PendingIdentity::new(&LeafRequest::client("system:node:a", &["system:nodes"])).unwrap();
        let (_, pem) = parse_x509_pem(pending.request_pem.as_bytes()).unwrap();
        let place = pem.contents.windows(13).position(|bytes| bytes == b"system:node:a").unwrap();
        let mut changed = pem.contents.clone();
        changed[place + 12] = b'b';
        let changed = crate::certificate::pem("CERTIFICATE REQUEST", &changed);
        let error = CertificateRequest::read(changed.as_bytes()).unwrap_err();
        assert!(error.contains("signature is wrong"), "{error}");
        assert!(CertificateRequest::read(b"nonsense").is_err());
    }
}
