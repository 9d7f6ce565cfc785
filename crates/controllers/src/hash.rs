//! The hash that tells templates apart in names and labels.
//!
//! Stable: the same template and collision count give the same text in every process and version of Kedge.
//! DIVERGES: upstream hashes a dump of its Go structs, which no other program can repeat; the texts look alike.

use serde::Serialize;

const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A text of up to ten characters that are safe in names, for a value and a collision count.
pub(crate) fn template_hash(value: &impl Serialize, collisions: Option<i32>) -> String {
    let mut bytes = serde_json::to_vec(value).expect("API objects are serializable");
    if let Some(collisions) = collisions {
        bytes.extend_from_slice(&collisions.to_le_bytes());
    }
    let hash = fnv1a(&bytes);
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// FNV-1a, 32 bits.
pub(crate) fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_stable_and_depends_on_collisions() {
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
        let plain = template_hash(&"template", None);
        assert_eq!(plain, template_hash(&"template", None));
        assert_ne!(plain, template_hash(&"template", Some(1)));
        assert!(plain.len() <= 10 && plain.bytes().all(|c| ALPHABET.contains(&c)), "{plain}");
    }
}
