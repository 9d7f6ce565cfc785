//! From bytes to an object: types are checked, unknown fields dropped and values made canonical in one pass.
//!
//! What comes out is what upstream's decoder would have stored, as far as the schema tells: null is unset, and optional
//! lists and maps that are empty are left out. The invariant: what the schema does not name never comes out.

use serde_json::{Map, Value};

use crate::leaf;
use crate::lexer::{Lexer, MAX_DEPTH};
use crate::problems::{DecodeError, FieldValidation, Path, Problems};
use crate::schema::{Schema, Shape, Struct};
use crate::validate::validate_fields;
use crate::yaml;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// JSON.
    Json,
    /// YAML, one document.
    Yaml,
}

/// An object that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object.
    pub value: Value,
    /// What the client is to be warned of.
    pub warnings: Vec<String>,
}

/// A document that was read without a type.
#[derive(Debug, Clone, PartialEq)]
pub struct Untyped {
    /// The document.
    pub value: Value,
    /// Texts such as `duplicate field "spec.replicas"`.
    pub duplicates: Vec<String>,
}

/// `apiVersion` and `kind` of a body; empty where they are not set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TypeMeta {
    /// `apps/v1`
    pub api_version: String,
    /// `Deployment`
    pub kind: String,
}

/// Reads an object of a known type.
pub fn decode_object(
    bytes: &[u8],
    format: BodyFormat,
    schema: Schema<'_>,
    mode: FieldValidation,
) -> Result<Decoded, DecodeError> {
    if format == BodyFormat::Yaml {
        let document = yaml::read(bytes)?;
        let mut decoded = validate_fields(document.value, schema, mode)?;
        match mode {
            FieldValidation::Strict if !document.duplicates.is_empty() => {
                return Err(DecodeError::Strict(document.duplicates));
            }
            FieldValidation::Warn => decoded.warnings.splice(0..0, document.duplicates).for_each(drop),
            _ => {}
        }
        return Ok(decoded);
    }
    let mut decoder = Decoder { lexer: Lexer::new(bytes), problems: Problems::default(), depth: 0 };
    let value = decoder.value(schema, &Path::ROOT)?;
    decoder.lexer.finish()?;
    Ok(Decoded { value, warnings: decoder.problems.finish(mode)? })
}

/// Reads a document of any kind, such as a patch.
pub fn decode_untyped(bytes: &[u8], format: BodyFormat) -> Result<Untyped, DecodeError> {
    match format {
        BodyFormat::Yaml => yaml::read(bytes),
        BodyFormat::Json => {
            let decoded = decode_object(bytes, format, Schema::untyped(), FieldValidation::Warn)?;
            Ok(Untyped { value: decoded.value, duplicates: decoded.warnings })
        }
    }
}

/// Finds out which kind a body says it is, reading nothing else of it.
pub fn peek_type_meta(bytes: &[u8], format: BodyFormat) -> Result<TypeMeta, DecodeError> {
    let parse_error =
        |error: DecodeError| DecodeError::Syntax(format!("couldn't get version/kind; json parse error: {error}"));
    if format == BodyFormat::Yaml {
        let document = yaml::read(bytes)?;
        let text = |key: &str| document.value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        return Ok(TypeMeta { api_version: text("apiVersion"), kind: text("kind") });
    }
    let mut decoder = Decoder { lexer: Lexer::new(bytes), problems: Problems::default(), depth: 0 };
    let meta = decoder.type_meta().map_err(parse_error)?;
    decoder.lexer.finish().map_err(parse_error)?;
    Ok(meta)
}

struct Decoder<'b> {
    lexer: Lexer<'b>,
    problems: Problems,
    depth: usize,
}

