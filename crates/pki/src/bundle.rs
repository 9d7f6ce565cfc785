//! Bundles: several authorities' certificates in one PEM text, of which the first is the one that signs.
//!
//! Invariant: no certificate is in a bundle twice.

use x509_parser::pem::{Pem, parse_x509_pem};

use crate::certificate;

/// The certificates of a PEM text, each as a PEM text of its own. What is no certificate is left out.
pub fn certificates_in(bundle: &str) -> Vec<String> {
    let blocks = Pem::iter_from_buffer(bundle.as_bytes()).flatten();
    blocks
        .filter(|block| block.label == "CERTIFICATE")
        .map(|block| certificate::pem(&block.label, &block.contents))
        .collect()
}

/// One text with the certificates of several, each once, in their order.
pub fn bundle_of(parts: &[&str]) -> String {
    let mut all: Vec<String> = Vec::new();
    for pem in parts.iter().flat_map(|part| certificates_in(part)) {
        if !all.contains(&pem) {
            all.push(pem);
        }
    }
    all.concat()
}

/// Which certificate of a bundle signed a leaf: its place, where any did.
pub fn signer_in(bundle: &str, leaf_pem: &str) -> Option<usize> {
    let (_, leaf) = parse_x509_pem(leaf_pem.as_bytes()).ok()?;
    let leaf = leaf.parse_x509().ok()?;
    certificates_in(bundle).iter().position(|pem| {
        let Ok((_, authority)) = parse_x509_pem(pem.as_bytes()) else { return false };
        let Ok(authority) = authority.parse_x509() else { return false };
        leaf.issuer() == authority.subject() && leaf.verify_signature(Some(authority.public_key())).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CertificateAuthority, LeafRequest};

    #[test]
    fn bundles_are_put_together_and_tell_who_signed() {
        let dir = tempfile::tempdir().unwrap();
        // Of one name: the signature tells them apart.
        let authority = |file: &str| CertificateAuthority::ensure(dir.path(), file, "kubernetes").unwrap();
        let (old, new, other) = (authority("old"), authority("new"), authority("other"));
        let both = bundle_of(&[old.certificate_pem(), new.certificate_pem(), old.certificate_pem()]);
        assert_eq!(certificates_in(&both), [old.certificate_pem(), new.certificate_pem()].map(normal));
        let leaf =
            |authority: &CertificateAuthority| authority.issue(&LeafRequest::client("c", &[])).unwrap().certificate_pem;
        assert_eq!(signer_in(&both, &leaf(&old)), Some(0));
        assert_eq!(signer_in(&both, &leaf(&new)), Some(1));
        assert_eq!(signer_in(&both, &leaf(&other)), None);
        assert_eq!((bundle_of(&["nonsense"]), signer_in(&both, "nonsense")), (String::new(), None));
    }

    fn normal(pem: &str) -> String {
        bundle_of(&[pem])
    }
}
