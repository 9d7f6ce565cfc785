//! How a change lies on disk: one row for each change, named by its revision and its key. Pure.
//!
//! Rows are appended in the order of revisions, so the live state is the newest row of each key, and the history needs no
//! second copy: a replaced row stays until the change that replaced it leaves the history. Invariant: `decode` gives back
//! what `encode` was given, and refuses everything else.

use bytes::Bytes;
use kedge_store::{Change, ChangeKind, Entry, Key, Record, Replayed, Revision};

const DELETED: u8 = 1;
const SPLICED: u8 = 2;
const EXPIRES: u8 = 4;

/// The name of a row: the revision in big endian, so that rows lie in its order, then the key.
pub(crate) fn encode_name(revision: Revision, key: &Key, name: &mut Vec<u8>) {
    name.clear();
    name.extend_from_slice(&revision.0.to_be_bytes());
    name.extend_from_slice(key.as_str().as_bytes());
}

/// How many bytes [`encode`] writes.
pub(crate) fn encoded_len(entry: &Entry) -> usize {
    if entry.change.kind == ChangeKind::Deleted {
        return 1;
    }
    let record = &entry.change.record;
    9 + record.splice_at.map_or(0, |_| 4) + entry.expires.map_or(0, |_| 8) + record.value.len()
}

/// Writes a row into `row`, which has [`encoded_len`] bytes.
pub(crate) fn encode(entry: &Entry, row: &mut [u8]) {
    let Change { kind, record, .. } = &*entry.change;
    if *kind == ChangeKind::Deleted {
        row[0] = DELETED;
        return;
    }
    let splice = record.splice_at.map(u32::to_le_bytes);
    let expires = entry.expires.map(u64::to_le_bytes);
    row[0] = splice.map_or(0, |_| SPLICED) | expires.map_or(0, |_| EXPIRES);
    let mut at = 1;
    let parts = [&record.created.0.to_le_bytes()[..], splice.as_ref().map_or(&[], |bytes| &bytes[..])];
    for part in parts.into_iter().chain([expires.as_ref().map_or(&[][..], |bytes| &bytes[..]), &record.value]) {
        row[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
}

/// Reads a row; `None` where it is not one.
pub(crate) fn decode(name: &[u8], row: &[u8]) -> Option<Replayed> {
    let (revision, key) = name.split_first_chunk::<8>()?;
    let revision = Revision(u64::from_be_bytes(*revision));
    let key = Key::new(std::str::from_utf8(key).ok()?);
    let (flags, rest) = row.split_first()?;
    if *flags == DELETED {
        return rest.is_empty().then_some(Replayed::Delete { key, revision });
    }
    if flags & !(SPLICED | EXPIRES) != 0 {
        return None;
    }
    let (created, mut rest) = rest.split_first_chunk::<8>()?;
    let mut splice_at = None;
    if flags & SPLICED != 0 {
        let (splice, after) = rest.split_first_chunk::<4>()?;
        (splice_at, rest) = (Some(u32::from_le_bytes(*splice)), after);
    }
    let mut expires = None;
    if flags & EXPIRES != 0 {
        let (due, after) = rest.split_first_chunk::<8>()?;
        (expires, rest) = (Some(u64::from_le_bytes(*due)), after);
    }
    let value = Bytes::copy_from_slice(rest);
    let created = Revision(u64::from_le_bytes(*created));
    Some(Replayed::Put { record: Record { key, value, splice_at, created, modified: revision }, expires })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn entry(kind: ChangeKind, value: &'static str, splice_at: Option<u32>, expires: Option<u64>) -> Entry {
        let (created, modified) = (Revision(7), Revision(300));
        let record =
            Record {
                key: Key::new("/r/ä"), value: Bytes::from_static(value.as_bytes()), splice_at, created, modified
            };
        Entry { change: Arc::new(Change { kind, revision: modified, record, previous: None }), expires }
    }

    fn check(entry: &Entry) {
        let (mut name, mut row) = (Vec::new(), vec![0; encoded_len(entry)]);
        encode_name(entry.change.revision, &entry.change.record.key, &mut name);
        encode(entry, &mut row);
        match decode(&name, &row).expect("it decodes") {
            Replayed::Put { record, expires } => {
                assert_ne!(entry.change.kind, ChangeKind::Deleted);
                assert_eq!((&record, expires), (&entry.change.record, entry.expires));
            }
            Replayed::Delete { key, revision } => {
                assert_eq!(entry.change.kind, ChangeKind::Deleted);
                assert_eq!((&key, revision), (&entry.change.record.key, entry.change.revision));
            }
        }
    }

    #[test]
    fn a_row_reads_back() {
        for splice_at in [None, Some(0), Some(3)] {
            for expires in [None, Some(u64::MAX)] {
                check(&entry(ChangeKind::Created, "value", splice_at, expires));
                check(&entry(ChangeKind::Modified, "", splice_at, expires));
            }
        }
        check(&entry(ChangeKind::Deleted, "last", None, None));
    }

    #[test]
    fn what_is_no_row_is_refused() {
        let name = [0, 0, 0, 0, 0, 0, 0, 1, b'a'];
        assert!(decode(&name, &[DELETED]).is_some());
        for (name, row) in [
            (&name[..7], &[DELETED][..]),
            (&name[..], &[][..]),
            (&name[..], &[DELETED, 0][..]),
            (&name[..], &[8, 0, 0, 0, 0, 0, 0, 0, 0][..]),
            (&name[..], &[0, 0, 0][..]),
            (&name[..], &[SPLICED, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2][..]),
            (&[0, 0, 0, 0, 0, 0, 0, 1, 0xff][..], &[DELETED][..]),
        ] {
            assert!(decode(name, row).is_none(), "{name:?} {row:?}");
        }
    }
}
