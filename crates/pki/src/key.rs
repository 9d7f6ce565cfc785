//! Private keys of other forms as PKCS#8, the one form that is used here.
//!
//! Pure. Invariant: a text that is none of the known forms comes back as it was, so that whoever reads it says what is wrong.

use x509_parser::pem::parse_x509_pem;
use yasna::Tag;
use yasna::models::ObjectIdentifier;

use crate::certificate::pem;

const RSA: &[u64] = &[1, 2, 840, 113549, 1, 1, 1];
const ELLIPTIC_CURVE: &[u64] = &[1, 2, 840, 10045, 2, 1];

/// `RSA PRIVATE KEY` (PKCS#1, kubeadm's form) and `EC PRIVATE KEY` (SEC1) as `PRIVATE KEY`.
pub(crate) fn pkcs8(text: &str) -> String {
    let Ok((_, parsed)) = parse_x509_pem(text.as_bytes()) else { return text.to_owned() };
    let wrapped = match parsed.label.as_str() {
        "RSA PRIVATE KEY" => Some(wrap(RSA, None, &parsed.contents)),
        "EC PRIVATE KEY" => curve(&parsed.contents).map(|curve| wrap(ELLIPTIC_CURVE, Some(curve), &parsed.contents)),
        _ => None,
    };
    wrapped.map_or_else(|| text.to_owned(), |der| pem("PRIVATE KEY", &der))
}

fn wrap(algorithm: &[u64], parameter: Option<ObjectIdentifier>, key: &[u8]) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_u8(0);
            writer.next().write_sequence(|writer| {
                writer.next().write_oid(&ObjectIdentifier::from_slice(algorithm));
                match parameter {
                    Some(curve) => writer.next().write_oid(&curve),
                    None => writer.next().write_null(),
                }
            });
            writer.next().write_bytes(key);
        });
    })
}

/// The curve that a SEC1 key names.
fn curve(der: &[u8]) -> Option<ObjectIdentifier> {
    let read = yasna::parse_der(der, |reader| {
        reader.read_sequence(|reader| {
            reader.next().read_u8()?;
            reader.next().read_bytes()?;
            let curve =
                reader.read_optional(|reader| reader.read_tagged(Tag::context(0), |reader| reader.read_oid()))?;
            reader.read_optional(|reader| reader.read_der().map(|_| ()))?;
            Ok(curve)
        })
    });
    read.ok().flatten()
}
