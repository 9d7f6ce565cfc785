//! A certificate's DER, written from its parts and signed.
//!
//! `rcgen` holds each attribute of a name once, and a user may be of several groups: so subjects and public keys go in as
//! they are. Invariant: what is written here is never an authority.

use std::net::IpAddr;

use rcgen::{KeyPair, SigningKey};
use ring::rand::{SecureRandom, SystemRandom};
use time::OffsetDateTime;
use yasna::models::{GeneralizedTime, ObjectIdentifier, UTCTime};
use yasna::{DERWriter, Tag};

use crate::usages::KeyUsages;

const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const ALTERNATIVE_NAMES: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
/// UTCTime ends with this year.
const LAST_UTC_YEAR: i32 = 2049;

/// Names of a subject beside its distinguished one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlternativeNames {
    /// DNS names.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Email addresses.
    pub email_addresses: Vec<String>,
    /// URIs.
    pub uris: Vec<String>,
}

impl AlternativeNames {
    fn is_empty(&self) -> bool {
        self.dns_names.is_empty()
            && self.addresses.is_empty()
            && self.email_addresses.is_empty()
            && self.uris.is_empty()
    }
}

/// All that a leaf certificate says.
pub(crate) struct LeafContent<'a> {
    /// A `Name`, as DER.
    pub(crate) issuer: &'a [u8],
    /// The issuer's key identifier.
    pub(crate) authority_key: Option<&'a [u8]>,
    /// A `Name`, as DER.
    pub(crate) subject: &'a [u8],
    /// A `SubjectPublicKeyInfo`, as DER.
    pub(crate) public_key: &'a [u8],
    pub(crate) names: &'a AlternativeNames,
    pub(crate) usages: &'a KeyUsages,
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
}

/// A subject with one common name and any number of organizations.
pub(crate) fn subject(common_name: &str, organizations: &[String]) -> Vec<u8> {
    let attribute = |writer: DERWriter<'_>, oid: &[u64], value: &str| {
        writer.write_set(|writer| {
            writer.next().write_sequence(|writer| {
                writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
                writer.next().write_utf8_string(value);
            });
        });
    };
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            for organization in organizations {
                attribute(writer.next(), ORGANIZATION, organization);
            }
            attribute(writer.next(), COMMON_NAME, common_name);
        });
    })
}

/// Signs a certificate, as DER.
pub(crate) fn sign(content: &LeafContent<'_>, key: &KeyPair) -> Result<Vec<u8>, String> {
    let algorithm = signature_algorithm(key)?;
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| "the system's random source does not answer".to_owned())?;
    // Positive, and never shorter than it looks.
    serial[0] = serial[0] & 0x7f | 0x40;
    let unsigned = yasna::construct_der(|writer| write_content(writer, content, &serial, algorithm));
    let signature = key.sign(&unsigned).map_err(|error| error.to_string())?;
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(&unsigned);
            write_algorithm(writer.next(), algorithm);
            writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
        });
    }))
}

/// A signature algorithm's identifier, and whether it has parameters of type NULL.
type Algorithm = (&'static [u64], bool);

fn signature_algorithm(key: &KeyPair) -> Result<Algorithm, String> {
    let known: [(&rcgen::SignatureAlgorithm, Algorithm); 4] = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, (&[1, 2, 840, 10045, 4, 3, 2], false)),
        (&rcgen::PKCS_ECDSA_P384_SHA384, (&[1, 2, 840, 10045, 4, 3, 3], false)),
        (&rcgen::PKCS_ED25519, (&[1, 3, 101, 112], false)),
        (&rcgen::PKCS_RSA_SHA256, (&[1, 2, 840, 113549, 1, 1, 11], true)),
    ];
    let found = known.into_iter().find(|(algorithm, _)| *algorithm == key.algorithm());
    found.map(|(_, algorithm)| algorithm).ok_or_else(|| "the authority's key is of an unknown type".to_owned())
}

fn write_algorithm(writer: DERWriter<'_>, (oid, has_null): Algorithm) {
    writer.write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
        if has_null {
            writer.next().write_null();
        }
    });
}

fn write_content(writer: DERWriter<'_>, content: &LeafContent<'_>, serial: &[u8], algorithm: Algorithm) {
    writer.write_sequence(|writer| {
        // Version 3.
        writer.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2));
        writer.next().write_bigint_bytes(serial, true);
        write_algorithm(writer.next(), algorithm);
        writer.next().write_der(content.issuer);
        writer.next().write_sequence(|writer| {
            write_time(writer.next(), content.not_before);
            write_time(writer.next(), content.not_after);
        });
        writer.next().write_der(content.subject);
        writer.next().write_der(content.public_key);
        writer.next().write_tagged(Tag::context(3), |writer| {
            writer.write_sequence(|writer| {
                for (oid, is_critical, value) in extensions(content) {
                    writer.next().write_sequence(|writer| {
                        writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
                        if is_critical {
                            writer.next().write_bool(true);
                        }
                        writer.next().write_bytes(&value);
                    });
                }
            });
        });
    });
}

fn write_time(writer: DERWriter<'_>, time: OffsetDateTime) {
    let time = time.replace_nanosecond(0).unwrap_or(time);
    match time.year() > LAST_UTC_YEAR {
        true => writer.write_generalized_time(&GeneralizedTime::from_datetime(time)),
        false => writer.write_utctime(&UTCTime::from_datetime(time)),
    }
}

fn extensions(content: &LeafContent<'_>) -> Vec<(&'static [u64], bool, Vec<u8>)> {
    let mut extensions = Vec::new();
    if let Some((bytes, length)) = content.usages.bit_string() {
        extensions.push((KEY_USAGE, true, yasna::construct_der(|writer| writer.write_bitvec_bytes(&bytes, length))));
    }
    if !content.usages.extended.is_empty() {
        let value = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                for oid in &content.usages.extended {
                    writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
                }
            });
        });
        extensions.push((EXTENDED_KEY_USAGE, false, value));
    }
    extensions.push((BASIC_CONSTRAINTS, true, yasna::construct_der(|writer| writer.write_sequence(|_| {}))));
    if let Some(key) = content.authority_key {
        let value = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_tagged_implicit(Tag::context(0), |writer| writer.write_bytes(key));
            });
        });
        extensions.push((AUTHORITY_KEY, false, value));
    }
    if !content.names.is_empty() {
        extensions.push((ALTERNATIVE_NAMES, false, alternative_names(content.names)));
    }
    extensions
}

/// Tags of the kinds of names: RFC 5280, 4.2.1.6.
fn alternative_names(names: &AlternativeNames) -> Vec<u8> {
    let texts = [(1, &names.email_addresses), (2, &names.dns_names), (6, &names.uris)];
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            for (tag, texts) in texts {
                for text in texts {
                    writer.next().write_tagged_implicit(Tag::context(tag), |writer| writer.write_ia5_string(text));
                }
            }
            for address in &names.addresses {
                let octets = octets(*address);
                writer.next().write_tagged_implicit(Tag::context(7), |writer| writer.write_bytes(&octets));
            }
        });
    })
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A DER text as PEM.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
