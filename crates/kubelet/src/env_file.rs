//! Files of environment variables, for `fileKeyRef`: lines of `NAME='value'`, a subset of what a shell reads.
//!
//! Pure. Source: KEP-3721. Invariant: a value is what stands between single quotes, byte for byte, also over several
//! lines; anything else is an error with its line.

/// The value of a key; `None` where the file does not have it.
pub(crate) fn value_of(text: &str, key: &str) -> Result<Option<String>, String> {
    let mut lines = text.split_inclusive('\n').enumerate();
    while let Some((index, line)) = lines.next() {
        let invalid = |why: &str| Err(format!("invalid environment variable format at line {}: {why}", index + 1));
        let line = line.trim_start_matches([' ', '\t']);
        let bare = line.trim_end_matches(['\n', '\r']);
        if bare.is_empty() || bare.starts_with('#') {
            continue;
        }
        let Some((name, rest)) = line.split_once('=') else { return invalid("missing '='") };
        if name.trim_end().is_empty() {
            return invalid("empty variable name");
        }
        if name.ends_with([' ', '\t']) {
            return invalid("whitespace before '=' is not allowed");
        }
        let value = if rest.starts_with([' ', '\t']) {
            // As a shell has it: an assignment of nothing.
            String::new()
        } else {
            let Some(quoted) = rest.strip_prefix('\'') else {
                return invalid("value must be enclosed in single quotes");
            };
            let mut value = quoted.to_owned();
            let (value, tail) = loop {
                if let Some((value, tail)) = value.split_once('\'') {
                    break (value.to_owned(), tail.to_owned());
                }
                let Some((_, more)) = lines.next() else {
                    let line = index + 1;
                    return Err(format!(
                        "invalid environment variable format starting at line {line}: unclosed single quote"
                    ));
                };
                value.push_str(more);
            };
            let tail = tail.trim();
            if !tail.is_empty() && !tail.starts_with('#') {
                return invalid("unexpected content after closing quote");
            }
            value
        };
        if name == key {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_between_single_quotes() {
        let text = "# made\n\n  A='one'\nB='two words' # note\nC='first\n second'\nD= 'x'\nE='#x=\"$y\"'\n";
        for (key, expected) in [
            ("A", Some("one")),
            ("B", Some("two words")),
            ("C", Some("first\n second")),
            ("D", Some("")),
            ("E", Some("#x=\"$y\"")),
            ("F", None),
        ] {
            assert_eq!(value_of(text, key).unwrap().as_deref(), expected, "{key}");
        }
    }

    #[test]
    fn anything_else_is_named_with_its_line() {
        for (text, expected) in [
            ("A='1'\nB=2", "invalid environment variable format at line 2: value must be enclosed in single quotes"),
            ("B=", "invalid environment variable format at line 1: value must be enclosed in single quotes"),
            ("B", "invalid environment variable format at line 1: missing '='"),
            ("='x'", "invalid environment variable format at line 1: empty variable name"),
            ("B ='x'", "invalid environment variable format at line 1: whitespace before '=' is not allowed"),
            ("B='x", "invalid environment variable format starting at line 1: unclosed single quote"),
            ("B='x'y", "invalid environment variable format at line 1: unexpected content after closing quote"),
        ] {
            assert_eq!(value_of(text, "none").unwrap_err(), expected, "{text:?}");
        }
    }
}
