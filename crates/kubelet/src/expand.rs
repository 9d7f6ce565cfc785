//! `$(VAR)` references in commands, arguments, environment values and sub-paths.
//!
//! Pure. Source: the Kubernetes API reference of `Container.command`. Invariant: `$$(VAR)` is the escaped form of `$(VAR)`,
//! and a reference that resolves to nothing stays as it is.

/// Replaces the references that `lookup` knows.
pub(crate) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    expand_noting(text, lookup, &mut |_| {})
}

/// As [`expand`], but a reference that resolves to nothing is an error, which names it.
pub(crate) fn expand_strict(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut missing = Vec::new();
    let expanded = expand_noting(text, lookup, &mut |name| missing.push(name.to_owned()));
    match missing.is_empty() {
        true => Ok(expanded),
        false => Err(format!(
            "missing value for {}",
            missing.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
        )),
    }
}

fn expand_noting(text: &str, lookup: &dyn Fn(&str) -> Option<String>, missing: &mut dyn FnMut(&str)) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find('$') {
        expanded.push_str(&rest[..position]);
        let after = &rest[position + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            expanded.push('$');
            rest = escaped;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => expanded.push_str(&value),
                None => {
                    missing(name);
                    expanded.push_str(&format!("$({name})"));
                }
            }
            rest = tail;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, expected) in [
            ("", ""),
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(B)"),
            ("$(A", "$(A"),
            ("$A", "$A"),
            ("100$", "100$"),
            ("$$", "$"),
            ("$()", "$()"),
        ] {
            assert_eq!(expand(text, &lookup), expected, "{text}");
        }
        assert_eq!(expand_strict("$(A)/$(B)", &lookup), Err("missing value for \"B\"".to_owned()));
        assert_eq!(expand_strict("$(A)", &lookup), Ok("1".to_owned()));
    }
}
