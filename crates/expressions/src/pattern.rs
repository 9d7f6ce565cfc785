//! Patterns of schemas: Go's regular expressions, compiled with a bound.
//!
//! Go and Rust share RE2's syntax but for three things that are translated: `\d`, `\w` and `\s` are ASCII in Go, and
//! brackets within a character class stand for themselves.
// DIVERGES: classes by Unicode property (`\p{Greek}`) are refused.

use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

/// How large a compiled pattern may get, in bytes.
const MAX_COMPILED: usize = 1 << 20;

/// A pattern of a schema, compiled when it is first needed.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// A pattern as it is written.
    pub fn new(source: &str) -> Self {
        Self { source: source.to_owned(), compiled: OnceLock::new() }
    }

    /// As it is written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether a text meets it; one that means nothing is met by all.
    pub fn is_met(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| compile_pattern(&self.source).ok());
        compiled.as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

/// Compiles a pattern; the error is what is wrong with it, in one line.
pub fn compile_pattern(pattern: &str) -> Result<Regex, String> {
    let compiled =
        RegexBuilder::new(&translated(pattern)).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).build();
    compiled.map_err(|error| {
        let text = error.to_string();
        text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned()
    })
}

fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut in_class = false;
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => escape(letters.next(), &mut out),
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                for lead in ['^', ']'] {
                    if letters.next_if_eq(&lead).is_some() {
                        out.push_str(if lead == ']' { "\\]" } else { "^" });
                    }
                }
            }
            '[' if letters.peek() == Some(&':') => {
                out.push('[');
                // A named class such as [:alpha:] ends with its own bracket.
                for inner in letters.by_ref() {
                    out.push(inner);
                    if inner == ']' {
                        break;
                    }
                }
            }
            '[' => out.push_str("\\["),
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            // Rust's set operations within classes mean nothing to Go.
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(letter);
            }
            '-' if in_class && letters.peek() == Some(&'-') => out.push_str("\\-"),
            other => out.push(other),
        }
    }
    out
}

fn escape(letter: Option<char>, out: &mut String) {
    match letter {
        Some('d') => out.push_str("[0-9]"),
        Some('D') => out.push_str("[^0-9]"),
        Some('w') => out.push_str("[0-9A-Za-z_]"),
        Some('W') => out.push_str("[^0-9A-Za-z_]"),
        Some('s') => out.push_str("[\\t\\n\\f\\r ]"),
        Some('S') => out.push_str("[^\\t\\n\\f\\r ]"),
        Some('b') => out.push_str("(?-u:\\b)"),
        Some('B') => out.push_str("\\B"),
        Some(other) => {
            out.push('\\');
            out.push(other);
        }
        None => out.push('\\'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        let check = |pattern: &str, text: &str, matches: bool| {
            assert_eq!(compile_pattern(pattern).unwrap().is_match(text), matches, "{pattern} on {text}");
        };
        check(r"^\d+$", "12", true);
        check(r"^\d+$", "\u{0661}", false);
        check(r"^[\w-]+$", "a-b_1", true);
        check(r"^[\w-]+$", "é", false);
        check(r"^[a[]+$", "a[", true);
        check(r"^[]a]+$", "]a", true);
        check(r"^[^]a]+$", "b", true);
        check(r"^[[:alpha:]&&b]+$", "a&b", true);
        check(r"^([0-9]{1,3}\.){3}[0-9]{1,3}\/\d+$", "10.0.0.0/8", true);
        check(r"\bfoo\b", "a foo b", true);
        check("b", "abc", true);
    }

    #[test]
    fn bad_and_huge_patterns_are_refused() {
        for pattern in ["(", "[a", "a{99999}{99999}", "(?<x", "\\"] {
            assert!(compile_pattern(pattern).is_err(), "{pattern}");
        }
        assert!(compile_pattern(&"(a{1000}){1000}".repeat(10)).is_err());
    }
}
