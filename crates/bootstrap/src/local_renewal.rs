//! The certificates of a control plane, renewed on its own machine where the authority's key is: late in their lives, after
//! their end when the machine was off for long, and at once where their authority signs no more.
//!
//! Whoever shows them looks at their files. Invariants: a certificate that is good for long is left alone, and one that
//! somebody else's authority signed is never touched.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kedge_client::{Client, EventType, Recorder};
use kedge_pki::{
    CertificateDirs, CertificateFacts, KNOWN_CERTIFICATES, KnownCertificate, PkiError, Renewed, signer_in,
};
use rand::Rng;
use tokio_util::sync::CancellationToken;

use crate::node_certificate::NodeIdentity;
use crate::rotation::renewal;

/// The clock may jump, and files may be put there by hand: they are looked at this often at least, and at most.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);
const SHORTEST_SLEEP: Duration = Duration::from_secs(1);
/// While the API server does not answer, events wait so long for it at a time; so many of them.
const EVENT_PAUSE: Duration = Duration::from_secs(10);
const MOST_EVENTS: usize = 32;

/// What is to be done about a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// Nothing before this moment.
    Wait(Timestamp),
    /// Another one is to be made now.
    Renew,
    /// It is late in its life, and whoever has the authority's key has to make another one.
    Ask,
}

/// Decides about a certificate whose place among its authority's certificates is `signer`; `position` from 0 to 1 chooses
/// within the last tenths of its life.
fn decide(facts: &CertificateFacts, signer: Option<usize>, has_key: bool, position: f64, now: Timestamp) -> Decision {
    let due = renewal(facts, position);
    match signer {
        // Its authority is being replaced.
        Some(place) if place > 0 && has_key => Decision::Renew,
        _ if now < due => Decision::Wait(due),
        Some(_) if has_key => Decision::Renew,
        _ => Decision::Ask,
    }
}

/// What came of it.
type Outcome = Result<Decision, PkiError>;

/// Renews what is due; what was decided about each certificate that is there, and what went wrong.
fn renew_due(dirs: &CertificateDirs, position: f64, now: Timestamp) -> Vec<(KnownCertificate, Outcome)> {
    let looked = KNOWN_CERTIFICATES.into_iter().map(|known| (known, look_after(known, dirs, position, now)));
    looked.filter_map(|(known, outcome)| Some((known, outcome.transpose()?))).collect()
}

fn look_after(
    known: KnownCertificate,
    dirs: &CertificateDirs,
    position: f64,
    now: Timestamp,
) -> Result<Option<Decision>, PkiError> {
    let (Some(pem), Some(facts)) = (known.pem(dirs)?, known.facts(dirs)?) else { return Ok(None) };
    let bundle = known.signer().bundle(dirs)?.unwrap_or_default();
    let has_key = !known.signer().is_external(dirs);
    let decision = decide(&facts, signer_in(&bundle, &pem), has_key, position, now);
    Ok(Some(match decision {
        Decision::Renew if known.renew(dirs)? != Renewed::Yes => Decision::Ask,
        decision => decision,
    }))
}

/// What looks after the certificates of one machine.
pub struct LocalRenewal {
    identity: NodeIdentity,
    recorder: Recorder,
    client: Client,
    position: f64,
    /// What could not be told yet: the API server may have waited for these very certificates.
    untold: Vec<(EventType, &'static str, String)>,
    /// What was said of a certificate last; it is not said again.
    told: HashMap<&'static str, String>,
}

impl LocalRenewal {
    /// For the machine of a node, about which events are recorded.
    pub fn new(identity: NodeIdentity, recorder: Recorder, client: Client) -> Self {
        let position = rand::rng().random();
        Self { identity, recorder, client, position, untold: Vec::new(), told: HashMap::new() }
    }

    /// Looks after them now, and again and again until `shutdown`; does nothing while the machine has no authority.
    // DIVERGES: upstream renews a control plane's certificates when it is upgraded, or asked to.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let pause = self.once(Timestamp::now());
            let Some(is_told) = shutdown.run_until_cancelled(self.tell()).await else { return };
            let pause = if is_told { pause } else { pause.min(EVENT_PAUSE) };
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Does what is due; how long to wait until something is again.
    fn once(&mut self, now: Timestamp) -> Duration {
        let Some(dirs) = self.identity.control_plane_dirs() else { return LONGEST_SLEEP };
        if let Err(error) = self.identity.mend_if_expired(now) {
            tracing::warn!(%error, "the node's client certificate has expired and cannot be made anew");
        }
        let outcomes = renew_due(&dirs, self.position, now);
        let pause = pause(&outcomes, now);
        for (known, outcome) in outcomes {
            self.report(&dirs, known, &outcome);
        }
        pause
    }

