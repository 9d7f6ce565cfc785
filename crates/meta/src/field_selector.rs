//! Field selectors: read from their text form, and asked whether they match.

use crate::selector::ParseSelectorError;

/// A field selector: `field=value` and `field!=value` terms, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector(Vec<(String, bool, String)>);

impl FieldSelector {
    /// From terms: field, whether it must equal, value.
    pub fn new(terms: Vec<(String, bool, String)>) -> Self {
        Self(terms)
    }

    /// Reads the query-parameter form: `metadata.name=a,status.phase!=Running`. In values `\\`, `\,` and `\=` stand for
    /// what follows the backslash.
    pub fn parse(text: &str) -> Result<Self, ParseSelectorError> {
        let terms = split_terms(text).into_iter().filter(|term| !term.is_empty());
        terms
            .map(|term| {
                let cannot = || ParseSelectorError(format!("invalid selector: '{text}'; can't understand '{term}'"));
                let (field, equals, value) = split_term(term).ok_or_else(cannot)?;
                Ok((field.to_owned(), equals, unescape(value)?))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The terms: field, whether it must equal, value.
    pub fn terms(&self) -> &[(String, bool, String)] {
        &self.0
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that a field must equal, if a term says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|(name, equals, _)| *equals && name == field).map(|(_, _, value)| value.as_str())
    }

    /// Whether the fields (looked up by `get`; absent ones are empty) meet all terms.
    pub fn matches_with(&self, get: impl Fn(&str) -> String) -> bool {
        self.0.iter().all(|(field, equals, value)| (get(field) == *value) == *equals)
    }
}

/// The parts between commas that no backslash precedes.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// Field, whether it must equal, and value as it is written: the first operator divides them.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find('=')?;
    let (field, value) = (&term[..at], &term[at + 1..]);
    match field.strip_suffix('!') {
        Some(field) => Some((field, false, value)),
        None => Some((field, true, value.strip_prefix('=').unwrap_or(value))),
    }
}

fn unescape(value: &str) -> Result<String, ParseSelectorError> {
    let (mut plain, mut characters) = (String::with_capacity(value.len()), value.chars());
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(next @ ('\\' | ',' | '=')) => plain.push(next),
                next => {
                    let sequence: String = next.into_iter().collect();
                    let text = format!("invalid field selector: invalid escape sequence: \\{sequence}");
                    return Err(ParseSelectorError(text));
                }
            },
            ',' | '=' => {
                // Upstream shows the character's number.
                let text = format!("invalid field selector: unescaped character in value: {}", u32::from(character));
                return Err(ParseSelectorError(text));
            }
            other => plain.push(other),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_selectors_match() {
        let get = |field: &str| if field == "metadata.name" { "a".to_owned() } else { String::new() };
        for (text, matches) in
            [("metadata.name=a", true), ("metadata.name!=a", false), ("spec.nodeName=", true), ("x==y", false)]
        {
            assert_eq!(FieldSelector::parse(text).unwrap().matches_with(get), matches, "{text}");
        }
        assert_eq!(FieldSelector::parse("metadata.name=a").unwrap().exact("metadata.name"), Some("a"));
    }

    #[test]
    fn terms_end_at_commas_that_are_not_escaped() {
        let check = |text: &str, expected: &[(&str, bool, &str)]| {
            let selector = FieldSelector::parse(text).unwrap();
            let terms: Vec<(&str, bool, &str)> = selector.terms().iter().map(|(f, e, v)| (&**f, *e, &**v)).collect();
            assert_eq!(terms, expected, "{text}");
        };
        check("", &[]);
        check("a=b,,c!=d", &[("a", true, "b"), ("c", false, "d")]);
        check(r"a=b\,c\=d", &[("a", true, "b,c=d")]);
        check(r"a==\\,b=", &[("a", true, "\\"), ("b", true, "")]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, why) in [
            ("a=b,nonsense", "invalid selector: 'a=b,nonsense'; can't understand 'nonsense'"),
            (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
            (r"a=\", r"invalid field selector: invalid escape sequence: \"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), why);
        }
    }
}
