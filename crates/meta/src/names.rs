//! What names and labels may look like (RFC 1123, RFC 1035, qualified names), and generated suffixes.

/// At most 63 of `[a-z0-9-]`, beginning and ending with a letter or digit.
pub fn is_dns1123_label(text: &str) -> bool {
    text.len() <= 63 && is_label_shape(text)
}

/// At most 253 characters of RFC 1123 labels joined by dots.
pub fn is_dns1123_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label_shape)
}

/// At most 63 of `[a-z0-9-]`, beginning with a letter.
pub fn is_dns1035_label(text: &str) -> bool {
    is_dns1123_label(text) && text.starts_with(|first: char| first.is_ascii_lowercase())
}

/// A label or annotation key: an optional RFC 1123 subdomain and `/`, then at most 63 of `[A-Za-z0-9_.-]`, beginning and
/// ending with a letter or digit.
pub fn is_qualified_name(text: &str) -> bool {
    let name = match text.split_once('/') {
        Some((prefix, name)) if is_dns1123_subdomain(prefix) => name,
        Some(_) => return false,
        None => text,
    };
    !name.is_empty() && is_label_value(name)
}

/// A label value: empty, or at most 63 of `[A-Za-z0-9_.-]`, beginning and ending with a letter or digit.
pub fn is_label_value(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// `length` characters out of upstream's alphabet for `generateName` (no vowels, no look-alikes), from random bytes.
pub fn random_suffix(random: &[u8]) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    random.iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

fn is_label_shape(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(inner) && text.ends_with(inner) && text.chars().all(|c| inner(c) || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let long = "a".repeat(64);
        for (text, label, subdomain, label_1035, qualified) in [
            ("web-0", true, true, true, true),
            ("0web", true, true, false, true),
            ("a.b", false, true, false, true),
            ("-a", false, false, false, false),
            ("a-", false, false, false, false),
            ("", false, false, false, false),
            ("A_b", false, false, false, true),
            ("app.kubernetes.io/name", false, false, false, true),
            ("App/name", false, false, false, false),
            ("a/b/c", false, false, false, false),
            (long.as_str(), false, true, false, false),
        ] {
            assert_eq!(is_dns1123_label(text), label, "label {text:?}");
            assert_eq!(is_dns1123_subdomain(text), subdomain, "subdomain {text:?}");
            assert_eq!(is_dns1035_label(text), label_1035, "1035 label {text:?}");
            assert_eq!(is_qualified_name(text), qualified, "qualified name {text:?}");
        }
        assert!(is_label_value("") && is_label_value("a.B-1") && !is_label_value(".a"));
    }

    #[test]
    fn suffixes_come_from_the_bytes() {
        assert_eq!(random_suffix(&[0, 1, 26, 27, 255]), "bc9bq");
    }
}
