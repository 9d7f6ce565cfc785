//! A certificate as a fact.

use kedge_diagnosis::{CertificateFact, Fact};
use kedge_pki::CertificateFacts;

/// The first certificate of a PEM text, as it lay at `path` of its machine.
pub fn certificate_fact(pem: &str, path: &str) -> Result<Fact, String> {
    let facts = CertificateFacts::read(pem)?;
    let addresses = facts.names.addresses.iter().map(ToString::to_string);
    Ok(Fact::Certificate(CertificateFact {
        path: path.to_owned(),
        common_name: facts.common_name,
        not_before: facts.not_before,
        not_after: facts.not_after,
        is_authority: facts.is_authority,
        issuer: facts.issuer,
        names: facts.names.dns_names.iter().cloned().chain(addresses).collect(),
        fingerprint: facts.fingerprint,
        served_by: None,
    }))
}
