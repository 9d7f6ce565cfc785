//! Where keys and values of the store lie in the etcd. Pure.
//!
//! A value in etcd is the template's bytes, without the revision, and a trailer that says where the revision goes: a line
//! end and sixteen blanks, tabs and line ends, which are two bits each. JSON may end in such characters, so whoever reads the
//! key with other tools finds valid JSON. Invariant: what [`Layout::key_of`] gives for a key, [`Layout::read_key`] turns back.

use bytes::{BufMut, Bytes, BytesMut};
use kedge_store::{Key, Record, Revision, Template};

use crate::rpc::KeyValue;

/// The four characters that are two bits each.
const DIGITS: [u8; 4] = *b" \t\r\n";
const DIGIT_COUNT: usize = 16;
const TRAILER: usize = 1 + DIGIT_COUNT;
/// Says that no revision goes into the value.
const NOWHERE: u32 = u32::MAX;

/// Below the root: keys of the store's own that are no records.
const INTERNAL: &str = "/.kedge/";

/// The mapping of the store's keys to etcd's.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// What every key of the store begins with, and is replaced by `root`.
    within: String,
    /// Below this everything lies in etcd. Without a `/` at its end.
    root: String,
}

impl Layout {
    pub(crate) fn new(within: &str, root: &str) -> Self {
        let root = root.trim_matches('/');
        Self { within: within.to_owned(), root: if root.is_empty() { String::new() } else { format!("/{root}") } }
    }

    /// The key in etcd; none for one that has no place there.
    pub(crate) fn key_of(&self, key: &Key) -> Option<Bytes> {
        let rest = key.as_str().strip_prefix(&self.within)?;
        let placed = rest.starts_with('/') && !rest.starts_with(INTERNAL);
        placed.then(|| Bytes::from(format!("{}{rest}", self.root)))
    }

    /// The store's key; none for the store's own keys and for those that are no text.
    pub(crate) fn read_key(&self, key: &[u8]) -> Option<Key> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.root)?;
        let is_record = rest.starts_with('/') && !rest.starts_with(INTERNAL);
        is_record.then(|| Key::new(format!("{}{rest}", self.within)))
    }

    /// A key of the store's own.
    pub(crate) fn internal(&self, name: &str) -> Bytes {
        Bytes::from(format!("{}{INTERNAL}{name}", self.root))
    }

    /// The range of everything below the root, its end excluded.
    pub(crate) fn range(&self) -> (Bytes, Bytes) {
        // '0' follows '/'.
        (Bytes::from(format!("{}/", self.root)), Bytes::from(format!("{}0", self.root)))
    }

    /// A record as it stands in etcd; none where it is none of ours.
    pub(crate) fn read(&self, kv: &KeyValue) -> Option<Record> {
        let key = self.read_key(&kv.key)?;
        let modified = revision(kv.mod_revision);
        let (value, splice_at) = read_value(&kv.value, modified);
        Some(Record { key, value, splice_at, created: revision(kv.create_revision), modified })
    }
}

/// A revision as etcd counts: a signed number that is never negative.
pub(crate) fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

/// A revision in etcd's type.
pub(crate) fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// A value as it is written.
pub(crate) fn write_value(template: &Template) -> Bytes {
    let mut written = BytesMut::with_capacity(template.bytes.len() + TRAILER);
    written.extend_from_slice(&template.bytes);
    written.put_u8(b'\n');
    let offset = template.splice_at.unwrap_or(NOWHERE);
    for digit in 0..DIGIT_COUNT {
        written.put_u8(DIGITS[(offset >> (2 * digit)) as usize & 3]);
    }
    written.freeze()
}

/// A value as it was written at `modified`, with the revision in its place. Values that others wrote are left as they are.
fn read_value(written: &Bytes, modified: Revision) -> (Bytes, Option<u32>) {
    let Some((length, splice_at)) = read_trailer(written) else {
        // A copy: the slice would keep the whole received message alive.
        return (Bytes::copy_from_slice(written), None);
    };
    let template = Template { bytes: Bytes::copy_from_slice(&written[..length]), splice_at };
    (template.render(modified), splice_at)
}

fn read_trailer(written: &[u8]) -> Option<(usize, Option<u32>)> {
    let length = written.len().checked_sub(TRAILER)?;
    let digits = written[length..].strip_prefix(b"\n")?;
    let mut offset = 0_u32;
    for (at, digit) in digits.iter().enumerate() {
        let bits = DIGITS.iter().position(|known| known == digit)? as u32;
        offset |= bits << (2 * at);
    }
    match offset {
        NOWHERE => Some((length, None)),
        offset if offset as usize <= length => Some((length, Some(offset))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_there_and_back() {
        let layout = Layout::new("/registry", "/clusters/one/");
        let key = Key::new("/registry/pods/default/web-0");
        let there = layout.key_of(&key).expect("it has a place");
        assert_eq!(there, "/clusters/one/pods/default/web-0");
        assert_eq!(layout.read_key(&there), Some(key));
        let (start, end) = layout.range();
        assert!(start <= there && there < end);
        assert!(start <= layout.internal("barrier") && layout.internal("barrier") < end);
        assert_eq!(layout.read_key(&layout.internal("barrier")), None);
        for elsewhere in ["/other/x", "/registryx/y", "/registry/.kedge/barrier"] {
            assert_eq!(layout.key_of(&Key::new(elsewhere)), None, "{elsewhere}");
        }
        assert_eq!(layout.read_key(b"/clusters/one"), None);
        assert_eq!(Layout::new("/registry", "/registry").read_key(b"/registry/a"), Some(Key::new("/registry/a")));
    }

    #[test]
    fn values_carry_the_place_of_the_revision() {
        for splice_at in [None, Some(0), Some(7), Some(9)] {
            let template = Template { bytes: Bytes::from_static(br#"{"rv":""}"#), splice_at };
            let written = write_value(&template);
            let json = std::str::from_utf8(&written).expect("it is text");
            assert_eq!(json.trim_end(), r#"{"rv":""}"#, "other tools read what was written");
            assert_eq!(read_value(&written, Revision(42)), (template.render(Revision(42)), splice_at));
        }
    }

    #[test]
    fn values_of_others_are_left_as_they_are() {
        let far = write_value(&Template { bytes: Bytes::from_static(b"{}"), splice_at: Some(3) });
        for foreign in [&b"{}"[..], b"", b"\n", b"{}\n                x", &far] {
            let foreign = Bytes::copy_from_slice(foreign);
            assert_eq!(read_value(&foreign, Revision(42)), (foreign.clone(), None));
        }
    }
}