    fn report(&mut self, dirs: &CertificateDirs, known: KnownCertificate, outcome: &Outcome) {
        let name = known.name;
        let text = match outcome {
            Ok(Decision::Wait(_)) => {
                self.told.remove(name);
                return;
            }
            Ok(Decision::Renew) => {
                let end = known.facts(dirs).ok().flatten().map(|facts| facts.not_after.to_string()).unwrap_or_default();
                tracing::warn!(certificate = name, until = end, "the certificate was renewed");
                self.event(
                    EventType::Normal,
                    "CertificateRenewed",
                    format!("Renewed {name}, which is good until {end}"),
                );
                self.told.remove(name);
                return;
            }
            Ok(Decision::Ask) => format!(
                "{name} is about to end or has ended, and the key of its authority is not here: make another one where that \
                 is kept (`kedge certs generate-csr` writes the request)"
            ),
            Err(error) => format!("{name} cannot be renewed: {error}"),
        };
        if self.told.get(name) != Some(&text) {
            tracing::warn!(certificate = name, why = text, "the certificate was not renewed");
            self.event(EventType::Warning, "CertificateNotRenewed", text.clone());
            self.told.insert(name, text);
        }
    }

    fn event(&mut self, event_type: EventType, reason: &'static str, message: String) {
        if self.untold.len() < MOST_EVENTS {
            self.untold.push((event_type, reason, message));
        }
    }

    /// Records what is to be told, once the API server answers; `false` where it does not.
    async fn tell(&mut self) -> bool {
        if self.untold.is_empty() {
            return true;
        }
        if self.client.apiserver_version().await.is_err() {
            return false;
        }
        let name = Some(self.identity.node_name.clone());
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: name.clone(),
            // As upstream's kubelet refers to its node.
            uid: name,
            ..ObjectReference::default()
        };
        for (event_type, reason, message) in self.untold.drain(..) {
            self.recorder.event(&about, event_type, reason, message);
        }
        true
    }
}

