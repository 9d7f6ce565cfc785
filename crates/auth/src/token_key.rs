//! Keys of service-account tokens: RSA and the curve P-256, in the PEM forms that upstream takes.
//!
//! Invariant: a key has the same id here as upstream gives it, the digest of its `SubjectPublicKeyInfo`, so that whoever
//! knows a cluster's keys finds them again.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::AuthError;

/// `AlgorithmIdentifier` of RSA (RFC 8017, A.1).
const RSA_ALGORITHM: &[u8] = &[0x30, 13, 0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0];
/// `AlgorithmIdentifier` of the curve P-256 (RFC 5480, 2.1.1).
const P256_ALGORITHM: &[u8] =
    &[0x30, 19, 0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const BIT_STRING: u8 = 0x03;

/// How tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Es256,
    Rs256,
}

impl Algorithm {
    /// The name in a JWT.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

/// A key that verifies tokens.
#[derive(Debug, Clone)]
pub(crate) struct PublicKey {
    pub(crate) algorithm: Algorithm,
    pub(crate) id: String,
    /// The key alone: a point, or an `RSAPublicKey`.
    bytes: Vec<u8>,
}

impl PublicKey {
    /// All keys of a PEM.
    pub(crate) fn all_from_pem(pem: &str) -> Result<Vec<Self>, AuthError> {
        let blocks = blocks(pem)?;
        blocks.iter().map(|(label, der)| Self::from_block(label, der)).collect()
    }

    fn from_block(label: &str, der: &[u8]) -> Result<Self, AuthError> {
        match label {
            "CERTIFICATE" => {
                let (_, certificate) = X509Certificate::from_der(der).map_err(unreadable)?;
                Self::from_info(&certificate.tbs_certificate.subject_pki)
            }
            label if label.ends_with("PRIVATE KEY") => Ok(SigningKey::from_block(label, der)?.public),
            _ => {
                let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(unreadable)?;
                Self::from_info(&info)
            }
        }
    }

    fn from_info(info: &SubjectPublicKeyInfo<'_>) -> Result<Self, AuthError> {
        let bytes = info.subject_public_key.data.to_vec();
        match info.parsed() {
            Ok(public_key::PublicKey::RSA(_)) => Ok(Self::new(Algorithm::Rs256, bytes)),
            // A point on P-256 is a mark and two numbers of 32 bytes.
            Ok(public_key::PublicKey::EC(_)) if bytes.len() == 65 => Ok(Self::new(Algorithm::Es256, bytes)),
            _ => Err(AuthError::Key("a key of RSA or on the curve P-256 is needed".to_owned())),
        }
    }

    fn new(algorithm: Algorithm, bytes: Vec<u8>) -> Self {
        let identifier = match algorithm {
            Algorithm::Es256 => P256_ALGORITHM,
            Algorithm::Rs256 => RSA_ALGORITHM,
        };
        // Before the bits stands how many of the last byte are not used.
        let bits = element(BIT_STRING, &[&[0], bytes.as_slice()].concat());
        let info = element(SEQUENCE, &[identifier, &bits].concat());
        let digest = ring::digest::digest(&ring::digest::SHA256, &info);
        Self { algorithm, id: URL_SAFE_NO_PAD.encode(digest.as_ref()), bytes }
    }

    pub(crate) fn has_signed(&self, signed: &[u8], signature: &[u8]) -> bool {
        let method: &dyn VerificationAlgorithm = match self.algorithm {
            Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
            Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        };
        UnparsedPublicKey::new(method, &self.bytes).verify(signed, signature).is_ok()
    }

    /// The key as a JSON Web Key.
    pub(crate) fn jwk(&self) -> Value {
        let number = |bytes: &[u8]| {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            URL_SAFE_NO_PAD.encode(&bytes[zeros..])
        };
        let mut key = json!({"use": "sig", "kid": self.id, "alg": self.algorithm.name()});
        let fields = match self.algorithm {
            Algorithm::Es256 => json!({"kty": "EC", "crv": "P-256",
                "x": URL_SAFE_NO_PAD.encode(&self.bytes[1..33]), "y": URL_SAFE_NO_PAD.encode(&self.bytes[33..65])}),
            Algorithm::Rs256 => match public_key::RSAPublicKey::from_der(&self.bytes) {
                Ok((_, rsa)) => json!({"kty": "RSA", "n": number(rsa.modulus), "e": number(rsa.exponent)}),
                Err(_) => json!({"kty": "RSA"}),
            },
        };
        if let (Some(key), Value::Object(fields)) = (key.as_object_mut(), fields) {
            key.extend(fields);
        }
        key
    }
}

/// A key that signs tokens.
pub(crate) struct SigningKey {
    pair: Pair,
    random: SystemRandom,
    public: PublicKey,
}

enum Pair {
    Elliptic(Box<EcdsaKeyPair>),
    Rsa(Box<rsa::KeyPair>),
}

impl SigningKey {
    /// From the first private key of a PEM.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, AuthError> {
        let blocks = blocks(pem)?;
        let private = blocks.iter().find(|(label, _)| label.ends_with("PRIVATE KEY"));
        let (label, der) = private.ok_or_else(|| AuthError::Key("there is no private key in it".to_owned()))?;
        Self::from_block(label, der)
    }

