//! Where the replacement of an authority stands on a machine, by its files, and which step comes next.
//!
//! Pure. Invariant: a machine whose key is half replaced is in no stage but [`Stage::Switching`], so that nothing takes its two
//! keys for each other's.

use jiff::Timestamp;
use kedge_pki::{CertificateFacts, Identity, certificates_in};

use super::RotationStep;

/// Where a rotation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is one authority.
    Settled,
    /// Two are trusted, the old one signs, and the new one's key is not here: it was made on another control plane.
    Behind,
    /// Two are trusted, and the old one signs.
    Staged,
    /// The new one was about to sign, and something came between.
    Switching,
    /// Two are trusted, and the new one signs.
    Switched,
}

/// What is in the directory.
#[derive(Debug, Clone, Default)]
pub(super) struct RotationFiles {
    /// `ca.crt`.
    pub(super) bundle: String,
    /// `ca.key`.
    pub(super) key: String,
    /// `ca-next.crt`.
    pub(super) next: Option<String>,
    /// Whether the old authority's key was put aside.
    pub(super) has_previous_key: bool,
}

impl RotationFiles {
    /// Where they stand.
    pub(super) fn stage(&self) -> Stage {
        let known = certificates_in(&self.bundle);
        let next = self.next.as_deref().map(certificates_in).unwrap_or_default();
        let is_next_trusted = !next.is_empty() && next.iter().all(|pem| known.contains(pem));
        let is_next_at_work = next.first().is_some_and(|next| known.first() == Some(next) || fits(next, &self.key));
        match known.len() {
            2.. if is_next_trusted && is_next_at_work => Stage::Switching,
            2.. if is_next_trusted => Stage::Staged,
            2.. if self.has_previous_key || is_first_the_newest(&known) => Stage::Switched,
            2.. => Stage::Behind,
            _ => Stage::Settled,
        }
    }

    /// Whether the key is that of the certificate.
    pub(super) fn key_fits(&self, certificate: &str) -> bool {
        fits(certificate, &self.key)
    }
}

fn fits(certificate: &str, key: &str) -> bool {
    Identity { certificate_pem: certificate.to_owned(), key_pem: key.to_owned() }.check().is_ok()
}

/// A control plane that joined after the change has the new authority's key, and none that it put aside.
fn is_first_the_newest(known: &[String]) -> bool {
    let made = |pem: &String| CertificateFacts::read(pem).map_or(Timestamp::MIN, |facts| facts.not_before);
    let Some((first, others)) = known.split_first() else { return false };
    others.iter().all(|other| made(first) > made(other))
}

/// Whether a step may be taken where a rotation stands.
pub(super) fn is_allowed(step: RotationStep, stage: Stage) -> bool {
    match step {
        RotationStep::Stage => matches!(stage, Stage::Settled | Stage::Staged),
        RotationStep::Upload => matches!(stage, Stage::Staged | Stage::Switched),
        RotationStep::Follow => matches!(stage, Stage::Settled | Stage::Behind | Stage::Staged),
        RotationStep::Switch => matches!(stage, Stage::Staged | Stage::Switching),
        // Where it was finished on another control plane, the old key still has to go.
        RotationStep::Finish => matches!(stage, Stage::Switched | Stage::Settled),
        RotationStep::Abort => matches!(stage, Stage::Staged | Stage::Settled),
    }
}

/// The stage in words, and the command that comes next.
pub(super) fn in_words(stage: Stage) -> (&'static str, &'static str) {
    match stage {
        Stage::Settled => ("one authority", "kedge certs rotate-ca stage"),
        Stage::Behind => (
            "two are trusted, the old one signs, the new one's key is not here",
            "kedge certs rotate-ca follow --certificate-key <what `kedge certs rotate-ca upload` prints on the control \
             plane where this was begun>",
        ),
        Stage::Staged => ("two are trusted, the old one signs", "kedge certs rotate-ca switch"),
        Stage::Switching => {
            ("two are trusted, the change to the new one was interrupted", "kedge certs rotate-ca switch")
        }
        Stage::Switched => ("two are trusted, the new one signs", "kedge certs rotate-ca finish"),
    }
}

