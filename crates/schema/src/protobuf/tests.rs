//! Every field has its place, and every value comes back.

use serde_json::json;

use super::*;
use crate::facts::{Content, types};
use crate::testing::Samples;

/// Names of the fields that slots lead to.
fn names_in(ty: &Type, slots: &[Slot]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for slot in slots {
        match slot.content {
            Content::Inline(inner) => names.extend(names_in(ty, inner)),
            Content::Field { index, .. } => names.push(ty.fields[usize::from(index)].name),
        }
    }
    names
}

fn decode(bytes: &[u8], ty: &'static Type) -> Result<Value, DecodeError> {
    decode_protobuf(bytes, Schema::of(ty)).map(|decoded| decoded.value)
}

/// A body of a kind, out of the message itself.
fn enveloped(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut writer = Writer(MAGIC.to_vec());
    writer
        .message(1, |meta| {
            meta.bytes(1, api_version.as_bytes());
            meta.bytes(2, kind.as_bytes());
            Ok::<_, EncodeError>(())
        })
        .unwrap();
    writer.bytes(2, raw);
    writer.0
}

#[test]
fn every_field_has_exactly_one_number() {
    let mut without_message = Vec::new();
    let mut without_number = Vec::new();
    for ty in types() {
        let Some(slots) = ty.message else {
            without_message.push(ty.short_name());
            continue;
        };
        let mut names = names_in(ty, slots);
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b), "{} has a field twice", ty.name);
        for field in ty.fields.iter().filter(|field| !names.contains(&field.name)) {
            // The envelope has what says the kind of a whole object.
            let in_envelope = matches!(field.name, "apiVersion" | "kind") && !ty.kinds.is_empty();
            if !in_envelope {
                without_number.push((ty.short_name(), field.name));
            }
        }
    }
    // What `/version` answers is no API object.
    assert_eq!(without_message, ["Info"]);
    assert_eq!(without_number, [("", ""); 0]);
}

#[test]
fn slots_are_sorted_at_every_level() {
    fn check(ty: &Type, slots: &[Slot]) {
        assert!(slots.is_sorted_by(|a, b| a.number < b.number), "{}", ty.name);
        for slot in slots {
            if let Content::Inline(inner) = slot.content {
                check(ty, inner);
            }
        }
    }
    for ty in types() {
        check(ty, ty.message.unwrap_or_default());
    }
}

#[test]
fn any_object_of_any_kind_comes_back() {
    for (seed, ty) in (0u64..3).flat_map(|seed| types().iter().map(move |ty| (seed, *ty))) {
        // Watch events travel in frames, not in envelopes.
        let Some(kind) = ty.kinds.first().filter(|kind| kind.kind != "WatchEvent") else { continue };
        let mut value = Samples::new(seed).object(ty);
        let group_version = if kind.group.is_empty() { String::new() } else { format!("{}/", kind.group) };
        value["apiVersion"] = format!("{group_version}{}", kind.version).into();
        value["kind"] = kind.kind.into();
        let encoded = encode_protobuf(&value).unwrap();
        assert_eq!(decode(&encoded, ty).unwrap(), value, "{} with seed {seed}", ty.name);
    }
}

#[test]
fn zeroes_stay_only_where_json_has_them() {
    let check = |api_version: &str, kind: &str, raw: &[u8], expected: Value| {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let ty = type_by_gvk(group, version, kind).unwrap();
        let mut value = decode(&enveloped(api_version, kind, raw), ty).unwrap();
        let object = value.as_object_mut().unwrap();
        assert_eq!((object.remove("apiVersion"), object.remove("kind")), (Some(api_version.into()), Some(kind.into())));
        assert_eq!(value, expected, "{kind}");
    };
    // spec.replicas is a pointer, minReadySeconds and paused are not.
    check("apps/v1", "Deployment", b"\x12\x06\x08\x00\x28\x00\x38\x00", json!({"spec": {"replicas": 0}}));
    // metadata: every text is sent; no time is an empty message.
    check("v1", "Namespace", b"\x0a\x09\x0a\x01n\x12\x00\x38\x00\x42\x00", json!({"metadata": {"name": "n"}}));
}

