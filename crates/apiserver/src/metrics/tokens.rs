//! How often service accounts came with which kind of token.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::header;

/// A kind of token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// Out of a Secret, whether it is good or not.
    Legacy,
    /// Out of a Secret that was made with its account.
    LegacyAuto,
    /// The same, marked as invalid.
    LegacyInvalid,
    /// Out of a Secret that somebody made.
    LegacyManual,
    /// Older than it should be, and good for some time yet.
    Stale,
    /// One that will be stale some day, and is not.
    Valid,
}

const FAMILIES: [(Token, &str, &str); 6] = [
    (Token::Legacy, "legacy_tokens_total", "Cumulative legacy service account tokens used"),
    (Token::LegacyAuto, "legacy_auto_token_uses_total", "Cumulative auto-generated legacy tokens used"),
    (
        Token::LegacyInvalid,
        "invalid_legacy_auto_token_uses_total",
        "Cumulative invalid auto-generated legacy tokens used",
    ),
    (Token::LegacyManual, "legacy_manual_token_uses_total", "Cumulative manually created legacy tokens used"),
    (Token::Stale, "stale_tokens_total", "Cumulative stale projected service account tokens used"),
    (Token::Valid, "valid_tokens_total", "Cumulative valid projected service account tokens used"),
];

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Tokens([AtomicU64; 6]);

impl Tokens {
    /// One was used.
    pub(crate) fn used(&self, token: Token) {
        self.0[token as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn write(&self, text: &mut String) {
        for (token, name, help) in FAMILIES {
            let name = format!("serviceaccount_{name}");
            header(text, &name, "counter", help);
            let _ = writeln!(text, "{name} {}", self.0[token as usize].load(Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_counter() {
        for (token, name, _) in FAMILIES {
            let tokens = Tokens::default();
            tokens.used(token);
            let mut text = String::new();
            tokens.write(&mut text);
            let counted: Vec<&str> = text.lines().filter(|line| line.ends_with(" 1")).collect();
            assert_eq!(counted, [format!("serviceaccount_{name} 1")]);
        }
    }
}
