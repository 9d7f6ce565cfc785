//! A certificate as a fact.

use kedge_diagnosis::{CertificateFact, Fact};
use kedge_pki::CertificateFacts;

/// The first certificate of a PEM text, as it lay at `path` of its machine.
pub fn certificate_fact(pem: &str, path: &str) -> Result<Fact, String> {
    Ok(fact(CertificateFacts::read(pem)?, path, None))
}

/// A certificate as an address serves it; `path` is the file that should be served, or empty.
pub fn served_certificate_fact(der: &[u8], path: &str, address: &str) -> Result<Fact, String> {
    Ok(fact(CertificateFacts::read_der(der)?, path, Some(address.to_owned())))
}

fn fact(facts: CertificateFacts, path: &str, served_by: Option<String>) -> Fact {
    let addresses = facts.names.addresses.iter().map(ToString::to_string);
    Fact::Certificate(CertificateFact {
        path: path.to_owned(),
        common_name: facts.common_name,
        not_before: facts.not_before,
        not_after: facts.not_after,
        is_authority: facts.is_authority,
        issuer: facts.issuer,
        names: facts.names.dns_names.iter().cloned().chain(addresses).collect(),
        fingerprint: facts.fingerprint,
        served_by,
    })
}
