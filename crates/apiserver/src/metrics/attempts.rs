//! How often somebody came to the door, and what was said: authentication, authorization, handshakes.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::header;

/// The counters; what they count is upstream's.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    authentication: [AtomicU64; 3],
    authorization: [AtomicU64; 4],
    pub(crate) handshake_errors: AtomicU64,
}

const AUTHENTICATION: [&str; 3] = ["success", "failure", "error"];
const AUTHORIZATION: [&str; 4] = ["allowed", "denied", "no-opinion", "error"];

impl Attempts {
    /// Somebody said who they are: whether that is so, or the code of what went wrong.
    pub(crate) fn authenticated(&self, refusal: Option<u16>) {
        let index = match refusal {
            None => 0,
            Some(401) => 1,
            Some(_) => 2,
        };
        self.authentication[index].fetch_add(1, Relaxed);
    }

    /// Somebody asked whether they may; absent where nobody could say.
    pub(crate) fn authorized(&self, decision: Option<&kedge_auth::Decision>) {
        let index = match decision {
            Some(kedge_auth::Decision::Allow(_)) => 0,
            Some(kedge_auth::Decision::Deny(_)) => 1,
            Some(kedge_auth::Decision::NoOpinion(_)) => 2,
            None => 3,
        };
        self.authorization[index].fetch_add(1, Relaxed);
    }

    pub(super) fn write(&self, text: &mut String) {
        let families = [
            (
                "authentication_attempts",
                "Counter of authenticated attempts.",
                &AUTHENTICATION[..],
                &self.authentication[..],
            ),
            (
                "authorization_attempts_total",
                "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.",
                &AUTHORIZATION[..],
                &self.authorization[..],
            ),
        ];
        for (name, help, results, counts) in families {
            header(text, name, "counter", help);
            for (result, count) in results.iter().zip(counts) {
                let _ = writeln!(text, "{name}{{result=\"{result}\"}} {}", count.load(Relaxed));
            }
        }
        let name = "apiserver_tls_handshake_errors_total";
        header(text, name, "counter", "Number of requests dropped with 'TLS handshake error from' error");
        let _ = writeln!(text, "{name} {}", self.handshake_errors.load(Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_counted_by_result() {
        let attempts = Attempts::default();
        attempts.authenticated(None);
        attempts.authenticated(Some(401));
        attempts.authenticated(Some(500));
        attempts.authorized(Some(&kedge_auth::Decision::NoOpinion(String::new())));
        attempts.authorized(None);
        let mut text = String::new();
        attempts.write(&mut text);
        for line in [
            "authentication_attempts{result=\"failure\"} 1\n",
            "authentication_attempts{result=\"error\"} 1\n",
            "authorization_attempts_total{result=\"allowed\"} 0\n",
            "authorization_attempts_total{result=\"no-opinion\"} 1\n",
            "authorization_attempts_total{result=\"error\"} 1\n",
            "apiserver_tls_handshake_errors_total 0\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
