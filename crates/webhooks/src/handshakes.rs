//! Which certificates were refused for what old ones have: no subject alternative names, or signatures of SHA-1.

use kedge_metrics::{Counters, Text};
use rustls::{CertificateError, Error};

/// `sha1WithRSAEncryption` and `ecdsa-with-SHA1`, as they stand in certificates.
const SHA1: [&[u8]; 2] =
    [&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05], &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01]];

/// The counters of one kind of servers.
#[derive(Debug)]
pub struct Handshakes {
    missing_san: Counters,
    insecure_sha1: Counters,
}

impl Handshakes {
    /// With webhooks.
    pub fn of_webhooks() -> Self {
        Self::named("apiserver_webhooks_x509_missing_san_total", "apiserver_webhooks_x509_insecure_sha1_total")
    }

    /// With extension API servers.
    pub fn of_extensions() -> Self {
        Self::named(
            "apiserver_kube_aggregator_x509_missing_san_total",
            "apiserver_kube_aggregator_x509_insecure_sha1_total",
        )
    }

    fn named(missing_san: &'static str, insecure_sha1: &'static str) -> Self {
        Self {
            missing_san: Counters::new(
                missing_san,
                &[],
                "Counts the number of requests to servers missing SAN extension in their serving certificate OR the number of connection failures due to the lack of x509 certificate SAN extension missing (either/or, based on the runtime environment)",
            ),
            insecure_sha1: Counters::new(
                insecure_sha1,
                &[],
                "Counts the number of requests to servers with insecure SHA1 signatures in their serving certificate OR the number of connection failures due to the insecure SHA1 signatures (either/or, based on the runtime environment)",
            ),
        }
    }

    /// Counts a handshake that failed, where it did for one of these.
    pub(crate) fn failed(&self, error: &Error) {
        match error {
            Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. })
                if presented.is_empty() =>
            {
                self.missing_san.count(&[]);
            }
            error if is_sha1(error) => self.insecure_sha1.count(&[]),
            _ => {}
        }
    }

    /// Both, in Prometheus' format.
    pub fn text(&self) -> String {
        let mut text = Text::default();
        self.missing_san.write(&mut text);
        self.insecure_sha1.write(&mut text);
        text.finish()
    }
}

/// Whether a signature of SHA-1 is what is wrong.
pub(crate) fn is_sha1(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(
            CertificateError::UnsupportedSignatureAlgorithmContext { signature_algorithm_id, .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { signature_algorithm_id, .. },
        ) => SHA1.contains(&signature_algorithm_id.as_slice()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    #[test]
    fn old_certificates_are_told_from_wrong_ones() {
        let handshakes = Handshakes::of_webhooks();
        let names = |presented: &[&str]| {
            let presented = presented.iter().map(|name| (*name).to_owned()).collect();
            let expected = ServerName::try_from("hook.a.svc").unwrap();
            Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented })
        };
        let signed = |signature_algorithm_id: &[u8]| {
            let (signature_algorithm_id, supported_algorithms) = (signature_algorithm_id.to_vec(), Vec::new());
            Error::InvalidCertificate(CertificateError::UnsupportedSignatureAlgorithmContext {
                signature_algorithm_id,
                supported_algorithms,
            })
        };
        for error in [names(&[]), names(&["other"]), signed(SHA1[0]), signed(SHA1[1]), signed(&[0x2b, 0x65, 0x70])] {
            handshakes.failed(&error);
        }
        let text = handshakes.text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            ["apiserver_webhooks_x509_missing_san_total 1", "apiserver_webhooks_x509_insecure_sha1_total 2"]
        );
    }
}
