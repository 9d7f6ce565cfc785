//! The names that certificate requests give to key usages, and what they are in a certificate.
//!
//! Pure. Invariant: a name that is not known is never passed over.

/// Bits of the key usage extension (RFC 5280, 4.2.1.3), by upstream's names.
const KEY_USAGES: [(&str, u8); 10] = [
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];
/// Extended key usages, by upstream's names, in the order in which they stand in a certificate.
const EXTENDED_KEY_USAGES: [(&str, &[u64]); 13] = [
    ("any", &[2, 5, 29, 37, 0]),
    ("server auth", &[1, 3, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[1, 3, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
    ("netscape sgc", &[2, 16, 840, 1, 113730, 4, 1]),
];

/// What a certificate may be used for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyUsages {
    /// Bits of the key usage, the first one lowest.
    bits: u16,
    pub(crate) extended: Vec<&'static [u64]>,
}

impl KeyUsages {
    /// Reads upstream's names.
    pub(crate) fn read(names: &[String]) -> Result<Self, String> {
        let mut unknown = Vec::new();
        let mut usages = Self::default();
        for name in names {
            let key_usage = KEY_USAGES.iter().find(|(known, _)| known == name);
            let extended = EXTENDED_KEY_USAGES.iter().any(|(known, _)| known == name);
            match key_usage {
                Some((_, bit)) => usages.bits |= 1 << bit,
                None if extended => {}
                None => unknown.push(format!("{name:?}")),
            }
        }
        if !unknown.is_empty() {
            return Err(format!("unrecognized usage values: [{}]", unknown.join(" ")));
        }
        for (known, oid) in EXTENDED_KEY_USAGES {
            if names.iter().any(|name| name == known) && !usages.extended.contains(&oid) {
                usages.extended.push(oid);
            }
        }
        Ok(usages)
    }

    /// The key usage as a bit string, and how many of its bits count; `None` where there is none.
    pub(crate) fn bit_string(&self) -> Option<(Vec<u8>, usize)> {
        let length = 16 - self.bits.leading_zeros() as usize;
        let bytes = self.bits.reverse_bits().to_be_bytes();
        (length > 0).then(|| (bytes[..length.div_ceil(8)].to_vec(), length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_bits_and_identifiers() {
        let read = |names: &[&str]| KeyUsages::read(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        let client = read(&["digital signature", "key encipherment", "client auth"]).unwrap();
        assert_eq!(client.bit_string(), Some((vec![0b1010_0000], 3)));
        assert_eq!(client.extended, [&[1u64, 3, 6, 1, 5, 5, 7, 3, 2][..]]);
        assert_eq!(read(&["decipher only"]).unwrap().bit_string(), Some((vec![0, 0b1000_0000], 9)));
        let mail = read(&["s/mime", "email protection"]).unwrap();
        assert_eq!((mail.bit_string(), mail.extended.len()), (None, 1));
        assert_eq!(read(&["client auth", "flying"]).unwrap_err(), "unrecognized usage values: [\"flying\"]");
    }
}
