//! Finding parts of a stored object without decoding it.
//!
//! Works on the JSON that this server wrote itself, so it is known to be well formed; on anything else it answers `None`
//! rather than looking further. Invariant: a returned slice is one whole JSON value.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;

/// The raw value at a path of object fields.
pub(crate) fn field<'a>(object: &'a [u8], path: &[&str]) -> Option<&'a [u8]> {
    field_range(object, path).map(|range| &object[range])
}

/// Where the raw value at a path of object fields stands.
pub(crate) fn field_range(object: &[u8], path: &[&str]) -> Option<Range<usize>> {
    let mut range = 0..object.len();
    for name in path {
        let found =
            Members::new(&object[range.clone()]).find(|(key, _)| key_is(&object[range.start..][key.clone()], name));
        let (_, value) = found?;
        range = range.start + value.start..range.start + value.end;
    }
    Some(range)
}

/// The text of a string value; other scalars as they are written. Absent for `null`, objects and lists.
pub(crate) fn scalar(raw: &[u8]) -> Option<Cow<'_, str>> {
    match raw.first()? {
        b'"' if raw.contains(&b'\\') => serde_json::from_slice::<String>(raw).ok().map(Cow::Owned),
        b'"' => std::str::from_utf8(&raw[1..raw.len() - 1]).ok().map(Cow::Borrowed),
        b'{' | b'[' | b'n' => None,
        _ => std::str::from_utf8(raw).ok().map(Cow::Borrowed),
    }
}

/// The text at a path, empty where there is none.
pub(crate) fn text<'a>(object: &'a [u8], path: &[&str]) -> Cow<'a, str> {
    field(object, path).and_then(scalar).unwrap_or_default()
}

/// The string members of a raw object such as `metadata.labels`.
pub(crate) fn strings(object: &[u8]) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    Members::new(object).filter_map(|(key, value)| {
        let key = scalar(&object[key.start..key.end])?;
        Some((key, scalar(&object[value])?))
    })
}

fn key_is(quoted: &[u8], name: &str) -> bool {
    quoted.len() == name.len() + 2 && &quoted[1..quoted.len() - 1] == name.as_bytes()
}

/// The members of a raw object: the ranges of each key (with its quotes) and value.
struct Members<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Members<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        // Anything but an object has no members.
        let at = if bytes.first() == Some(&b'{') { 1 } else { bytes.len() };
        Self { bytes, at }
    }

    fn skip_blank(&mut self) {
        while self.bytes.get(self.at).is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b',' || *byte == b':') {
            self.at += 1;
        }
    }
}

impl Iterator for Members<'_> {
    type Item = (Range<usize>, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        self.skip_blank();
        if self.bytes.get(self.at) != Some(&b'"') {
            return None;
        }
        let key = self.at..string_end(self.bytes, self.at)?;
        self.at = key.end;
        self.skip_blank();
        let value = self.at..value_end(self.bytes, self.at)?;
        self.at = value.end;
        Some((key, value))
    }
}

/// The end of the string that begins at `start`.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The end of the value that begins at `start`.
fn value_end(bytes: &[u8], start: usize) -> Option<usize> {
    match bytes.get(start)? {
        b'"' => string_end(bytes, start),
        b'{' | b'[' => container_end(bytes, start),
        _ => {
            let rest = &bytes[start..];
            let length = rest.iter().position(|byte| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace());
            Some(start + length.unwrap_or(rest.len()))
        }
    }
}

fn container_end(bytes: &[u8], start: usize) -> Option<usize> {
    let (mut depth, mut at) = (0usize, start);
    loop {
        match bytes.get(at)? {
            b'"' => {
                at = string_end(bytes, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &[u8] =
        br#"{"a":{"b":[1,"]}",{"c":2}],"d":"x\"y"}, "e" : true,"n":null,"labels":{"k":"v","q":"\u0041"}}"#;

    fn check(path: &[&str], raw: Option<&str>, scalar_text: &str) {
        assert_eq!(field(OBJECT, path), raw.map(str::as_bytes), "{path:?}");
        assert_eq!(text(OBJECT, path), scalar_text, "{path:?}");
    }

    #[test]
    fn parts_are_found() {
        check(&["a", "b"], Some(r#"[1,"]}",{"c":2}]"#), "");
        check(&["a", "d"], Some(r#""x\"y""#), "x\"y");
        check(&["e"], Some("true"), "true");
        check(&["n"], Some("null"), "");
        check(&["n", "x"], None, "");
        check(&["missing"], None, "");
        check(&["e", "x"], None, "");
        let labels: Vec<_> = strings(field(OBJECT, &["labels"]).unwrap()).collect();
        assert_eq!(labels, [("k".into(), "v".into()), ("q".into(), "A".into())]);
        assert_eq!(field(b"{\"a\":\"unterminated", &["a"]), None);
        assert_eq!(field(b"{\"a\":{\"b\":", &["a"]), None);
    }
}