/// Why a step is not taken.
pub(super) fn refusal(step: RotationStep, stage: Stage) -> String {
    let stands = match stage {
        Stage::Settled => "no rotation is under way: `kedge certs rotate-ca stage` begins one",
        Stage::Behind => {
            "the new authority was staged on another control plane: `kedge certs rotate-ca upload` there and `kedge certs \
             rotate-ca follow --certificate-key <key>` here come next"
        }
        Stage::Staged => "the new authority is staged: `kedge certs rotate-ca switch` comes next, or `abort`",
        Stage::Switching => "the change to the new authority was interrupted: `kedge certs rotate-ca switch` ends it",
        Stage::Switched => "the new authority signs: `kedge certs rotate-ca finish` comes next",
    };
    format!("`{}` is not the next step; {stands}", step.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_pki::{CertificateAuthority, bundle_of};

    #[test]
    fn files_tell_where_a_rotation_stands() {
        let dir = tempfile::tempdir().unwrap();
        let authority = |name: &str| {
            let made = CertificateAuthority::ensure(dir.path(), name, "kubernetes").unwrap();
            let key = std::fs::read_to_string(dir.path().join(format!("{name}.key"))).unwrap();
            (made.certificate_pem().to_owned(), key)
        };
        let ((o, old_key), (n, new_key)) = (authority("ca"), authority("ca-next"));
        let check = |bundle: &[&str], key: &str, next: Option<&str>, has_previous_key: bool, expected: Stage| {
            let (bundle, key, next) = (bundle_of(bundle), key.to_owned(), next.map(str::to_owned));
            let files = RotationFiles { bundle, key, next, has_previous_key };
            assert_eq!(files.stage(), expected, "{files:?}");
        };
        check(&[&o], &old_key, None, false, Stage::Settled);
        // Made, and not yet trusted.
        check(&[&o], &old_key, Some(&n), false, Stage::Settled);
        check(&[&o, &n], &old_key, Some(&n), false, Stage::Staged);
        // A former rotation's key does not matter.
        check(&[&o, &n], &old_key, Some(&n), true, Stage::Staged);
        // The change, cut after each of its writes: the old key put aside, the new key in place, the bundle, the end.
        check(&[&o, &n], &new_key, Some(&n), true, Stage::Switching);
        check(&[&n, &o], &new_key, Some(&n), true, Stage::Switching);
        check(&[&n, &o], &new_key, None, true, Stage::Switched);
        check(&[&n], &new_key, None, true, Stage::Settled);
        // Another control plane, before it follows.
        check(&[&o, &n], &old_key, None, false, Stage::Behind);
        // What another one had once is not what is staged now.
        check(
            &[&o, &n],
            &old_key,
            Some("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"),
            false,
            Stage::Behind,
        );
    }

    #[test]
    fn steps_come_in_their_order_and_refusals_say_which_is_next() {
        use RotationStep::{Abort, Finish, Follow, Stage as Begin, Switch, Upload};
        let all = [Begin, Upload, Follow, Switch, Finish, Abort];
        let check = |stage: Stage, allowed: &[RotationStep]| {
            let found: Vec<RotationStep> = all.into_iter().filter(|step| is_allowed(*step, stage)).collect();
            assert_eq!(found, allowed, "{stage:?}");
        };
        check(Stage::Settled, &[Begin, Follow, Finish, Abort]);
        check(Stage::Behind, &[Follow]);
        check(Stage::Staged, &[Begin, Upload, Follow, Switch, Abort]);
        check(Stage::Switching, &[Switch]);
        check(Stage::Switched, &[Upload, Finish]);
        let text = refusal(Finish, Stage::Staged);
        assert!(text.contains("`finish` is not the next step") && text.contains("rotate-ca switch"), "{text}");
        assert!(refusal(Abort, Stage::Switching).contains("`kedge certs rotate-ca switch` ends it"));
    }
}