impl Decoder<'_> {
    fn value(&mut self, schema: Schema<'_>, path: &Path<'_>) -> Result<Value, DecodeError> {
        match self.lexer.peek() {
            Some(b'{') => self.nested(|decoder| decoder.object(schema, path)),
            Some(b'[') => self.nested(|decoder| decoder.list(schema, path)),
            Some(b'"') => {
                let text = self.lexer.string()?;
                Ok(self.scalar(Value::String(text), None, schema, path))
            }
            Some(b'-' | b'0'..=b'9') => {
                let number = self.lexer.number()?;
                Ok(self.scalar(number.value, Some(number.text), schema, path))
            }
            Some(b't' | b'f') => {
                let word = self.lexer.word()?;
                Ok(self.scalar(word, None, schema, path))
            }
            Some(b'n') => self.lexer.word(),
            _ => Err(self.lexer.unexpected("looking for beginning of value")),
        }
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Result<Value, DecodeError>) -> Result<Value, DecodeError> {
        self.lexer.bump();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(DecodeError::Syntax("exceeded max depth".to_owned()));
        }
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn scalar(&mut self, mut value: Value, text: Option<&str>, schema: Schema<'_>, path: &Path<'_>) -> Value {
        leaf::check(&mut value, text, schema, path, &mut self.problems);
        value
    }

    fn object(&mut self, schema: Schema<'_>, path: &Path<'_>) -> Result<Value, DecodeError> {
        match schema.shape() {
            Shape::Struct(fields) => self.structure(fields, path),
            Shape::Map(values) => self.map(values, path, true),
            Shape::Untyped => self.map(schema, path, true),
            Shape::Json => self.map(schema, path, false),
            _ => {
                self.problems.mismatch(path, "object", schema);
                self.map(Schema::untyped(), path, false)
            }
        }
    }

    fn structure(&mut self, fields: Struct<'_>, path: &Path<'_>) -> Result<Value, DecodeError> {
        let mut object = Map::new();
        let mut emptied = Vec::new();
        let mut first = true;
        while let Some(key) = self.lexer.next_key(first)? {
            first = false;
            let Some((name, field)) = fields.field(&key) else {
                self.unknown(fields, key, &mut object, path)?;
                continue;
            };
            if object.contains_key(name) || emptied.contains(&name) {
                self.problems.duplicate(path, name);
            }
            let value = self.value(field, &path.field(name, fields.go_struct()))?;
            if is_unset(name, &value, field) {
                object.remove(name);
                emptied.push(name);
            } else {
                object.insert(key, value);
            }
        }
        Ok(Value::Object(object))
    }

    fn unknown(
        &mut self,
        fields: Struct<'_>,
        key: String,
        object: &mut Map<String, Value>,
        path: &Path<'_>,
    ) -> Result<(), DecodeError> {
        if fields.keeps_unknown() {
            let value = self.value(Schema::untyped(), &path.key(&key))?;
            if object.insert(key.clone(), value).is_some() {
                self.problems.duplicate(path, &key);
            }
        } else {
            self.problems.unknown(path, &key);
            self.skip()?;
        }
        Ok(())
    }

    /// Reads what nobody wants, for its syntax only.
    fn skip(&mut self) -> Result<(), DecodeError> {
        let mut unheard = std::mem::take(&mut self.problems);
        let skipped = self.value(Schema::untyped(), &Path::ROOT).map(drop);
        std::mem::swap(&mut self.problems, &mut unheard);
        skipped
    }

    fn map(&mut self, values: Schema<'_>, path: &Path<'_>, tracked: bool) -> Result<Value, DecodeError> {
        let mut object = Map::new();
        let mut first = true;
        while let Some(key) = self.lexer.next_key(first)? {
            first = false;
            if tracked && object.contains_key(&key) {
                self.problems.duplicate(path, &key);
            }
            let value = self.value(values, &path.key(&key))?;
            object.insert(key, unless_null(value, values));
        }
        Ok(Value::Object(object))
    }

    fn list(&mut self, schema: Schema<'_>, path: &Path<'_>) -> Result<Value, DecodeError> {
        let items = match schema.shape() {
            Shape::List(items) => items,
            Shape::Untyped | Shape::Json => schema,
            _ => {
                self.problems.mismatch(path, "array", schema);
                Schema::untyped()
            }
        };
        let mut list = Vec::new();
        while self.lexer.next_item(list.is_empty())? {
            let value = self.value(items, &path.index(list.len()))?;
            list.push(unless_null(value, items));
        }
        Ok(Value::Array(list))
    }

    fn type_meta(&mut self) -> Result<TypeMeta, DecodeError> {
        let mut meta = TypeMeta::default();
        if self.lexer.peek() != Some(b'{') {
            let value = self.value(Schema::untyped(), &Path::ROOT)?;
            let found = leaf::go_kind(&value);
            let text = "of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
                        \"json:\\\"kind,omitempty\\\"\" }";
            return match value {
                Value::Null => Ok(meta),
                _ => Err(DecodeError::Type(format!("json: cannot unmarshal {found} into Go value {text}"))),
            };
        }
        self.lexer.bump();
        let mut first = true;
        while let Some(key) = self.lexer.next_key(first)? {
            first = false;
            let target = match key.as_str() {
                "apiVersion" => &mut meta.api_version,
                "kind" => &mut meta.kind,
                _ => {
                    self.skip()?;
                    continue;
                }
            };
            match self.value(Schema::untyped(), &Path::ROOT)? {
                Value::String(text) => *target = text,
                Value::Null => {}
                other => {
                    let found = leaf::go_kind(&other);
                    let text = format!("json: cannot unmarshal {found} into Go struct field .{key} of type string");
                    return Err(DecodeError::Type(text));
                }
            }
        }
        Ok(meta)
    }
}

/// Whether Go's encoder would leave the field out.
///
/// An empty `managedFields` stays: it is how clients reset them.
pub(crate) fn is_unset(name: &str, value: &Value, field: Schema<'_>) -> bool {
    if !field.is_built_in() || (name == "managedFields" && !value.is_null()) {
        return false;
    }
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty() && !field.is_required(),
        Value::Object(entries) => entries.is_empty() && !field.is_required() && matches!(field.shape(), Shape::Map(_)),
        _ => false,
    }
}

/// Null inside typed lists and maps is the zero value.
pub(crate) fn unless_null(value: Value, schema: Schema<'_>) -> Value {
    match value {
        Value::Null if schema.is_built_in() => leaf::zero(schema),
        value => value,
    }
}

#[cfg(test)]
mod tests {
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
        check(
            r#"{"paused":{}}"#,
            &format!("json: cannot unmarshal object {into} DeploymentSpec.spec.paused of type bool"),
        );
        check(
            r#"{"template":[]}"#,
            &format!("json: cannot unmarshal array {into} DeploymentSpec.spec.template of type v1.PodTemplateSpec"),
        );
        check(
            r#"{"template":{"spec":{"containers":{"a":1}}}}"#,
            &format!(
                "json: cannot unmarshal object {into} PodSpec.spec.template.spec.containers of type []v1.Container"
            ),
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
        check(
            schema("networking.k8s.io", "v1", "Ingress"),
            rules,
            json!({"spec": {"rules": [{"http": {"paths": []}}]}}),
        );
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
        assert_eq!(
            decoded.warnings,
            ["yaml: unmarshal errors:\n  key \"a\" already set in map", "unknown field \"nothing\""]
        );
        assert_eq!(decode_untyped(b"1: a\n", BodyFormat::Yaml).unwrap().value, json!({"1": "a"}));
        assert!(decode_untyped(b"a: [", BodyFormat::Yaml).is_err());
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
}
