//! When a certificate is renewed, and the loop that does it: at 70 to 90 % of its life, at a point that differs from node to
//! node.
//!
//! Invariant: what is there is used until something newer is; no failure ends the loop.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use kedge_client::{Backoff, Client};
use kedge_pki::{CertificateFacts, signer_in};
use rand::Rng;
use tokio_util::sync::CancellationToken;

use crate::certificate_store::CertificateStore;
use crate::signing_request::SigningRequest;

const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(150);
/// The clock may jump, and authorities be replaced: both are looked at this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);
/// A certificate that is still the old authority's is asked for again after so long: not every signer has the new one yet.
const REPLACEMENT_PAUSE: Duration = Duration::from_secs(30);

/// The moment to renew a certificate; `position` from 0 to 1 chooses within the last tenths of its life.
pub(crate) fn renewal(facts: &CertificateFacts, position: f64) -> Timestamp {
    let life = facts.not_after.duration_since(facts.not_before);
    let share = 0.7 + 0.2 * position.clamp(0.0, 1.0);
    facts.not_before + SignedDuration::from_secs_f64(life.as_secs_f64() * share)
}

/// Whether a certificate is still what is asked for: names can change while a node runs.
fn says(facts: &CertificateFacts, request: &SigningRequest) -> bool {
    let subject = &request.subject;
    facts.common_name == subject.common_name
        && subject.dns_names.iter().all(|name| facts.names.dns_names.contains(name))
        && subject.addresses.iter().all(|address| facts.names.addresses.contains(address))
}

/// Whether the authority that signed a certificate is being replaced: it is trusted still, and not the first any more.
fn is_of_replaced(authority: Option<&Path>, certificate_pem: &str) -> bool {
    let bundle = authority.and_then(|path| std::fs::read_to_string(path).ok());
    bundle.and_then(|bundle| signer_in(&bundle, certificate_pem)).is_some_and(|place| place > 0)
}

/// Renews the certificate of a store until `shutdown`, also where the first authority in the file `authority` is another one
/// than its own; makes the first one where there is none.
pub async fn keep_rotated(
    client: Client,
    store: CertificateStore,
    request: SigningRequest,
    authority: Option<PathBuf>,
    shutdown: CancellationToken,
) {
    let position = rand::rng().random::<f64>();
    let mut replaced: Option<Instant> = None;
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    loop {
        let due = match store.load() {
            Ok(Some((identity, facts))) if says(&facts, &request) => {
                let may_ask = replaced.is_none_or(|replaced| replaced.elapsed() > REPLACEMENT_PAUSE);
                match may_ask && is_of_replaced(authority.as_deref(), &identity.certificate_pem) {
                    true => {
                        replaced = Some(Instant::now());
                        None
                    }
                    false => Some(renewal(&facts, position)),
                }
            }
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(%error, "the certificate cannot be read");
                None
            }
        };
        let now = Timestamp::now();
        let pause = match due {
            Some(due) if due > now => {
                backoff.reset();
                Duration::try_from(due.duration_since(now)).unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
            }
            _ => {
                let renewed = shutdown.run_until_cancelled(renew(&client, &store, &request)).await;
                match renewed {
                    None => return,
                    Some(true) => continue,
                    Some(false) => backoff.next_delay(),
                }
            }
        };
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

async fn renew(client: &Client, store: &CertificateStore, request: &SigningRequest) -> bool {
    let saved = match request.obtain(client).await {
        Ok(identity) => store.save(&identity, Timestamp::now()),
        Err(error) => Err(error),
    };
    match saved {
        Ok(()) => {
            tracing::info!(signer = request.signer, "the certificate was renewed");
            true
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(signer = request.signer, %error, cause, "no new certificate yet; the one that is there goes on");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_renewed_late_in_their_lives() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let facts = CertificateFacts {
            common_name: "system:node:a".to_owned(),
            organizations: Vec::new(),
            issuer: String::new(),
            names: kedge_pki::AlternativeNames { dns_names: vec!["a".to_owned()], ..Default::default() },
            not_before: second(1000),
            not_after: second(2000),
            fingerprint: String::new(),
            is_authority: false,
            is_for_servers: true,
            is_for_clients: false,
        };
        for (position, expected) in [(0.0, 1700), (0.5, 1800), (1.0, 1900), (7.0, 1900)] {
            assert_eq!(renewal(&facts, position), second(expected), "{position}");
        }
        assert!(says(&facts, &SigningRequest::kubelet_serving("a", Vec::new())));
        assert!(!says(&facts, &SigningRequest::kubelet_serving("a", vec!["10.0.0.1".parse().unwrap()])));
        assert!(!says(&facts, &SigningRequest::kubelet_serving("b", Vec::new())));
    }
}
