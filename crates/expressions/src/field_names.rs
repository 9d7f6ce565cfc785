//! Names of fields as expressions write them, where CEL could not read the names themselves.

/// Words that CEL keeps for itself.
const KEPT: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name of a field as expressions write it.
pub fn escape(name: &str) -> String {
    if KEPT.contains(&name) {
        return format!("__{name}__");
    }
    if !name.contains(['.', '-', '/']) && !name.contains("__") {
        return name.to_owned();
    }
    let name = name.replace("__", "__underscores__");
    name.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

/// The same, where CEL can read what comes of it.
pub fn readable_name(name: &str) -> Option<String> {
    let is_name = |name: &String| {
        !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    Some(escape(name)).filter(is_name)
}

#[cfg(test)]
mod tests {
    use super::readable_name;

    #[test]
    fn names_that_cel_cannot_read_are_escaped() {
        for (name, expected) in [
            ("replicas", Some("replicas")),
            ("namespace", Some("__namespace__")),
            ("a-b.c/d", Some("a__dash__b__dot__c__slash__d")),
            ("a__b", Some("a__underscores__b")),
            ("", None),
            ("1st", None),
            ("$ref", None),
        ] {
            assert_eq!(readable_name(name).as_deref(), expected, "{name}");
        }
    }
}
