//! From an object in memory to the bytes that are stored, with the place for the revision.
//!
//! Invariant: the template of an object with metadata has exactly one `resourceVersion`, where the store puts the digits.

use bytes::Bytes;
use kedge_store::{Record, Revision, Template};
use serde_json::{Map, Value};

/// The bytes of an object as they go into the store.
pub(crate) fn template(object: &Value) -> Template {
    let mut bytes = Vec::with_capacity(1024);
    let mut splice_at = None;
    bytes.push(b'{');
    for (index, (key, value)) in fields(object).enumerate() {
        separate(&mut bytes, index);
        write_key(&mut bytes, key);
        match value {
            Value::Object(metadata) if key == "metadata" => splice_at = Some(write_metadata(&mut bytes, metadata)),
            value => write_value(&mut bytes, value),
        }
    }
    bytes.push(b'}');
    Template { bytes: Bytes::from(bytes), splice_at }
}

/// Whether an object is the one that is stored, apart from its revision.
pub(crate) fn is_unchanged(template: &Template, record: &Record) -> bool {
    let Some(at) = template.splice_at else { return template.bytes == record.value };
    if record.splice_at != Some(at) {
        return false;
    }
    let (at, digits) = (at as usize, digits(record.modified));
    let (old, new) = (&record.value, &template.bytes);
    old.len() == new.len() + digits && old[..at] == new[..at] && old[at + digits..] == new[at..]
}

fn digits(revision: Revision) -> usize {
    revision.0.checked_ilog10().unwrap_or(0) as usize + 1
}

fn fields(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flatten()
}

fn write_metadata(bytes: &mut Vec<u8>, metadata: &Map<String, Value>) -> u32 {
    bytes.extend_from_slice(b"{");
    let mut count = 0;
    for (key, value) in metadata.iter().filter(|(key, _)| *key != "resourceVersion") {
        separate(bytes, count);
        count += 1;
        write_key(bytes, key);
        write_value(bytes, value);
    }
    separate(bytes, count);
    bytes.extend_from_slice(b"\"resourceVersion\":\"");
    let at = bytes.len();
    bytes.extend_from_slice(b"\"}");
    u32::try_from(at).expect("request bodies are far smaller than 4 GiB")
}

fn separate(bytes: &mut Vec<u8>, index: usize) {
    if index > 0 {
        bytes.push(b',');
    }
}

fn write_key(bytes: &mut Vec<u8>, key: &str) {
    serde_json::to_writer(&mut *bytes, key).expect("writing to memory does not fail");
    bytes.push(b':');
}

fn write_value(bytes: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(&mut *bytes, value).expect("writing JSON values to memory does not fail");
}

#[cfg(test)]
mod tests {
    use kedge_store::Key;
    use serde_json::json;

    use super::*;

    fn record(template: &Template, revision: u64) -> Record {
        let revision = Revision(revision);
        let value = template.render(revision);
        Record { key: Key::new("/a"), value, splice_at: template.splice_at, created: revision, modified: revision }
    }

    #[test]
    fn the_revision_goes_into_the_metadata() {
        let object = json!({"apiVersion": "v1", "metadata": {"name": "a", "resourceVersion": "5"}, "spec": {"x": [1]}});
        let rendered: Value = serde_json::from_slice(&template(&object).render(Revision(12))).unwrap();
        let expected =
            json!({"apiVersion": "v1", "metadata": {"name": "a", "resourceVersion": "12"}, "spec": {"x": [1]}});
        assert_eq!(rendered, expected);
        let empty = template(&json!({"metadata": {}}));
        assert_eq!(&empty.render(Revision(3))[..], br#"{"metadata":{"resourceVersion":"3"}}"#);
    }

    #[test]
    fn only_the_revision_may_differ() {
        let (a, b) = (template(&json!({"metadata": {"name": "a"}})), template(&json!({"metadata": {"name": "b"}})));
        assert!(is_unchanged(&a, &record(&a, 9)));
        assert!(is_unchanged(&a, &record(&a, 1000)));
        assert!(!is_unchanged(&a, &record(&b, 9)));
        assert!(!is_unchanged(&a, &record(&template(&json!({"metadata": {"name": "a"}, "x": 1})), 9)));
    }
}
