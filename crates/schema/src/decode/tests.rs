//! Cases of decoding: texts of errors, what is dropped, and what values become.

use serde_json::json;

use super::*;
use crate::facts::type_by_gvk;

fn schema(group: &str, version: &str, kind: &str) -> Schema<'static> {
    Schema::of(type_by_gvk(group, version, kind).unwrap())
}

/// The error text, or the object and its warnings as JSON.
fn read(kind: Schema<'_>, body: &str, mode: FieldValidation) -> String {
    match decode_object(body.as_bytes(), BodyFormat::Json, kind, mode) {
        Ok(decoded) => format!("{} {}", decoded.value, decoded.warnings.join("; ")).trim_end().to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn malformed_json_has_gos_texts() {
    let check = |body: &str, expected: &str| {
        let error = decode_untyped(body.as_bytes(), BodyFormat::Json).unwrap_err();
        assert_eq!(error.to_string(), expected, "{body:?}");
    };
    check("", "unexpected end of JSON input");
    check("{", "unexpected end of JSON input");
    check("x", "invalid character 'x' looking for beginning of value");
    check("{a", "invalid character 'a' looking for beginning of object key string");
    check("{\"a\" 1", "invalid character '1' after object key");
    check("{\"a\":1 2", "invalid character '2' after object key:value pair");
    check("{\"a\":1,}", "invalid character '}' looking for beginning of object key string");
    check("[1 2", "invalid character '2' after array element");
    check("[1,]", "invalid character ']' looking for beginning of value");
    check("{} x", "invalid character 'x' after top-level value");
    check("tru", "unexpected end of JSON input");
    check("trux", "invalid character 'x' in literal true (expecting 'e')");
    check("[-]", "invalid character ']' in numeric literal");
    check("[1.]", "invalid character ']' after decimal point in numeric literal");
    check("[1e]", "invalid character ']' in exponent of numeric literal");
    check("[01]", "invalid character '1' after array element");
    check("\"a\nb\"", "invalid character '\\n' in string literal");
    check("\"\\x\"", "invalid character 'x' in string escape code");
    check("\"\\u00g0\"", "invalid character 'g' in \\u hexadecimal character escape");
    check(&"[".repeat(600), "exceeded max depth");
}

#[test]
fn strings_are_decoded_as_go_does() {
    let check = |body: &[u8], expected: &str| {
        assert_eq!(decode_untyped(body, BodyFormat::Json).unwrap().value, json!(expected), "{body:?}");
    };
    check(br#""a\n\u00e4\ud83d\ude00""#, "a\nä😀");
    check(br#""\ud83dx""#, "\u{fffd}x");
    check(b"\"\xff\"", "\u{fffd}");
}

#[test]
fn untyped_documents_keep_everything_and_note_duplicates() {
    let body = br#"{"a":{"b":1,"b":2},"n":null,"f":1.0,"g":1.5,"a":3}"#;
    let read = decode_untyped(body, BodyFormat::Json).unwrap();
    assert_eq!(read.value, json!({"a": 3, "n": null, "f": 1, "g": 1.5}));
    assert_eq!(read.duplicates, ["duplicate field \"a.b\"", "duplicate field \"a\""]);
}

#[test]
fn unknown_and_duplicate_fields_in_document_order() {
    let body = r#"{"apiVersion":"apps/v1","kind":"Deployment","spec":{"unknown1":"v","unknownDup":{"x":1,"x":2},
        "unknownDup":"w","paused":true,"paused":false,
        "template":{"spec":{"containers":[{"name":"a","extra":1}]}}},"metadata":{"labels":{"a":"b","a":"c"}}}"#;
    let deployment = schema("apps", "v1", "Deployment");
    let problems = "unknown field \"spec.unknown1\", unknown field \"spec.unknownDup\", duplicate field \
                    \"spec.paused\", unknown field \"spec.template.spec.containers[0].extra\", duplicate field \
                    \"metadata.labels.a\"";
    assert_eq!(read(deployment, body, FieldValidation::Strict), format!("strict decoding error: {problems}"));
    let pruned = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"labels":{"a":"c"}},"spec":{"paused":false,"template":{"spec":{"containers":[{"name":"a"}]}}}}"#;
    assert_eq!(read(deployment, body, FieldValidation::Ignore), pruned);
    assert_eq!(read(deployment, body, FieldValidation::Warn), format!("{pruned} {}", problems.replace(", ", "; ")));
}