/// Until the first one is due; a renewal that failed is tried again after the longest sleep.
fn pause(outcomes: &[(KnownCertificate, Outcome)], now: Timestamp) -> Duration {
    let waits = outcomes.iter().map(|(_, outcome)| match outcome {
        Ok(Decision::Wait(due)) => Duration::try_from(due.duration_since(now)).unwrap_or_default(),
        Ok(Decision::Renew) => SHORTEST_SLEEP,
        Ok(Decision::Ask) | Err(_) => LONGEST_SLEEP,
    });
    waits.min().unwrap_or(LONGEST_SLEEP).clamp(SHORTEST_SLEEP, LONGEST_SLEEP)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use kedge_pki::{
        CertificateAuthority, CertificateRequest, LeafRequest, PendingIdentity, bundle_of, write_private, write_public,
    };

    fn facts(hours: i64) -> (CertificateFacts, Timestamp) {
        let dir = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::ensure(dir.path(), "ca", "kubernetes").unwrap();
        let issued = authority.issue(&LeafRequest::client("c", &[])).unwrap();
        let facts = CertificateFacts::read(&issued.certificate_pem).unwrap();
        let now = facts.not_before + SignedDuration::from_hours(hours);
        (facts, now)
    }

    #[test]
    fn late_foreign_and_replaced_ones_are_told_apart() {
        const LATE: i64 = 320 * 24;
        const OVER: i64 = 400 * 24;
        let due = |facts: &CertificateFacts| Decision::Wait(renewal(facts, 0.5));
        for (hours, signer, has_key, expected) in [
            (1, Some(0), true, None),
            (1, Some(0), false, None),
            // An operator's own: nothing to do, and nothing that can be done.
            (1, None, true, None),
            (LATE, None, true, Some(Decision::Ask)),
            (LATE, Some(0), true, Some(Decision::Renew)),
            (LATE, Some(0), false, Some(Decision::Ask)),
            (OVER, Some(0), true, Some(Decision::Renew)),
            (OVER, None, false, Some(Decision::Ask)),
            // The authority behind the first one goes.
            (1, Some(1), true, Some(Decision::Renew)),
            (1, Some(1), false, None),
        ] {
            let (facts, now) = facts(hours);
            let expected = expected.unwrap_or_else(|| due(&facts));
            assert_eq!(decide(&facts, signer, has_key, 0.5, now), expected, "{hours} {signer:?} {has_key}");
        }
    }

    #[test]
    fn what_has_ended_is_renewed_and_what_lives_or_is_somebodys_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = CertificateDirs { kubernetes: dir.path().to_owned(), pki: dir.path().join("pki") };
        let authority = CertificateAuthority::ensure(&dirs.pki, "ca", "kubernetes").unwrap();
        let names = || vec!["kubernetes".to_owned()];
        let pending = PendingIdentity::new(&LeafRequest::server("kube-apiserver", names(), Vec::new())).unwrap();
        let request = CertificateRequest::read(pending.request_pem.as_bytes()).unwrap();
        let sign = |authority: &CertificateAuthority| {
            let ended = authority.sign_request(&request, &["server auth".to_owned()], Duration::ZERO).unwrap();
            write_public(&dirs.pki.join("apiserver.crt"), ended.as_bytes()).unwrap();
            write_private(&dirs.pki.join("apiserver.key"), pending.key_pem.as_bytes()).unwrap();
        };
        sign(&authority);
        let client = LeafRequest::client("kube-apiserver-kubelet-client", &["kubeadm:cluster-admins"]);
        authority.ensure_leaf(&dirs.pki, "apiserver-kubelet-client", &client).unwrap();
        let facts = || KnownCertificate::find("apiserver").unwrap().facts(&dirs).unwrap().unwrap();
        assert!(facts().has_expired(Timestamp::now()));
        let renew = |now| {
            let outcomes = renew_due(&dirs, 0.0, now);
            let of = |(known, outcome): (KnownCertificate, Outcome)| (known.name, outcome.unwrap());
            let outcomes: Vec<_> = outcomes.into_iter().map(of).collect();
            outcomes.into_iter().filter(|(_, decision)| !matches!(decision, Decision::Wait(_))).collect::<Vec<_>>()
        };
        assert_eq!(renew(Timestamp::now()), [("apiserver", Decision::Renew)]);
        assert!(!facts().has_expired(Timestamp::now()) && facts().names.dns_names == ["kubernetes"]);
        assert!(renew(Timestamp::now()).is_empty());
        // The authority is replaced: all of its certificates are.
        let next = CertificateAuthority::ensure(dir.path(), "next", "kubernetes").unwrap();
        let both = bundle_of(&[next.certificate_pem(), authority.certificate_pem()]);
        write_public(&dirs.pki.join("ca.crt"), both.as_bytes()).unwrap();
        std::fs::copy(dir.path().join("next.key"), dirs.pki.join("ca.key")).unwrap();
        assert_eq!(renew(Timestamp::now()).len(), 2);
        assert!(renew(Timestamp::now()).is_empty());
        // One that an operator brought is his, also when it has ended.
        sign(&CertificateAuthority::ensure(dir.path(), "other", "kubernetes").unwrap());
        assert_eq!(renew(Timestamp::now()), [("apiserver", Decision::Ask)]);
        assert!(facts().has_expired(Timestamp::now()));
        std::fs::remove_file(dirs.pki.join("ca.key")).unwrap();
        let later = Timestamp::now() + SignedDuration::from_hours(330 * 24);
        assert!(renew(later).iter().all(|(_, decision)| *decision == Decision::Ask) && renew(later).len() == 2);
    }

    #[test]
    fn the_first_that_is_due_ends_the_pause() {
        let (_, now) = facts(0);
        let known = KNOWN_CERTIFICATES[0];
        let after = |seconds: i64| (known, Ok(Decision::Wait(now + SignedDuration::from_secs(seconds))));
        for (outcomes, expected) in [
            (vec![], 600),
            (vec![after(30), after(7)], 7),
            (vec![after(100_000)], 600),
            (vec![after(-5)], 1),
            (vec![(known, Ok(Decision::Ask))], 600),
            (vec![(known, Err(PkiError::Tls(String::new()))), after(20)], 20),
        ] {
            assert_eq!(pause(&outcomes, now), Duration::from_secs(expected));
        }
    }
}
