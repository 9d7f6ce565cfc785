//! Answers in protobuf: lists and watch events made of objects one at a time.
//!
//! The messages themselves are the schema crate's. Invariant: an item or event is encoded on its own, so that no more than
//! one decoded object is in memory, and others get their turn between the items of a long list.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use kedge_meta::ApiStatus;
use serde_json::Value;

use crate::body::Body;
use crate::negotiate::Encoding;
use crate::reply;

/// Field numbers and wire types: of an envelope's raw bytes and of a list's items, which happen to be the same.
const FIELD_2: u8 = 0x12;

/// How many items are encoded before others get their turn.
const TURN: usize = 32;

/// A list out of itself without its items, and them.
pub(crate) async fn list(head: &Value, items: impl Iterator<Item = Bytes>) -> Response<Body> {
    match encode_list(head, items).await {
        Ok(pieces) => reply::respond(StatusCode::OK, reply::PROTOBUF, Body::pieces(pieces)),
        Err(error) => {
            tracing::error!(%error, "a list cannot be encoded as protobuf");
            reply::error(&ApiStatus::internal(error), Encoding::Json { pretty: false })
        }
    }
}

/// Appends an event of a watch with its length.
pub(crate) fn write_event(bytes: &mut BytesMut, kind: &str, object: &Value) {
    match kedge_schema::encode_protobuf(object) {
        Ok(object) => bytes.extend_from_slice(&kedge_schema::protobuf_watch_frame(kind, &object)),
        Err(error) => tracing::error!(%error, "an event cannot be encoded as protobuf"),
    }
}

/// The head gives the envelope; each item is appended to what the envelope holds.
async fn encode_list(
    head: &Value,
    items: impl Iterator<Item = Bytes>,
) -> Result<VecDeque<Bytes>, kedge_schema::EncodeError> {
    let envelope = kedge_schema::encode_protobuf(head)?;
    let Some((before, raw, after)) = split(&envelope) else { return Ok(VecDeque::from([envelope.into()])) };
    let mut pieces: VecDeque<Bytes> = VecDeque::new();
    let mut length = raw.len();
    for (index, item) in items.enumerate() {
        if index % TURN == TURN - 1 {
            tokio::task::yield_now().await;
        }
        let object: Value = serde_json::from_slice(&item).unwrap_or_default();
        let encoded = kedge_schema::encode_protobuf(&object)?;
        let message = split(&encoded).map_or(&[][..], |(_, raw, _)| raw);
        let mut piece = BytesMut::with_capacity(message.len() + 8);
        piece.extend_from_slice(&[FIELD_2]);
        write_varint(&mut piece, message.len());
        piece.extend_from_slice(message);
        length += piece.len();
        pieces.push_back(piece.freeze());
    }
    let mut first = BytesMut::from(before);
    first.extend_from_slice(&[FIELD_2]);
    write_varint(&mut first, length);
    first.extend_from_slice(raw);
    pieces.push_front(first.freeze());
    pieces.push_back(Bytes::copy_from_slice(after));
    Ok(pieces)
}

/// What stands before, in and after the raw bytes of an envelope.
fn split(envelope: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    const MAGIC: usize = 4;
    const FIELD_1: u8 = 0x0a;
    if envelope.get(MAGIC) != Some(&FIELD_1) {
        return None;
    }
    let (length, at) = read_varint(envelope, MAGIC + 1)?;
    let raw_key = at + length;
    if envelope.get(raw_key) != Some(&FIELD_2) {
        return None;
    }
    let (length, at) = read_varint(envelope, raw_key + 1)?;
    Some((&envelope[..raw_key], envelope.get(at..at + length)?, &envelope[at + length..]))
}

fn read_varint(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let (mut value, mut shift) = (0usize, 0u32);
    loop {
        let byte = *bytes.get(at)?;
        at += 1;
        value |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
        shift += 7;
    }
}

fn write_varint(bytes: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        bytes.extend_from_slice(&[(value & 0x7f) as u8 | 0x80]);
        value >>= 7;
    }
    bytes.extend_from_slice(&[value as u8]);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_list_is_the_same_whole_or_in_pieces() {
        let item = |name: String| json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "resourceVersion": "7"}, "data": {"k": "x".repeat(300)}});
        for count in [0, 2, 100] {
            let items: Vec<Value> = (0..count).map(|index| item(format!("a{index}"))).collect();
            let head = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}});
            let texts = items.iter().map(|item| Bytes::from(item.to_string()));
            let pieces = encode_list(&head, texts).await.unwrap();
            let joined: Vec<u8> = pieces.iter().flatten().copied().collect();
            let mut list = head;
            list["items"] = items.clone().into();
            assert_eq!(joined, kedge_schema::encode_protobuf(&list).unwrap());
        }
    }
}
