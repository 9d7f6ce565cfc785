//! Bootstrap tokens: `abcdef.0123456789abcdef`, a public id and a secret.
//!
//! Invariant: a value of the type is well formed.

use std::fmt;
use std::str::FromStr;

use rand::Rng;

use crate::error::BootstrapError;

const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// A bootstrap token. `{:?}` does not show its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    id: String,
    secret: String,
}

impl BootstrapToken {
    /// A new random one.
    pub fn generate() -> Self {
        let mut random = rand::rng();
        let mut text = |length: usize| -> String {
            (0..length).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
        };
        Self { id: text(ID_LENGTH), secret: text(SECRET_LENGTH) }
    }

    /// The part that may be known.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The part that may not.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The name of the Secret of a token's id.
    pub(crate) fn secret_name(id: &str) -> String {
        format!("bootstrap-token-{id}")
    }

    /// The id in a text that is a token, or an id.
    pub fn id_of(text: &str) -> Result<String, BootstrapError> {
        if is_word(text, ID_LENGTH) {
            return Ok(text.to_owned());
        }
        Self::from_str(text).map(|token| token.id).map_err(|_| BootstrapError::NoTokenId(text.to_owned()))
    }
}

fn is_word(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

impl FromStr for BootstrapToken {
    type Err = BootstrapError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || BootstrapError::NoToken(text.to_owned());
        let (id, secret) = text.split_once('.').ok_or_else(wrong)?;
        match is_word(id, ID_LENGTH) && is_word(secret, SECRET_LENGTH) {
            true => Ok(Self { id: id.to_owned(), secret: secret.to_owned() }),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for BootstrapToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.id, self.secret)
    }
}

impl fmt::Debug for BootstrapToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "BootstrapToken({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_of_one_form() {
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        assert_eq!((token.id(), token.secret()), ("abcdef", "0123456789abcdef"));
        assert_eq!(token.to_string(), "abcdef.0123456789abcdef");
        assert_eq!(format!("{token:?}"), "BootstrapToken(abcdef)");
        for wrong in ["", "abcdef", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde", "abcdef.0123456789abcdef "] {
            let error = wrong.parse::<BootstrapToken>().unwrap_err().to_string();
            let form = r#"was not of the form "\\A([a-z0-9]{6})\\.([a-z0-9]{16})\\z""#;
            assert!(error.contains(form), "{error}");
        }
        let made = BootstrapToken::generate();
        assert_eq!(made.to_string().parse::<BootstrapToken>().unwrap(), made);
        assert_ne!(made, BootstrapToken::generate());
    }

    #[test]
    fn a_token_is_named_by_its_id_or_whole() {
        for text in ["abcdef", "abcdef.0123456789abcdef"] {
            assert_eq!(BootstrapToken::id_of(text).unwrap(), "abcdef");
        }
        assert!(BootstrapToken::id_of("abcde").is_err());
    }
}
