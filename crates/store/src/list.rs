//! Lists as pure functions: the keys of a prefix, the state of a prefix in the past, and a page of it.
//!
//! The past is the present with every change since then undone. Invariant: a page shows exactly one revision.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use crate::port::{Change, Key, ListPage, Record, Revision};

/// A range of keys by their text. Never inverted, so a map can always be asked for it.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    start: Bound<String>,
    end: Bound<String>,
}

impl Span {
    /// The keys that start with `prefix`.
    pub(crate) fn of(prefix: &str) -> Self {
        let end = successor(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        Self { start: Bound::Included(prefix.to_owned()), end }
    }

    /// The keys that start with `prefix` and come after `start_after`.
    pub(crate) fn after(prefix: &str, start_after: Option<&str>) -> Self {
        let mut span = Self::of(prefix);
        let Some(start_after) = start_after.filter(|key| *key >= prefix) else { return span };
        span.start = match &span.end {
            Bound::Excluded(end) if start_after >= end.as_str() => Bound::Included(end.clone()),
            _ => Bound::Excluded(start_after.to_owned()),
        };
        span
    }
}

impl RangeBounds<str> for Span {
    fn start_bound(&self) -> Bound<&str> {
        self.start.as_ref().map(String::as_str)
    }

    fn end_bound(&self) -> Bound<&str> {
        self.end.as_ref().map(String::as_str)
    }
}

/// The first text after every text that starts with `prefix`; the order of UTF-8 bytes is that of the characters.
fn successor(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

/// What each key of `span` was before the first of `changes` that touched it.
pub(crate) fn undo<'a>(
    changes: impl Iterator<Item = &'a Arc<Change>>,
    span: &Span,
) -> BTreeMap<&'a Key, Option<&'a Record>> {
    let mut past = BTreeMap::new();
    for change in changes.filter(|change| span.contains(change.record.key.as_str())) {
        past.entry(&change.record.key).or_insert(change.previous.as_ref());
    }
    past
}

/// The first `limit` records of `live` with `past` laid over it.
pub(crate) fn page<'a>(
    live: impl Iterator<Item = (&'a Key, &'a Record)>,
    past: BTreeMap<&'a Key, Option<&'a Record>>,
    limit: Option<usize>,
    revision: Revision,
) -> ListPage {
    let mut all = overlaid(live, past);
    let records = all.by_ref().take(limit.unwrap_or(usize::MAX)).cloned().collect();
    ListPage { records, revision, remaining: all.count() }
}

fn overlaid<'a>(
    live: impl Iterator<Item = (&'a Key, &'a Record)>,
    past: BTreeMap<&'a Key, Option<&'a Record>>,
) -> impl Iterator<Item = &'a Record> {
    let mut live = live.peekable();
    let mut past = past.into_iter().peekable();
    let next = move || {
        let order = match (live.peek(), past.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((now, _)), Some((then, _))) => now.cmp(then),
        };
        if order == Ordering::Less {
            return Some(live.next().map(|(_, record)| record));
        }
        if order == Ordering::Equal {
            live.next();
        }
        Some(past.next().and_then(|(_, record)| record))
    };
    std::iter::from_fn(next).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_span(prefix: &str, start_after: Option<&str>, keys: &[&str]) {
        let all = ["/a", "/a/", "/a/b", "/a/\u{10ffff}", "/a/\u{10ffff}x", "/a0", "/b", "/b\u{d7ff}", "/b\u{e000}"];
        let map: BTreeMap<Key, ()> = all.iter().map(|key| (Key::new(*key), ())).collect();
        let found: Vec<_> =
            map.range::<str, _>(Span::after(prefix, start_after)).map(|(key, ())| key.as_str()).collect();
        assert_eq!(found, keys, "{prefix} after {start_after:?}");
    }

    #[test]
    fn a_span_holds_exactly_the_keys_of_the_prefix_after_a_key() {
        check_span("/a/", None, &["/a/", "/a/b", "/a/\u{10ffff}", "/a/\u{10ffff}x"]);
        check_span("/a/\u{10ffff}", None, &["/a/\u{10ffff}", "/a/\u{10ffff}x"]);
        check_span("/b\u{d7ff}", None, &["/b\u{d7ff}"]);
        check_span("/b", Some("/a"), &["/b", "/b\u{d7ff}", "/b\u{e000}"]);
        check_span("/a/", Some("/a/b"), &["/a/\u{10ffff}", "/a/\u{10ffff}x"]);
        check_span("/a/", Some("/a0"), &[]);
        check_span("/a/", Some("/z"), &[]);
        check_span("", Some("/a0"), &["/b", "/b\u{d7ff}", "/b\u{e000}"]);
        check_span("/c", None, &[]);
    }

    #[test]
    fn the_past_is_laid_over_the_present() {
        let record = |key: &str, modified| Record {
            key: Key::new(key),
            value: bytes::Bytes::new(),
            splice_at: None,
            created: Revision(1),
            modified: Revision(modified),
        };
        let live: BTreeMap<_, _> = ["/a", "/b", "/d"].into_iter().map(|key| (Key::new(key), record(key, 9))).collect();
        let (b, c, d) = (record("/b", 2), record("/c", 3), record("/d", 0));
        let past = BTreeMap::from([(&b.key, Some(&b)), (&c.key, Some(&c)), (&d.key, None)]);
        let page = page(live.iter(), past, Some(2), Revision(4));
        let seen: Vec<_> = page.records.iter().map(|record| (record.key.as_str(), record.modified.0)).collect();
        assert_eq!((seen, page.remaining), (vec![("/a", 9), ("/b", 2)], 1));
    }
}