#[test]
fn wrong_types_have_gos_texts_and_hide_strictness_errors() {
    let deployment = schema("apps", "v1", "Deployment");
    let check = |spec: &str, expected: &str| {
        let body = format!(r#"{{"nothing":1,"spec":{spec}}}"#);
        assert_eq!(read(deployment, &body, FieldValidation::Strict), expected);
        let value: Value = serde_json::from_str(&body).unwrap();
        let again = validate_fields(value, deployment, FieldValidation::Strict).unwrap_err();
        assert_eq!(again.to_string(), expected);
    };
    let into = "into Go struct field";
    check(
        r#"{"replicas":"3"}"#,
        &format!("json: cannot unmarshal string {into} DeploymentSpec.spec.replicas of type int32"),
    );
    check(
        r#"{"replicas":1.5}"#,
        &format!("json: cannot unmarshal number 1.5 {into} DeploymentSpec.spec.replicas of type int32"),
    );
    check(
        r#"{"replicas":3000000000}"#,
        &format!("json: cannot unmarshal number 3000000000 {into} DeploymentSpec.spec.replicas of type int32"),
    );
    check(r#"{"paused":{}}"#, &format!("json: cannot unmarshal object {into} DeploymentSpec.spec.paused of type bool"));
    check(
        r#"{"template":[]}"#,
        &format!("json: cannot unmarshal array {into} DeploymentSpec.spec.template of type v1.PodTemplateSpec"),
    );
    check(
        r#"{"template":{"spec":{"containers":{"a":1}}}}"#,
        &format!("json: cannot unmarshal object {into} PodSpec.spec.template.spec.containers of type []v1.Container"),
    );
    check(
        r#"{"template":{"metadata":{"labels":{"a":1}}}}"#,
        &format!("json: cannot unmarshal number {into} ObjectMeta.spec.template.metadata.labels of type string"),
    );
    check("7", &format!("json: cannot unmarshal number {into} Deployment.spec of type v1.DeploymentSpec"));
    assert_eq!(
        read(deployment, r#"{"spec":{"replicas":1.0}}"#, FieldValidation::Warn),
        format!("json: cannot unmarshal number 1.0 {into} DeploymentSpec.spec.replicas of type int32")
    );
    assert_eq!(
        read(deployment, "[]", FieldValidation::Warn),
        "json: cannot unmarshal array into Go value of type v1.Deployment"
    );
}

#[test]
fn values_become_what_upstream_would_store() {
    let check = |kind: Schema<'_>, body: &str, expected: Value| {
        assert_eq!(read(kind, body, FieldValidation::Strict), expected.to_string());
        let value: Value = serde_json::from_str(body).unwrap();
        assert_eq!(validate_fields(value, kind, FieldValidation::Strict).unwrap().value, expected);
    };
    let pod = schema("", "v1", "Pod");
    check(
        pod,
        r#"{"metadata":{"creationTimestamp":null,"labels":{},"annotations":{"a":null}},
            "spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":0.5,"memory":"1024Mi"}},"args":[]}],
            "nodeName":null,"volumes":[{"name":"v","emptyDir":{}}]},"status":{}}"#,
        json!({"metadata": {"annotations": {"a": ""}}, "spec": {
            "containers": [{"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}],
            "volumes": [{"name": "v", "emptyDir": {}}]}, "status": {}}),
    );
    let lease = schema("coordination.k8s.io", "v1", "Lease");
    check(
        lease,
        r#"{"metadata":{"creationTimestamp":"2026-01-02T03:04:05+01:00"},"spec":{"renewTime":"2026-01-02T03:04:05Z"}}"#,
        json!({"metadata": {"creationTimestamp": "2026-01-02T02:04:05Z"}, "spec": {"renewTime": "2026-01-02T03:04:05.000000Z"}}),
    );
    check(
        schema("", "v1", "Secret"),
        "{\"data\":{\"a\":\"YQ==\",\"b\":null}}",
        json!({"data": {"a": "YQ==", "b": null}}),
    );
    let rules = r#"{"spec":{"rules":[{"http":{"paths":[]}}],"tls":[]}}"#;
    check(schema("networking.k8s.io", "v1", "Ingress"), rules, json!({"spec": {"rules": [{"http": {"paths": []}}]}}));
}

