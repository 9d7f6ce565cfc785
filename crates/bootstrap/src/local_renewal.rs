//! The certificates of a control plane, renewed on its own machine where the authority's key is: long before their end, and
//! also after it, when the machine was off for long.
//!
//! Whoever shows them looks at their files. Invariant: a certificate that is good for long is left alone.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kedge_pki::{CertificateDirs, KNOWN_CERTIFICATES, KnownCertificate, PkiError, Renewed};
use tokio_util::sync::CancellationToken;

/// So long before its end a certificate is renewed.
const BEFORE_THE_END: SignedDuration = SignedDuration::from_hours(60 * 24);
const PERIOD: Duration = Duration::from_secs(6 * 3600);

/// Renews what is about to end or has ended; what was renewed, and what could not be.
pub fn renew_local(dirs: &CertificateDirs, now: Timestamp) -> Vec<(KnownCertificate, Result<Renewed, PkiError>)> {
    let horizon = now.saturating_add(BEFORE_THE_END).unwrap_or(now);
    let renewed = KNOWN_CERTIFICATES.into_iter().map(|known| (known, known.renew_before(dirs, horizon)));
    renewed.filter(|(_, result)| !matches!(result, Ok(Renewed::Missing))).collect()
}

/// Does so now, and again and again until `shutdown`.
// DIVERGES: upstream renews a control plane's certificates when it is upgraded, or asked to.
pub async fn keep_local_renewed(dirs: CertificateDirs, shutdown: CancellationToken) {
    loop {
        report(&renew_local(&dirs, Timestamp::now()));
        if shutdown.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none() {
            return;
        }
    }
}

fn report(results: &[(KnownCertificate, Result<Renewed, PkiError>)]) {
    for (known, result) in results {
        match result {
            Ok(Renewed::Yes) => tracing::info!(certificate = known.name, "the certificate was renewed"),
            Ok(_) => tracing::warn!(
                certificate = known.name,
                authority = known.authority,
                "the certificate is about to end, and its authority's key is kept elsewhere: renew it there"
            ),
            Err(error) => tracing::warn!(certificate = known.name, %error, "the certificate cannot be renewed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_pki::{
        CertificateAuthority, CertificateRequest, LeafRequest, PendingIdentity, write_private, write_public,
    };

    #[test]
    fn what_has_ended_is_renewed_and_what_lives_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = CertificateDirs { kubernetes: dir.path().to_owned(), pki: dir.path().join("pki") };
        let authority = CertificateAuthority::ensure(&dirs.pki, "ca", "kubernetes").unwrap();
        let names = || vec!["kubernetes".to_owned()];
        let pending = PendingIdentity::new(&LeafRequest::server("kube-apiserver", names(), Vec::new())).unwrap();
        let request = CertificateRequest::read(pending.request_pem.as_bytes()).unwrap();
        let ended = authority.sign_request(&request, &["server auth".to_owned()], Duration::ZERO).unwrap();
        write_public(&dirs.pki.join("apiserver.crt"), ended.as_bytes()).unwrap();
        write_private(&dirs.pki.join("apiserver.key"), pending.key_pem.as_bytes()).unwrap();
        let client = LeafRequest::client("kube-apiserver-kubelet-client", &["kubeadm:cluster-admins"]);
        authority.ensure_leaf(&dirs.pki, "apiserver-kubelet-client", &client).unwrap();
        let facts = || KnownCertificate::find("apiserver").unwrap().facts(&dirs).unwrap().unwrap();
        assert!(facts().has_expired(Timestamp::now()));
        let renewed = renew_local(&dirs, Timestamp::now());
        let names: Vec<&str> = renewed.iter().map(|(known, _)| known.name).collect();
        assert_eq!(names, ["apiserver"]);
        assert!(!facts().has_expired(Timestamp::now()) && facts().names.dns_names == ["kubernetes"]);
        assert!(renew_local(&dirs, Timestamp::now()).is_empty());
        std::fs::remove_file(dirs.pki.join("ca.key")).unwrap();
        let later = Timestamp::now() + SignedDuration::from_hours(330 * 24);
        let left = renew_local(&dirs, later);
        assert!(left.len() == 2 && left.iter().all(|(_, result)| matches!(result, Ok(Renewed::External))));
    }
}
