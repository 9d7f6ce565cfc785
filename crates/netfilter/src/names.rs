//! Names that fit: nft takes a limited length, the names of objects do not keep to it.

use sha2::{Digest, Sha256};

/// nft allows 255 bytes; the longest prefix takes up to 16.
const BASE_LENGTH_MAX: usize = 240;

/// A name with a digest of its whole in front, cut where it is too long, in the form that upstream's proxy uses:
/// `ULMVA6XW-ns1/svc1/tcp/p80`.
pub fn hashed_name(name: String) -> String {
    let digest = Sha256::digest(name.as_bytes());
    let mut name = format!("{}-{name}", base32_prefix(&digest));
    if name.len() > BASE_LENGTH_MAX {
        name.truncate(BASE_LENGTH_MAX - 3);
        name.push_str("...");
    }
    name
}

/// The first eight characters of the digest in base 32 (RFC 4648).
fn base32_prefix(digest: &[u8]) -> String {
    let bits = digest[..5].iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    (0..8).rev().map(|n| char::from(alphabet[(bits >> (5 * n) & 31) as usize])).collect()
}