#[test]
fn values_that_do_not_parse() {
    let check = |kind: Schema<'_>, body: &str, expected: &str| {
        assert_eq!(read(kind, body, FieldValidation::Ignore), expected);
    };
    check(schema("", "v1", "Secret"), r#"{"data":{"a":"*"}}"#, "illegal base64 data at input byte 0");
    check(
        schema("", "v1", "Pod"),
        r#"{"metadata":{"creationTimestamp":"soon"}}"#,
        "parsing time \"soon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"soon\" as \"2006\"",
    );
    check(
        schema("", "v1", "Pod"),
        r#"{"spec":{"overhead":{"cpu":"lots"}}}"#,
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
}

#[test]
fn the_kind_is_found_without_reading_the_rest() {
    let check = |body: &str, format: BodyFormat, expected: &str| {
        let found = match peek_type_meta(body.as_bytes(), format) {
            Ok(meta) => format!("{} {}", meta.api_version, meta.kind),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "{body}");
    };
    check(r#"{"spec":{"kind":"No"},"kind":"Pod","apiVersion":"v1"}"#, BodyFormat::Json, "v1 Pod");
    check("apiVersion: v1\nkind: Pod\n", BodyFormat::Yaml, "v1 Pod");
    check("{}", BodyFormat::Json, " ");
    check(
        "nope",
        BodyFormat::Json,
        "couldn't get version/kind; json parse error: invalid character 'o' in literal null (expecting 'u')",
    );
    let error = peek_type_meta(b"nope", BodyFormat::Json).unwrap_err();
    assert_eq!(
        error.unrecognized("Pod", b"nope").message,
        "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: \
         invalid character 'o' in literal null (expecting 'u') (6e6f7065)"
    );
    let error = decode_object(br#"{"spec":1}"#, BodyFormat::Json, schema("", "v1", "Pod"), FieldValidation::Warn);
    assert_eq!(
        error.unwrap_err().bad_request("Pod", "v1").message,
        "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal number into Go struct field \
         Pod.spec of type v1.PodSpec"
    );
}

#[test]
fn yaml_is_read_like_json() {
    let body = b"kind: ConfigMap\ndata:\n  a: b\n  a: c\nnothing: 1\n";
    let kind = schema("", "v1", "ConfigMap");
    let decoded = decode_object(body, BodyFormat::Yaml, kind, FieldValidation::Warn).unwrap();
    assert_eq!(decoded.value, json!({"kind": "ConfigMap", "data": {"a": "c"}}));
    assert_eq!(decoded.warnings, ["line 4: key \"a\" already set in map", "unknown field \"nothing\""]);
    let strict = decode_object(body, BodyFormat::Yaml, kind, FieldValidation::Strict).unwrap_err();
    assert_eq!(
        strict.to_string(),
        "strict decoding error: yaml: unmarshal errors:\n  line 4: key \"a\" already set in map, unknown field \"nothing\""
    );
    assert_eq!(decode_untyped(b"1: a\n", BodyFormat::Yaml).unwrap().value, json!({"1": "a"}));
    assert!(decode_untyped(b"a: [", BodyFormat::Yaml).is_err());
    let json = decode_untyped(br#"{"a":"\ud83d\ude00","a":1}"#, BodyFormat::Yaml).unwrap();
    assert_eq!((json.value, json.duplicates), (json!({"a": 1}), vec!["duplicate field \"a\"".to_owned()]));
    assert_eq!(decode_untyped(b"{a: b}", BodyFormat::Yaml).unwrap().value, json!({"a": "b"}));
}

proptest::proptest! {
    #[test]
    fn documents_are_read_as_others_read_them(document in crate::testing::any_json(), text in ".*") {
        let mut document = document;
        document["text"] = text.into();
        let compact = decode_untyped(document.to_string().as_bytes(), BodyFormat::Json).unwrap();
        proptest::prop_assert_eq!(&compact.value, &document);
        let spaced = serde_json::to_vec_pretty(&document).unwrap();
        proptest::prop_assert_eq!(decode_untyped(&spaced, BodyFormat::Json).unwrap().value, document);
    }

    #[test]
    fn no_input_makes_the_decoder_panic(bytes in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..64)) {
        let ours = decode_untyped(&bytes, BodyFormat::Json).is_ok();
        let others = serde_json::from_slice::<Value>(&bytes).is_ok();
        // Where others insist on valid UTF-8, Go does not.
        proptest::prop_assert!(ours || !others);
    }
}

#[test]
fn custom_schemas_prune_and_keep_as_they_say() {
    let owned = crate::owned::OwnedSchema::from_structural(&json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"size": {"type": "integer"},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}));
    let body = r#"{"metadata":{"name":"a","bad":1},"spec":{"size":1,"more":2,"open":{"x":null}}}"#;
    assert_eq!(
        read(owned.schema(), body, FieldValidation::Warn),
        "{\"metadata\":{\"name\":\"a\"},\"spec\":{\"open\":{\"x\":null},\"size\":1}} unknown field \"metadata.bad\"; \
         unknown field \"spec.more\""
    );
}
