//! The key that encrypts a control plane's certificates on their way to another one: AES-256-GCM, the nonce in front, as
//! kubeadm has it.
//!
//! Invariant: each encryption has a nonce of its own; what was changed on the way is not decrypted.

use std::fmt;
use std::str::FromStr;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::error::BootstrapError;

const LENGTH: usize = 32;

/// 32 bytes, written in hexadecimal digits. `{:?}` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateKey([u8; LENGTH]);

impl CertificateKey {
    /// A new random one.
    pub fn generate() -> Result<Self, BootstrapError> {
        random().map(Self)
    }

    pub(crate) fn encrypt(&self, content: &[u8]) -> Result<Vec<u8>, BootstrapError> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut sealed = content.to_vec();
        self.cipher()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)
            .map_err(|_| BootstrapError::CertificateKey("the content cannot be encrypted".to_owned()))?;
        Ok([&nonce[..], &sealed].concat())
    }

    pub(crate) fn decrypt(&self, sealed: &[u8]) -> Result<Vec<u8>, BootstrapError> {
        let Some((nonce, sealed)) = sealed.split_first_chunk::<NONCE_LEN>() else {
            return Err(BootstrapError::CertificateKey("size of data is less than the nonce".to_owned()));
        };
        let mut content = sealed.to_vec();
        let length = self
            .cipher()?
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut content)
            .map_err(|_| BootstrapError::CertificateKey("cipher: message authentication failed".to_owned()))?
            .len();
        content.truncate(length);
        Ok(content)
    }

    fn cipher(&self) -> Result<LessSafeKey, BootstrapError> {
        let key = UnboundKey::new(&AES_256_GCM, &self.0);
        let key = key.map_err(|_| BootstrapError::CertificateKey("the key cannot be used".to_owned()))?;
        Ok(LessSafeKey::new(key))
    }
}

fn random<const N: usize>() -> Result<[u8; N], BootstrapError> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| BootstrapError::CertificateKey("the system's random source does not answer".to_owned()))?;
    Ok(bytes)
}

impl FromStr for CertificateKey {
    type Err = BootstrapError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: &str| BootstrapError::CertificateKey(format!("error decoding certificate key: {why}"));
        if !text.is_ascii() || !text.len().is_multiple_of(2) {
            return Err(wrong("it is not in pairs of hexadecimal digits"));
        }
        let bytes: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()))
            .collect();
        let bytes = bytes.ok_or_else(|| wrong("it is not in pairs of hexadecimal digits"))?;
        bytes.try_into().map(Self).map_err(|_| wrong("it is not 32 bytes long"))
    }
}

impl fmt::Display for CertificateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for CertificateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CertificateKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_digits() {
        let text = "8cbbfb6ddd28539f95e23343d9e085777e9a7adb4df084d6031116b3f5a836ef";
        assert_eq!(text.parse::<CertificateKey>().unwrap().to_string(), text);
        for wrong in ["", "8c", "zz", "8cb", "ä"] {
            assert!(wrong.parse::<CertificateKey>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_same_key_opens_and_only_what_is_whole() {
        let key = CertificateKey::generate().unwrap();
        let sealed = key.encrypt(b"content").unwrap();
        assert_ne!(sealed, key.encrypt(b"content").unwrap());
        assert_eq!(key.decrypt(&sealed).unwrap(), b"content");
        assert!(CertificateKey::generate().unwrap().decrypt(&sealed).is_err());
        let mut changed = sealed.clone();
        changed[NONCE_LEN] ^= 1;
        assert!(key.decrypt(&changed).is_err() && key.decrypt(&sealed[..5]).is_err());
    }
}