    fn from_block(label: &str, der: &[u8]) -> Result<Self, AuthError> {
        let random = SystemRandom::new();
        let elliptic = |der: &[u8]| {
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random)
                .map(|pair| Pair::Elliptic(Box::new(pair)))
        };
        let rsa = |pair: rsa::KeyPair| Pair::Rsa(Box::new(pair));
        let pair = match label {
            "RSA PRIVATE KEY" => rsa::KeyPair::from_der(der).map(rsa),
            "EC PRIVATE KEY" => elliptic(&in_pkcs8(P256_ALGORITHM, der)),
            _ => elliptic(der).or_else(|_| rsa::KeyPair::from_pkcs8(der).map(rsa)),
        };
        let pair = pair.map_err(|error| {
            AuthError::Key(format!("{error} (a key of RSA with at least 2048 bits or on the curve P-256 is needed)"))
        })?;
        let public = match &pair {
            Pair::Elliptic(pair) => PublicKey::new(Algorithm::Es256, pair.public_key().as_ref().to_vec()),
            Pair::Rsa(pair) => PublicKey::new(Algorithm::Rs256, pair.public().as_ref().to_vec()),
        };
        Ok(Self { pair, random, public })
    }

    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn sign(&self, text: &[u8]) -> Vec<u8> {
        const WORKS: &str = "the system's random source works";
        match &self.pair {
            Pair::Elliptic(pair) => pair.sign(&self.random, text).expect(WORKS).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &self.random, text, &mut signature).expect(WORKS);
                signature
            }
        }
    }
}

fn unreadable(error: impl std::fmt::Display) -> AuthError {
    AuthError::Key(error.to_string())
}

/// Labels and contents of a PEM's blocks, but for parameters that stand before keys.
fn blocks(pem: &str) -> Result<Vec<(String, Vec<u8>)>, AuthError> {
    let mut blocks = Vec::new();
    for block in pem.split("-----BEGIN ").skip(1) {
        let (label, rest) = block.split_once("-----").unwrap_or_default();
        let body: String = rest.lines().take_while(|line| !line.starts_with("-----")).map(str::trim).collect();
        if label != "EC PARAMETERS" {
            blocks.push((label.to_owned(), STANDARD.decode(body).map_err(unreadable)?));
        }
    }
    if blocks.is_empty() {
        return Err(AuthError::Key("there is no PEM block with a key".to_owned()));
    }
    Ok(blocks)
}

/// A key in an envelope that names its algorithm (RFC 5208).
fn in_pkcs8(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let version = [0x02, 1, 0];
    element(SEQUENCE, &[&version, algorithm, &element(OCTET_STRING, key)].concat())
}

/// One element of DER.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut bytes = vec![tag];
    if length < 128 {
        bytes.push(length as u8);
    } else {
        let digits: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        bytes.push(0x80 | digits.len() as u8);
        bytes.extend(digits);
    }
    bytes.extend_from_slice(content);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::tests::{pem, rsa};

    const EC: &str = "MHcCAQEEIEHW2M5uig55fA3I49HZxg1SjwhKqilAsQlIOVh16c2KoAoGCCqGSM49\nAwEHoUQDQgAE6ob4fOg66Q/Op+1568Lpt3Ylx0hg9kRv+7droEBLXP91KgbrrDMT\nddhoTro+4kh7XUt7GfnHQQukwwzEKVq5CA==\n";
    const RSA_PUBLIC: &str = include_str!("token_key/rsa.pub.pem");
    const EC_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE6ob4fOg66Q/Op+1568Lpt3Ylx0hg\n9kRv+7droEBLXP91KgbrrDMTddhoTro+4kh7XUt7GfnHQQukwwzEKVq5CA==\n-----END PUBLIC KEY-----\n";

    /// As openssl writes it: the curve comes first.
    fn ec() -> String {
        pem("EC PARAMETERS", "BggqhkjOPQMBBw==") + &pem("EC PRIVATE KEY", EC)
    }

    fn rsa_pkcs8() -> String {
        pem("PRIVATE KEY", include_str!("token_key/rsa.pkcs8.base64"))
    }

    fn id(pem: &str) -> String {
        PublicKey::all_from_pem(pem).unwrap()[0].id.clone()
    }

    #[test]
    fn ids_are_upstreams_in_every_form() {
        // `openssl pkey -in KEY -pubout -outform DER | sha256sum`, in URL-safe base64.
        let (of_rsa, of_ec) =
            ("kuPfsH5bRe5V75Dd96GG0-ODCTc5p14wHOjhCQHCHrI", "iaBGmpu1NO1sckIvHgmb6upRu7iWTaSOMyTO6mtCyQk");
        let public = [(RSA_PUBLIC, of_rsa), (EC_PUBLIC, of_ec)].map(|(pem, id)| (pem.to_owned(), id));
        let private = [(rsa(), of_rsa), (rsa_pkcs8(), of_rsa), (ec(), of_ec)];
        assert!(private.iter().all(|(pem, _)| SigningKey::from_pem(pem).is_ok()));
        for (pem, expected) in public.into_iter().chain(private) {
            assert_eq!(id(&pem), expected, "{pem}");
        }
    }

    #[test]
    fn keys_are_shown_to_relying_parties() {
        let key = &PublicKey::all_from_pem(&rsa()).unwrap()[0];
        let jwk = key.jwk();
        assert_eq!(
            (&jwk["kty"], &jwk["alg"], &jwk["e"], &jwk["use"]),
            (&json!("RSA"), &json!("RS256"), &json!("AQAB"), &json!("sig"))
        );
        let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
        assert_eq!((modulus.len(), modulus[0] >> 7), (256, 1));
        let point = PublicKey::all_from_pem(EC_PUBLIC).unwrap()[0].jwk();
        assert_eq!((&point["kty"], &point["crv"]), (&json!("EC"), &json!("P-256")));
    }

    #[test]
    fn other_keys_are_refused() {
        let check = |pem: &str, expected: &str| {
            let error = SigningKey::from_pem(pem).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("no key", "no PEM block");
        check(RSA_PUBLIC, "no private key");
        check("-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----\n", "at least 2048 bits");
    }
}