#[test]
fn what_is_no_object_is_refused_in_upstreams_words() {
    let pod = type_by_gvk("", "v1", "Pod").unwrap();
    let check = |body: &[u8], expected: &str| {
        assert_eq!(decode(body, pod), Err(DecodeError::Type(expected.to_owned())), "{body:?}");
    };
    check(b"", "empty data");
    check(b"{}", "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]");
    check(b"k8s\0", "empty body");
    check(b"k8s\0\x12\x05", "unexpected EOF");
    check(&enveloped("v1", "Pod", b"\x0a\x02\x0a\x05"), "unexpected EOF");
    check(&enveloped("v1", "Pod", b"\x08\x01"), "proto: wrong wireType = 0 for field metadata");
    check(&enveloped("v1", "Pod", b"\x0b\x0c"), "proto: illegal wireType 3");
    let schema = Schema::untyped();
    assert!(matches!(decode_protobuf(&enveloped("example.com/v1", "Thing", b""), schema), Err(DecodeError::Type(_))));
}

#[test]
fn unknown_fields_and_repeated_ones_are_read_as_upstream_does() {
    let namespace = type_by_gvk("", "v1", "Namespace").unwrap();
    let check = |raw: &[u8], expected: Value| {
        let mut value = decode(&enveloped("", "", raw), namespace).unwrap();
        assert_eq!(value.take(), expected, "{raw:?}");
    };
    check(b"\xfa\x07\x01x\xf8\x07\x01\xf9\x0712345678\xfd\x071234", json!({}));
    check(b"\x0a\x03\x0a\x01a\x0a\x03\x1a\x01b", json!({"metadata": {"name": "a", "namespace": "b"}}));
    check(b"\x0a\x06\x0a\x01a\x0a\x01b", json!({"metadata": {"name": "b"}}));
    check(b"\x0a\x05\x5a\x03\x0a\x01k", json!({"metadata": {"labels": {"k": ""}}}));
}

#[test]
fn depth_is_bounded() {
    let crd = type_by_name("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").unwrap();
    let nested = |levels: usize| {
        let mut bytes = Vec::new();
        for _ in 0..levels {
            let mut writer = Writer::default();
            writer.bytes(28, &bytes);
            bytes = writer.0;
        }
        let mut object = Map::new();
        decoding::read_message(&bytes, crd, crd.message.unwrap(), &mut object)
    };
    assert_eq!(nested(500), Ok(()));
    assert_eq!(nested(501), Err(WireError::new("exceeded max depth")));
}

#[test]
fn kinds_without_a_message_say_so() {
    assert!(has_protobuf("", "v1", "PodList"));
    assert!(has_protobuf("", "v1", "Status"));
    assert!(has_protobuf("apps", "v1", "DeleteOptions"));
    assert!(!has_protobuf("example.com", "v1", "Thing"));
    assert!(!has_protobuf("meta.k8s.io", "v1", "Table"));
    let error = encode_protobuf(&json!({"apiVersion": "example.com/v1", "kind": "Thing"})).unwrap_err();
    assert!(matches!(error, EncodeError::NoMessage { .. }));
    let error = encode_protobuf(&json!({"apiVersion": "v1", "kind": "Pod", "spec": {"priority": "x"}})).unwrap_err();
    assert_eq!(error, EncodeError::Mismatch { field: "spec.priority".to_owned() });
}

#[test]
fn metadata_alone_is_encoded() {
    let item = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "a"}});
    assert_eq!(
        encode_protobuf(&item).unwrap(),
        [enveloped("meta.k8s.io/v1", "PartialObjectMetadata", b"\x0a\x03\x0a\x01a"), b"\x1a\x00\x22\x00".to_vec(),]
            .concat()
    );
    let list = json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "5"},
        "items": [item],
    });
    assert_eq!(
        encode_protobuf(&list).unwrap(),
        [
            enveloped("meta.k8s.io/v1", "PartialObjectMetadataList", b"\x0a\x03\x12\x015\x12\x05\x0a\x03\x0a\x01a"),
            b"\x1a\x00\x22\x00".to_vec(),
        ]
        .concat()
    );
}

#[test]
fn watch_events_are_framed() {
    assert_eq!(protobuf_watch_frame("ADDED", b"xyz"), b"\0\0\0\x0e\x0a\x05ADDED\x12\x05\x0a\x03xyz");
    let large = vec![b'x'; 300];
    let frame = protobuf_watch_frame("BOOKMARK", &large);
    let event = type_by_gvk("", "v1", "WatchEvent").unwrap();
    assert_eq!(frame[..4], u32::try_from(frame.len() - 4).unwrap().to_be_bytes());
    let json = protobuf_watch_frame("DELETED", br#"{"kind":"Pod"}"#);
    let mut object = Map::new();
    decoding::read_message(&json[4..], event, event.message.unwrap(), &mut object).unwrap();
    assert_eq!(Value::Object(object), json!({"type": "DELETED", "object": {"kind": "Pod"}}));
}
